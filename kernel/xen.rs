// SPDX-License-Identifier: GPL-2.0

//! What we ask of Xen: device model operations, a server's page, event channels.
//!
//! Errors are Xen's own. Xen's public headers `hvm/dm_op.h`, `memory.h` and `event_channel.h` say
//! what the structs mean.

use crate::bindings;
use crate::protocol::doorbell::Bytes;
use crate::protocol::irq::{IrqOp, Line};
use crate::protocol::wire::dm_op::{Buffer, DmOp};
use crate::protocol::{DomId, IoServerId, Port};
use kernel::error::to_result;
use kernel::prelude::*;

/// `EVTCHNSTAT_closed`.
const STATUS_CLOSED: u32 = 0;
/// `EVTCHNSTAT_interdomain`.
const STATUS_INTERDOMAIN: u32 = 2;

/// Of a guest's ports, those that are asked for. libxl gives it 1,023 unless its configuration says more.
const PORTS: u32 = 4096;

/// `XENMEM_maximum_gpfn`, which Linux's headers leave out.
const MAXIMUM_GPFN: u32 = 14;

/// Bytes of a page as Xen counts them, on every architecture. The module serves kernels with pages of this size
/// alone: a kernel for Arm may have larger ones.
pub(crate) const PAGE_SIZE: usize = 4096;

/// The number of a page frame.
pub(crate) type Frame = u64;

/// Whether this is a domain of Xen at all.
pub(crate) fn is_domain() -> bool {
    // SAFETY: It only reads what the kernel found out at boot.
    unsafe { bindings::shim_xen_domain() }
}

/// Whether this is the domain that Xen started.
pub(crate) fn is_initial_domain() -> bool {
    // SAFETY: It only reads what the kernel found out at boot.
    unsafe { bindings::shim_xen_initial_domain() }
}

/// Whether this is a PV domain.
pub(crate) fn is_pv_domain() -> bool {
    // SAFETY: It only reads what the kernel found out at boot.
    unsafe { bindings::shim_xen_pv_domain() }
}

/// Does one operation on a guest and returns it as Xen left it.
#[inline(always)]
fn dm_op(dom: DomId, operation: DmOp) -> Result<Buffer> {
    dm_op_with(dom, operation, false)
}

/// The same, with an empty buffer beside it if that is wanted.
#[inline(always)]
fn dm_op_with(dom: DomId, operation: DmOp, with_empty: bool) -> Result<Buffer> {
    let (mut request, size) = operation.emit();
    let bytes = core::ptr::from_mut(&mut request).cast();
    // SAFETY: The operation is at least as long as this says, and outlives the call; Xen writes bytes into it.
    to_result(unsafe { bindings::shim_dm_op(dom.0, bytes, size, with_empty) })?;
    Ok(request)
}

/// How many vCPUs a guest has.
pub(crate) fn vcpus(dom: DomId) -> Result<u32> {
    dm_op(dom, DmOp::NrVcpus).map(|answer| answer.vcpus())
}

/// Creates a server without a buffered ring; it gets the lowest free id.
pub(crate) fn create_server(dom: DomId) -> Result<IoServerId> {
    dm_op(dom, DmOp::CreateServer).map(|answer| answer.created_server())
}

/// Whether a guest has this server, or why that is not known. It changes nothing, and unlike
/// [`set_server_state`] does not pause the guest.
pub(crate) fn server_exists(dom: DomId, server: IoServerId) -> Result {
    dm_op(dom, DmOp::GetServerInfo(server)).map(|_| ())
}

/// An operation that Xen refuses in whichever way, and changes nothing: it would write more than the
/// buffer for it takes. Xen first looks whether the domain is dying, which is `ESRCH`; this does not
/// pause it. x86 alone has the operation: `EOPNOTSUPP` elsewhere.
pub(crate) fn refused_unless_dying(dom: DomId) -> Error {
    let operation = DmOp::TrackDirtyVram { pages: 1 };
    dm_op_with(dom, operation, true).map_or_else(|error| error, |_| EINVAL)
}

/// Destroys a server.
pub(crate) fn destroy_server(dom: DomId, server: IoServerId) -> Result {
    dm_op(dom, DmOp::DestroyServer(server)).map(|_| ())
}

/// Enables or disables a server.
pub(crate) fn set_server_state(dom: DomId, server: IoServerId, enabled: bool) -> Result {
    dm_op(dom, DmOp::SetServerState { server, enabled }).map(|_| ())
}

/// Routes bytes to a server.
pub(crate) fn map_range(dom: DomId, server: IoServerId, bytes: Bytes) -> Result {
    dm_op(dom, DmOp::MapRange(server, bytes)).map(|_| ())
}

/// Routes bytes to a server no longer.
pub(crate) fn unmap_range(dom: DomId, server: IoServerId, bytes: Bytes) -> Result {
    dm_op(dom, DmOp::UnmapRange(server, bytes)).map(|_| ())
}

/// Raises or lowers an interrupt, of a guest that has such. May be called from an interrupt.
pub(crate) fn operate(dom: DomId, operation: IrqOp) -> Result {
    dm_op(dom, DmOp::Irq(operation)).map(|_| ())
}

/// Raises or lowers a line, of a guest that has lines. May be called from an interrupt.
pub(crate) fn set_line(dom: DomId, line: Line, up: bool) -> Result {
    operate(dom, IrqOp::Set { line, up })
}

