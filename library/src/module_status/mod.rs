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

pub mod serialize;
mod text;

pub use text::Unreadable;
#[cfg(fuzzing)]
pub use text::fuzz;
pub use xen_eventfd_core::status::{
    ChannelStatus, DeviceStatus, DoorbellStatus, Interface, IrqStatus, MemoryStatus,
};
pub use xen_eventfd_core::wire::text::{DoorbellWords, IrqWords, KickWords};

use crate::{Counters, DomId, IoServerId, Kick};
use serde::Serialize;

/// A guest that the module knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Guest {
    /// Its number.
    #[serde(serialize_with = "serialize::dom")]
    pub dom: DomId,
    /// How it was taken.
    #[serde(serialize_with = "serialize::interface")]
    pub interface: Interface,
    /// The process that took it.
    pub owner: Owner,
    /// It has died, and its file is still open.
    pub dead: bool,
    /// Its doorbell server; a reserved or dead guest has none.
    #[serde(flatten)]
    pub served: Option<Served>,
    /// What is assigned, in the order of addresses.
    #[serde(serialize_with = "serialize::list")]
    pub doorbells: Vec<DoorbellStatus>,
    /// Kicks that are held for an eventfd to come.
    #[serde(serialize_with = "serialize::list")]
    pub waiting: Vec<Kick>,
    /// Eventfds that raise an interrupt.
    #[serde(serialize_with = "serialize::list")]
    pub irqs: Vec<IrqStatus>,
    /// Devices whose InterruptStatus is answered.
    #[serde(serialize_with = "serialize::list")]
    pub devices: Vec<DeviceStatus>,
    /// Event channels that signal an eventfd.
    #[serde(serialize_with = "serialize::list")]
    pub channels: Vec<ChannelStatus>,
    /// Parts of its memory that are objects of the module.
    #[serde(serialize_with = "serialize::list")]
    pub memory: Vec<MemoryStatus>,
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
    #[serde(serialize_with = "serialize::server")]
    pub server: IoServerId,
    /// The guest's vCPUs.
    pub vcpus: u32,
    /// What came since the guest was taken.
    #[serde(serialize_with = "serialize::fields")]
    pub counters: Counters,
}

impl Owner {
    /// A process that lives; its number is 0 if it cannot be seen from here.
    pub fn new(pid: u32, name: String) -> Self {
        Self { pid, name, ended: false }
    }
}

impl Guest {
    /// Doorbells, interrupts, devices' registers and event channels together.
    pub fn registrations(&self) -> usize {
        self.doorbells.len() + self.irqs.len() + self.devices.len() + self.channels.len()
    }
}
