//! The emulator: Debian's QEMU, of the version that the lab's firmware belongs to, built from
//! Debian's source with two mistakes mended, by both of which programs of dom0 broke off at random, and one slow instruction made faster.
//! `patches` has each change with its report.
//!
//! `packages` says what it is built from, `source` how.

mod packages;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    arch::Arch,
    cache::{CacheKind, Lock},
    emulator::packages::EmulatorPackages,
    manifest::Manifest,
    setup,
};

/// An emulator that is ready to start.
#[derive(Debug)]
pub(crate) struct Emulator {
    program: PathBuf,
    _held: Lock,
}

impl Emulator {
    /// Takes the one that belongs to the lab with this manifest from the cache, or builds it.
    pub(crate) fn prepare(arch: Arch, lab: &Manifest) -> Result<Self> {
        let package = arch.emulator_package();
        let version = lab
            .version_of(package)
            .with_context(|| format!("the lab has no {package}; set it up with --refresh"))?;
        let product = EmulatorPackages::new(arch, version);
        let (folder, _held) = setup::obtain(CacheKind::Emulators, arch, false, &product)?;
        Ok(Self { program: folder.join(arch.emulator()), _held })
    }

    /// The program. It runs with the lab's libraries.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}
