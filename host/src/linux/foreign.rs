//! Frames of a guest in this process.

use super::door::ioctl;
use super::page::{Mapping, SIZE};
use super::sys::privcmd::{MMAPBATCH_V2, MmapBatch};
use crate::memory::GuestMemory;
use crate::{Call, HostError, Result};
use core::slice;
use core::sync::atomic::AtomicU8;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use xen_eventfd_core::DomId;

/// Mapped frames.
///
/// # Invariants
/// Each page of the mapping is backed by a frame for as long as it lives: Xen keeps a dead guest's frames
/// while they are mapped.
#[derive(Debug)]
pub(super) struct ForeignPages(Mapping);

impl ForeignPages {
    /// Maps frames of a guest through `/dev/xen/privcmd`.
    pub(super) fn map(device: BorrowedFd<'_>, dom: DomId, frames: &[u64]) -> Result<Self> {
        let first = frames.first().copied().unwrap_or_default();
        let failed = |frame, errno| HostError::new(Call::MapMemory(dom, frame), errno);
        let number = u32::try_from(frames.len()).map_err(|_| failed(first, Errno::INVAL))?;
        let mapping = Mapping::of(device, frames.len() * SIZE).map_err(|e| failed(first, e))?;
        let mut errors = vec![0_i32; frames.len()];
        let mut argument = MmapBatch {
            number,
            dom: dom.0,
            addr: mapping.start().as_ptr().expose_provenance() as u64,
            frames: frames.as_ptr(),
            errors: errors.as_mut_ptr(),
        };
        // SAFETY: the driver reads so many frames and writes as many errors, and the address is that of as
        // many pages of this device, to which nothing refers yet.
        let mapped = unsafe { ioctl(device, MMAPBATCH_V2, &mut argument) };
        match (refused(frames, &errors), mapped) {
            (Some((frame, errno)), _) => Err(failed(frame, errno)),
            (None, Err(errno)) => Err(failed(first, errno)),
            (None, Ok(_)) => Ok(Self(mapping)),
        }
    }
}

/// The first frame that was not mapped, and why.
fn refused(frames: &[u64], errors: &[i32]) -> Option<(u64, Errno)> {
    let (frame, error) = frames.iter().zip(errors).find(|(_, error)| **error != 0)?;
    Some((*frame, Errno::from_raw_os_error(error.saturating_neg())))
}

impl GuestMemory for ForeignPages {
    fn bytes(&self) -> &[AtomicU8] {
        let first = self.0.start().cast::<AtomicU8>();
        // SAFETY: so many bytes are mapped and backed while `self` is borrowed. They are atomics, for which any
        // bytes are a value, so a guest may write at any time.
        unsafe { slice::from_raw_parts(first.as_ptr(), self.0.length()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_first_frame_that_is_refused_is_named() {
        assert_eq!(refused(&[4, 5, 6], &[0, 0, 0]), None);
        assert_eq!(refused(&[4, 5, 6], &[0, -22, -3]), Some((5, Errno::INVAL)));
    }

    #[test]
    fn bytes_are_copied_where_they_belong() {
        let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 2 * SIZE as u64).unwrap();
        let pages = ForeignPages(Mapping::of(file.as_fd(), 2 * SIZE).unwrap());
        pages.write(SIZE - 2, &[1, 2, 3, 4]);
        let mut read = [0; 3];
        pages.read(SIZE - 1, &mut read);
        assert_eq!((read, pages.bytes().len()), ([2, 3, 4], 2 * SIZE));
    }

    #[test]
    fn a_device_that_maps_no_guest_is_an_error_that_names_the_frame() {
        let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let refused = ForeignPages::map(file.as_fd(), DomId(3), &[0xC0]).unwrap_err();
        assert_eq!(refused, HostError::new(Call::MapMemory(DomId(3), 0xC0), Errno::NOTTY));
        assert!(refused.to_string().contains("frame 0xc0 of domain 3"), "{refused}");
    }
}
