//! Signals an eventfd without waiting for the backend.
//!
//! A `write()` to an eventfd sleeps while its counter is full, unless O_NONBLOCK is set; and that
//! flag belongs to the open file, which the backend shares and may clear. The kernel's own
//! `eventfd_signal()` saturates instead. Userspace reaches it through asynchronous I/O: every
//! completed operation signals the eventfd named in its control block. The operation is a read of
//! 0 bytes, which completes inside the call.

use crate::{Call, Errno, HostError, Result, Signaller};
use core::ffi::{c_long, c_ulong};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The number of completed operations that may wait for collection.
const DEPTH: usize = 64;

/// `struct iocb` of `linux/aio_abi.h`, little endian.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

const _: () = assert!(size_of::<ControlBlock>() == 64);

const OPCODE_READ: u16 = 0;
const FLAG_EVENTFD: u32 = 1;

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Finished([u64; 4]);

/// An asynchronous I/O context.
#[derive(Debug)]
pub struct Context {
    id: c_ulong,
    /// The file to read: always readable.
    null: OwnedFd,
    uncollected: usize,
}

impl Context {
    /// Sets a context up.
    ///
    /// # Errors
    /// [`Errno::NOSYS`] on a kernel without `CONFIG_AIO`, [`Errno::AGAIN`] beyond
    /// `/proc/sys/fs/aio-max-nr`.
    pub fn new() -> Result<Self> {
        let error = |errno| HostError::new(Call::Open("an asynchronous I/O context"), errno);
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| HostError::new(Call::Open("/dev/null"), errno))?;
        Ok(Self { id: sys::setup(DEPTH).map_err(error)?, null, uncollected: 0 })
    }

    /// Collects completed operations. It may collect only some; the next signal collects the rest.
    fn collect(&mut self) {
        let collected = sys::collect(self.id, &mut [Finished::default(); DEPTH]);
        self.uncollected = self.uncollected.saturating_sub(collected);
    }

    fn submit(&self, eventfd: BorrowedFd<'_>) -> core::result::Result<(), Errno> {
        let raw = |fd: i32| u32::try_from(fd).map_err(|_| Errno::BADF);
        let block = ControlBlock {
            opcode: OPCODE_READ,
            fd: raw(self.null.as_raw_fd())?,
            flags: FLAG_EVENTFD,
            eventfd: raw(eventfd.as_raw_fd())?,
            ..ControlBlock::default()
        };
        sys::submit(self.id, &block)
    }
}

impl Signaller for Context {
    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> Result<()> {
        if self.uncollected >= DEPTH {
            self.collect();
        }
        let submitted = match self.submit(eventfd) {
            // The ring of completed operations is full.
            Err(Errno::AGAIN) => {
                self.collect();
                self.submit(eventfd)
            }
            other => other,
        };
        submitted.map_err(|errno| HostError::new(Call::EventFd, errno))?;
        self.uncollected += 1;
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        sys::destroy(self.id);
    }
}

/// The system calls, which neither std nor rustix provides.
mod sys {
    use super::{ControlBlock, Errno, Finished, c_long, c_ulong};

    fn answer(returned: c_long) -> Result<usize, Errno> {
        usize::try_from(returned).map_err(|_| {
            let errno = std::io::Error::last_os_error().raw_os_error();
            Errno::from_raw_os_error(errno.unwrap_or(libc::EIO))
        })
    }

    pub(super) fn setup(depth: usize) -> Result<c_ulong, Errno> {
        let mut id: c_ulong = 0;
        // SAFETY: the kernel writes one context id through a pointer to one.
        let returned = unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut id) };
        answer(returned).map(|_| id)
    }

    pub(super) fn submit(id: c_ulong, block: &ControlBlock) -> Result<(), Errno> {
        let blocks = [core::ptr::from_ref(block)];
        // SAFETY: one pointer to one control block, which the kernel copies before it returns; the
        // operation reads 0 bytes, so it touches no memory of this process afterwards.
        let returned = unsafe { libc::syscall(libc::SYS_io_submit, id, 1_usize, blocks.as_ptr()) };
        answer(returned).map(|_| ())
    }

    /// Collects completed operations; returns how many.
    pub(super) fn collect(id: c_ulong, into: &mut [Finished]) -> usize {
        let none: *mut libc::timespec = core::ptr::null_mut();
        let (least, most) = (0_usize, into.len());
        // SAFETY: the kernel writes at most `most` events into a slice of that many; with a least
        // of 0 it does not wait.
        let returned = unsafe {
            libc::syscall(libc::SYS_io_getevents, id, least, most, into.as_mut_ptr(), none)
        };
        answer(returned).unwrap_or(0)
    }

    pub(super) fn destroy(id: c_ulong) {
        // SAFETY: the context is owned and is not used again; nothing is in flight that could write.
        unsafe { libc::syscall(libc::SYS_io_destroy, id) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::AsFd;

    fn read(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn signals_add_up_far_beyond_the_depth_of_the_context() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        let mut context = Context::new().unwrap();
        (0..1000).for_each(|_| context.signal(fd.as_fd()).unwrap());
        assert_eq!(read(&fd), 1000);
    }

    #[test]
    fn after_a_short_collection_the_next_signals_collect_the_rest() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        let mut context = Context::new().unwrap();
        (0..DEPTH).for_each(|_| context.signal(fd.as_fd()).unwrap());
        // As after an interrupted collection: it collected nothing, and one more was signalled.
        context.uncollected = DEPTH + 1;
        (0..20_000).for_each(|_| context.signal(fd.as_fd()).unwrap());
        assert_eq!(read(&fd), 20_000 + DEPTH as u64);
        assert!(context.uncollected <= DEPTH + 1, "{}", context.uncollected);
    }

    #[test]
    fn a_full_and_blocking_eventfd_does_not_block_a_signal() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        Context::new().unwrap().signal(fd.as_fd()).unwrap();
        assert!(read(&fd) >= u64::MAX - 1);
    }

    #[test]
    fn a_file_that_is_not_an_eventfd_is_an_error() {
        let file = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        let refused = Context::new().unwrap().signal(file.as_fd()).unwrap_err();
        assert_eq!(refused.errno, Errno::INVAL);
    }
}
