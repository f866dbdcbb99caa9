//! A mapping of a memory object in this process.

use core::ptr::{NonNull, null_mut};
use rustix::io::Errno;
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap,
    mremap_fixed, munmap,
};
use rustix::pipe::{IoSliceRaw, SpliceFlags, vmsplice};
use std::os::fd::AsFd;

pub(crate) const PAGE: usize = 4096;
/// What the pages of one page table map.
const TABLE: usize = 512 * PAGE;

/// Bytes of a guest, which may change at any time. An access to a page that the guest does not have is SIGBUS.
#[derive(Debug)]
pub(crate) struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

impl Mapped {
    /// Maps so much of an object from this offset on, for reading and writing.
    pub(crate) fn of(file: impl AsFd, offset: usize, length: usize) -> Result<Self, Errno> {
        Self::with(file, offset, length, MapFlags::SHARED)
    }

    pub(crate) fn with(
        file: impl AsFd,
        offset: usize,
        length: usize,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing else is there.
        let start = unsafe { mmap(null_mut(), length, access, flags, file, offset as u64) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::FAULT)?, length })
    }

    /// Where the four bytes at an offset are.
    fn word(&self, at: usize) -> *mut u32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: it is within the mapping.
        unsafe { self.start.add(at) }.as_ptr().cast()
    }

    pub(crate) fn read(&self, at: usize) -> u32 {
        // SAFETY: it is mapped and aligned. What is not there is a signal.
        unsafe { self.word(at).read_volatile() }
    }

    pub(crate) fn write(&self, at: usize, value: u32) {
        // SAFETY: as above; nothing in this process refers to it.
        unsafe { self.word(at).write_volatile(value) };
    }

    /// Puts the page at an offset into a pipe, which refers to it until it is read, as I/O does.
    pub(crate) fn splice(&self, at: usize, pipe: impl AsFd) -> Result<usize, Errno> {
        let page = self.word(at).cast::<u8>();
        // SAFETY: it is mapped, and nothing reads through this slice but the kernel.
        let page = unsafe { core::slice::from_raw_parts(page, PAGE) };
        // SAFETY: that the page may change in the pipe is what is wanted.
        unsafe { vmsplice(pipe, &[IoSliceRaw::from_slice(page)], SpliceFlags::empty()) }
    }

    /// Reads so many bytes of a file into the mapping at an offset.
    pub(crate) fn read_from(
        &self,
        file: impl AsFd,
        at: usize,
        length: usize,
    ) -> Result<usize, Errno> {
        let to = self.word(at).cast::<u8>();
        assert!(length <= self.length - at);
        // SAFETY: it is mapped, any bytes are a value of it, and nothing but the kernel writes through this slice.
        rustix::io::read(file, unsafe { core::slice::from_raw_parts_mut(to, length) })
    }

    /// Makes a part readable only, or writable again.
    pub(crate) fn protect(&self, at: usize, length: usize, writable: bool) -> Result<(), Errno> {
        let access =
            if writable { MprotectFlags::READ | MprotectFlags::WRITE } else { MprotectFlags::READ };
        // SAFETY: it is this mapping's, and nothing refers to it.
        unsafe { mprotect(self.word(at).cast(), length, access) }
    }

    /// Moves it to another address, and each page to another place in a page table: Linux moves a table with all of its
    /// pages where it can.
    pub(crate) fn move_away(&mut self) -> Result<(), Errno> {
        let (length, room) = (self.length, self.length + TABLE);
        // SAFETY: the kernel chooses the address.
        let place =
            unsafe { mmap_anonymous(null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let shift = self.start.addr().get().wrapping_add(PAGE).wrapping_sub(place.addr()) % TABLE;
        // SAFETY: it is within the room.
        let place = unsafe { place.add(shift) };
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: the mapping is this one, and what is at its new place belongs to it alone.
        let moved =
            unsafe { mremap_fixed(self.start.as_ptr().cast(), length, length, flags, place) }?;
        self.start = NonNull::new(moved.cast()).ok_or(Errno::FAULT)?;
        Ok(())
    }

    /// Makes it longer, if it can be.
    pub(crate) fn grow(&mut self, length: usize) -> Result<(), Errno> {
        let (flags, start) = (MremapFlags::MAYMOVE, self.start.as_ptr().cast());
        // SAFETY: the mapping is this one, and nothing refers to it.
        let moved = unsafe { mremap(start, self.length, length, flags) }?;
        (self.start, self.length) = (NonNull::new(moved.cast()).ok_or(Errno::FAULT)?, length);
        Ok(())
    }

    /// Unmaps all behind an offset.
    pub(crate) fn cut(&mut self, at: usize) -> Result<(), Errno> {
        // SAFETY: it is the end of this mapping, and nothing refers to it.
        unsafe { munmap(self.word(at).cast(), self.length - at) }?;
        self.length = at;
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it is this mapping, and nothing refers to it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
