//! What a device requests of its backend.

use crate::{Error, Result};
use core::fmt;
use core::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use xen_eventfd_core::DomId;

/// A backend, as its device sees it.
///
/// # Contract
/// * A call ends by the backend's time limit.
/// * After an error that is not [`crate::Error::is_callers`] the backend is of no more use: drop it, and make a
///   new one.
pub trait Backend: Send + fmt::Debug {
    /// The virtio features (bit 0 is the lowest) that the device may offer its driver.
    fn features(&self) -> u64;

    /// As many queues as the backend serves: their indices are below this.
    fn queues(&self) -> u16;

    /// Whether the backend maps a guest's memory by itself: [`Memory::Foreign`] works.
    fn maps_guests(&self) -> bool;

    /// Sets the features that the driver has accepted, before any queue starts.
    ///
    /// # Errors
    /// [`crate::Error::NotOffered`] for a bit that [`Backend::features`] has not.
    fn accept(&mut self, features: u64) -> Result<()>;

    /// Reads the device's configuration from `offset` on, in bytes.
    ///
    /// # Errors
    /// [`crate::Error::NoConfiguration`] if the backend has none.
    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<()>;

    /// Writes to the device's configuration.
    ///
    /// # Errors
    /// As [`Backend::read_config`].
    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()>;

