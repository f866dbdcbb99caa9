//! A virtio-pci function and the PCI bus that it is on, as state machines without I/O.
//!
//! An access of the guest goes in; an answer and a list of [`Effect`]s come out. The caller carries the
//! effects out, in their order, before it answers the guest: it starts a queue, moves a doorbell, reroutes
//! an interrupt. Nothing that a guest does makes the caller fail.
//!
//! The device is modern (virtio 1.3, section 4.1): its registers are in a memory BAR, its doorbell is one
//! port in an I/O BAR, for all queues, with the queue's index as the value. What a device must keep is a
//! test in `tests/transport`, named after the statement.
//!
//! ```text
//! access  ->  bus  ->  function  ->  config_space | common | msix | device configuration
//!                          \-> effects
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bus;
mod capabilities;
mod common;
mod config_space;
mod description;
mod effect;
mod function;
mod host_bridge;
mod layout;
mod msix;
mod state;
mod value;

pub use bus::{ADDRESS_PORTS, Answer, Bus, Target};
pub use description::{Description, DescriptionError, MAX_CONFIG, MAX_QUEUES};
pub use effect::{Bar, Effect, Message, QueueSetup, Route};
pub use function::Function;
pub use layout::REGISTERS_SIZE;
pub use state::{BusState, CommonState, EntryState, FunctionState, QueueState, StateError};
