//! Memory that ends at a given address.

use core::ptr::{NonNull, null_mut};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

const PAGE: usize = 4096;

/// A page with nothing mapped behind it.
#[derive(Debug)]
pub(crate) struct Edge(NonNull<u8>);

impl Edge {
    pub(crate) fn new() -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing else is there.
        let pages = unsafe { mmap_anonymous(null_mut(), 2 * PAGE, access, MapFlags::PRIVATE) }?;
        let pages = NonNull::new(pages.cast::<u8>()).ok_or(Errno::FAULT)?;
        // SAFETY: it is the second of the two pages, which this value owns.
        let second = unsafe { pages.add(PAGE) };
        // SAFETY: as above, and nothing refers to it.
        unsafe { munmap(second.as_ptr().cast(), PAGE) }?;
        Ok(Self(pages))
    }

    /// Puts bytes at the end of the page. Returns their address.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        // SAFETY: the page is mapped, owned, and borrowed for this copy only.
        let page = unsafe { core::slice::from_raw_parts_mut(self.0.as_ptr(), PAGE) };
        let begin = PAGE - bytes.len();
        page[begin..].copy_from_slice(bytes);
        page[begin..].as_ptr().expose_provenance()
    }

    /// The same, and then makes the page read-only.
    pub(crate) fn put_read_only(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let address = self.put(bytes);
        // SAFETY: the page is owned, and nothing refers to it.
        unsafe { mprotect(self.0.as_ptr().cast(), PAGE, MprotectFlags::READ) }?;
        Ok(address)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SAFETY: the page is owned, and nothing refers to it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
    }
}
