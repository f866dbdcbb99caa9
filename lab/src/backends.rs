//! Backends of virtio devices that know nothing of Xen: Debian's qemu-storage-daemon and virtiofsd, and
//! rust-vmm's random number generator, with and without its support for Xen.
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
    packages::unpack_all,
    progress::Progress,
    setup::{self, Product},
};

const PACKAGES: [&str; 2] = ["qemu-utils", "virtiofsd"];
/// The programs, in a tree of those packages.
const PROGRAMS: [&str; 2] = ["usr/bin/qemu-storage-daemon", "usr/libexec/virtiofsd"];

/// A crate with a program of this name, and its version.
const RNG: (&str, &str) = ("vhost-device-rng", "0.1.0");

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
    /// Takes them from the cache. The first time, they are set up: 13 MB to download, and the generator is
    /// built, with the crates that its lock file names, as Debian has no package of it.
    ///
    /// # Errors
    ///
    /// The packages cannot be had, or the generator cannot be built.
    pub fn prepare() -> Result<Self> {
        let arch = Arch::LAB;
        let (folder, _held) =
            setup::obtain(CacheKind::Backends, arch, false, &BackendPackages(arch))?;
        let tools = Cache::open(CacheKind::Backends)?.tools();
        let built = [
            ("vhost-device-rng", install(&tools, &[])?),
            ("vhost-device-rng-xen", install(&tools, &["xen"])?),
        ];
        Ok(Self { arch, root: folder.join("root"), built, _held })
    }

    /// Puts them into dom0's `/bin`.
    ///
    /// # Errors
    ///
    /// The cache is damaged.
    pub fn put(&self, mut boot: Boot) -> Result<Boot> {
        let programs = PROGRAMS.map(|program| self.root.join(program));
        for program in &programs {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            boot = boot.payload(format!("bin/{name}"), program);
        }
        // The C library too, with its loader: it may be newer than the lab's.
        let folder = format!("usr/lib/{}", self.arch.library_folder());
        let libraries = elf::libraries(&programs, &[self.root.join(&folder)])?;
        for (name, path) in libraries {
            boot = boot.payload(format!("{folder}/{name}"), path);
        }
        let loader = self.arch.loader().trim_start_matches('/');
        boot = boot.payload(loader, self.root.join(loader));
        for (name, path) in &self.built {
            boot = boot.payload(format!("bin/{name}"), path);
        }
        Ok(boot)
    }
}

/// Builds the generator with these features, static, into a folder of its own below `tools`.
fn install(tools: &Path, features: &[&str]) -> Result<PathBuf> {
    let (name, version) = RNG;
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
        1
    }

    fn resolve(&self, apt: &Apt) -> Result<Manifest> {
        let mut wanted = apt.closure(self.0.packages().release, &PACKAGES)?;
        // The rest is there to configure a host.
        wanted.retain(|(name, _)| {
            PACKAGES.contains(&name.as_str()) || name.starts_with("lib") || name == "zlib1g"
        });
        apt.describe(self.layout(), &wanted)
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
        for program in PROGRAMS {
            ensure!(root.join(program).is_file(), "the packages bring no {program}");
        }
        fs::remove_dir_all(root.join("usr/share")).context("the packages bring no usr/share")
    }

    fn describe(&self, manifest: &Manifest) -> String {
        let version = |name| manifest.version_of(name).unwrap_or("?");
        format!(
            "qemu-storage-daemon {} and virtiofsd {}",
            version("qemu-utils"),
            version("virtiofsd")
        )
    }
}
