//! What is run: an architecture, and on x86 the kind of dom0.

use std::fmt;

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
    /// Those that the lab runs; tests, tables and benches go over this list.
    pub const ALL: [Self; 2] = [Self::X86Pv, Self::X86Pvh];

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

    /// Reads a name.
    ///
    /// # Errors
    /// Says which names there are, and which of them does not run yet.
    pub fn parse(name: &str) -> Result<Self, String> {
        match [Self::X86Pv, Self::X86Pvh, Self::Arm64].into_iter().find(|one| one.name() == name) {
            Some(one) if Self::ALL.contains(&one) => Ok(one),
            Some(one) => Err(format!("{one} does not run in the lab yet")),
            None => Err("x86-pv, x86-pvh or arm64 is expected".to_owned()),
        }
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
    fn each_platform_that_runs_is_read_by_its_name() {
        for platform in Platform::ALL {
            assert_eq!(Platform::parse(platform.name()), Ok(platform));
        }
    }

    #[test]
    fn one_that_does_not_run_yet_is_told_from_one_that_is_not_there() {
        assert!(Platform::parse("arm64").unwrap_err().contains("yet"));
        assert!(Platform::parse("pv").unwrap_err().contains("x86-pv"));
    }
}
