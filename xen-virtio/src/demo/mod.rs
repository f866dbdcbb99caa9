//! `demo`: a guest on the model uses a disk whose backend is a process of its own.
//!
//! ```text
//! guest   virtio-drivers, on a vCPU of the model
//!         registers -> ioreq server of xen-virtio     kicks, interrupts -> engine
//! backend a process at a Unix socket, with the guest's memory mapped
//! ```

pub(crate) mod backend;
#[expect(unsafe_code, reason = "virtio-drivers' traits have unsafe functions")]
pub(crate) mod driver;
mod machine;
mod process;

use clap::Args;
use machine::{BLOCK, Round, measure};
use serde::Serialize;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::quantity::{COUNT, count_to};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::terminal::{Style, grouped};

/// Let a guest on an in-process Xen use a disk; needs no Xen and no rights.
///
/// The guest's driver finds a virtio disk on its PCI bus, writes to it, reads back and compares. The disk's
/// backend is a process of its own that knows nothing of Xen.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How many blocks of 4 KiB the guest writes, and then reads
    #[arg(long, value_name = COUNT, default_value_t = 2_000, value_parser = count_to::<100_000>)]
    blocks: u32,
}

/// What came of it, for a machine.
#[derive(Debug, Serialize)]
struct Report {
    /// Written, and then read.
    blocks: u64,
    block_bytes: usize,
    /// One for each block written and each read.
    requests: u64,
    completed: u64,
    lost: u64,
    /// Blocks that were read as they had been written.
    equal: u64,
    different: u64,
    /// Writes to the doorbell, and those that the engine passed on.
    kicks: u64,
    kicks_delivered: u64,
    /// Those that the guest took.
    interrupts: u64,
    /// Accesses to registers until the disk was started.
    register_accesses: u64,
    /// How often `xen-virtio` woke for an access to a register while data flowed.
    wakeups: u64,
    /// The backend's process.
    backend_pid: u32,
    seconds: f64,
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let report = Report::new(&measure(arguments.blocks)?);
    session.print("virtio.demo", &report, || report.prose(Style::of_stdout()))?;
    Ok(if report.is_good() { Exit::Success } else { Exit::Failed })
}

impl Report {
    fn new(round: &Round) -> Self {
        let requests = 2 * round.blocks;
        Self {
            blocks: round.blocks,
            block_bytes: BLOCK,
            requests,
            completed: round.completed,
            lost: requests.saturating_sub(round.completed),
            equal: round.equal,
            different: round.blocks.saturating_sub(round.equal),
            kicks: round.kicks,
            kicks_delivered: round.delivered,
            interrupts: round.interrupts,
            register_accesses: round.accesses,
            wakeups: round.wakeups,
            backend_pid: round.backend,
            seconds: round.took.as_secs_f64(),
        }
    }

    /// Nothing was lost or changed, and `xen-virtio` slept while data flowed.
    fn is_good(&self) -> bool {
        [self.lost, self.different, self.wakeups, self.kicks - self.kicks_delivered.min(self.kicks)]
            == [0; 4]
    }

    /// The story, for a newcomer.
    fn prose(&self, style: Style) -> String {
        let rows = [
            ("blocks of 4 KiB written, and read back", self.blocks),
            ("requests of the guest", self.requests),
            ("kicks of the guest, each an eventfd's signal", self.kicks),
            ("interrupts of the guest, each an eventfd's signal", self.interrupts),
            ("accesses to registers, until the disk was started", self.register_accesses),
            ("wake-ups for registers while data flowed", self.wakeups),
            ("lost requests", self.lost),
            ("blocks that came back different", self.different),
        ];
        let table: String = rows
            .iter()
            .map(|(what, count)| format!("{what:<52}{:>10}\n", grouped(*count)))
            .collect();
        let verdict = match self.is_good() {
            true => style.good("All blocks came back as they were written."),
            false => style.bad("Something was lost. This is a bug; please report it."),
        };
        format!(
            "{}\n\nA guest on an in-process Xen finds a disk on its PCI bus, writes to it and reads back. Its \
             driver is\nthat of the crate virtio-drivers; the disk's backend is process {}, which knows \
             vhost-user and nothing\nof Xen. Between them, `xen-virtio` answers for the registers, and the \
             engine of xen-eventfd passes\nkicks and interrupts on.\n\n{table}\n{verdict}\nIt took {:.2} s.\n",
            style.strong("A virtio disk for a guest of Xen"),
            self.backend_pid,
            self.seconds,
        )
    }
}
