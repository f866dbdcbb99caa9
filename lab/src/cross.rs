//! What compiles and links for an architecture that is not this machine's: Debian's cross compiler, in a
//! tree of packages.
//!
//! Xen is built inside of the tree. Cargo calls the linker from outside, for files that may be anywhere.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
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
    tree::Tree,
};

/// What builds call. Essential packages are here too: apt takes them for granted.
const TOOLS: [&str; 22] = [
    "bash",
    "bison",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "dpkg-dev",
    "findutils",
    "flex",
    "gcc",
    "grep",
    "gzip",
    "hostname",
    "libc6-dev",
    "make",
    "mawk",
    "perl",
    "python3-minimal",
    "sed",
    "tar",
    "util-linux",
    "xz-utils",
];

/// Where a build's source is seen inside the tree.
pub(crate) const SOURCE: &str = "/source";
/// Where its output is seen inside the tree.
pub(crate) const OUTPUT: &str = "/output";

/// The linker's name in the folder of the product.
const LINKER: &str = "linker";

/// Runs the compiler with the libraries that it was built with: its tree's `/usr` in place of this
/// machine's, for this process alone. All other folders stay what they are.
const LINK: &str = r#"#!/bin/sh
root=${0%/*}/root
rights=
[ "$(id -u)" = 0 ] || rights=--map-root-user
exec unshare $rights --mount --propagation private -- sh -ec '
	mount --rbind /usr/local "$0/usr/local"
	mount --rbind "$0/usr" /usr
	exec COMPILER "$@"
' "$root" "$@"
"#;

/// A cross compiler, ready to run.
#[derive(Debug)]
pub(crate) struct Cross {
    folder: PathBuf,
    tree: Tree,
    _held: Lock,
}

impl Cross {
    /// Takes it from the cache. The first time, it is set up.
    pub(crate) fn prepare(arch: Arch) -> Result<Self> {
        let (folder, _held) = setup::obtain(CacheKind::Cross, arch, false, &CrossPackages(arch))?;
        let tree = Tree::new(folder.join("root"));
        Ok(Self { folder, tree, _held })
    }

    /// The tree, in which builds run.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A program that links what cargo gives it.
    pub(crate) fn linker(&self) -> PathBuf {
        self.folder.join(LINKER)
    }
}

/// What it consists of.
struct CrossPackages(Arch);

impl Product for CrossPackages {
    fn layout(&self) -> u32 {
        1
    }

    fn architectures(&self) -> Option<Vec<Arch>> {
        Some(vec![Arch::HOST])
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let own = self.0.cross_packages().context("this machine needs no cross compiler")?;
        let roots: Vec<&str> = TOOLS.iter().chain(own).copied().collect();
        apt.describe(self.layout(), &apt.closure(self.0.packages().release, &roots)?)
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        progress.stage("unpacking the cross compiler");
        let tree = Tree::new(folder.join("root"));
        unpack_all(manifest, archives, tree.root())?;
        tree.furnish(&[SOURCE, OUTPUT, "usr/local"])?;
        let linker = folder.join(LINKER);
        fs::write(&linker, LINK.replace("COMPILER", &format!("{}gcc", self.0.tool_prefix())))
            .and_then(|()| fs::set_permissions(&linker, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("{}: cannot write", linker.display()))
    }

    fn describe(&self, manifest: &Manifest) -> String {
        format!("a cross compiler, gcc {}", manifest.version_of("gcc-aarch64").unwrap_or("?"))
    }
}
