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

/// `XENMEM_resource_ioreq_server`.
const RESOURCE_IOREQ_SERVER: u16 = 0;
/// `XENMEM_resource_ioreq_server_frame_ioreq(0)`.
const FRAME_IOREQ: u64 = 1;
/// `EVTCHNSTAT_interdomain`.
const STATUS_INTERDOMAIN: u32 = 2;

/// `XENMEM_maximum_gpfn`, which Linux's headers leave out.
const MAXIMUM_GPFN: u32 = 14;
/// `XENMAPSPACE_gmfn_foreign`.
const SPACE_FOREIGN: u16 = 4;

/// Bytes of a page as Xen counts them, on every architecture. The module serves kernels with pages of this size
/// alone: a kernel for Arm may have larger ones.
pub(crate) const PAGE_SIZE: usize = 4096;

/// The number of a page frame.
pub(crate) type Frame = bindings::xen_pfn_t;

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
    dm_op_with::<1>(dom, operation)
}

/// The same with so many buffers, 1 or 2, of which the second is empty.
#[inline(always)]
fn dm_op_with<const BUFFERS: u32>(dom: DomId, operation: DmOp) -> Result<Buffer> {
    const { assert!(BUFFERS == 1 || BUFFERS == 2) };
    let (mut request, size) = operation.emit();
    let first = bindings::xen_dm_op_buf {
        h: core::ptr::from_mut(&mut request).cast(),
        size: size as bindings::xen_ulong_t,
    };
    let mut buffers = [first, bindings::xen_dm_op_buf { h: core::ptr::null_mut(), size: 0 }];
    // SAFETY: At most two buffers, which outlive the call and are at least as long as they say; Xen
    // writes bytes into the first.
    to_result(unsafe { bindings::shim_dm_op(dom.0, BUFFERS, buffers.as_mut_ptr()) })?;
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
/// pause it. x86 alone has the operation.
pub(crate) fn refused_unless_dying(dom: DomId) -> Error {
    let operation = DmOp::TrackDirtyVram { pages: 1 };
    dm_op_with::<2>(dom, operation).map_or_else(|error| error, |_| EINVAL)
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
    let mut argument = bindings::xen_mem_acquire_resource {
        domid: dom.0,
        type_: RESOURCE_IOREQ_SERVER,
        id: u32::from(server.0),
        nr_frames: 1,
        frame: FRAME_IOREQ,
        frame_list: &raw mut frame,
        ..Default::default()
    };
    // SAFETY: The argument is what the command takes, and its list has the one frame that it says.
    unsafe { memory_op(bindings::XENMEM_acquire_resource, &mut argument) }?;
    Ok(frame)
}

/// # Safety
/// Xen names this struct for the command. What it points to is as long as it says, and outlives the call.
unsafe fn memory_op<T>(command: u32, argument: &mut T) -> Result<u64> {
    // SAFETY: The caller's promise.
    let answer = unsafe { bindings::shim_memory_op(command, core::ptr::from_mut(argument).cast()) };
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
    theirs: &mut [bindings::xen_ulong_t; N],
    ours: &mut [Frame; N],
    errors: &mut [c_int; N],
) -> Result {
    const { assert!(N <= u16::MAX as usize) };
    let mut argument = bindings::xen_add_to_physmap_range {
        domid: DomId::SELF.0,
        space: SPACE_FOREIGN,
        size: count.min(N) as u16,
        foreign_domid: dom.0,
        idxs: theirs.as_mut_ptr(),
        gpfns: ours.as_mut_ptr(),
        errs: errors.as_mut_ptr(),
    };
    // SAFETY: The argument is what the command takes; its lists are at least as long as it says.
    unsafe { memory_op(bindings::XENMEM_add_to_physmap_range, &mut argument) }.map(|_| ())
}

/// Takes what is at a frame of ours out of our memory map.
pub(crate) fn remove_from_physmap(frame: Frame) -> Result {
    let mut argument =
        bindings::xen_remove_from_physmap { domid: DomId::SELF.0, gpfn: frame };
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

/// Whether a port of ours is one end of the channel whose other end is this guest's port.
pub(crate) fn is_bound_to(port: Port, dom: DomId, remote: Port) -> bool {
    let mut status =
        bindings::evtchn_status { dom: DomId::SELF.0, port: port.0, ..Default::default() };
    if event_channel_op(bindings::EVTCHNOP_status, &mut status).is_err()
        || status.status != STATUS_INTERDOMAIN
    {
        return false;
    }
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