/// Acquires the ioreq page of a server. On PV the result is its machine frame. On PVH it is put at
/// `frame`, which is one of ours that has no memory behind it, and the result is the same.
pub(crate) fn acquire_ioreq_page(dom: DomId, server: IoServerId, frame: Frame) -> Result<Frame> {
    let mut frame = frame;
    // SAFETY: Xen reads and writes the one frame number.
    answered(unsafe { bindings::shim_acquire_ioreq_page(dom.0, server.0, &raw mut frame) })?;
    Ok(frame)
}

/// # Safety
/// Xen names this struct for the command. What it points to is as long as it says, and outlives the call.
unsafe fn memory_op<T>(command: u32, argument: &mut T) -> Result<u64> {
    // SAFETY: The caller's promise.
    answered(unsafe { bindings::shim_memory_op(command, core::ptr::from_mut(argument).cast()) })
}

/// Xen's answer to an operation on memory.
fn answered(answer: c_long) -> Result<u64> {
    u64::try_from(answer).map_err(|_| Error::from_errno(answer as c_int))
}

/// The highest frame number that a guest has.
pub(crate) fn last_frame(dom: DomId) -> Result<u64> {
    let mut argument: bindings::domid_t = dom.0;
    // SAFETY: The command takes a domain's number.
    unsafe { memory_op(MAXIMUM_GPFN, &mut argument) }
}

/// Puts frames of a guest at frame numbers of ours that have nothing at them, of a domain that is not PV. The error
/// of each, or 0, is where the others are; one that Xen did not come to stays as it is.
pub(crate) fn add_foreign<const N: usize>(
    dom: DomId,
    count: usize,
    theirs: &mut [Frame; N],
    ours: &mut [Frame; N],
    errors: &mut [c_int; N],
) -> Result {
    const { assert!(N <= u16::MAX as usize) };
    let (theirs, ours, errors) = (theirs.as_mut_ptr(), ours.as_mut_ptr(), errors.as_mut_ptr());
    let count = count.min(N) as u16;
    // SAFETY: The lists are at least as long as this says, and outlive the call.
    answered(unsafe { bindings::shim_add_foreign(dom.0, count, theirs, ours, errors) }).map(|_| ())
}

/// Takes what is at a frame of ours out of our memory map.
pub(crate) fn remove_from_physmap(frame: Frame) -> Result {
    let mut argument =
        bindings::xen_remove_from_physmap { domid: DomId::SELF.0, gpfn: frame as bindings::xen_pfn_t };
    // SAFETY: The argument is what the command takes.
    unsafe { memory_op(bindings::XENMEM_remove_from_physmap, &mut argument) }.map(|_| ())
}

fn event_channel_op<T>(command: u32, argument: &mut T) -> Result {
    // SAFETY: The callers below pass the struct that Xen names for the command; it outlives the
    // call.
    to_result(unsafe {
        bindings::shim_event_channel_op(command as c_int, core::ptr::from_mut(argument).cast())
    })
}

/// Binds a port of a guest to a new one of ours.
pub(crate) fn bind_interdomain(dom: DomId, remote: Port) -> Result<Port> {
    let mut argument = bindings::evtchn_bind_interdomain {
        remote_dom: dom.0,
        remote_port: remote.0,
        ..Default::default()
    };
    event_channel_op(bindings::EVTCHNOP_bind_interdomain, &mut argument)?;
    Ok(Port(argument.local_port))
}

/// Rings the other end of a port of ours. It fails only if the other end is gone.
pub(crate) fn send(port: Port) -> Result {
    let mut argument = bindings::evtchn_send { port: port.0 };
    event_channel_op(bindings::EVTCHNOP_send, &mut argument)
}

/// What a domain's port is to Xen, which does not look whether the domain is dying.
///
/// # Errors
/// `EINVAL` if the domain has fewer ports, `ESRCH` if there is no such domain.
fn status_of(dom: DomId, port: Port) -> Result<bindings::evtchn_status> {
    let mut status = bindings::evtchn_status { dom: dom.0, port: port.0, ..Default::default() };
    event_channel_op(bindings::EVTCHNOP_status, &mut status)?;
    Ok(status)
}

/// Whether a guest has any event channel. Xen closes all of one that it destroys, before anything else of it goes
/// (`domain_kill`), and one that lives has those to xenstore and its console, whose numbers are low: then this is a
/// hypercall or two. It neither pauses the guest nor changes anything.
pub(crate) fn has_event_channels(dom: DomId) -> bool {
    for port in 1..PORTS {
        match status_of(dom, Port(port)) {
            Ok(status) if status.status == STATUS_CLOSED => {}
            Err(EINVAL | ESRCH) => return false,
            // One that is open, or a refusal that says nothing.
            _ => return true,
        }
    }
    false
}

/// Whether a port of ours is one end of the channel whose other end is this guest's port.
pub(crate) fn is_bound_to(port: Port, dom: DomId, remote: Port) -> bool {
    let status = match status_of(DomId::SELF, port) {
        Ok(status) if status.status == STATUS_INTERDOMAIN => status,
        _ => return false,
    };
    // SAFETY: The status says that this is the member which Xen wrote.
    let other = unsafe { status.u.interdomain };
    (other.dom, other.port) == (dom.0, remote.0)
}

/// Closes a port of ours, unless the number is another's by now.
pub(crate) fn close_if_bound_to(port: Port, dom: DomId, remote: Port) {
    if is_bound_to(port, dom, remote) {
        let mut argument = bindings::evtchn_close { port: port.0 };
        let _ = event_channel_op(bindings::EVTCHNOP_close, &mut argument);
    }
}
