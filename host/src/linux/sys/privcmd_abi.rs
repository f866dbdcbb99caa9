//! The requests of the privcmd ABI: Linux's `include/uapi/xen/privcmd.h`, since 6.8.

use core::ffi::c_void;
use core::mem::offset_of;
use rustix::ioctl::{Opcode, opcode};

/// `struct privcmd_ioeventfd`.
#[repr(C)]
pub(in crate::linux) struct IoEventFd {
    pub(in crate::linux) ioreq: *const c_void,
    pub(in crate::linux) ports: *const u32,
    pub(in crate::linux) addr: u64,
    pub(in crate::linux) addr_len: u32,
    pub(in crate::linux) event_fd: i32,
    pub(in crate::linux) vcpus: u32,
    pub(in crate::linux) vq: u32,
    pub(in crate::linux) flags: u32,
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) pad: [u8; 2],
}

/// `struct privcmd_irqfd`.
#[repr(C)]
pub(in crate::linux) struct IrqFd {
    pub(in crate::linux) dm_op: *const c_void,
    pub(in crate::linux) size: u32,
    pub(in crate::linux) fd: i32,
    pub(in crate::linux) flags: u32,
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) pad: [u8; 2],
}

const _: () = {
    assert!(size_of::<IoEventFd>() == 48);
    assert!(offset_of!(IoEventFd, ports) == 8 && offset_of!(IoEventFd, addr) == 16);
    assert!(offset_of!(IoEventFd, addr_len) == 24 && offset_of!(IoEventFd, event_fd) == 28);
    assert!(offset_of!(IoEventFd, vcpus) == 32 && offset_of!(IoEventFd, vq) == 36);
    assert!(offset_of!(IoEventFd, flags) == 40 && offset_of!(IoEventFd, dom) == 44);
    assert!(size_of::<IrqFd>() == 24);
    assert!(offset_of!(IrqFd, size) == 8 && offset_of!(IrqFd, fd) == 12);
    assert!(offset_of!(IrqFd, flags) == 16 && offset_of!(IrqFd, dom) == 20);
};

/// `IOCTL_PRIVCMD_IRQFD`.
pub(in crate::linux) const IRQFD: Opcode = opcode::write::<IrqFd>(b'P', 8);
/// `IOCTL_PRIVCMD_IOEVENTFD`.
pub(in crate::linux) const IOEVENTFD: Opcode = opcode::write::<IoEventFd>(b'P', 9);

const _: () = assert!(IRQFD == 0x4018_5008 && IOEVENTFD == 0x4030_5009);

/// `PRIVCMD_IOEVENTFD_FLAG_DEASSIGN` and `PRIVCMD_IRQFD_FLAG_DEASSIGN`.
pub(in crate::linux) const DEASSIGN: u32 = 1;
