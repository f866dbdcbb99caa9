//! The guest: the lab's stock kernel, busybox, and a shell at its console. Its files are an initramfs, and also
//! what a virtiofs device has as a root file system.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
use xen_eventfd_lab::{Arch, Archive, Lab};

/// What drives the devices, beside what the kernel has built in.
const MODULES: [&str; 3] = ["virtio_blk", "virtio_net", "virtio_rng"];

/// What it has virtio devices by, beside what the kernel has built in.
pub(crate) fn transport(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[],
        Arch::Arm64 => &["virtio_mmio"],
    }
}

/// Its files, as an archive: with these modules too, and with these programs, each by its name in `bin`.
pub(crate) fn image(lab: &Lab, modules: &[&str], programs: &[(&str, &Path)]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.character_device("dev/console", 5, 1)?;
    for folder in ["proc", "sys", "tmp", "root"] {
        archive.folder(folder)?;
    }
    let busybox = lab.root().join("usr/bin/busybox");
    let program =
        fs::read(&busybox).with_context(|| format!("{}: cannot read", busybox.display()))?;
    archive.file("bin/busybox", 0o755, &program)?;
    // It makes its links by itself where this machine cannot run it: each by requests, of a virtiofs device.
    if let Ok(names) = Command::new(&busybox).arg("--list").output() {
        for name in String::from_utf8(names.stdout)?.lines().filter(|name| *name != "busybox") {
            archive.symlink(&format!("bin/{name}"), "busybox")?;
        }
    }
    for (name, path) in programs {
        let program = fs::read(path).with_context(|| format!("{}: cannot read", path.display()))?;
        archive.file(&format!("bin/{name}"), 0o755, &program)?;
    }
    archive.file("init", 0o755, include_bytes!("guest.sh"))?;
    let mut order = String::new();
    for (file, module) in lab.modules(&[&MODULES, modules].concat())? {
        archive.file(&format!("lib/modules/{file}"), 0o644, &module)?;
        order += &(file + "\n");
    }
    archive.file("lib/modules/order", 0o644, order.as_bytes())?;
    Ok(archive.finish())
}