    /// Sets the guest's memory, all of it: what was set before is forgotten. No queue may be running.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] if the backend cannot have this memory.
    fn set_memory(&mut self, regions: &[Region<'_>]) -> Result<()>;

    /// Starts a queue. When this returns, the backend looks at the queue whenever `kick` is signalled, and looks
    /// once by itself, for what the driver put there before.
    ///
    /// # Errors
    /// [`crate::Error::NoQueue`] if there is none of this index. A queue that is not in the memory that was set is
    /// refused ([`crate::Error::Ring`]) before a backend that may end of it gets to know of it.
    fn start_queue(
        &mut self,
        index: u16,
        queue: &Queue,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<()>;

    /// Whether the backend notes which requests it has begun, or a card how many pairs of queues its driver has selected,
    /// in memory that outlives it: [`Backend::new_inflight`] and [`Backend::set_inflight`] work.
    fn notes_requests(&self) -> bool {
        false
    }

    /// Memory for that, of which nothing is noted, for as many queues with as many descriptors each.
    ///
    /// # Errors
    /// [`crate::Error::NoInflight`] if it notes none.
    fn new_inflight(&mut self, queues: u16, queue_size: u16) -> Result<Inflight> {
        let _ = (queues, queue_size);
        Err(Error::NoInflight)
    }

    /// Gives the backend the memory, before any queue starts. It makes those requests again that are noted there, and has
    /// the pairs selected.
    ///
    /// # Errors
    /// As [`Backend::new_inflight`].
    fn set_inflight(&mut self, inflight: &Inflight) -> Result<()> {
        let _ = inflight;
        Err(Error::NoInflight)
    }

    /// Where a queue was, in its available ring, when this process went on with the connection of another one, whose
    /// session the backend still has. `None` on a connection of this process's own.
    ///
    /// # Errors
    /// As of any call.
    fn left_at(&mut self, index: u16) -> Result<Option<u16>> {
        let _ = index;
        Ok(None)
    }

    /// Gives a running queue another eventfd to be kicked by, and kicks it once.
    ///
    /// # Errors
    /// As [`Backend::start_queue`].
    fn set_kick(&mut self, index: u16, kick: BorrowedFd<'_>) -> Result<()>;

    /// Gives a queue another eventfd to signal when it has used buffers.
    ///
    /// # Errors
    /// As [`Backend::start_queue`].
    fn set_call(&mut self, index: u16, call: BorrowedFd<'_>) -> Result<()>;

    /// Stops a queue and returns where it is in the available ring ([`Queue::base`]). When this returns, the
    /// backend neither reads nor writes the queue.
    ///
    /// # Errors
    /// As [`Backend::start_queue`].
    fn stop_queue(&mut self, index: u16) -> Result<u16>;

    /// Stops all queues and forgets the features that were accepted, as at the start. The memory is kept.
    ///
    /// # Errors
    /// As of any call.
    fn reset(&mut self) -> Result<()>;

    /// Becomes readable when the backend has ended or failed ([`Backend::check`] returns which); `None` if it
    /// cannot end before its owner.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether the backend is still there, without waiting.
    ///
    /// # Errors
    /// Why it is not.
    fn check(&self) -> Result<()>;

    /// An eventfd that the backend signals when it finds a queue broken.
    fn errors(&self) -> BorrowedFd<'_>;

    /// Becomes readable when the backend requests something by itself ([`Backend::take_requests`]); `None` if it does
    /// not, or no more.
    fn requests(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes what the backend has requested, without waiting. Returns whether the device's configuration has changed.
    ///
    /// # Errors
    /// [`crate::Error::Request`], [`crate::Error::Flood`].
    fn take_requests(&mut self) -> Result<bool> {
        Ok(false)
    }
}

/// A split queue as its driver has set it up. Addresses are the guest's physical ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Descriptors in it: a power of two, at most 32768.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring (virtio's driver area).
    pub available: u64,
    /// The used ring (virtio's device area).
    pub used: u64,
    /// The index in the available ring where the backend goes on; 0 in a new queue.
    pub base: u16,
}

impl Queue {
    /// Whether all of it is in memory, and aligned (virtio 1.3, section 2.7).
    ///
    /// # Errors
    /// [`crate::Error::Ring`]
    pub(crate) fn check(&self, memory: &[Range<u64>]) -> Result<()> {
        let size = u64::from(self.size);
        for (part, at, length, alignment) in [
            ("descriptor table", self.descriptors, 16 * size, 16),
            ("available ring", self.available, 6 + 2 * size, 2),
            ("used ring", self.used, 6 + 8 * size, 4),
        ] {
            let holds = |range: &Range<u64>| {
                range.contains(&at) && at.checked_add(length).is_some_and(|end| end <= range.end)
            };
            if !at.is_multiple_of(alignment) || !memory.iter().any(holds) {
                return Err(Error::Ring { part, at });
            }
        }
        Ok(())
    }
}

/// Memory in which a backend notes what the next one needs to go on.
#[derive(Debug)]
pub struct Inflight {
    /// The file that it is in.
    pub file: OwnedFd,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Queues of which it notes requests.
    pub queues: u16,
    /// Descriptors of each.
    pub queue_size: u16,
}

/// A contiguous piece of a guest's memory.
#[derive(Debug, Clone, Copy)]
pub struct Region<'a> {
    /// Where it begins in the guest, in bytes.
    pub guest_address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What a backend maps to have it.
    pub memory: Memory<'a>,
}

impl Region<'_> {
    /// Where it is in the guest.
    pub(crate) fn addresses(&self) -> Range<u64> {
        self.guest_address..self.guest_address.saturating_add(self.size)
    }
}

/// What a backend maps to have a region.
#[derive(Debug, Clone, Copy)]
pub enum Memory<'a> {
    /// A file whose `mmap` is the guest's memory.
    File {
        /// The file.
        file: BorrowedFd<'a>,
        /// Where the region begins in it, in bytes.
        offset: u64,
    },
    /// The memory of a domain, by foreign mappings ([`Backend::maps_guests`]).
    Foreign {
        /// An open `/dev/xen/privcmd`.
        privcmd: BorrowedFd<'a>,
        /// The guest.
        domain: DomId,
    },
}

/// What a device must have of its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// As many queues.
    pub queues: u16,
    /// Whether their number is the device type's own. A backend that does not report how many queues it has is
    /// taken to have those, and is refused where the number is chosen.
    pub fixed: bool,
}
