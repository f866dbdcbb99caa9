//! Linux's asynchronous I/O: several requests to a file at once, until all are done.

use anyhow::{Result, ensure};
use core::ffi::{c_long, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// What to do; the values are those of `linux/aio_abi.h`.
#[derive(Debug, Clone, Copy)]
#[repr(u16)]
pub(super) enum Operation {
    Read = 0,
    Write = 1,
}

/// `struct iocb` of `linux/aio_abi.h`, little endian.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: u64,
    reserved: u64,
    flags: u32,
    eventfd: u32,
}

const _: () = assert!(size_of::<ControlBlock>() == 64);

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Finished {
    data: u64,
    block: u64,
    result: i64,
    more: i64,
}

/// A context for so many requests at once; it ends with the process.
#[derive(Debug)]
pub(super) struct Context {
    id: c_ulong,
    depth: usize,
}

impl Context {
    pub(super) fn new(depth: u32) -> Result<Self> {
        let mut id: c_ulong = 0;
        // SAFETY: the kernel writes one context id through a pointer to one.
        answer(unsafe { libc::syscall(libc::SYS_io_setup, depth, &raw mut id) })?;
        Ok(Self { id, depth: depth as usize })
    }

    /// Reads or writes a buffer in as many equal parts as this context has requests, all at once, and waits for
    /// all. Returns how many bytes were.
    pub(super) fn carry_out(
        &mut self,
        file: &OwnedFd,
        operation: Operation,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let part = buffer.len() / self.depth;
        let fd = u32::try_from(file.as_raw_fd())?;
        let blocks: Vec<ControlBlock> = (offset..)
            .step_by(part)
            .zip(buffer.chunks_exact_mut(part))
            .map(|(offset, part)| ControlBlock {
                opcode: operation as u16,
                fd,
                buffer: part.as_mut_ptr() as u64,
                bytes: part.len() as u64,
                offset,
                ..ControlBlock::default()
            })
            .collect();
        let pointers: Vec<*const ControlBlock> = blocks.iter().map(core::ptr::from_ref).collect();
        let count = pointers.len();
        // SAFETY: so many pointers to control blocks, each of a part of its own of a buffer that is borrowed until
        // all are done, as below.
        let submitted = answer(unsafe {
            libc::syscall(libc::SYS_io_submit, self.id, count, pointers.as_ptr())
        })?;
        let (mut finished, mut bytes) = (vec![Finished::default(); count], 0);
        let mut left = submitted;
        while left > 0 {
            let none: *mut libc::timespec = core::ptr::null_mut();
            let into = finished.as_mut_ptr();
            // SAFETY: the kernel writes at most `left` events into a vector of at least as many.
            let done = answer(unsafe {
                libc::syscall(libc::SYS_io_getevents, self.id, left, left, into, none)
            });
            // The kernel has the buffer still, so there is no way back.
            let Ok(done) = done else { std::process::abort() };
            for one in finished.iter().take(done) {
                bytes += usize::try_from(one.result).unwrap_or(0);
            }
            left -= done;
        }
        ensure!(submitted == count, "{submitted} of {count} requests were taken");
        Ok(bytes)
    }
}

fn answer(returned: c_long) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn parts_are_written_and_read_at_their_places() {
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_fd().try_clone_to_owned().unwrap();
        let mut context = Context::new(4).unwrap();
        let mut written: Vec<u8> = (0..16).collect();
        assert_eq!(context.carry_out(&fd, Operation::Write, 8, &mut written).unwrap(), 16);
        let mut read = [0; 16];
        assert_eq!(context.carry_out(&fd, Operation::Read, 8, &mut read).unwrap(), 16);
        assert_eq!(read[..], written[..]);
        assert_eq!(file.metadata().unwrap().len(), 24);
        assert_eq!(context.carry_out(&fd, Operation::Read, 24, &mut read).unwrap(), 0);
    }
}
