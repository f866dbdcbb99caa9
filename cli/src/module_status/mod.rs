//! What the kernel module shows of its guests: the library reads a text, [`folder`] finds them all.

pub mod folder;

pub use xen_eventfd::module_status::{
    Channel, Counters, Doorbell, Guest, Interface, Interrupt, Irq, Owner, Place, Served, Takes,
    Trigger, Unreadable, Waiting,
};
