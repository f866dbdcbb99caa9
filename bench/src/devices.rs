//! Whole devices: what a guest does with its disk and its card, and what that took. The program
//! `bench-devices` measures in dom0 and, for it, in the guest.

use crate::{Spread, parse_line, write_line};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Who serves the guest's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// Xen's own drivers: netback and blkback in dom0's kernel.
    Pv,
    /// `xen-virtio` with the kernel engine.
    Kernel,
    /// `xen-virtio` with the userspace engine.
    Userspace,
    /// QEMU's own virtio-blk-pci, for an HVM guest.
    Qemu,
    /// `xen-virtio` with the kernel engine, for an HVM guest.
    Hvm,
    /// The same, for a SCSI disk by Linux's vhost-scsi.
    Scsi,
    /// blkback, for a disk of four queues.
    PvQueues,
    /// `xen-virtio` with the kernel engine, for a disk of four queues.
    KernelQueues,
    /// The same, for one disk, the only device of the host's guests.
    One,
    /// The same, where the guest has eight of them.
    Eight,
    /// The same, where three guests have 64 of them.
    SixtyFour,
    /// The same, for a guest whose root file system is on virtiofs.
    Root,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Pv,
        Self::Kernel,
        Self::Userspace,
        Self::Qemu,
        Self::Hvm,
        Self::Scsi,
        Self::PvQueues,
        Self::KernelQueues,
        Self::One,
        Self::Eight,
        Self::SixtyFour,
        Self::Root,
    ];

    /// Its name in arguments and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
            Self::Qemu => "qemu",
            Self::Hvm => "hvm",
            Self::Scsi => "scsi",
            Self::PvQueues => "pv-queues",
            Self::KernelQueues => "kernel-queues",
            Self::One => "one",
            Self::Eight => "eight",
            Self::SixtyFour => "sixty-four",
            Self::Root => "root",
        }
    }

    /// What its guest does, in the order in which it is measured.
    pub fn loads(self) -> &'static [Load] {
        match self {
            Self::Pv | Self::Kernel | Self::Userspace => &Load::ALL,
            Self::Qemu | Self::Hvm | Self::Scsi => &Load::READS,
            Self::PvQueues | Self::KernelQueues => &Load::QUEUES,
            Self::One | Self::Eight | Self::SixtyFour => &Load::READS[..1],
            Self::Root => &[],
        }
    }
}

/// What the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// It pings dom0 and waits for the answer.
    Ping,
    /// It fetches 16 MiB by HTTP.
    ToGuest,
    /// dom0 fetches as much from it.
    FromGuest,
    /// It uses its disk, past the page cache.
    Disk(Disk),
}

/// Requests to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Disk {
    /// Whether it writes.
    pub write: bool,
    /// The size of a request, in bytes.
    pub bytes: u32,
    /// How many are under way at once.
    pub depth: u32,
    /// By how many vCPUs, each an equal part by a queue of its own.
    pub queues: u32,
}

/// The size of the file that is fetched, in bytes.
pub const FILE: u64 = 16 << 20;
/// Requests that are measured.
pub const REQUESTS: u32 = 2000;

const fn disk(write: bool, bytes: u32, depth: u32) -> Load {
    Load::Disk(Disk { write, bytes, depth, queues: 1 })
}

const fn by_four(write: bool) -> Load {
    Load::Disk(Disk { write, bytes: 4096, depth: 32, queues: 4 })
}

impl Load {
    /// Those of a guest with a disk and a card.
    pub const ALL: [Self; 9] = [
        Self::Ping,
        Self::ToGuest,
        Self::FromGuest,
        disk(false, 4096, 1),
        disk(true, 4096, 1),
        disk(false, 65536, 1),
        disk(true, 65536, 1),
        disk(false, 4096, 32),
        disk(true, 4096, 32),
    ];
    /// Those of a guest with a disk, of which only that is compared.
    pub const READS: [Self; 3] =
        [disk(false, 4096, 1), disk(false, 65536, 1), disk(false, 4096, 32)];
    /// Those of a guest of four vCPUs with a disk of four queues.
    pub const QUEUES: [Self; 2] = [by_four(false), by_four(true)];

    /// Its name in tables.
    pub fn title(self) -> String {
        match self {
            Self::Ping => "ping there and back".to_owned(),
            Self::ToGuest => "16 MiB by HTTP to the guest".to_owned(),
            Self::FromGuest => "16 MiB by HTTP from the guest".to_owned(),
            Self::Disk(Disk { write, bytes, depth, queues }) => {
                let what = if write { "write" } else { "read" };
                let at_once = if depth == 1 { String::new() } else { format!(", {depth} at once") };
                let by = if queues == 1 { String::new() } else { format!(" by {queues} vCPUs") };
                format!("{} KiB {what}{at_once}{by}", bytes / 1024)
            }
        }
    }
}

/// What the program that makes the requests has measured. Times are in ticks of its domain's time stamp
/// counter, which are instructions on a machine whose clock counts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    /// How many requests.
    pub requests: u64,
    /// How long each took. Of several at once: how long all of them took, divided by their number.
    pub each: Spread,
    /// From before the first to after the last.
    pub all: u64,
}

/// What dom0's kernel counted of one of its processes meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// How often a thread of it had slept and was woken.
    pub woken: u64,
    /// How long its threads ran, in nanoseconds.
    pub ran: u64,
}

/// A measurement of one load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Who served.
    pub server: Server,
    /// What was done.
    pub load: Load,
    /// How long it took.
    pub ticks: Ticks,
    /// The processes of dom0 that were woken, by name.
    pub processes: BTreeMap<String, Process>,
}

/// How a guest came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Who serves.
    pub server: Server,
    /// From before its guest was asked for until it had read its disk for the first time, in nanoseconds.
    pub until_first_read: u64,
    /// How long `xen-virtio` had run then, in nanoseconds.
    pub ran: u64,
    /// And how long when it let the guest run.
    pub until_it_runs: u64,
    /// What it has in memory, by the names in `/proc/PID/status`, in KiB.
    pub memory: BTreeMap<String, u64>,
}

/// A line of what is measured in dom0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measured {
    /// A load.
    Loaded(Loaded),
    /// A start.
    Started(Started),
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_measurement_survives_its_line() {
        let ticks = Ticks { requests: 1, each: Spread::of(vec![7]).unwrap(), all: 9 };
        let process = Process { woken: 1, ran: 5 };
        let all = Server::ALL
            .into_iter()
            .flat_map(|server| server.loads().iter().map(move |load| (server, *load)));
        for (server, load) in all {
            let processes = BTreeMap::from([("xl".to_owned(), process)]);
            let ticks = ticks.clone();
            let measured = Measured::Loaded(Loaded { server, load, ticks, processes });
            assert_eq!(Measured::parse(&measured.to_string()), Some(measured));
        }
    }

    #[test]
    fn each_server_and_each_load_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Server::ALL.map(Server::name).into();
        assert_eq!(names.len(), Server::ALL.len());
        let loads: Vec<_> = Load::ALL.into_iter().chain(Load::QUEUES).collect();
        let titles: BTreeSet<_> = loads.iter().map(|load| load.title()).collect();
        assert_eq!(titles.len(), loads.len());
        assert!(titles.contains("4 KiB write, 32 at once by 4 vCPUs"), "{titles:?}");
    }
}
