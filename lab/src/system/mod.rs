//! A Debian system of the release and with the kernel that dom0 runs, in which packages are checked
//! and installed by Debian's own tools: dpkg, depmod, lintian.
//!
//! `packages` says what it consists of and how it is made, `dpkg` writes dpkg's database of what is there.

mod dpkg;
mod packages;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    arch::Arch,
    cache::CacheKind,
    elf,
    manifest::Manifest,
    run::target_folder,
    setup,
    system::packages::SystemPackages,
    tree::{Bind, Tree},
};

/// A fresh system, which is gone when this is dropped.
#[derive(Debug)]
pub struct System {
    arch: Arch,
    tree: Tree,
    _folder: TempDir,
}

/// Where the caller's folder is seen inside.
const SHARED: &str = "/shared";

impl System {
    /// Copies the system for the kernel of the lab with this manifest from the cache, or makes it.
    pub(crate) fn prepare(arch: Arch, release: &str, lab: &Manifest) -> Result<Self> {
        let version = lab
            .version_of(&format!("linux-binary-{release}"))
            .with_context(|| format!("the lab has no package of its kernel {release}"))?;
        let product = SystemPackages::new(arch, release, version);
        let (made, _held) = setup::obtain(CacheKind::Systems, arch, false, &product)?;
        let place = target_folder();
        let folder = tempfile::Builder::new()
            .prefix("system-")
            .tempdir_in(&place)
            .with_context(|| format!("{}: cannot make a folder in it", place.display()))?;
        copy(&made.join("root"), folder.path())?;
        Ok(Self { arch, tree: Tree::new(folder.path().join("root")), _folder: folder })
    }

    /// Runs a shell script, which ends with the first command that fails, as the system's root.
    /// `folder` is the current one, and read-only. Returns the script's lines, which also go to
    /// standard error as they come.
    ///
    /// # Errors
    ///
    /// A command fails; its messages have been shown.
    pub fn run(&self, folder: &Path, script: &str) -> Result<Vec<String>> {
        let words = ["sh", "-ec", &format!("cd {SHARED}\n{script}")].map(str::to_owned);
        self.tree.show(&[Bind::read_only(folder, SHARED)], &words)
    }

    /// The system's files. Links in it may be absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.tree.root()
    }

    /// The shared libraries of these programs (`usr/bin/kmod`), by their path in the system.
    ///
    /// # Errors
    ///
    /// A program is not there, or one of its libraries.
    pub fn libraries(&self, programs: &[&str]) -> Result<Vec<PathBuf>> {
        let root = self.root();
        let programs: Vec<PathBuf> = programs.iter().map(|program| root.join(program)).collect();
        let folder = root.join("usr/lib").join(self.arch.library_folder());
        let folders = [folder.clone(), folder.join("systemd")];
        let libraries = elf::libraries(&programs, &folders)?;
        libraries.into_values().map(|library| Ok(library.strip_prefix(root)?.to_owned())).collect()
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp")
        .args(["--archive", "--reflink=auto"])
        .args([from, to])
        .stdin(Stdio::null())
        .output()
        .context("cp could not be started")?;
    ensure!(
        output.status.success(),
        "{} cannot be copied: {}",
        from.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
