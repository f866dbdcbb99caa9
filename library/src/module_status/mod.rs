//! What the kernel module shows of a guest, read.
//!
//! One text for each guest, in `/sys/kernel/debug/xen-eventfd/DOMID` and in the fdinfo of the
//! guest's file: lines of `key:\tvalue`, of which one that is not known is passed over.
//! [`Guest`] is such a text.
//!
//! ```
//! use xen_eventfd::module_status::{Guest, Interface};
//! let text = "dom:\t3\ninterface:\tnative\nowner:\t412 backend\nserver:\t7\ndelivered:\t1000\n";
//! let guest: Guest = text.parse()?;
//! assert_eq!((guest.interface, guest.owner.pid), (Interface::Native, 412));
//! assert_eq!(guest.served.map(|served| served.counters.delivered), Some(1000));
//! # Ok::<(), xen_eventfd::module_status::Unreadable>(())
//! ```

mod line;
mod text;
mod words;

pub use line::{Channel, Doorbell, Interrupt, Irq, Place, Takes, Trigger, Waiting};
pub use text::Unreadable;
#[cfg(fuzzing)]
pub use text::fuzz;

use crate::{DomId, IoServerId};
use serde::Serialize;

/// A guest that the module knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Guest {
    /// Its number.
    #[serde(serialize_with = "number_of_dom")]
    pub dom: DomId,
    /// How it was taken.
    pub interface: Interface,
    /// Who took it.
    pub owner: Owner,
    /// It has died, and its file is still open.
    pub dead: bool,
    /// Its doorbell server; a reserved or dead guest has none.
    #[serde(flatten)]
    pub served: Option<Served>,
    /// What is assigned, in the order of addresses.
    pub doorbells: Vec<Doorbell>,
    /// Kicks that are held for an eventfd to come.
    pub waiting: Vec<Waiting>,
    /// Eventfds that raise an interrupt.
    pub irqs: Vec<Irq>,
    /// Event channels that signal an eventfd.
    pub channels: Vec<Channel>,
}

/// How a guest was taken from the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Interface {
    /// By the module's own ABI.
    Native,
    /// By the ABI of privcmd; several files may share the guest.
    Privcmd,
    /// By an engine in userspace, which only keeps others away.
    Reserved,
}

/// The process that took a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Owner {
    /// Its number; 0 if it has ended or cannot be seen from here.
    pub pid: u32,
    /// Its name, which may hold spaces, or be none.
    pub name: String,
    /// It has ended, and other processes have its file. (While it lives, a number of 0 means that it
    /// is of another pid namespace.)
    pub ended: bool,
}

/// The server of a guest, and what it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Served {
    /// The ioreq server's id.
    #[serde(serialize_with = "number_of_server")]
    pub server: IoServerId,
    /// The guest's vCPUs.
    pub vcpus: u32,
    /// What came since the guest was taken.
    pub counters: Counters,
}

/// What a guest's doorbells have seen since it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Kicks that signalled an eventfd.
    pub delivered: u64,
    /// Kicks that no doorbell took.
    pub held: u64,
    /// Eventfds that were signalled at their assignment, for what was held.
    pub redelivered: u64,
    /// Kicks that came after their doorbell was gone: answered, not delivered.
    pub late: u64,
    /// Reads, answered with 0.
    pub reads: u64,
    /// Messages of Xen to every ioreq server.
    pub broadcasts: u64,
    /// Requests that no doorbell serves (string instructions and the like), answered.
    pub odd: u64,
    /// Events without a request.
    pub spurious: u64,
}

impl Owner {
    /// A process that lives; its number is 0 if it cannot be seen from here.
    pub fn new(pid: u32, name: String) -> Self {
        Self { pid, name, ended: false }
    }
}

impl Guest {
    /// Doorbells, interrupts and event channels together.
    pub fn registrations(&self) -> usize {
        self.doorbells.len() + self.irqs.len() + self.channels.len()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn number_of_dom<S: serde::Serializer>(dom: &DomId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(dom.0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn number_of_server<S: serde::Serializer>(id: &IoServerId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(id.0)
}
