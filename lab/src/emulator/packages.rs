//! Which packages build the emulator, and how they become programs.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::source;
use crate::{
    apt::Apt,
    arch::Arch,
    manifest::Manifest,
    packages::unpack_all,
    progress::Progress,
    setup::{Product, outdated},
    tree::Tree,
};

/// What QEMU's build calls. Essential packages are here too: apt takes them for granted.
const TOOLS: [&str; 25] = [
    "bash",
    "binutils",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "dpkg-dev",
    "findutils",
    "gcc",
    "grep",
    "gzip",
    "libc6-dev",
    "libfdt-dev",
    "libglib2.0-dev",
    "make",
    "mawk",
    "meson",
    "ninja-build",
    "pkgconf",
    "python3",
    "python3-venv",
    "sed",
    "tar",
    "xz-utils",
    "zlib1g-dev",
];

/// The emulator of one exact version.
#[derive(Debug)]
pub(super) struct EmulatorPackages {
    arch: Arch,
    target: &'static str,
    version: String,
}

impl EmulatorPackages {
    pub(super) fn new(arch: Arch, target: &'static str, version: &str) -> Self {
        Self { arch, target, version: version.to_owned() }
    }
}

impl Product for EmulatorPackages {
    fn layout(&self) -> u32 {
        5
    }

    fn sources(&self) -> bool {
        true
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let package = self.arch.emulator_package();
        let wanted = apt.closure(self.arch.packages().release, &TOOLS)?;
        let source = apt
            .source(package, &self.version)
            .with_context(|| outdated(&format!("the source of {package}"), &self.version))?;
        Ok(apt.describe(self.layout(), &wanted)?.with(source))
    }

    fn serves(&self, manifest: &Manifest) -> bool {
        manifest.version_of(self.arch.emulator_package()) == Some(self.version.as_str())
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        let tree = Tree::new(folder.join("root"));
        progress.stage("unpacking what builds the emulator");
        unpack_all(manifest, archives, tree.root())?;
        tree.furnish(&[source::ARCHIVES, source::BUILD])?;
        source::unpack(&tree, manifest, archives)?;
        source::patch(&tree)?;
        progress.stage("building the emulator: a few minutes of processor time");
        let output = source::build(&tree, self.arch, self.target)?;
        for program in [self.arch.emulator(), source::BLOCK_BACKEND] {
            let built = output.join(program);
            let name = program.rsplit('/').next().unwrap_or(program);
            fs::rename(&built, folder.join(name))
                .with_context(|| format!("{}: cannot move", built.display()))?;
        }
        fs::remove_dir_all(tree.root())
            .with_context(|| format!("{}: cannot remove", tree.root().display()))
    }

    fn describe(&self, _: &Manifest) -> String {
        format!("QEMU {}, mended", self.version)
    }
}
