//! What a device, and its function on PCI, is made of.

use crate::config_space::Identity;
use crate::layout::{DEVICE, DOORBELL_SIZE, MAX_VECTORS, REGISTERS_SIZE};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use virtio_spec::{F, Id};

/// Queues of one device. A function has as many vectors, of which one is for configuration changes.
pub const MAX_QUEUES: usize = MAX_VECTORS - 1;
/// Bytes of one function's device configuration.
pub const MAX_CONFIG: usize = (DEVICE.end - DEVICE.start) as usize;
/// The largest queue (virtio 1.3, section 2.7).
const MAX_QUEUE_SIZE: u16 = 0x8000;
/// Device types that have a PCI device ID.
const MAX_TYPE: u16 = 0x3F;

/// A device, on whichever transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The virtio device ID: 1 network, 2 block, …
    pub device_type: u16,
    /// The features that it offers. VIRTIO_F_VERSION_1 is required; VIRTIO_F_RING_RESET needs nothing of a
    /// backend but that a queue can be stopped.
    pub features: u64,
    /// The largest size of each queue, a power of 2.
    pub queue_sizes: Vec<u16>,
    /// The device configuration.
    pub config: Vec<u8>,
}

/// A device, as its function presents it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionDescription {
    /// The device.
    pub device: Description,
    /// Whether the guest has a line for INTA. Without, the function has MSI-X only.
    pub has_line: bool,
    /// Where the memory BAR is before the guest moves it, or 0.
    pub registers: u32,
    /// Where the I/O BAR is before the guest moves it, or 0.
    pub doorbell: u16,
}

/// Why a device cannot be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The type has no PCI device ID.
    #[error("no PCI device ID is known for virtio device type {0} (1 to 63 have one)")]
    Type(u16),
    /// It is a legacy device.
    #[error("the device does not offer VIRTIO_F_VERSION_1")]
    Legacy,
    /// Features that change the transport and that this one has not.
    #[error("the device offers features {0:#x}, which this transport does not have")]
    Features(u64),
    /// Too many queues, or none.
    #[error("{0} queues; a device has 1 to {MAX_QUEUES}")]
    Queues(usize),
    /// A size that no queue has.
    #[error("a queue of {0} entries; a power of 2 up to {MAX_QUEUE_SIZE} is needed")]
    QueueSize(u16),
    /// The configuration is too long.
    #[error("{size} bytes of device configuration; this transport has at most {most}")]
    Config {
        /// How many.
        size: usize,
        /// How many the transport has a place for.
        most: usize,
    },
    /// A BAR is not aligned to its size.
    #[error("a BAR of {size:#x} bytes at {at:#x}")]
    Bar {
        /// The address.
        at: u32,
        /// The size in bytes.
        size: u32,
    },
}

/// The vendor of all virtio functions, and what is added to a device type for its device ID.
const VENDOR: u16 = 0x1AF4;
const DEVICE_BASE: u16 = 0x1040;

/// What would change the notifications or add registers (virtio 1.3, section 6).
fn unsupported() -> u64 {
    bits(F::NOTIFICATION_DATA | F::NOTIF_CONFIG_DATA | F::SR_IOV | F::ADMIN_VQ)
}

/// The first 64 feature bits, which are all that PCI has registers for today.
pub(crate) fn bits(features: F) -> u64 {
    let bits = features.bits().to_ne() & u128::from(u64::MAX);
    u64::try_from(bits).unwrap_or_default()
}

impl Description {
    /// Whether a transport with a place for `most` bytes of configuration can present it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, most: usize) -> Result<(), DescriptionError> {
        if !(1..=MAX_TYPE).contains(&self.device_type) {
            return Err(DescriptionError::Type(self.device_type));
        }
        if self.features & bits(F::VERSION_1) == 0 {
            return Err(DescriptionError::Legacy);
        }
        let foreign = self.features & unsupported();
        if foreign != 0 {
            return Err(DescriptionError::Features(foreign));
        }
        if !(1..=MAX_QUEUES).contains(&self.queue_sizes.len()) {
            return Err(DescriptionError::Queues(self.queue_sizes.len()));
        }
        let fits = |size: &u16| size.is_power_of_two() && *size <= MAX_QUEUE_SIZE;
        if let Some(size) = self.queue_sizes.iter().find(|size| !fits(size)) {
            return Err(DescriptionError::QueueSize(*size));
        }
        match self.config.len() {
            size if size > most => Err(DescriptionError::Config { size, most }),
            _ => Ok(()),
        }
    }
}

impl FunctionDescription {
    /// Whether a function can present it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), DescriptionError> {
        self.device.check(MAX_CONFIG)?;
        let bars = [(self.registers, REGISTERS_SIZE), (self.doorbell.into(), DOORBELL_SIZE)];
        match bars.into_iter().find(|(at, size)| at % size != 0) {
            Some((at, size)) => Err(DescriptionError::Bar { at, size }),
            None => Ok(()),
        }
    }

    /// The function's identity. Revision 1 means that it is no legacy device.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            vendor: VENDOR,
            device: DEVICE_BASE + self.device.device_type,
            revision: 1,
            class: class(self.device.device_type),
            has_line: self.has_line,
        }
    }
}

/// Base class and subclass of a device type: what an administrator reads in `lspci`. Drivers do not use it.
fn class(device_type: u16) -> [u8; 2] {
    let id = u8::try_from(device_type).map_or(Id::Reserved, Id::from);
    match id {
        Id::Net => [0x02, 0x00],
        Id::Block | Id::Fs => [0x01, 0x80],
        Id::Scsi => [0x01, 0x00],
        Id::Console => [0x07, 0x80],
        Id::Gpu => [0x03, 0x80],
        Id::Input => [0x09, 0x80],
        _ => [0xFF, 0x00],
    }
}
