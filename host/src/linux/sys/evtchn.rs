//! `/dev/xen/evtchn`: Linux's `include/uapi/xen/evtchn.h`.

use super::number;
use core::mem::offset_of;
use rustix::ioctl::Opcode;

/// `struct ioctl_evtchn_bind_interdomain`; the local port is the ioctl's result.
#[repr(C)]
pub(in crate::linux) struct BindInterdomain {
    pub(in crate::linux) remote_domain: u32,
    pub(in crate::linux) remote_port: u32,
}

/// `struct ioctl_evtchn_bind_unbound_port`; the port is the ioctl's result.
#[repr(C)]
pub(in crate::linux) struct BindUnboundPort {
    pub(in crate::linux) remote_domain: u32,
}

/// `struct ioctl_evtchn_unbind` and `struct ioctl_evtchn_notify`.
#[repr(C)]
pub(in crate::linux) struct OnePort {
    pub(in crate::linux) port: u32,
}

/// `struct ioctl_evtchn_restrict_domid`.
#[repr(C)]
pub(in crate::linux) struct RestrictDomid {
    pub(in crate::linux) domid: u16,
}

const _: () = {
    assert!(size_of::<BindInterdomain>() == 8 && offset_of!(BindInterdomain, remote_port) == 4);
    assert!(size_of::<BindUnboundPort>() == 4 && size_of::<OnePort>() == 4);
    assert!(size_of::<RestrictDomid>() == 2);
};

pub(in crate::linux) const BIND_INTERDOMAIN: Opcode = number::<BindInterdomain>(b'E', 1);
pub(in crate::linux) const BIND_UNBOUND_PORT: Opcode = number::<BindUnboundPort>(b'E', 2);
pub(in crate::linux) const UNBIND: Opcode = number::<OnePort>(b'E', 3);
pub(in crate::linux) const NOTIFY: Opcode = number::<OnePort>(b'E', 4);
pub(in crate::linux) const RESET: Opcode = number::<()>(b'E', 5);
pub(in crate::linux) const RESTRICT_DOMID: Opcode = number::<RestrictDomid>(b'E', 6);

const _: () = {
    assert!(BIND_INTERDOMAIN == 0x0008_4501);
    assert!(BIND_UNBOUND_PORT == 0x0004_4502);
    assert!(UNBIND == 0x0004_4503);
    assert!(NOTIFY == 0x0004_4504);
    assert!(RESET == 0x0000_4505);
    assert!(RESTRICT_DOMID == 0x0002_4506);
};
