//! Counts after a round.

use super::Done;
use crate::lists::{self, Lists};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;

/// What was done so far, and what exists now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The number of the round, from 1.
    pub round: u64,
    /// Since the start.
    pub done: Done,
    /// Counts of resources.
    pub counts: Counts,
    /// Memory in use.
    pub memory: Memory,
}

/// Counts of resources that must not grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Guests, including dead ones that still exist; from Xen's list.
    pub guests: usize,
    /// Ioreq servers of all guests; from Xen's list.
    pub servers: usize,
    /// Event channels of domain 0, of every type; from Xen's list.
    pub channels: usize,
    /// Event channels that the module has bound; from the kernel's list.
    pub interrupts: usize,
    /// Open descriptors of this process.
    pub descriptors: usize,
    /// Threads of this process.
    pub threads: usize,
    /// Processes of domain 0, without kernel threads.
    pub processes: usize,
}

impl Counts {
    /// Counts.
    pub(super) fn look() -> Result<Self> {
        let lists = Lists::look()?;
        Ok(Self {
            guests: lists.guests.len(),
            servers: lists.guests.values().map(|servers| servers.len()).sum(),
            channels: lists.channels,
            interrupts: lists::module_interrupts()?,
            descriptors: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
            processes: processes()?,
        })
    }

    /// Each count with its name.
    pub fn named(&self) -> [(&'static str, usize); 7] {
        [
            ("guests", self.guests),
            ("ioreq servers", self.servers),
            ("event channels", self.channels),
            ("the module's interrupts", self.interrupts),
            ("descriptors", self.descriptors),
            ("threads", self.threads),
            ("processes", self.processes),
        ]
    }
}

/// Memory in use, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In domain 0: all that is not available to a new program.
    pub used: u64,
    /// In domain 0: the kernel's slabs.
    pub slab: u64,
    /// Of this process.
    pub resident: u64,
}

impl Memory {
    /// Measures, after the kernel has dropped its caches.
    pub(super) fn look() -> Result<Self> {
        fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")?;
        let (machine, own) =
            (fs::read_to_string("/proc/meminfo")?, fs::read_to_string("/proc/self/status")?);
        let total = field(&machine, "MemTotal")?;
        Ok(Self {
            used: total.saturating_sub(field(&machine, "MemAvailable")?),
            slab: field(&machine, "Slab")?,
            resident: field(&own, "VmRSS")?,
        })
    }

    /// Each amount with its name.
    pub fn named(&self) -> [(&'static str, u64); 3] {
        [
            ("used in domain 0", self.used),
            ("of it the kernel's slabs", self.slab),
            ("the engine's process", self.resident),
        ]
    }
}

/// Counts the processes.
fn processes() -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        // A kernel thread has no command line, nor has a process that has just ended.
        let named = || fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty());
        count += usize::from(is_process && named());
    }
    Ok(count)
}

/// The number in `NAME: NUMBER kB`.
fn field(text: &str, name: &str) -> Result<u64> {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse().ok()
    };
    text.lines().find_map(of).with_context(|| format!("the kernel does not report {name}"))
}

/// The prefix of a line, as the console has other output too.
const MARK: &str = "soak: ";

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{MARK}{json}")
    }
}

impl Sample {
    /// Parses a line; `None` if it is not a sample.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_survives_its_line() {
        let counts = Counts { channels: 20, ..Counts::default() };
        let memory = Memory { used: 1, slab: 2, resident: 3 };
        let sample = Sample { round: 7, done: Done::default(), counts, memory };
        assert_eq!(Sample::parse(&sample.to_string()), Some(sample));
        assert_eq!(Sample::parse("soak: {}"), None);
    }

    #[test]
    fn the_kernel_says_how_much() {
        let text = "MemTotal:  500 kB\nMemAvailable:   400 kB\n";
        assert_eq!(field(text, "MemAvailable").unwrap(), 400);
        assert!(field(text, "Slab").is_err());
        assert!(field(text, "Mem").is_err());
    }
}
