//! Backends of virtio devices that know nothing of Xen: Debian's qemu-storage-daemon, virtiofsd and passt, and
//! rust-vmm's for random numbers, with and without its support for Xen, for sockets and for a console.
//!
//! Only machines that test devices have them, as their libraries are larger than all else in dom0.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    apt::Apt,
    arch::Arch,
    binaries,
    boot::Boot,
    cache::{Cache, CacheKind, Lock},
    elf,
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
    /// The same for only some machines.
    more: [(&'static str, PathBuf); 2],
    _held: Lock,
}

impl Backends {
    /// Takes them from the cache. The first time, they are set up: 13 MB to download, and rust-vmm's
    /// are built, with the crates that their lock files name, as Debian has no packages of them.
    ///
    /// # Errors
    ///
    /// The packages cannot be had, or something cannot be built.
    pub fn prepare() -> Result<Self> {
        let arch = Arch::LAB;
        let (folder, _held) =
            setup::obtain(CacheKind::Backends, arch, false, &BackendPackages(arch))?;
        let tools = Cache::open(CacheKind::Backends)?.tools();
        let built = [
            (RNG.0, install(&tools, RNG, &[])?),
            ("vhost-device-rng-xen", install(&tools, RNG, &["xen"])?),
        ];
        let more =
            [(VSOCK.0, install(&tools, VSOCK, &[])?), (CONSOLE.0, install(&tools, CONSOLE, &[])?)];
        Ok(Self { arch, root: folder.join("root"), built, more, _held })
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

    /// Puts those of more types of devices there too, beside [`Backends::put`].
    #[must_use]
    pub fn put_more(&self, boot: Boot) -> Boot {
        // It needs no library but the C library, which is there.
        let boot = boot.payload("bin/passt", self.root.join(NETWORK));
        self.more.iter().fold(boot, |boot, (name, path)| boot.payload(format!("bin/{name}"), path))
    }
}

/// Puts what programs of a tree need to run into dom0.
///
/// The C library too, with its loader: it may be newer than the lab's.
pub(crate) fn put_libraries(
    mut boot: Boot,
    arch: Arch,
    root: &Path,
    programs: &[&str],
) -> Result<Boot> {
    let folder = format!("usr/lib/{}", arch.library_folder());
    let programs: Vec<PathBuf> = programs.iter().map(|program| root.join(program)).collect();
    for (name, path) in elf::libraries(&programs, &[root.join(&folder)])? {
        boot = boot.payload(format!("{folder}/{name}"), path);
    }
    let loader = arch.loader().trim_start_matches('/');
    Ok(boot.payload(loader, root.join(loader)))
}

/// Builds a crate's program with these features, static, into a folder of its own below `tools`.
fn install(tools: &Path, (name, version): (&str, &str), features: &[&str]) -> Result<PathBuf> {
    let root = tools.join([&[name, version], features].concat().join("-"));
    let program = root.join("bin").join(name);
    if program.is_file() {
        return Ok(program);
    }
    binaries::install_static(name, version, features, &root)?;
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
