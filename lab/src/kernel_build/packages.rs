//! Which packages build a module, and how they become a tree that does.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::metadata;
use crate::{
    apt::Apt,
    arch::Arch,
    manifest::Manifest,
    packages::unpack_all,
    progress::Progress,
    setup::{Product, outdated},
    tree::Tree,
};

/// What the kernel's build calls, from the release that the kernel's own builders used. Essential
/// packages are here too: apt takes them for granted.
const TOOLS: [&str; 30] = [
    "bash",
    "bc",
    "binutils",
    "bindgen",
    "bison",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "findutils",
    "flex",
    "gcc",
    "gcc-14",
    "grep",
    "gzip",
    "libc6-dev",
    "libelf-dev",
    "libssl-dev",
    "make",
    "mawk",
    // Without it the configuration changes.
    "openssl",
    "pahole",
    "perl",
    "python3-minimal",
    "rust-clippy",
    "rust-src",
    "rustc",
    "sed",
    "tar",
    "xz-utils",
];

/// What apt's dependencies bring and nothing here uses. bindgen wants the library libclang alone,
/// not what compiles programs against it.
const UNUSED: [&str; 9] = [
    "debconf",
    "init-system-helpers",
    "libclang-19-dev",
    "libclang-dev",
    "libobjc",
    "libgc1",
    "media-types",
    "netbase",
    "tzdata",
];

/// Of what the kernel's packages bring, those with these prefixes are taken.
const KERNEL_PREFIXES: [&str; 3] = ["linux-headers-", "linux-kbuild-", "linux-source-"];

/// The tree that builds modules for one exact kernel.
#[derive(Debug)]
pub(super) struct BuildPackages {
    arch: Arch,
    release: String,
    version: String,
}

impl BuildPackages {
    pub(super) fn new(arch: Arch, release: &str, version: &str) -> Result<Self> {
        ensure!(
            source_name(release) != release,
            "{release}: not a kernel release that starts with two numbers"
        );
        Ok(Self { arch, release: release.to_owned(), version: version.to_owned() })
    }

    fn headers(&self) -> String {
        format!("linux-headers-{}", self.release)
    }
}

/// `linux-source-7.3` for `7.3.4+deb13-amd64`: the package and its folder.
pub(super) fn source_name(release: &str) -> String {
    let mut numbers = release.splitn(3, '.');
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => format!("linux-source-{major}.{minor}"),
        _ => release.to_owned(),
    }
}

impl Product for BuildPackages {
    fn layout(&self) -> u32 {
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let set = self.arch.packages();
        let cross = self.arch.cross_packages().unwrap_or_default();
        let roots: Vec<&str> =
            TOOLS.iter().chain(cross).chain(self.arch.kernel_packages()).copied().collect();
        let mut wanted = apt.closure(set.release, &roots)?;
        wanted.retain(|(name, _)| !UNUSED.iter().any(|unused| name.starts_with(unused)));
        let exact = |name: &str| format!("{name}={}", self.version);
        let kernel = [exact(&self.headers()), exact(&source_name(&self.release))];
        let kernel = apt
            .closure(set.kernel_release, &kernel.each_ref().map(String::as_str))
            .with_context(|| outdated(&self.release, &self.version))?;
        wanted.extend(
            kernel
                .into_iter()
                .filter(|(name, _)| KERNEL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))),
        );
        apt.describe(self.layout(), &wanted)
    }

    /// The headers alone are the kernel's; all else runs here.
    fn architectures(&self) -> Option<Vec<Arch>> {
        let mut all = vec![Arch::HOST, self.arch];
        all.dedup();
        Some(all)
    }

    fn serves(&self, manifest: &Manifest) -> bool {
        manifest.version_of(&self.headers()) == Some(self.version.as_str())
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        let tree = Tree::new(folder.join("root"));
        step(folder, "unpacked", || {
            progress.stage("unpacking what builds modules");
            unpack_all(manifest, archives, tree.root())?;
            furnish(&tree)
        })?;
        step(folder, "generated", || {
            metadata::generate(&tree, self.arch, &self.release, progress)
        })?;
        metadata::tidy(tree.root(), &self.release)
    }

    fn describe(&self, manifest: &Manifest) -> String {
        format!(
            "rustc {} and the headers of Linux {}",
            manifest.version_of("rustc").unwrap_or("?"),
            self.release
        )
    }
}

/// Does once what may take minutes, however often the set-up is broken off.
fn step(folder: &Path, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = folder.join(name);
    if !done.exists() {
        work()?;
        fs::write(done, "")?;
    }
    Ok(())
}

fn furnish(tree: &Tree) -> Result<()> {
    tree.furnish(&[super::SOURCE, super::OUTPUT])?;
    let root = tree.root();
    for useless in ["usr/share/doc", "usr/share/locale", "usr/share/man"] {
        fs::remove_dir_all(root.join(useless))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_named_by_two_numbers() {
        assert_eq!(source_name("7.3.4+deb13-amd64"), "linux-source-7.3");
        assert_eq!(source_name("7.3-amd64"), "linux-source-7.3-amd64");
        assert!(BuildPackages::new(Arch::LAB, "seven", "1").is_err());
    }
}
