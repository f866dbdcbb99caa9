//! Virtio devices on PCI and on virtio-mmio, and the PCI bus, as state machines without I/O.
//!
//! An access of the guest goes in; an answer and a list of [`Effect`]s come out. The caller carries the
//! effects out, in their order, before it answers the guest: it starts a queue, moves a doorbell, reroutes
//! an interrupt. Nothing that a guest does makes the caller fail.
//!
//! On PCI (virtio 1.3, section 4.1) the registers are in a memory BAR, and the doorbell is one port in an I/O BAR,
//! for all queues, with the queue's index as the value. On virtio-mmio (section 4.2) all are at one address. Neither
//! has the legacy interface. What a device must keep is a test in `tests/transport` or `tests/mmio`, named after the
//! statement.
//!
//! ```text
//! access  ->  bus  ->  function  ->  config_space | common_structure | msix
//!                          \                             |
//! access  ->  mmio  --------+---------------------------> common: the device
//!                           \-> effects
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bus;
mod capabilities;
mod common;
mod common_structure;
mod config_space;
mod description;
mod effect;
mod function;
mod host_bridge;
mod layout;
mod mmio;
mod msix;
mod state;
mod transport;
mod value;

pub use bus::{ADDRESS_PORTS, Answer, Bus, Target};
pub use description::{Description, DescriptionError, FunctionDescription, MAX_CONFIG, MAX_QUEUES};
pub use effect::{Bar, Effect, Message, QueueSetup, Route};
pub use function::Function;
pub use layout::REGISTERS_SIZE;
pub use mmio::{INTERRUPT_STATUS, MMIO_SIZE, Mmio, QUEUE_NOTIFY};
pub use state::{
    BusState, CommonState, EntryState, FunctionState, MmioState, QueueState, StateError,
};
pub use transport::Transport;
