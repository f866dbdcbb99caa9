//! The cases and the figures: the program in dom0 prints one line of JSON for each
//! measurement, and `cargo xtask bench` reads it.

pub mod arch;
pub mod devices;
pub mod tasks;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a kick reaches the backend's eventfd, or a backend's call the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A device model in C that decodes the access and writes the eventfd.
    Vmm,
    /// Linux's own ioeventfd, and a device model that reads its event channels as users of that
    /// ioeventfd do.
    Upstream,
    /// The userspace engine.
    Engine,
    /// The module.
    Module,
    /// A handler in the kernel that only answers.
    FloorSilent,
    /// The same, and it signals the eventfd.
    Floor,
}

impl Way {
    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Vmm => "VMM only",
            Self::Upstream => "upstream C",
            Self::Engine => "userspace engine",
            Self::Module => "module",
            Self::FloorSilent => "floor, no eventfd",
            Self::Floor => "floor",
        }
    }

    /// Whether an eventfd is signalled.
    pub fn signals(self) -> bool {
        self != Self::FloorSilent
    }
}

/// The space of a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// In memory.
    Mmio,
    /// I/O ports.
    Pio,
}

/// Which writes match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Those of one value.
    Datamatch,
    /// Those of one width.
    Wildcard,
    /// No eventfd is registered: the device model answers.
    None,
}

/// One measurement of kicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Kicks {
    /// The way.
    pub way: Way,
    /// The number of registered doorbells. The guest kicks the last one.
    pub registrations: u32,
    /// The number of vCPUs that kick, each back to back.
    pub vcpus: u32,
    /// The space.
    pub space: Space,
    /// Which writes match.
    pub filter: Filter,
    /// Whether a backend waits on the eventfd.
    pub backend: bool,
}

/// How an interrupt is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interrupt {
    /// A message-signalled interrupt; on Arm, whose guests have none, a shared peripheral interrupt.
    Msi,
    /// An event channel.
    Channel,
}

/// One measurement of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Calls {
    /// The way.
    pub way: Way,
    /// The interrupt.
    pub interrupt: Interrupt,
}

/// The case of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// From a guest to a backend.
    Kicks(Kicks),
    /// From a backend to a guest.
    Calls(Calls),
}

/// A distribution: its percentiles by nearest rank, the minimum first, the maximum last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread(Vec<u64>);

impl Spread {
    /// From these samples; `None` if there are none.
    pub fn of(mut samples: Vec<u64>) -> Option<Self> {
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        let rank = |percent: usize| (samples.len() * percent).div_ceil(100).max(1) - 1;
        Some(Self((0..=100).filter_map(|p| samples.get(rank(p).min(last)).copied()).collect()))
    }

    /// A percentile, 0 to 100.
    pub fn at(&self, percent: usize) -> u64 {
        self.0.get(percent).or(self.0.last()).copied().unwrap_or_default()
    }

    /// The minimum.
    pub fn min(&self) -> u64 {
        self.at(0)
    }

    /// The median.
    pub fn median(&self) -> u64 {
        self.at(50)
    }

    /// The 99th percentile.
    pub fn p99(&self) -> u64 {
        self.at(99)
    }

    /// All percentiles, from 0 to 100.
    pub fn percentiles(&self) -> &[u64] {
        &self.0
    }
}

/// The number of wakeups: voluntary context switches, by process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wakeups {
    /// The device model.
    pub vmm: u64,
    /// The process of the userspace engine.
    pub engine: u64,
    /// The backend.
    pub backend: u64,
    /// Any other process.
    pub others: u64,
    /// Threads of the kernel.
    pub kernel: u64,
}

/// The figures of one measurement. Times are in ticks of the processor's counter, which are
/// instructions on a machine whose clock counts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The number of kicks or calls.
    pub samples: u64,
    /// Kicks: the time in the guest, from before its write to after it.
    pub ticks: Option<Spread>,
    /// The time to the other side: from before the guest's write until the backend has read the eventfd, or
    /// from before the backend's write until the guest's handler has run.
    pub across: Option<Spread>,
    /// The number of the backend's reads with a count; fewer than kicks if some were merged.
    pub found: u64,
    /// The number of kicks in the eventfd's counts.
    pub delivered: u64,
    /// How long dom0 has run in all, including Xen's work for it, in nanoseconds of Xen's time.
    pub dom0: u64,
    /// All wakeups.
    pub wakeups: Wakeups,
}

/// A measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The case.
    pub case: Case,
    /// The figures.
    pub figures: Figures,
}

/// The prefix of a line, as the console has other output too.
const MARK: &str = "bench: ";

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_line(f, self)
    }
}

impl Measured {
    /// Parses a line; `None` if it is something else.
    pub fn parse(line: &str) -> Option<Self> {
        parse_line(line)
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, measured: &impl Serialize) -> fmt::Result {
    let json = serde_json::to_string(measured).map_err(|_| fmt::Error)?;
    write!(f, "{MARK}{json}")
}

fn parse_line<T: DeserializeOwned>(line: &str) -> Option<T> {
    serde_json::from_str(line.strip_prefix(MARK)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let spread = Spread::of((1..=1000).rev().collect()).unwrap();
        assert_eq!((spread.min(), spread.median(), spread.p99()), (1, 500, 990));
        assert_eq!((spread.at(100), spread.percentiles().len()), (1000, 101));
        let one = Spread::of(vec![7]).unwrap();
        assert_eq!((one.min(), one.median(), one.at(100)), (7, 7, 7));
        assert_eq!(Spread::of(vec![]), None);
    }

    #[test]
    fn a_measurement_survives_its_line() {
        let kicks = Kicks {
            way: Way::FloorSilent,
            registrations: 64,
            vcpus: 2,
            space: Space::Pio,
            filter: Filter::None,
            backend: false,
        };
        let figures = Figures {
            samples: 2,
            ticks: Spread::of(vec![3, 4]),
            across: None,
            found: 0,
            delivered: 0,
            dom0: 5,
            wakeups: Wakeups { kernel: 1, ..Wakeups::default() },
        };
        let measured = Measured { case: Case::Kicks(kicks), figures };
        let line = measured.to_string();
        assert_eq!(Measured::parse(&line), Some(measured));
        assert_eq!(Measured::parse(line.trim_start_matches(MARK)), None);
    }
}
