//! Which packages the system consists of, and how they become one.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context, Result};

use super::dpkg;
use crate::{
    apt::Apt,
    arch::Arch,
    manifest::Manifest,
    packages::unpack_all,
    progress::Progress,
    setup::{Product, outdated},
    tree::Tree,
};

/// What installs and checks packages. Essential packages are here too: apt takes them for granted.
const TOOLS: [&str; 21] = [
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "kmod",
    "libc-bin",
    "lintian",
    "man-db",
    "mawk",
    "perl-base",
    "sed",
    "tar",
    "udev",
    "util-linux",
    "xz-utils",
];

/// A system with one exact kernel.
#[derive(Debug)]
pub(super) struct SystemPackages {
    arch: Arch,
    release: String,
    version: String,
}

impl SystemPackages {
    pub(super) fn new(arch: Arch, release: &str, version: &str) -> Self {
        Self { arch, release: release.to_owned(), version: version.to_owned() }
    }

    fn modules(&self) -> String {
        format!("linux-modules-{}", self.release)
    }
}

impl Product for SystemPackages {
    fn layout(&self) -> u32 {
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let set = self.arch.packages();
        let mut wanted = apt.closure(set.release, &TOOLS)?;
        let exact = |name: &str| format!("{name}={}", self.version);
        let kernel = [exact(&self.modules()), exact(&format!("linux-binary-{}", self.release))];
        let kernel = apt
            .closure(set.kernel_release, &kernel.each_ref().map(String::as_str))
            .with_context(|| outdated(&self.release, &self.version))?;
        wanted.extend(kernel.into_iter().filter(|(name, _)| name.ends_with(&self.release)));
        apt.describe(self.layout(), &wanted)
    }

    fn serves(&self, manifest: &Manifest) -> bool {
        manifest.version_of(&self.modules()) == Some(self.version.as_str())
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        let root = folder.join("root");
        progress.stage("unpacking a system to install packages in");
        unpack_all(manifest, archives, &root)?;
        dpkg::record(manifest, archives, &root)?;
        furnish(&Tree::new(root))
    }

    fn describe(&self, manifest: &Manifest) -> String {
        format!(
            "dpkg {}, lintian {} and Linux {}",
            manifest.version_of("dpkg").unwrap_or("?"),
            manifest.version_of("lintian").unwrap_or("?"),
            self.release
        )
    }
}

/// What the packages' own scripts would have done.
fn furnish(tree: &Tree) -> Result<()> {
    tree.furnish(&[super::SHARED])?;
    let root = tree.root();
    symlink("debian", root.join("etc/dpkg/origins/default"))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nman:x:6:12::/:/bin/false\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nman:x:12:\n")?;
    fs::remove_dir_all(root.join("usr/share/locale"))?;
    Ok(())
}
