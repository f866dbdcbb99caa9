//! The whole state of a device on each transport and of a bus, as plain values: to be kept outside of the process, so that
//! another one goes on from there.
//!
//! What a driver cannot change is not in them, or is made anew from the [`Description`]. A state that no device
//! can have is refused.

use crate::description::{Description, DescriptionError, FunctionDescription};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A function, as it stands between two accesses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionState {
    /// What it is made of. The device configuration is the one of now.
    pub description: FunctionDescription,
    /// The bits of the configuration space that a guest may change; others are not looked at.
    pub space: Vec<u8>,
    /// The common configuration.
    pub common: CommonState,
    /// MSI-X's table.
    pub entries: Vec<EntryState>,
    /// The vectors that are pending, 8 in each.
    pub pending: [u8; 16],
    /// The ISR status.
    pub isr: u8,
}

/// A device on virtio-mmio, as it stands between two accesses. Its InterruptStatus is the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioState {
    /// What it is made of. The device configuration is the one of now.
    pub description: Description,
    /// Its registers. There are no vectors.
    pub common: CommonState,
}

/// What a device has on each transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "registers, by their names")]
pub struct CommonState {
    pub feature_select: u32,
    pub driver_select: u32,
    pub driver_features: u64,
    pub status: u8,
    pub config_vector: u16,
    pub generation: u8,
    /// The device configuration has changed since the driver last read of it.
    pub config_changed: bool,
    pub queue_select: u16,
    pub queues: Vec<QueueState>,
}

/// The registers of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "registers, by their names")]
pub struct QueueState {
    pub size: u16,
    pub vector: u16,
    pub is_enabled: bool,
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
}

/// An entry of MSI-X's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "registers, by their names")]
pub struct EntryState {
    pub addr: u64,
    pub data: u32,
    pub is_masked: bool,
}

/// A bus without its functions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BusState {
    /// What the guest last wrote to port 0xCF8.
    pub config_address: u32,
    /// The configuration space of the host bridge, if there is one, as [`FunctionState::space`] has it.
    pub bridge: Option<Vec<u8>>,
}

/// Why no device can be in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// It is the state of no device.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// It has more or fewer queues, vectors or bytes than its device.
    #[error("the state has another size than its device")]
    Size,
    /// A register has a value that no driver can give it.
    #[error("the state has a value that no driver can set")]
    Value,
}
