//! Backends of virtio devices that know nothing of Xen: Debian's qemu-storage-daemon, virtiofsd and passt, and
//! rust-vmm's for random numbers, with and without its support for Xen, for sockets and for a console; and QEMU's example of a
//! disk's.
//!
//! Only machines that test devices have them, as their libraries are larger than all else in dom0.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    Lab,
    apt::Apt,
    arch::Arch,
    binaries,
    boot::Boot,
    cache::{Cache, CacheKind, Lock},
    elf,
    emulator::BLOCK_BACKEND,
    manifest::Manifest,
    packages::{unpack_all, with_libraries},
    progress::Progress,
    setup::{self, Product},
};

const PACKAGES: [&str; 3] = ["qemu-utils", "virtiofsd", "passt"];
/// The programs, in a tree of those packages.
const PROGRAMS: [&str; 2] = ["usr/bin/qemu-storage-daemon", "usr/libexec/virtiofsd"];

/// The program of a network, which only some machines have.
const NETWORK: &str = "usr/bin/passt";

/// Crates with a program of this name, and their versions.
const RNG: (&str, &str) = ("vhost-device-rng", "0.1.0");
const VSOCK: (&str, &str) = ("vhost-device-vsock", "0.3.0");
const CONSOLE: (&str, &str) = ("vhost-device-console", "0.1.0");

/// A folder of the cache with them.
#[derive(Debug)]
pub struct Backends {
    arch: Arch,
    root: PathBuf,
    /// In dom0's `bin`, and where it was built.
    built: [(&'static str, PathBuf); 2],
    _held: Lock,
}

impl Backends {
    /// Takes them from the cache. The first time, they are set up: 13 MB to download, and rust-vmm's
    /// are built, with the crates that their lock files name, as Debian has no packages of them.
    ///
    /// # Errors
    ///
    /// The packages cannot be had, or something cannot be built.
    pub fn prepare(arch: Arch) -> Result<Self> {
        let (folder, _held) =
            setup::obtain(CacheKind::Backends, arch, false, &BackendPackages(arch))?;
        let built = [
            (RNG.0, install(arch, RNG, &[])?),
            ("vhost-device-rng-xen", install(arch, RNG, &["xen"])?),
        ];
        Ok(Self { arch, root: folder.join("root"), built, _held })
    }

    /// Puts them into dom0's `/bin`.
    ///
    /// # Errors
    ///
    /// The cache is damaged.
    pub fn put(&self, mut boot: Boot) -> Result<Boot> {
        for program in PROGRAMS {
            let name = program.rsplit('/').next().unwrap_or(program);
            boot = boot.payload(format!("bin/{name}"), self.root.join(program));
        }
        boot = put_libraries(boot, self.arch, &self.root, &PROGRAMS)?;
        for (name, path) in &self.built {
            boot = boot.payload(format!("bin/{name}"), path);
        }
        Ok(boot)
    }

    /// Puts the network's there too, beside [`Backends::put`].
    #[must_use]
    pub fn put_network(&self, boot: Boot) -> Boot {
        // It needs no library but the C library, which is there.
        boot.payload("bin/passt", self.root.join(NETWORK))
    }

    /// Puts QEMU's `vhost-user-blk` there too, beside [`Backends::put`]: a disk's backend that notes which requests it has
    /// begun (vhost-user's INFLIGHT_SHMFD), which `qemu-storage-daemon` does not.
    ///
    /// # Errors
    ///
    /// The lab has none, or the cache is damaged.
    pub fn put_noting(&self, lab: &Lab, boot: Boot) -> Result<Boot> {
        let program = lab.block_backend()?;
        let boot = boot.payload(format!("bin/{BLOCK_BACKEND}"), program);
        put_libraries(boot, self.arch, &self.root, &[program])
    }

    /// Puts those of more types of devices there too, beside [`Backends::put`]. The first time, rust-vmm's are built.
    ///
    /// # Errors
    ///
    /// Something cannot be built.
    pub fn put_more(&self, boot: Boot) -> Result<Boot> {
        let boot = self.put_network(boot);
        [VSOCK, CONSOLE].into_iter().try_fold(boot, |boot, of| {
            Ok(boot.payload(format!("bin/{}", of.0), install(self.arch, of, &[])?))
        })
    }
}

/// Puts what programs of a tree need to run into dom0.
///
/// The C library too, with its loader: it may be newer than the lab's.
pub(crate) fn put_libraries(
    mut boot: Boot,
    arch: Arch,
    root: &Path,
    programs: &[impl AsRef<Path>],
) -> Result<Boot> {
    let folder = format!("usr/lib/{}", arch.library_folder());
    // One that is elsewhere has a path of its own.
    let programs: Vec<PathBuf> = programs.iter().map(|program| root.join(program)).collect();
    for (name, path) in elf::libraries(&programs, &[root.join(&folder)])? {
        boot = boot.payload(format!("{folder}/{name}"), path);
    }
    let loader = arch.loader().trim_start_matches('/');
    Ok(boot.payload(loader, root.join(loader)))
}

/// Builds a crate's program with these features, static, into a folder of the cache of its own.
fn install(arch: Arch, (name, version): (&str, &str), features: &[&str]) -> Result<PathBuf> {
    // What is cross-built has the architecture's name too.
    let cross = arch.cross_packages().map(|_| arch.debian());
    let folder = [&[name, version], features, cross.as_slice()].concat().join("-");
    let root = Cache::open(CacheKind::Backends)?.tools().join(folder);
    let program = root.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    binaries::install_static(arch, name, version, features, &root)?;
    ensure!(program.is_file(), "{}: cargo built no such program", program.display());
    Ok(program)
}

struct BackendPackages(Arch);

impl Product for BackendPackages {
    fn layout(&self) -> u32 {
        2
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
        progress.stage("unpacking backends of virtio devices");
        let root = folder.join("root");
        unpack_all(manifest, archives, &root)?;
        for program in PROGRAMS.into_iter().chain([NETWORK]) {
            ensure!(root.join(program).is_file(), "the packages bring no {program}");
        }
        fs::remove_dir_all(root.join("usr/share")).context("the packages bring no usr/share")
    }

    fn describe(&self, manifest: &Manifest) -> String {
        let version = |name| manifest.version_of(name).unwrap_or("?");
        format!(
            "qemu-storage-daemon {}, virtiofsd {} and passt {}",
            version("qemu-utils"),
            version("virtiofsd"),
            version("passt")
        )
    }
}
