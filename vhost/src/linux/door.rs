//! What needs unsafe code: the requests of a tap device and of vhost's devices, descriptors that are known by their number, and eventfds as
//! rust-vmm has them.
#![expect(unsafe_code, reason = "listed in docs/unsafe.md")]

use rustix::io::Errno;
use rustix::ioctl::{Getter, IntegerSetter, Ioctl, Opcode, Setter, Updater, ioctl, opcode};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use vhost::vhost_kern::vhost_binding::vhost_vring_addr;
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
const SET_PERSISTENT: Opcode = opcode::write::<i32>(b'T', 203);
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

/// Has a tap device stay, or go with its last queue.
pub(super) fn set_persistent(tap: BorrowedFd<'_>, stays: bool) -> Result<(), Errno> {
    // SAFETY: the request takes a number.
    issue(tap, unsafe { IntegerSetter::<SET_PERSISTENT>::new_usize(stays.into()) })
}

/// Sets what packets that the device hands out may be like (`TUN_F_*`).
pub(super) fn set_offload(tap: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    // SAFETY: the request takes a number.
    issue(tap, unsafe { IntegerSetter::<SET_OFFLOAD>::new_usize(flags as usize) })
}

/// `struct vhost_scsi_target` of `linux/vhost.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    abi_version: i32,
    /// The target port's name, ended by a zero.
    wwpn: [u8; 224],
    tpgt: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<Target>() == 232);

impl Target {
    /// The target of this name; `None` if the name is empty, too long or has a zero.
    pub(super) fn new(name: &str) -> Option<Self> {
        let mut wwpn = [0; 224];
        let is_name = (1..wwpn.len()).contains(&name.len()) && !name.contains('\0');
        is_name.then_some(())?;
        wwpn.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self { abi_version: 0, wwpn, tpgt: 0, reserved: 0 })
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        let bytes: Vec<u8> = self.wwpn.into_iter().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `VHOST_*` of `linux/vhost.h`.
const SET_VRING_ADDR: Opcode = opcode::write::<vhost_vring_addr>(0xAF, 0x11);
const SCSI_SET_ENDPOINT: Opcode = opcode::write::<Target>(0xAF, 0x40);
const SCSI_CLEAR_ENDPOINT: Opcode = opcode::write::<Target>(0xAF, 0x41);
const VSOCK_SET_GUEST_CID: Opcode = opcode::write::<u64>(0xAF, 0x60);
const VSOCK_SET_RUNNING: Opcode = opcode::write::<i32>(0xAF, 0x61);

/// Has rings lead to a target.
pub(super) fn set_endpoint(vhost: BorrowedFd<'_>, target: Target) -> Result<(), Errno> {
    // SAFETY: the request reads a `struct vhost_scsi_target`.
    issue(vhost, unsafe { Setter::<SCSI_SET_ENDPOINT, Target>::new(target) })
}

/// Has rings lead nowhere, once what is under way is done.
pub(super) fn clear_endpoint(vhost: BorrowedFd<'_>, target: Target) -> Result<(), Errno> {
    // SAFETY: the request reads a `struct vhost_scsi_target`.
    issue(vhost, unsafe { Setter::<SCSI_CLEAR_ENDPOINT, Target>::new(target) })
}

/// Gives a guest's sockets their context identifier.
pub(super) fn set_guest_cid(vhost: BorrowedFd<'_>, cid: u64) -> Result<(), Errno> {
    // SAFETY: the request reads 64 bits.
    issue(vhost, unsafe { Setter::<VSOCK_SET_GUEST_CID, u64>::new(cid) })
}

/// Starts or stops the rings of a guest's sockets.
pub(super) fn set_running(vhost: BorrowedFd<'_>, runs: bool) -> Result<(), Errno> {
    // SAFETY: the request reads an `int`.
    issue(vhost, unsafe { Setter::<VSOCK_SET_RUNNING, i32>::new(runs.into()) })
}

/// Takes a ring's place in memory from the kernel, which does not serve the ring.
pub(super) fn forget_ring(vhost: BorrowedFd<'_>, index: u32) -> Result<(), Errno> {
    let nowhere = vhost_vring_addr { index, ..Default::default() };
    // SAFETY: the request reads a `struct vhost_vring_addr`. The kernel accesses no memory by it: what is at address 0
    // of a process faults.
    issue(vhost, unsafe { Setter::<SET_VRING_ADDR, vhost_vring_addr>::new(nowhere) })
}

fn issue<I: Ioctl>(file: BorrowedFd<'_>, request: I) -> Result<I::Output, Errno> {
    // SAFETY: by the contract of the request's constructor, its number and its argument belong together.
    unsafe { ioctl(file, request) }
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
