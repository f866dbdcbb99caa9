//! What the kernel module shows of its guests: the library reads a text, [`folder`] finds them all.

pub mod folder;

pub use xen_eventfd::Counters;
pub use xen_eventfd::module_status::{
    ChannelStatus, DeviceStatus, DoorbellStatus, DoorbellWords, Guest, Interface, IrqStatus,
    IrqWords, KickWords, MemoryStatus, Owner, Served, Unreadable, serialize,
};
