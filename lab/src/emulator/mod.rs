//! The emulator: Debian's QEMU, of the version that the lab's firmware belongs to, built from
//! Debian's source with three bugs fixed, each of which made programs or kernels fail at random, and with one slow
//! instruction made faster.
//! `patches` has each change with its report.
//!
//! `packages` says what it is built from, `source` how. For an architecture whose emulation no patch touches it is
//! Debian's own program (`debian`).

mod debian;
mod packages;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    arch::Arch,
    cache::{CacheKind, Lock},
    emulator::{debian::DebianEmulator, packages::EmulatorPackages},
    manifest::Manifest,
    setup,
};

/// The file name of QEMU's example of a backend of a disk.
pub(crate) const BLOCK_BACKEND: &str = "vhost-user-blk";

/// An emulator that is ready to start.
#[derive(Debug)]
pub(crate) struct Emulator {
    program: PathBuf,
    /// The version of the package that it is, or whose source it is built from.
    version: String,
    /// The tree with its loader and libraries, unless the lab has them.
    root: Option<PathBuf>,
    /// QEMU's own `vhost-user-blk`, which is built along with it.
    block_backend: Option<PathBuf>,
    _held: Lock,
}

impl Emulator {
    /// Takes the one that belongs to the lab with this manifest from the cache, or builds it.
    pub(crate) fn prepare(arch: Arch, lab: &Manifest) -> Result<Self> {
        let package = arch.emulator_package();
        let Some(target) = arch.emulator_target() else {
            let product = DebianEmulator(arch);
            let (folder, _held) = setup::obtain(CacheKind::Emulators, arch, false, &product)?;
            let manifest = Manifest::load(&folder.join("manifest.json"))?;
            let version = manifest.version_of(package);
            let version = version.with_context(|| format!("{}: no {package}", folder.display()))?;
            let root = folder.join("root");
            return Ok(Self {
                program: root.join("usr/bin").join(arch.emulator()),
                version: version.to_owned(),
                root: Some(root),
                block_backend: None,
                _held,
            });
        };
        let version = lab
            .version_of(package)
            .with_context(|| format!("the lab has no {package}; set it up with --refresh"))?;
        let product = EmulatorPackages::new(arch, target, version);
        let (folder, _held) = setup::obtain(CacheKind::Emulators, arch, false, &product)?;
        Ok(Self {
            program: folder.join(arch.emulator()),
            version: version.to_owned(),
            root: None,
            block_backend: Some(folder.join(BLOCK_BACKEND)),
            _held,
        })
    }

    /// The tree with its loader and libraries, where that of the lab is `lab`.
    pub(crate) fn root<'a>(&'a self, lab: &'a Path) -> &'a Path {
        self.root.as_deref().unwrap_or(lab)
    }

    /// The version of its package.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// QEMU's example of a backend of a disk, `vhost-user-blk`, unless the emulator is not built from QEMU's source.
    pub(crate) fn block_backend(&self) -> Option<&Path> {
        self.block_backend.as_deref()
    }

    /// The program. It runs with the libraries of [`Emulator::root`].
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}
