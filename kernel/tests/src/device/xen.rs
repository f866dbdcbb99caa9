//! What tests ask of Xen beside the module.

use super::Call;
use core::mem::offset_of;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use xen_eventfd::DomId;

/// `IOCTL_PRIVCMD_HYPERCALL`: `_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))`.
const HYPERCALL: u32 = 0x0030_5000;
/// `__HYPERVISOR_domctl`.
const DOMCTL: u64 = 36;

/// `struct xen_domctl` of Xen 4.20's `public/domctl.h` with `struct xen_domctl_set_target`; the union has
/// 128 bytes.
#[repr(C)]
struct SetTarget {
    cmd: u32,
    interface_version: u32,
    domain: u16,
    pad: [u16; 3],
    target: u16,
    rest: [u16; 63],
}

const _: () = assert!(size_of::<SetTarget>() == 144 && offset_of!(SetTarget, target) == 16);

/// Lets a domain control another one, as libxl lets stub domains. The interface's number is another in each
/// version of Xen.
pub(crate) fn set_target(dom: DomId, target: DomId) -> Result<(), Errno> {
    let mut set = SetTarget {
        cmd: 46,
        interface_version: 0x17,
        domain: dom.0,
        pad: [0; 3],
        target: target.0,
        rest: [0; 63],
    };
    let mut hypercall = [DOMCTL, (&raw mut set).expose_provenance() as u64, 0, 0, 0, 0];
    let privcmd = open("/dev/xen/privcmd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let call = Call { request: HYPERCALL, address: hypercall.as_mut_ptr().expose_provenance() };
    // SAFETY: both structs live until the call returns, and Xen reads and writes no more than the second.
    unsafe { rustix::ioctl::ioctl(privcmd, call) }.map(drop)
}
