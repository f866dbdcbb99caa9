//! The source of Rust's standard library. A compiler builds its own and no other, so the version is
//! the compiler's.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    apt::Apt,
    arch::Arch,
    cache::{CacheKind, Lock, write_whole},
    machine::quote,
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

    /// A compiler that has this source, for `-Zbuild-std`: the one with this sysroot, which has another of links in
    /// `folder`, of all that is in its own and the source.
    ///
    /// # Errors
    ///
    /// The links cannot be made.
    pub fn compiler(&self, sysroot: &Path, folder: &Path) -> Result<PathBuf> {
        let make = || -> Result<PathBuf> {
            link(&self.library, &folder.join(STD_SOURCE))?;
            for part in ["lib", "lib/rustlib"] {
                for entry in fs::read_dir(sysroot.join(part))? {
                    let entry = entry?;
                    let ours = folder.join(part).join(entry.file_name());
                    if part != "lib" || entry.file_name() != "rustlib" {
                        link(&entry.path(), &ours)?;
                    }
                }
            }
            let program = folder.join("rustc");
            let words = [sysroot.join("bin/rustc"), folder.to_owned()]
                .map(|path| quote(&path.display().to_string()));
            let script = format!("#!/bin/sh\nexec {} --sysroot {} \"$@\"\n", words[0], words[1]);
            if fs::read(&program).ok().as_deref() != Some(script.as_bytes()) {
                write_whole(&program, script.as_bytes())?;
                fs::set_permissions(&program, Permissions::from_mode(0o755))?;
            }
            Ok(program)
        };
        make().with_context(|| format!("{}: a compiler cannot be made here", folder.display()))
    }
}

/// Where a sysroot has the source.
pub const STD_SOURCE: &str = "lib/rustlib/src/rust/library";

/// Makes a link in place of any other, and its folder. Others may be making the same.
fn link(target: &Path, path: &Path) -> Result<()> {
    if fs::read_link(path).is_ok_and(|present| present == target) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let new = path.with_extension(format!("new-{}", std::process::id()));
    symlink(target, &new)?;
    Ok(fs::rename(&new, path)?)
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
