//! A guest's memory, for a process that serves devices. It stands beside [`Host`](crate::Host), which an
//! engine of doorbells needs alone.

use crate::Result;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use xen_eventfd_core::DomId;

/// The size of a frame in bytes, on every architecture.
pub const FRAME: usize = 4096;

/// Maps memory of guests.
pub trait ForeignMemory: Send + Sync + fmt::Debug {
    /// Maps frames of a guest, readable and writable, in this order at adjacent addresses.
    ///
    /// Fails with [`Call::MapMemory`](crate::Call::MapMemory), which names the first frame that cannot be
    /// mapped: the guest has none there, or the guest is gone. Nothing is mapped then.
    fn map(&self, dom: DomId, frames: &[u64]) -> Result<Box<dyn GuestMemory>>;
}

/// Frames of a guest that are mapped. They stay so until this is dropped, also when the guest ends first:
/// Xen keeps them until then, and the guest a zombie.
pub trait GuestMemory: Send + Sync + fmt::Debug {
    /// The bytes. The guest reads and writes them at any time.
    fn bytes(&self) -> &[AtomicU8];

    /// Copies bytes out of the memory.
    ///
    /// # Panics
    /// If they are not all mapped.
    fn read(&self, offset: usize, into: &mut [u8]) {
        let from = &self.bytes()[offset..][..into.len()];
        into.iter_mut().zip(from).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
    }

    /// Copies bytes into the memory.
    ///
    /// # Panics
    /// As [`GuestMemory::read`].
    fn write(&self, offset: usize, bytes: &[u8]) {
        let to = &self.bytes()[offset..][..bytes.len()];
        to.iter().zip(bytes).for_each(|(to, byte)| to.store(*byte, Ordering::Relaxed));
    }
}
