//! Real Xen with a real dom0, in QEMU, from Debian's packages, on a machine that has none of them.
//!
//! ```no_run
//! use std::time::Duration;
//! use xen_eventfd_lab::{Boot, Lab, Platform};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::prepare()?;
//! let mut machine = lab.boot(Boot::new(Platform::X86Pv).cpus(4).payload("bin/x", "/tmp/x"))?;
//! let output = machine.check("xl info", Duration::from_secs(30))?;
//! assert!(output.text().contains("xen_version"));
//! # Ok(())
//! # }
//! ```
//!
//! Data goes one way. `setup` has `apt` resolve and download and `packages` unpack into the `cache`,
//! `image` makes dom0's initramfs, `boot` says what the machine is like, `qemu` runs it. Then
//! `recorder` listens to Xen's console, `commands` talks to dom0's second serial port, and
//! [`Machine`] is both together. `emulator` is the QEMU that runs it, built from Debian's source.
//! `kernel_build` is set up in the same way, when a module is built
//! for dom0's kernel and not before; so is `system`, when packages are installed. Both are a `tree`
//! in which commands run.
//!
//! Nothing of it is installed on the host, and no version is fixed: apt says what the mirror has,
//! and a manifest keeps that until a refresh is asked for.

mod apt;
mod arch;
mod backends;
mod binaries;
mod boot;
mod cache;
mod commands;
mod console;
mod cpio;
mod cross;
mod device_model;
mod elf;
mod emulator;
mod hypervisor;
mod image;
mod kernel_build;
mod llvm;
mod machine;
mod manifest;
mod packages;
mod platform;
mod progress;
mod qemu;
mod recorder;
mod run;
mod setup;
mod std_source;
mod system;
mod terminal;
mod tree;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

pub use crate::{
    arch::Arch,
    backends::Backends,
    binaries::{build_guest, build_guest_for, build_static, build_static_for, build_static_test},
    boot::{Boot, Clock},
    commands::Output,
    console::{Line, Splitter, Voice, is_fatal},
    cpio::Archive,
    device_model::DeviceModel,
    hypervisor::NoXenSource,
    kernel_build::KernelBuild,
    llvm::Llvm,
    machine::{Machine, quote},
    manifest::{Manifest, Package},
    platform::Platform,
    run::{target_folder, workspace},
    std_source::{STD_SOURCE, StdSource},
    system::System,
    terminal::ESCAPE,
};
use crate::{
    cache::{Cache, CacheKind, Lock},
    emulator::Emulator,
    hypervisor::Hypervisor,
    packages::LabPackages,
    qemu::Qemu,
    run::Run,
};

/// What came of a whole run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the script said, and its status.
    pub output: Output,
    /// How long it took until dom0 answered.
    pub boot_time: Duration,
    /// The folder with all logs; see [`Machine::folder`].
    pub folder: PathBuf,
    /// The end of all consoles if the status is not zero, else empty.
    pub report: String,
}

/// Where the project's commands keep programs of their own, beside the labs: outside the
/// repository. It may not exist yet.
///
/// # Errors
///
/// The cache has no place; the error says how to name one.
pub fn tools_folder() -> Result<PathBuf> {
    Ok(Cache::open(CacheKind::Labs)?.tools())
}

/// A lab that is ready to boot.
#[derive(Debug)]
pub struct Lab {
    arch: Arch,
    folder: PathBuf,
    manifest: Manifest,
    emulator: Emulator,
    hypervisor: Option<Hypervisor>,
    _held: Lock,
}

impl Lab {
    /// Takes the lab from the cache. The first time, it is set up: minutes on a slow line.
    ///
    /// The cache is `$XEN_EVENTFD_CACHE`, else `$XDG_CACHE_HOME/xen-eventfd`, else
    /// `~/.cache/xen-eventfd`. Several processes may prepare at once.
    ///
    /// # Errors
    ///
    /// The packages cannot be had; the error says why and what to do. Running it again goes on
    /// where it stopped.
    pub fn prepare() -> Result<Self> {
        Self::of(Arch::LAB, false)
    }

    /// The same for the architecture of a platform.
    ///
    /// # Errors
    ///
    /// As for [`Lab::prepare`].
    pub fn prepare_for(platform: Platform) -> Result<Self> {
        Self::of(platform.arch(), false)
    }

    /// Sets the lab of a platform up with the versions that the mirror has today.
    ///
    /// # Errors
    ///
    /// As for [`Lab::prepare`].
    pub fn refresh(platform: Platform) -> Result<Self> {
        Self::of(platform.arch(), true)
    }

    fn of(arch: Arch, refresh: bool) -> Result<Self> {
        let (folder, held) = setup::obtain(CacheKind::Labs, arch, refresh, &LabPackages(arch))?;
        let manifest = Manifest::load(&folder.join("manifest.json"))?;
        let emulator = Emulator::prepare(arch, &manifest)?;
        let hypervisor = Hypervisor::prepare(arch, &manifest)?;
        Ok(Self { arch, folder, manifest, emulator, hypervisor, _held: held })
    }

