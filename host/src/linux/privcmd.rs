//! `/dev/xen/privcmd`: device model operations, a server's page, and the hypercalls without a device of their own.

use super::door::{ioctl, open};
use super::foreign::ForeignPages;
use super::page::{Mapping, Page, SIZE};
use super::sys::hypercall::{
    self, EvtchnAllocUnbound, EvtchnSend, EvtchnStatus, Operation, SchedRemoteShutdown,
};
use super::sys::privcmd::{self as sys, DmOpBuffer, DmOpRequest, Hypercall, MmapResource};
use crate::{Binding, Call, HostError, LocalPort};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use xen_eventfd_core::wire::dm_op::{Buffer, DmOp};
use xen_eventfd_core::{DomId, IoServerId, Port};

pub(super) const DEVICE: &str = "/dev/xen/privcmd";
/// Memory that the kernel pins for hypercalls; since Linux 4.18.
const BUFFERS: &str = "/dev/xen/hypercall";

/// The device. Its requests are independent of each other, so any thread may make them.
#[derive(Debug)]
pub(super) struct Privcmd {
    device: OwnedFd,
    buffers: Option<OwnedFd>,
}

impl Privcmd {
    pub(super) fn open() -> crate::Result<Self> {
        let device = open(DEVICE, OFlags::RDWR)
            .map_err(|errno| HostError::new(Call::Open(DEVICE), errno))?;
        let buffers = match open(BUFFERS, OFlags::RDWR) {
            Ok(buffers) => Some(buffers),
            Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => None,
            Err(errno) => return Err(HostError::new(Call::Open(BUFFERS), errno)),
        };
        Ok(Self { device, buffers })
    }

    /// A device that was handed over.
    pub(super) fn over(device: OwnedFd) -> Self {
        Self { device, buffers: open(BUFFERS, OFlags::RDWR).ok() }
    }

    /// Does one operation on a guest and returns it as Xen wrote it.
    #[inline]
    pub(super) fn dm_op(&self, dom: DomId, operation: DmOp) -> Result<Buffer, Errno> {
        let (mut request, size) = operation.emit();
        let buffer = DmOpBuffer { start: core::ptr::from_mut(&mut request).cast(), size };
        let mut argument = DmOpRequest { dom: dom.0, buffers: 1, first: &raw const buffer };
        // SAFETY: one buffer, which outlives the call and is at least as long as it says; Xen writes
        // bytes into it.
        unsafe { ioctl(self.device.as_fd(), sys::DM_OP, &mut argument) }?;
        Ok(request)
    }

    /// Acquires the ioreq page of a server and maps it.
    pub(super) fn ioreq_page(&self, dom: DomId, server: IoServerId) -> Result<Page, Errno> {
        let mapping = Mapping::of(self.device.as_fd(), SIZE)?;
        let mut argument = MmapResource {
            dom: dom.0,
            kind: sys::RESOURCE_IOREQ_SERVER,
            id: u32::from(server.0),
            first_frame: sys::FRAME_IOREQ,
            frames: 1,
            addr: mapping.start().as_ptr().expose_provenance() as u64,
        };
        // SAFETY: the address is that of one page of this device, to which nothing refers yet.
        unsafe { ioctl(self.device.as_fd(), sys::MMAP_RESOURCE, &mut argument) }?;
        // SAFETY: the driver has just filled it.
        Ok(unsafe { Page::new(mapping) })
    }

    /// Queries the state of a guest's port. An invalid port is [`Binding::Other`].
    pub(super) fn binding(&self, dom: DomId, port: Port) -> Result<Binding, Errno> {
        let question = EvtchnStatus { dom: dom.0, port: port.0, ..EvtchnStatus::default() };
        match self.evtchn_status(question) {
            Ok(status) => Ok(binding_of(&status)),
            Err(Errno::INVAL) => Ok(Binding::Other),
            Err(errno) => Err(errno),
        }
    }

    fn evtchn_status(&self, question: EvtchnStatus) -> Result<EvtchnStatus, Errno> {
        self.call(question)
    }

    /// Notifies the other end of a channel that this domain has bound.
    pub(super) fn notify_port(&self, port: LocalPort) -> Result<(), Errno> {
        self.call(EvtchnSend { port: port.0 }).map(drop)
    }

    /// Allocates a port of a guest for this domain to bind.
    pub(super) fn allocate_port(&self, dom: DomId) -> Result<Port, Errno> {
        let argument = EvtchnAllocUnbound { dom: dom.0, remote_dom: DomId::SELF.0, port: 0 };
        self.call(argument).map(|allocated| Port(allocated.port))
    }

    /// Shuts a guest down for this reason. The device model operation for that is x86's alone.
    pub(super) fn shut_down(&self, dom: DomId, reason: u32) -> Result<(), Errno> {
        self.call(SchedRemoteShutdown { dom: dom.0, pad: 0, reason }).map(drop)
    }

    /// Maps frames of a guest.
    pub(super) fn map_memory(&self, dom: DomId, frames: &[u64]) -> crate::Result<ForeignPages> {
        ForeignPages::map(self.device.as_fd(), dom, frames)
    }

    /// Makes the hypercall with the struct of its name, and returns it as Xen wrote it.
    fn call<T: Operation>(&self, argument: T) -> Result<T, Errno> {
        let buffer = match &self.buffers {
            Some(device) => Mapping::of(device.as_fd(), SIZE)?,
            None => Mapping::locked()?,
        };
        let place = buffer.start().cast::<T>();
        // SAFETY: a page is aligned for the struct and longer, and nothing else refers to this one.
        unsafe { place.write_volatile(argument) };
        let mut request = Hypercall {
            op: T::HYPERCALL,
            arg: [T::NUMBER, place.as_ptr().expose_provenance() as u64, 0, 0, 0],
        };
        // SAFETY: Xen reads and writes one struct of the operation in the buffer, which outlives it.
        unsafe { ioctl(self.device.as_fd(), sys::HYPERCALL, &mut request) }?;
        // SAFETY: as for the write; the struct is of integers, for which any bytes are a value.
        Ok(unsafe { place.read_volatile() })
    }
}

fn binding_of(status: &EvtchnStatus) -> Binding {
    let by = DomId(status.remote_dom);
    match status.status {
        hypercall::UNBOUND => Binding::Unbound { by },
        hypercall::INTERDOMAIN => Binding::Bound { by, port: LocalPort(status.remote_port) },
        _ => Binding::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_the_bound_domain() {
        let of = |status| {
            let (remote_dom, remote_port) = (3, 9);
            binding_of(&EvtchnStatus { status, remote_dom, remote_port, ..Default::default() })
        };
        assert_eq!(of(hypercall::UNBOUND), Binding::Unbound { by: DomId(3) });
        assert_eq!(of(hypercall::INTERDOMAIN), Binding::Bound { by: DomId(3), port: LocalPort(9) });
        assert!([0, 3, 4, 5, 99].into_iter().all(|other| of(other) == Binding::Other));
    }
}
