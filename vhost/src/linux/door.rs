//! What needs unsafe code: the requests of a tap device, descriptors that are known by their number, and eventfds as
//! rust-vmm has them.
#![expect(unsafe_code, reason = "listed in docs/unsafe.md")]

use rustix::io::Errno;
use rustix::ioctl::{Getter, IntegerSetter, Ioctl, Opcode, Setter, Updater, ioctl, opcode};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use vmm_sys_util::eventfd::EventFd;

/// `struct ifreq`, as the requests of a tap device use it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Interface {
    /// The name, ended by a zero.
    pub(super) name: [u8; 16],
    /// `IFF_*`.
    pub(super) flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Interface>() == size_of::<libc::ifreq>());

impl Interface {
    pub(super) fn new(name: [u8; 16], flags: u16) -> Self {
        Self { name, flags, rest: [0; 22] }
    }
}

/// `TUNSETIFF` and its like of `linux/if_tun.h`. Their numbers encode `int` also where the argument is another.
const SET_INTERFACE: Opcode = opcode::write::<i32>(b'T', 202);
const SET_OFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const GET_INTERFACE: Opcode = opcode::read::<u32>(b'T', 210);
const SET_HEADER_SIZE: Opcode = opcode::write::<i32>(b'T', 216);
const SET_QUEUE: Opcode = opcode::write::<i32>(b'T', 217);

/// Makes a tap device of an open `/dev/net/tun`, or one more queue of it.
pub(super) fn set_interface(tun: BorrowedFd<'_>, mut interface: Interface) -> Result<(), Errno> {
    // SAFETY: the request reads a `struct ifreq`, and writes the name there.
    issue(tun, unsafe { Updater::<SET_INTERFACE, Interface>::new(&mut interface) })
}

/// The name and flags of a tap device.
pub(super) fn interface(tap: BorrowedFd<'_>) -> Result<Interface, Errno> {
    // SAFETY: the request writes a `struct ifreq`, and any bytes are one.
    issue(tap, unsafe { Getter::<GET_INTERFACE, Interface>::new() })
}

/// Sets the size of the header before each packet, in bytes.
pub(super) fn set_header_size(tap: BorrowedFd<'_>, size: i32) -> Result<(), Errno> {
    // SAFETY: the request reads an `int`.
    issue(tap, unsafe { Setter::<SET_HEADER_SIZE, i32>::new(size) })
}

/// Attaches or detaches a queue, by the flags.
pub(super) fn set_queue(tap: BorrowedFd<'_>, interface: Interface) -> Result<(), Errno> {
    // SAFETY: the request reads a `struct ifreq`.
    issue(tap, unsafe { Setter::<SET_QUEUE, Interface>::new(interface) })
}

/// Sets what packets that the device hands out may be like (`TUN_F_*`).
pub(super) fn set_offload(tap: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    // SAFETY: the request takes a number.
    issue(tap, unsafe { IntegerSetter::<SET_OFFLOAD>::new_usize(flags as usize) })
}

fn issue<I: Ioctl>(tap: BorrowedFd<'_>, request: I) -> Result<I::Output, Errno> {
    // SAFETY: by the contract of the request's constructor, its number and its argument belong together.
    unsafe { ioctl(tap, request) }
}

/// A descriptor of the file that this process has open under a number. Both are closed when a program is executed.
pub(super) fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    let failed = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::BADF);
    // SAFETY: the request takes numbers, and has no effect on a descriptor but on the new one.
    let own = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        return Err(failed());
    }
    // SAFETY: `fcntl` has just made it, for this caller.
    let own = unsafe { OwnedFd::from_raw_fd(own) };
    // SAFETY: the request takes numbers. The descriptor stays open, as it was.
    match unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } {
        0 => Ok(own),
        _ => Err(failed()),
    }
}

/// An eventfd as rust-vmm has it, for the time of a request.
pub(super) fn event_fd(eventfd: BorrowedFd<'_>) -> std::io::Result<EventFd> {
    let own = eventfd.try_clone_to_owned()?;
    // SAFETY: the descriptor is open, and is handed on.
    Ok(unsafe { EventFd::from_raw_fd(own.into_raw_fd()) })
}