    /// Boots, and returns when dom0 answers.
    ///
    /// # Errors
    ///
    /// dom0 did not come up in the boot's time; the error shows the end of all consoles.
    pub fn boot(&self, boot: Boot) -> Result<Machine> {
        let base = image::base(&self.folder, self.arch)?;
        let name = boot.name.clone().unwrap_or_else(|| boot.platform.name().to_owned());
        ensure!(
            boot.platform.arch() == self.arch,
            "{} does not run in the lab of {}",
            boot.platform,
            self.arch.debian()
        );
        let debian = self.folder.join("xen");
        let xen = self.hypervisor.as_ref().map_or(debian.as_path(), Hypervisor::image);
        let run = Run::new(&name, xen, &self.kernel())?;
        image::with_payload(&base, &boot.payload, &run.folder().join("dom0.cpio"))?;
        let arguments = boot.arguments()?;
        let (qemu, ports) = Qemu::start(&self.folder, &self.emulator, &arguments, run.folder())?;
        Machine::new(qemu, ports, run, &boot)
    }

    /// A whole run: boots, runs one script in dom0 and hands on its lines as they come, keeps all
    /// logs, and ends the machine. With [`Boot::deterministic`] the script starts without the
    /// host, so that two runs are the same to the last instruction.
    ///
    /// # Errors
    ///
    /// As for [`Lab::boot`] and [`Machine::run`]. A status other than zero is no error.
    pub fn run(
        &self,
        boot: Boot,
        script: &str,
        timeout: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<Outcome> {
        let own = boot.clock == Clock::Deterministic;
        let boot = if own { boot.script(script, timeout) } else { boot };
        let mut machine = self.boot(boot)?;
        let boot_time = machine.boot_time();
        let mut lines = Vec::new();
        let receive = |text: &str| {
            line(text);
            lines.push(text.to_owned());
        };
        let status = if own {
            machine.run_own(timeout, receive)?
        } else {
            machine.run_with(script, timeout, receive)?
        };
        let report = if status == 0 { String::new() } else { machine.report("the consoles:") };
        let folder = machine.finish()?;
        Ok(Outcome { output: Output { status, lines }, boot_time, folder, report })
    }

    /// Takes what builds modules for [`Lab::kernel`] from the cache. The first time, it is set up:
    /// some minutes, most of them of the processor.
    ///
    /// # Errors
    ///
    /// The packages cannot be had, or the kernel's Rust metadata cannot be made; the error says why
    /// and what to do.
    pub fn kernel_build(&self) -> Result<KernelBuild> {
        KernelBuild::prepare(self.arch, &self.kernel_release()?, &self.manifest)
    }

    /// A Debian system with [`Lab::kernel`], to install packages in. The first time, it is set up:
    /// 200 MB to download.
    ///
    /// # Errors
    ///
    /// The packages cannot be had; the error says why and what to do.
    pub fn system(&self) -> Result<System> {
        System::prepare(self.arch, &self.kernel_release()?, &self.manifest)
    }

    /// What its machines are.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The packages that the lab is made of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The package that the emulator is, or whose source it is built from, and its version.
    #[must_use]
    pub fn emulator(&self) -> (&'static str, &str) {
        (self.arch.emulator_package(), self.emulator.version())
    }

    /// QEMU's example of a backend of a disk, `vhost-user-blk`, which is built along with the emulator of x86. No package of
    /// Debian has it.
    ///
    /// # Errors
    ///
    /// The emulator is not built from QEMU's source.
    pub(crate) fn block_backend(&self) -> Result<&Path> {
        let program = self.emulator.block_backend();
        program.with_context(|| format!("the lab of {} builds no QEMU", self.arch.debian()))
    }

    /// dom0's kernel release, as `uname -r` says it.
    ///
    /// # Errors
    ///
    /// The lab in the cache is damaged.
    pub fn kernel_release(&self) -> Result<String> {
        let path = self.folder.join("kernel-release");
        std::fs::read_to_string(&path)
            .with_context(|| format!("{}: the lab is damaged; remove it", path.display()))
    }

    /// Modules of [`Lab::kernel`] and those that they need, in the order in which they load: file names and
    /// contents. A lab's dom0 loads those of Xen's devices by itself.
    ///
    /// # Errors
    ///
    /// The kernel's packages bring no module of that name.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let tree = self.root().join("usr/lib/modules").join(self.kernel_release()?);
        packages::modules(&tree, names)
    }

    /// The tree of unpacked packages.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// The firmware with which Xen starts an HVM guest.
    pub(crate) fn hvmloader(&self) -> Result<PathBuf> {
        let programs = image::xen_programs(&self.root())?;
        let path = programs.with_file_name("boot").join("hvmloader");
        ensure!(path.is_file(), "Xen's packages bring no {}", path.display());
        Ok(path)
    }

    /// dom0's kernel, which also runs as a PVH guest.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }
}
