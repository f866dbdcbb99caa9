//! What is run: an architecture, and on x86 the kind of dom0.

use std::fmt;

use crate::arch::Arch;

/// A machine with Xen and dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// x86-64 with a paravirtualized dom0: what a Debian user gets.
    X86Pv,
    /// x86-64 with a dom0 in a hardware container.
    X86Pvh,
    /// 64-bit Arm, which has one kind of dom0.
    Arm64,
}

impl Platform {
    /// All that the lab boots.
    pub const ALL: [Self; 3] = [Self::X86Pv, Self::X86Pvh, Self::Arm64];
    /// Those of x86, over which tables and benches of x86 go.
    pub const X86: [Self; 2] = [Self::X86Pv, Self::X86Pvh];

    /// Those of an architecture.
    pub fn of(arch: Arch) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |platform| platform.arch() == arch)
    }

    /// What is emulated.
    #[must_use]
    pub fn arch(self) -> Arch {
        match self {
            Self::X86Pv | Self::X86Pvh => Arch::X86_64,
            Self::Arm64 => Arch::Arm64,
        }
    }

    /// As `--platform` and files call it: `x86-pv`, `x86-pvh` or `arm64`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86Pv => "x86-pv",
            Self::X86Pvh => "x86-pvh",
            Self::Arm64 => "arm64",
        }
    }

    /// As pages call it: `PV dom0`.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::X86Pv => "PV dom0",
            Self::X86Pvh => "PVH dom0",
            Self::Arm64 => "arm64",
        }
    }

    /// Reads the name of one.
    ///
    /// # Errors
    /// Says which names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|one| one.name() == name);
        named.ok_or_else(|| "x86-pv, x86-pvh or arm64 is expected".to_owned())
    }

    /// How many of so many emulated CPUs run at once. Under a PVH dom0 they take turns: in threads
    /// of their own QEMU loses an interrupt at VMRUN now and then.
    #[must_use]
    pub fn threads(self, cpus: u32) -> u32 {
        match self {
            Self::X86Pv | Self::Arm64 => cpus,
            Self::X86Pvh => 1,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_read_by_its_name() {
        for platform in Platform::ALL {
            assert_eq!(Platform::parse(platform.name()), Ok(platform));
        }
        assert!(Platform::parse("pv").unwrap_err().contains("x86-pv"));
    }
}
