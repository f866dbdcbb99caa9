// SPDX-License-Identifier: GPL-2.0

//! What we ask of Xen: device model operations, a server's page, event channels.
//!
//! Errors are Xen's own. Xen's public headers `hvm/dm_op.h`, `memory.h` and `event_channel.h` say
//! what the structs mean.

use crate::bindings;
use crate::protocol::doorbell::Bytes;
use crate::protocol::irq::Line;
use crate::protocol::{DomId, IoServerId, Port, Space};
use core::mem::offset_of;
use kernel::error::to_result;
use kernel::prelude::*;

/// `XENMEM_resource_ioreq_server`.
const RESOURCE_IOREQ_SERVER: u16 = 0;
/// `XENMEM_resource_ioreq_server_frame_ioreq(0)`.
const FRAME_IOREQ: u64 = 1;
/// `XEN_DMOP_no_gfns`.
const NO_GFNS: u16 = 1;
/// `EVTCHNSTAT_interdomain`.
const STATUS_INTERDOMAIN: u32 = 2;

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

/// The payload of one device model operation.
///
/// # Safety
/// The type is the struct that Xen names for [`Operation::NUMBER`]: `repr(C)`, of integers and
/// without padding of the compiler's.
unsafe trait Operation {
    /// `XEN_DMOP_*`.
    const NUMBER: u32;
}

/// `struct xen_dm_op` with one member of its union.
#[repr(C, align(32))]
struct Request<P> {
    op: u32,
    pad: u32,
    payload: P,
}

macro_rules! operation {
    ($number:literal, $size:literal, $(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Default)]
        struct $name {
            $($field: $type),*
        }

        // SAFETY: repr(C), integers only, and they fill it: the sizes are compared here.
        unsafe impl Operation for $name {
            const NUMBER: u32 = $number;
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!($size == 0 $(+ size_of::<$type>())*);
            assert!(offset_of!(Request<$name>, payload) == 8);
        };
    };
}

operation!(1, 6, /// `XEN_DMOP_create_ioreq_server`; Xen writes `id`.
    CreateServer { handle_bufioreq: u8, pad: [u8; 3], id: u16 });
operation!(2, 24, /// `XEN_DMOP_get_ioreq_server_info`; Xen writes what the flags do not leave out.
    GetServerInfo { id: u16, flags: u16, bufioreq_port: u32, ioreq_gfn: u64, bufioreq_gfn: u64 });
operation!(3, 24, /// `XEN_DMOP_map_io_range_to_ioreq_server`; `end` is inside.
    MapRange { id: u16, pad: u16, kind: u32, start: u64, end: u64 });
operation!(4, 24, /// `XEN_DMOP_unmap_io_range_from_ioreq_server`; `end` is inside.
    UnmapRange { id: u16, pad: u16, kind: u32, start: u64, end: u64 });
operation!(5, 4, /// `XEN_DMOP_set_ioreq_server_state`.
    SetServerState { id: u16, enabled: u8, pad: u8 });
operation!(6, 4, /// `XEN_DMOP_destroy_ioreq_server`.
    DestroyServer { id: u16, pad: u16 });
operation!(7, 16, /// `XEN_DMOP_track_dirty_vram`, with a second buffer.
    TrackDirtyVram { nr: u32, pad: u32, first_pfn: u64 });
operation!(8, 6, /// `XEN_DMOP_set_pci_intx_level`.
    SetPciIntxLevel { segment: u16, bus: u8, device: u8, intx: u8, level: u8 });
operation!(9, 2, /// `XEN_DMOP_set_isa_irq_level`.
    SetIsaIrqLevel { isa_irq: u8, level: u8 });
operation!(14, 16, /// `XEN_DMOP_inject_msi`.
    InjectMsi { data: u32, pad: u32, addr: u64 });
operation!(19, 8, /// `XEN_DMOP_set_irq_level` (Arm).
    SetIrqLevel { irq: u32, level: u8, pad: [u8; 3] });
operation!(20, 4, /// `XEN_DMOP_nr_vcpus`; Xen writes `vcpus`.
    NrVcpus { vcpus: u32 });

/// Does one operation on a guest and returns its payload as Xen left it.
fn dm_op<P: Operation>(dom: DomId, payload: P) -> Result<P> {
    dm_op_with::<P, 1>(dom, payload)
}

/// The same with so many buffers, 1 or 2, of which the second is empty.
fn dm_op_with<P: Operation, const BUFFERS: u32>(dom: DomId, payload: P) -> Result<P> {
    const { assert!(BUFFERS == 1 || BUFFERS == 2) };
    let mut request = Request { op: P::NUMBER, pad: 0, payload };
    let size = offset_of!(Request<P>, payload) + size_of::<P>();
    let first = bindings::xen_dm_op_buf {
        h: core::ptr::from_mut(&mut request).cast(),
        size: size as bindings::xen_ulong_t,
    };
    let mut buffers = [first, bindings::xen_dm_op_buf { h: core::ptr::null_mut(), size: 0 }];
    // SAFETY: At most two buffers, which outlive the call and are at least as long as they say; Xen
    // writes only into the payload, for which any bytes are a value (`Operation`).
    to_result(unsafe { bindings::shim_dm_op(dom.0, BUFFERS, buffers.as_mut_ptr()) })?;
    Ok(request.payload)
}

