//! The hypercalls without effects on memory: event channels, waiting, parameters, shutdown.

use crate::hypercall::{self, Operation, Refused};

/// `DOMID_SELF`
pub(crate) const SELF: u16 = 0x7ff0;

const SCHED_OP: u64 = 29;
const EVENT_CHANNEL_OP: u64 = 32;
const HVM_OP: u64 = 34;

/// The guest's own parameters (public/hvm/params.h).
#[derive(Clone, Copy)]
pub(crate) enum Parameter {
    /// The frame of the console ring.
    ConsoleFrame = 17,
    /// The console's event channel.
    ConsolePort = 18,
}

/// Why a guest shuts down (public/sched.h).
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    /// Cleanly.
    Poweroff = 0,
    /// As crashed.
    Crash = 3,
    /// For a soft reset: its id and its memory are kept.
    SoftReset = 5,
}

#[repr(C)]
struct AllocUnbound {
    dom: u16,
    remote: u16,
    port: u32,
}
// SAFETY: `struct evtchn_alloc_unbound`.
unsafe impl Operation for AllocUnbound {
    const NUMBER: u64 = EVENT_CHANNEL_OP;
    const COMMAND: u64 = 6;
}

#[repr(C)]
struct Send {
    port: u32,
}
// SAFETY: `struct evtchn_send`.
unsafe impl Operation for Send {
    const NUMBER: u64 = EVENT_CHANNEL_OP;
    const COMMAND: u64 = 4;
}

#[repr(C)]
struct Poll<'a> {
    ports: &'a u32,
    count: u32,
    timeout: u64,
}
// SAFETY: `struct sched_poll`, with a reference to as many ports as `count`, which is 1.
unsafe impl Operation for Poll<'_> {
    const NUMBER: u64 = SCHED_OP;
    const COMMAND: u64 = 3;
}

#[repr(C)]
struct Yield;
// SAFETY: the command ignores its operand.
unsafe impl Operation for Yield {
    const NUMBER: u64 = SCHED_OP;
    const COMMAND: u64 = 0;
}

#[repr(C)]
struct Shutdown {
    reason: u32,
}
// SAFETY: `struct sched_shutdown`.
unsafe impl Operation for Shutdown {
    const NUMBER: u64 = SCHED_OP;
    const COMMAND: u64 = 2;
}

#[repr(C)]
struct HvmParam {
    domid: u16,
    pad: u16,
    index: u32,
    value: u64,
}
// SAFETY: `struct xen_hvm_param`.
unsafe impl Operation for HvmParam {
    const NUMBER: u64 = HVM_OP;
    const COMMAND: u64 = 1;
}

fn harmless<T: Operation>(mut operation: T) -> Result<T, Refused> {
    // SAFETY: `main` installs the page before anything else, and the operations of this file touch no
    // memory but their operand.
    unsafe { hypercall::perform(&mut operation) }?;
    Ok(operation)
}

/// An event channel that domain 0 may bind.
pub(crate) fn alloc_unbound() -> Result<u32, Refused> {
    harmless(AllocUnbound { dom: SELF, remote: 0, port: 0 }).map(|answer| answer.port)
}

/// Notifies the other end of an event channel.
pub(crate) fn send(port: u32) -> Result<(), Refused> {
    harmless(Send { port }).map(drop)
}

/// Sleeps until the event channel is pending, or an interrupt arrives.
pub(crate) fn poll(port: u32) {
    // Refused only for a port that does not exist; then the caller's loop spins.
    let _ = harmless(Poll { ports: &port, count: 1, timeout: 0 });
}

/// Lets another vCPU run.
pub(crate) fn yield_now() {
    let _ = harmless(Yield);
}

/// One of the guest's own parameters.
pub(crate) fn parameter(parameter: Parameter) -> Result<u64, Refused> {
    harmless(HvmParam { domid: SELF, pad: 0, index: parameter as u32, value: 0 })
        .map(|answer| answer.value)
}

/// Shuts the guest down for a soft reset, and returns after it.
pub(crate) fn soft_reset() -> Result<(), Refused> {
    harmless(Shutdown { reason: Reason::SoftReset as u32 }).map(drop)
}

/// Ends the guest.
pub(crate) fn shutdown(reason: Reason) -> ! {
    loop {
        let _ = harmless(Shutdown { reason: reason as u32 });
    }
}
