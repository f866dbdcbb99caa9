//! Hypercalls without an ioctl of their own: Xen's `public/event_channel.h` and `public/sched.h`.

use core::mem::offset_of;

/// `__HYPERVISOR_event_channel_op` of `public/xen.h`, the same on every architecture.
const EVENT_CHANNEL_OP: u64 = 32;
/// `__HYPERVISOR_sched_op`, likewise.
const SCHED_OP: u64 = 29;
/// `EVTCHNOP_status`.
const EVTCHNOP_STATUS: u64 = 5;

/// The argument of one operation.
///
/// # Safety
/// The type is the struct that Xen names for [`Operation::NUMBER`] of the hypercall: `repr(C)`, of integers only.
pub(in crate::linux) unsafe trait Operation: Copy {
    /// `__HYPERVISOR_*`.
    const HYPERCALL: u64;
    /// `EVTCHNOP_*` or `SCHEDOP_*`.
    const NUMBER: u64;
}

// SAFETY: one integer, as in Xen's header.
unsafe impl Operation for EvtchnSend {
    const HYPERCALL: u64 = EVENT_CHANNEL_OP;
    const NUMBER: u64 = EVTCHNOP_SEND;
}

// SAFETY: integers only, whose offsets are compared below.
unsafe impl Operation for EvtchnStatus {
    const HYPERCALL: u64 = EVENT_CHANNEL_OP;
    const NUMBER: u64 = EVTCHNOP_STATUS;
}

// SAFETY: integers only, whose offsets are compared below.
unsafe impl Operation for EvtchnAllocUnbound {
    const HYPERCALL: u64 = EVENT_CHANNEL_OP;
    const NUMBER: u64 = EVTCHNOP_ALLOC_UNBOUND;
}

// SAFETY: integers only, whose offsets are compared below.
unsafe impl Operation for SchedRemoteShutdown {
    const HYPERCALL: u64 = SCHED_OP;
    const NUMBER: u64 = SCHEDOP_REMOTE_SHUTDOWN;
}

/// `EVTCHNOP_alloc_unbound`.
const EVTCHNOP_ALLOC_UNBOUND: u64 = 6;

/// `struct evtchn_alloc_unbound`; Xen writes the port.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(in crate::linux) struct EvtchnAllocUnbound {
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) remote_dom: u16,
    pub(in crate::linux) port: u32,
}

/// `EVTCHNOP_send`.
const EVTCHNOP_SEND: u64 = 4;

/// `struct evtchn_send`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(in crate::linux) struct EvtchnSend {
    pub(in crate::linux) port: u32,
}

/// `struct evtchn_status`; of its union, the members that begin with a domain.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(in crate::linux) struct EvtchnStatus {
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) pad: u16,
    pub(in crate::linux) port: u32,
    pub(in crate::linux) status: u32,
    pub(in crate::linux) vcpu: u32,
    pub(in crate::linux) remote_dom: u16,
    pub(in crate::linux) remote_pad: u16,
    pub(in crate::linux) remote_port: u32,
}

/// `SCHEDOP_remote_shutdown`.
const SCHEDOP_REMOTE_SHUTDOWN: u64 = 4;

/// `struct sched_remote_shutdown`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(in crate::linux) struct SchedRemoteShutdown {
    pub(in crate::linux) dom: u16,
    pub(in crate::linux) pad: u16,
    /// `SHUTDOWN_*`.
    pub(in crate::linux) reason: u32,
}

const _: () = {
    assert!(size_of::<SchedRemoteShutdown>() == 8);
    assert!(offset_of!(SchedRemoteShutdown, reason) == 4);
    assert!(size_of::<EvtchnAllocUnbound>() == 8);
    assert!(offset_of!(EvtchnAllocUnbound, remote_dom) == 2);
    assert!(offset_of!(EvtchnAllocUnbound, port) == 4);
    assert!(size_of::<EvtchnStatus>() == 24);
    assert!(offset_of!(EvtchnStatus, port) == 4 && offset_of!(EvtchnStatus, status) == 8);
    assert!(offset_of!(EvtchnStatus, vcpu) == 12 && offset_of!(EvtchnStatus, remote_dom) == 16);
    assert!(offset_of!(EvtchnStatus, remote_port) == 20);
};

/// `EVTCHNSTAT_unbound`.
pub(in crate::linux) const UNBOUND: u32 = 1;
/// `EVTCHNSTAT_interdomain`.
pub(in crate::linux) const INTERDOMAIN: u32 = 2;