/// How many vCPUs a guest has.
pub(crate) fn vcpus(dom: DomId) -> Result<u32> {
    dm_op(dom, NrVcpus::default()).map(|answer| answer.vcpus)
}

/// Creates a server without a buffered ring; it gets the lowest free id.
pub(crate) fn create_server(dom: DomId) -> Result<IoServerId> {
    dm_op(dom, CreateServer::default()).map(|answer| IoServerId(answer.id))
}

/// Whether a guest has this server, or why that cannot be told. It changes nothing, and unlike
/// [`set_server_state`] does not pause the guest.
pub(crate) fn server_exists(dom: DomId, server: IoServerId) -> Result {
    let payload = GetServerInfo { id: server.0, flags: NO_GFNS, ..Default::default() };
    dm_op(dom, payload).map(|_| ())
}

/// An operation that Xen refuses in whichever way, and changes nothing: it would write more than the
/// buffer for it takes. Xen first looks whether the domain is dying, which is `ESRCH`; this does not
/// pause it. x86 alone has the operation.
pub(crate) fn refused_unless_dying(dom: DomId) -> Error {
    let payload = TrackDirtyVram { nr: 1, pad: 0, first_pfn: 0 };
    dm_op_with::<_, 2>(dom, payload).map_or_else(|error| error, |_| EINVAL)
}

/// Destroys a server.
pub(crate) fn destroy_server(dom: DomId, server: IoServerId) -> Result {
    dm_op(dom, DestroyServer { id: server.0, pad: 0 }).map(|_| ())
}

/// Enables or disables a server.
pub(crate) fn set_server_state(dom: DomId, server: IoServerId, enabled: bool) -> Result {
    let payload = SetServerState { id: server.0, enabled: u8::from(enabled), pad: 0 };
    dm_op(dom, payload).map(|_| ())
}

/// Routes bytes to a server.
pub(crate) fn map_range(dom: DomId, server: IoServerId, bytes: Bytes) -> Result {
    let (kind, start, end) = range(bytes);
    dm_op(dom, MapRange { id: server.0, pad: 0, kind, start, end }).map(|_| ())
}

/// Routes bytes to a server no longer.
pub(crate) fn unmap_range(dom: DomId, server: IoServerId, bytes: Bytes) -> Result {
    let (kind, start, end) = range(bytes);
    dm_op(dom, UnmapRange { id: server.0, pad: 0, kind, start, end }).map(|_| ())
}

/// Raises a message-signalled interrupt (x86). May be called from an interrupt, as the next.
pub(crate) fn inject_msi(dom: DomId, addr: u64, data: u32) -> Result {
    dm_op(dom, InjectMsi { data, pad: 0, addr }).map(|_| ())
}

/// Raises or lowers a line, of a guest that has lines. May be called from an interrupt.
pub(crate) fn set_line(dom: DomId, line: Line, up: bool) -> Result {
    let level = u8::from(up);
    match line {
        Line::Isa(isa_irq) => dm_op(dom, SetIsaIrqLevel { isa_irq, level }).map(|_| ()),
        Line::PciIntx { device, pin } => {
            let payload = SetPciIntxLevel { segment: 0, bus: 0, device, intx: pin, level };
            dm_op(dom, payload).map(|_| ())
        }
        Line::Spi(irq) => dm_op(dom, SetIrqLevel { irq, level, pad: [0; 3] }).map(|_| ()),
    }
}

fn range(bytes: Bytes) -> (u32, u64, u64) {
    let kind = match bytes.space() {
        Space::Pio => 0,
        Space::Mmio => 1,
    };
    (kind, bytes.first(), bytes.last())
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
    // SAFETY: The argument is what the command takes, and its list has the one frame that it says;
    // both outlive the call.
    to_result(unsafe {
        bindings::shim_memory_op(bindings::XENMEM_acquire_resource, (&raw mut argument).cast())
    })?;
    Ok(frame)
}

/// Takes what is at a frame of ours out of our memory map.
pub(crate) fn remove_from_physmap(frame: Frame) -> Result {
    let mut argument =
        bindings::xen_remove_from_physmap { domid: DomId::SELF.0, gpfn: frame };
    // SAFETY: The argument is what the command takes, and outlives the call.
    to_result(unsafe {
        bindings::shim_memory_op(bindings::XENMEM_remove_from_physmap, (&raw mut argument).cast())
    })
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

/// Rings the other end of a port of ours. It fails only if nobody is there any more.
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

/// Closes a port of ours, unless it is somebody else's by now.
pub(crate) fn close_if_bound_to(port: Port, dom: DomId, remote: Port) {
    if is_bound_to(port, dom, remote) {
        let mut argument = bindings::evtchn_close { port: port.0 };
        let _ = event_channel_op(bindings::EVTCHNOP_close, &mut argument);
    }
}
