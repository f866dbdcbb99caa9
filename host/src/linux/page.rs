//! Shared pages: with Xen for the slots of an ioreq server, with a hypercall, or with a guest.

use crate::IoreqPage;
use crate::process::ProcessTag;
use core::ptr::NonNull;
use core::slice;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MlockFlags, ProtFlags, mlock_with, mmap, mmap_anonymous, munmap};
use std::os::fd::BorrowedFd;
use xen_eventfd_core::ioreq::SLOTS;
use xen_eventfd_core::slot::Slot;

/// The size of Xen's page in bytes, on every architecture.
pub(super) const SIZE: usize = 4096;

/// A mapping, readable and writable, unmapped on drop.
///
/// # Invariants
/// `start` is what `mmap` returned for `length` bytes, and nothing else unmaps it.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
    process: ProcessTag,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference gives out nothing but the address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the beginning of a device.
    pub(super) fn of(device: BorrowedFd<'_>, length: usize) -> Result<Self, Errno> {
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap(core::ptr::null_mut(), length, rights, flags, device, 0) }?;
        Self::own(start.cast(), length)
    }

    /// Maps a page of private memory that stays resident.
    pub(super) fn locked() -> Result<Self, Errno> {
        let (rights, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap_anonymous(core::ptr::null_mut(), SIZE, rights, flags) }?;
        let mapping = Self::own(start.cast(), SIZE)?;
        // SAFETY: the range is the whole mapping.
        unsafe { mlock_with(start, SIZE, MlockFlags::empty()) }?;
        Ok(mapping)
    }

    fn own(start: *mut u8, length: usize) -> Result<Self, Errno> {
        let start = NonNull::new(start).ok_or(Errno::FAULT)?;
        Ok(Self { start, length, process: ProcessTag::current() })
    }

    /// Its address. Valid for [`Self::length`] bytes as long as `self` lives.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A forked child has no mapping of a device, and by now perhaps another mapping at that address.
        if !self.process.is_current() {
            return;
        }
        // SAFETY: the whole mapping, which is owned here and no longer borrowed.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// The ioreq page of a server.
///
/// # Invariants
/// The mapping is backed by a frame for as long as it lives: Xen keeps the frame of a dead guest
/// while it is mapped.
#[derive(Debug)]
pub(super) struct Page(Mapping);

// Under loom, whose atomics are larger, no page is mapped.
const _: () = assert!(cfg!(loom) || SLOTS * size_of::<Slot>() == SIZE);

impl Page {
    /// # Safety
    /// The mapping is one page, which has been filled with a server's ioreq page or is ordinary memory.
    pub(super) unsafe fn new(filled: Mapping) -> Self {
        Self(filled)
    }
}

impl IoreqPage for Page {
    fn slots(&self) -> &[Slot] {
        let first = self.0.start().cast::<Slot>();
        // SAFETY: a page is aligned for a slot, holds SLOTS of them (asserted above), and is mapped
        // and backed while `self` is borrowed. A slot is made of atomics, for which any bytes are
        // a value, so Xen may write at any time.
        unsafe { slice::from_raw_parts(first.as_ptr(), SLOTS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use xen_eventfd_core::ioreq::Ioreq;

    #[test]
    fn the_slots_cover_the_page() {
        let file = tempfile().unwrap();
        // SAFETY: a file of one page backs the mapping.
        let page = unsafe { Page::new(Mapping::of(file.as_fd(), SIZE).unwrap()) };
        page.slots()[127].publish(&Ioreq { addr: 0x1234, ..Ioreq::default() });
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 127 * 32).unwrap();
        assert_eq!((page.slots().len(), u64::from_ne_bytes(bytes)), (128, 0x1234));
    }

    #[test]
    fn locked_memory_is_zero_and_on_a_page_of_its_own() {
        let page = Mapping::locked().unwrap();
        assert_eq!(page.start().as_ptr().addr() % SIZE, 0);
    }

    fn tempfile() -> Result<std::fs::File, Errno> {
        let file = rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, SIZE as u64)?;
        Ok(file.into())
    }
}
