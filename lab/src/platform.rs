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
    /// Those on which everything runs: tests, tables and benches go over this list.
    pub const ALL: [Self; 2] = [Self::X86Pv, Self::X86Pvh];
    /// Those that the lab boots, and on which the scenarios and the module's tests run.
    pub const IN_LAB: [Self; 3] = [Self::X86Pv, Self::X86Pvh, Self::Arm64];

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

    /// Reads the name of one on which everything runs.
    ///
    /// # Errors
    /// Says which names there are, and which commands make something of the others.
    pub fn parse(name: &str) -> Result<Self, String> {
        match Self::parse_in_lab(name)? {
            one if Self::ALL.contains(&one) => Ok(one),
            one => {
                Err(format!("{one} is known to `cargo xtask lab`, `kmod` and `devices` alone yet"))
            }
        }
    }

    /// Reads the name of one that the lab boots.
    ///
    /// # Errors
    /// Says which names there are.
    pub fn parse_in_lab(name: &str) -> Result<Self, String> {
        let named = Self::IN_LAB.into_iter().find(|one| one.name() == name);
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

    /// Whether races run there, which want several emulated CPUs. On Arm Xen 4.20 crashes if a server is destroyed
    /// while a vCPU that was answered has not left its wait yet (`wait_for_io` keeps pointers to it).
    #[must_use]
    pub fn has_races(self) -> bool {
        self != Self::Arm64
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
    fn each_platform_that_runs_is_read_by_its_name() {
        for platform in Platform::ALL {
            assert_eq!(Platform::parse(platform.name()), Ok(platform));
        }
    }

    #[test]
    fn one_that_only_the_lab_knows_differs_from_one_that_is_not_there() {
        assert!(Platform::parse("arm64").unwrap_err().contains("yet"));
        assert_eq!(Platform::parse_in_lab("arm64"), Ok(Platform::Arm64));
        assert!(Platform::parse("pv").unwrap_err().contains("x86-pv"));
    }
}
