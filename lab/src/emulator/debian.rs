//! Debian's own program, where no patch touches what it emulates, with the libraries of its packages.

use std::path::Path;

use anyhow::Result;

use crate::{
    apt::Apt,
    arch::Arch,
    manifest::Manifest,
    packages::{unpack_all, with_libraries},
    progress::Progress,
    setup::Product,
};

/// The packages of the emulator of an architecture.
#[derive(Debug)]
pub(super) struct DebianEmulator(pub(super) Arch);

impl Product for DebianEmulator {
    fn layout(&self) -> u32 {
        1
    }

    fn architectures(&self) -> Option<Vec<Arch>> {
        Some(vec![Arch::HOST])
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let packages = with_libraries(apt, Arch::HOST, &[self.0.emulator_package()])?;
        apt.describe(self.layout(), &packages)
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        progress.stage("unpacking the emulator");
        unpack_all(manifest, archives, &folder.join("root"))
    }

    fn describe(&self, manifest: &Manifest) -> String {
        let version = manifest.version_of(self.0.emulator_package());
        format!("QEMU {}, Debian's", version.unwrap_or("?"))
    }
}
