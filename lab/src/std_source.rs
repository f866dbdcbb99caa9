//! The source of Rust's standard library. A compiler builds its own and no other, so the version is
//! the compiler's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    apt::Apt,
    arch::Arch,
    cache::{CacheKind, Lock},
    manifest::Manifest,
    packages::unpack_all,
    progress::Progress,
    setup::{self, Product},
};

const PACKAGE: &str = "rust-src";

/// A folder of the cache with that source.
#[derive(Debug)]
pub struct StdSource {
    library: PathBuf,
    _held: Lock,
}

impl StdSource {
    /// Takes it from the cache. The first time, it is set up: 45 MB to download.
    ///
    /// `version` is the compiler's, as in `1.95.0`.
    ///
    /// # Errors
    ///
    /// The package cannot be had, as when Debian has no compiler of this version.
    pub fn prepare(version: &str) -> Result<Self> {
        let product = StdSourcePackage { version: version.to_owned() };
        let (folder, _held) = setup::obtain(CacheKind::StdSources, Arch::HOST, false, &product)?;
        Ok(Self { library: folder.join("library"), _held })
    }

    /// The folder with its crates: `std`, `core`, and `Cargo.lock`.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }
}

struct StdSourcePackage {
    version: String,
}

impl StdSourcePackage {
    /// How Debian's version of it begins, which also says how it was repacked.
    fn prefix(&self) -> String {
        format!("{}+", self.version)
    }
}

impl Product for StdSourcePackage {
    fn layout(&self) -> u32 {
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let release = Arch::HOST.packages().kernel_release;
        let mut wanted = apt.closure(release, &[&format!("{PACKAGE}={}*", self.prefix())])?;
        wanted.retain(|(name, _)| name == PACKAGE);
        apt.describe(self.layout(), &wanted)
    }

    fn serves(&self, manifest: &Manifest) -> bool {
        manifest.version_of(PACKAGE).is_some_and(|version| version.starts_with(&self.prefix()))
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        progress.stage("unpacking the source of Rust's standard library");
        let root = folder.join("root");
        unpack_all(manifest, archives, &root)?;
        let library = root.join(format!("usr/src/rustc-{}/library", self.version));
        fs::rename(&library, folder.join("library"))
            .with_context(|| format!("{}: cannot move", library.display()))?;
        fs::remove_dir_all(&root).with_context(|| format!("{}: cannot remove", root.display()))
    }

    fn describe(&self, _: &Manifest) -> String {
        format!("the source of Rust {}'s standard library", self.version)
    }
}
