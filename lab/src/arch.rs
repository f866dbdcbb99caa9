//! Everything that differs between the architectures the lab can boot.
//!
//! No other file of this crate asks which architecture it serves.

use crate::boot::{Boot, Clock};
use crate::platform::Platform;

/// An architecture that the lab can emulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86: Xen for amd64, PV and PVH dom0.
    X86_64,
    /// 64-bit Arm.
    Arm64,
}

/// Debian releases and packages of one architecture's lab.
#[derive(Debug)]
pub(crate) struct PackageSet {
    /// Release that Xen, its tools, QEMU and busybox come from.
    pub(crate) release: &'static str,
    /// Packages taken from `release`, with the libraries that they need.
    pub(crate) roots: &'static [&'static str],
    /// Release that the kernel comes from.
    pub(crate) kernel_release: &'static str,
    /// The kernel's metapackage.
    pub(crate) kernel: &'static str,
    /// Of the packages that the metapackage brings, those with these prefixes are taken.
    pub(crate) kernel_prefixes: &'static [&'static str],
}

/// How Xen is built from its source.
#[derive(Debug)]
pub(crate) struct XenConfig {
    /// What its build gets about the architecture.
    pub(crate) make: &'static [&'static str],
    /// The configuration to begin with.
    pub(crate) defconfig: &'static str,
    /// Options that are switched on.
    pub(crate) options: &'static [&'static str],
}

impl Arch {
    /// That of callers which know no other yet.
    pub(crate) const LAB: Self = Self::X86_64;
    /// This machine's: the lab's own tools run on it.
    pub const HOST: Self = Self::X86_64;

    /// The architecture's name in Debian.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The folder of the architecture's shared libraries below `/usr/lib`.
    #[must_use]
    pub fn library_folder(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// The Rust target whose binaries run in dom0.
    #[must_use]
    pub fn rust_target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Path of the dynamic loader that the architecture's binaries name.
    pub(crate) fn loader(self) -> &'static str {
        match self {
            Self::X86_64 => "/lib64/ld-linux-x86-64.so.2",
            Self::Arm64 => "/lib/ld-linux-aarch64.so.1",
        }
    }

