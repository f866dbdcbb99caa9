//! What an HVM guest in the lab needs: Debian's QEMU for Xen, as its device model, with its firmware.
//!
//! Only machines with such guests have it: with its libraries it is larger than all else in dom0.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    Lab,
    apt::Apt,
    arch::Arch,
    backends::put_libraries,
    boot::Boot,
    cache::{CacheKind, Lock},
    manifest::Manifest,
    packages::{unpack_all, with_libraries},
    progress::Progress,
    setup::{self, Product},
};

const PACKAGES: [&str; 3] = ["qemu-system-xen", "qemu-system-data", "seabios"];
/// The program, where libxl runs it.
const PROGRAM: &str = "usr/libexec/xen-qemu-system-i386";
/// What it loads: for a keyboard, although libxl gives it none, for a guest that boots a kernel, and for its screen.
const DATA: [&str; 4] = [
    "usr/share/qemu/keymaps/en-us",
    "usr/share/qemu/linuxboot_dma.bin",
    "usr/share/seabios/vgabios-stdvga.bin",
    "usr/share/seabios/vgabios-cirrus.bin",
];
/// What Xen's tools load.
const BIOS: &str = "usr/share/seabios/bios-256k.bin";

fn files() -> impl Iterator<Item = &'static str> {
    [PROGRAM].into_iter().chain(DATA).chain([BIOS])
}

/// A folder of the cache with it.
#[derive(Debug)]
pub struct DeviceModel {
    arch: Arch,
    root: PathBuf,
    _held: Lock,
}

impl DeviceModel {
    /// Takes it from the cache. The first time, it is set up: 23 MB to download.
    ///
    /// # Errors
    ///
    /// The packages cannot be had.
    pub fn prepare() -> Result<Self> {
        let arch = Arch::LAB;
        let (folder, _held) =
            setup::obtain(CacheKind::DeviceModels, arch, false, &DeviceModelPackages(arch))?;
        Ok(Self { arch, root: folder.join("root"), _held })
    }

    /// Puts it into dom0, where libxl expects it.
    ///
    /// # Errors
    ///
    /// The cache is damaged.
    pub fn put(&self, lab: &Lab, mut boot: Boot) -> Result<Boot> {
        for file in files() {
            boot = boot.payload(file, self.root.join(file));
        }
        let loader = lab.hvmloader()?;
        let path = loader.strip_prefix(lab.root())?.to_string_lossy().into_owned();
        put_libraries(boot.payload(path, loader), self.arch, &self.root, &[PROGRAM])
    }
}

struct DeviceModelPackages(Arch);

impl Product for DeviceModelPackages {
    fn layout(&self) -> u32 {
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        apt.describe(self.layout(), &with_libraries(apt, self.0, &PACKAGES)?)
    }

    fn build(
        &self,
        manifest: &Manifest,
        archives: &Path,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        progress.stage("unpacking the device model of HVM guests");
        let root = folder.join("root");
        unpack_all(manifest, archives, &root)?;
        for file in files() {
            ensure!(root.join(file).is_file(), "the packages bring no {file}");
        }
        fs::remove_dir_all(root.join("usr/share/doc"))
            .context("the packages bring no usr/share/doc")
    }

    fn describe(&self, manifest: &Manifest) -> String {
        format!("QEMU for Xen {}", manifest.version_of("qemu-system-xen").unwrap_or("?"))
    }
}