    /// The package of the emulator, or of what is built from the same source.
    pub(crate) fn emulator_package(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86",
            Self::Arm64 => "qemu-system-arm",
        }
    }

    /// What QEMU's build calls the machine that it emulates. `None`: Debian's own program serves.
    pub(crate) fn emulator_target(self) -> Option<&'static str> {
        match self {
            Self::X86_64 => Some("x86_64-softmmu"),
            // All patches are of the emulation of x86.
            Self::Arm64 => None,
        }
    }

    /// Name of the emulator's binary.
    pub(crate) fn emulator(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Arm64 => "qemu-system-aarch64",
        }
    }

    pub(crate) fn packages(self) -> PackageSet {
        match self {
            Self::X86_64 => PackageSet {
                release: "trixie",
                roots: &["qemu-system-x86", "xen-system-amd64", "xenstore-utils", "busybox-static"],
                kernel_release: "trixie-backports",
                kernel: "linux-image-amd64",
                kernel_prefixes: &["linux-binary-", "linux-modules-"],
            },
            // The emulator is this machine's program.
            Self::Arm64 => PackageSet {
                release: "trixie",
                roots: &["xen-system-arm64", "xenstore-utils", "busybox-static"],
                kernel_release: "trixie-backports",
                kernel: "linux-image-arm64",
                kernel_prefixes: &["linux-binary-", "linux-modules-"],
            },
        }
    }

    /// What the kernel's own build gets about the architecture.
    pub(crate) fn kernel_make(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["ARCH=x86", "CROSS_COMPILE=x86_64-linux-gnu-"],
            Self::Arm64 => &[
                "ARCH=arm64",
                "CROSS_COMPILE=aarch64-linux-gnu-",
                "CROSS_COMPILE_COMPAT=arm-linux-gnueabihf-",
            ],
        }
    }

    /// How Xen is built for the architecture, if Debian's own is not booted.
    pub(crate) fn xen_config(self) -> Option<XenConfig> {
        match self {
            Self::X86_64 => None,
            // Debian's has no ioreq servers on Arm, where upstream calls them unsupported. With verbose
            // debugging a guest may write to Xen's console.
            Self::Arm64 => Some(XenConfig {
                make: &["XEN_TARGET_ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"],
                defconfig: "arm64_defconfig",
                options: &["EXPERT", "UNSUPPORTED", "IOREQ_SERVER", "VERBOSE_DEBUG"],
            }),
        }
    }

    /// Packages of this machine's architecture that compile and link for this one, unless it is the same.
    pub(crate) fn cross_packages(self) -> Option<&'static [&'static str]> {
        match self {
            Self::X86_64 => None,
            Self::Arm64 => Some(&["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]),
        }
    }

    /// Further ones that the kernel's build calls for this architecture.
    pub(crate) fn kernel_packages(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &[],
            // Without the compiler for 32-bit programs the configuration changes.
            Self::Arm64 => &["gcc-14-aarch64-linux-gnu", "gcc-arm-linux-gnueabihf"],
        }
    }

    /// How the names of the programs of the C compiler and of its binutils begin.
    pub(crate) fn tool_prefix(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu-",
            Self::Arm64 => "aarch64-linux-gnu-",
        }
    }

    /// Programs of dom0 that Xen does not have on the architecture.
    pub(crate) fn lacks(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &[],
            Self::Arm64 => &["xen-hvmctx", "lsevtchn"],
        }
    }

    /// The device node of the second serial port, which carries the commands.
    pub(crate) fn command_tty(self) -> &'static str {
        match self {
            Self::X86_64 => "ttyS1",
            Self::Arm64 => "ttyAMA1",
        }
    }

    /// Processor, machine and what Xen needs around them.
    pub(crate) fn machine(self, boot: &Boot) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut push = |text: &str| arguments.push(text.to_owned());
        match self {
            Self::X86_64 => {
                push("-machine");
                push("q35");
                // Without `monitor` Xen idles with HLT: QEMU's MWAIT makes it panic. Without
                // RDTSCP a PVH dom0 does not trip over an instruction that Xen would trap.
                push("-cpu");
                push("EPYC,+svm,+npt,-monitor,-rdtscp");
                if boot.platform == Platform::X86Pvh {
                    push("-device");
                    push("amd-iommu,intremap=on");
                }
            }
            Self::Arm64 => {
                push("-machine");
                push("virt,virtualization=on,gic-version=3");
                push("-cpu");
                push("max");
            }
        }
        let at_once = boot.clock() == Clock::Host && boot.platform.threads(boot.cpus) > 1;
        push("-accel");
        push(if at_once { "tcg,thread=multi" } else { "tcg,thread=single" });
        arguments
    }

    /// Kernel, hypervisor and initramfs. File names are relative to the run's folder, so that no
    /// path of the host can hold a comma, which QEMU would split at.
    pub(crate) fn kernel(self, xen_arguments: &str, linux_arguments: &str) -> Vec<String> {
        match self {
            Self::X86_64 => vec![
                "-kernel".to_owned(),
                "xen".to_owned(),
                "-append".to_owned(),
                xen_arguments.to_owned(),
                "-initrd".to_owned(),
                format!("vmlinuz {linux_arguments},dom0.cpio"),
            ],
            // With the kernel at half of this address Xen ends without a message.
            Self::Arm64 => vec![
                "-kernel".to_owned(),
                "xen".to_owned(),
                "-append".to_owned(),
                xen_arguments.to_owned(),
                "-device".to_owned(),
                format!("guest-loader,addr=0x50000000,kernel=vmlinuz,bootargs={linux_arguments}"),
                "-device".to_owned(),
                "guest-loader,addr=0x58000000,initrd=dom0.cpio".to_owned(),
            ],
        }
    }

    /// Xen's own arguments, without those that the caller adds.
    pub(crate) fn xen_arguments(self, boot: &Boot) -> Vec<String> {
        let mut arguments = match self {
            Self::X86_64 => vec!["console=com1".to_owned(), "com1=115200".to_owned()],
            Self::Arm64 => vec!["console=dtuart".to_owned(), "dtuart=/pl011@9000000".to_owned()],
        };
        arguments.extend([
            "noreboot".to_owned(),
            "loglvl=all".to_owned(),
            "guest_loglvl=all".to_owned(),
            "conring_size=1M".to_owned(),
            "console_timestamps=none".to_owned(),
            // QEMU's memory is zeroed already. Xen would do it once more, beside dom0's first second.
            "bootscrub=off".to_owned(),
            format!("dom0_mem={}M", boot.dom0_memory),
            format!("dom0_max_vcpus={}", boot.dom0_vcpus),
        ]);
        if boot.cpus > 1 {
            // Where dom0's vCPUs may move between emulated CPUs that take turns, dom0 has been seen
            // to stand still for most of a minute; pinned, never.
            arguments.push("dom0_vcpus_pin".to_owned());
        }
        if self == Self::Arm64 && boot.cpus > 1 {
            // Otherwise all CPUs share one scheduler lock, and an emulated Arm CPU spins for it (lab/README.md).
            arguments.push("credit2_runqueue=cpu".to_owned());
        }
        if boot.platform == Platform::X86Pvh {
            // Like the missing RDTSCP: or dom0 dies of that instruction.
            arguments.extend(["dom0=pvh".to_owned(), "tsc=stable:socket".to_owned()]);
        }
        arguments
    }
}
