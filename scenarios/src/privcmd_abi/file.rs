//! `/dev/xen/eventfd` through the privcmd ABI: one guest's part of an open file.
//!
//! `docs/privcmd-abi.md` is its reference. A guest's [`PrivcmdFile`] is an open file of its own, so
//! that closing it releases that guest, and its fdinfo shows no other.

use super::sys;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, retry_on_intr};
use rustix::ioctl::{Opcode, Setter, ioctl};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use xen_eventfd_core::irq::IrqOp;
use xen_eventfd_core::wire::dm_op::DmOp;
use xen_eventfd_core::wire::privcmd::{IoEventFd, IrqFd};
use xen_eventfd_core::{DomId, Width};
use xen_eventfd_host::{Call, HostError, Result};

const DEVICE: &str = "/dev/xen/eventfd";

/// The writes for which an eventfd is signalled: those of this width to the notify register of the
/// device at `base` that have the queue's number in their low 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queue {
    /// The address of the device's registers. The notify register is at offset 0x50.
    pub(super) base: u64,
    /// The width of the write.
    pub(super) width: Width,
    /// The queue's number.
    pub(super) number: u16,
}

/// The key of a server: memory that the module checks for readability only.
/// Linux's privcmd ioeventfd patch expects the ioreq page there, and the event channels of its vCPUs.
#[derive(Debug)]
struct Key {
    slot: Box<[u8; 32]>,
    ports: Box<[u32]>,
}

/// A guest whose doorbells and interrupts are assigned by the requests of the privcmd ABI. Dropping it
/// removes all of them.
///
/// Every assignment fails with [`Errno::NODEV`] once the guest is dead
/// ([`HostError::is_gone`]).
#[derive(Debug)]
pub(super) struct PrivcmdFile {
    dom: DomId,
    device: OwnedFd,
    vcpus: u32,
    key: Key,
}

impl PrivcmdFile {
    /// Opens the device for a guest with this many vCPUs. Nothing is assigned yet, and the guest is
    /// not taken yet.
    ///
    /// # Errors
    /// [`Call::Open`].
    pub(super) fn open(dom: DomId, vcpus: u32) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let opened = retry_on_intr(|| open(DEVICE, flags, Mode::empty()));
        let device = opened.map_err(|errno| HostError::new(Call::Open(DEVICE), errno))?;
        Ok(Self::on(device, dom, vcpus))
    }

    fn on(device: OwnedFd, dom: DomId, vcpus: u32) -> Self {
        let ports = vec![0; vcpus as usize].into_boxed_slice();
        Self { dom, device, vcpus, key: Key { slot: Box::new([0; 32]), ports } }
    }

    /// Signals an eventfd for the kicks of a queue.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the eventfd has a queue of this guest already, or another process holds the guest
    /// alone; [`Errno::EXIST`] if the queue has an eventfd; [`Errno::NOSPC`] beyond the module's limit of
    /// doorbells; [`Errno::NOMEM`] if Xen keeps no further range.
    pub(super) fn assign(&self, queue: &Queue, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change_queue(IoEventFd {
            addr: queue.base,
            addr_len: queue.width.bytes().into(),
            vq: queue.number.into(),
            ..self.ioeventfd(eventfd)
        })
    }

    /// Removes a queue. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Errno::NODEV`] if it has no queue.
    pub(super) fn deassign(&self, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change_queue(IoEventFd { deassign: true, ..self.ioeventfd(eventfd) })
    }

    fn ioeventfd(&self, eventfd: BorrowedFd<'_>) -> IoEventFd {
        IoEventFd {
            ioreq: self.key.slot.as_ptr().expose_provenance() as u64,
            ports: self.key.ports.as_ptr().expose_provenance() as u64,
            addr: 0,
            addr_len: 0,
            event_fd: eventfd.as_raw_fd(),
            vcpus: self.vcpus,
            vq: 0,
            deassign: false,
            dom: self.dom,
        }
    }

    fn change_queue(&self, request: IoEventFd) -> Result<()> {
        // SAFETY: the request takes this struct, and only reads what it points to: the key,
        // which outlives the call and has a port for each of the struct's vCPUs.
        let answer = unsafe { self.request::<{ sys::IOEVENTFD }, _>(request.emit()) };
        answer.map_err(|errno| HostError::new(Call::Assign(self.dom), errno))
    }

    /// Makes Xen carry out an operation whenever an eventfd is signalled; a counter that is not 0
    /// causes it once, at once.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the eventfd has an operation, of any guest, or another process holds the guest
    /// alone; [`Errno::INVAL`] if the interrupt is invalid; [`Errno::NOSPC`] beyond the module's limit of
    /// irqfds.
    pub(super) fn assign_irq(&self, operation: IrqOp, eventfd: BorrowedFd<'_>) -> Result<()> {
        let call = Call::Interrupt(self.dom);
        let (dm_op, size) = DmOp::Irq(operation).emit();
        let Ok(size) = u32::try_from(size) else { return Err(HostError::new(call, Errno::INVAL)) };
        let dm_op = (&raw const dm_op).expose_provenance() as u64;
        self.change_irq(IrqFd { dm_op, size, ..self.irqfd(eventfd) }, call)
    }

    /// Removes the operation. When this returns, it is not carried out again. Returns `Ok` if the
    /// eventfd has none.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub(super) fn deassign_irq(&self, eventfd: BorrowedFd<'_>) -> Result<()> {
        let argument = IrqFd { deassign: true, ..self.irqfd(eventfd) };
        self.change_irq(argument, Call::Assign(self.dom))
    }

    fn irqfd(&self, eventfd: BorrowedFd<'_>) -> IrqFd {
        IrqFd { dm_op: 0, size: 0, fd: eventfd.as_raw_fd(), deassign: false, dom: self.dom }
    }

    fn change_irq(&self, request: IrqFd, call: Call) -> Result<()> {
        // SAFETY: the request takes this struct, and only reads what it points to: nothing to
        // deassign, else an operation that the caller keeps, with the length that the struct says.
        let answer = unsafe { self.request::<{ sys::IRQFD }, _>(request.emit()) };
        answer.map_err(|errno| HostError::new(call, errno))
    }

    /// Makes a request; repeats it after a signal, when the module has done nothing.
    ///
    /// # Safety
    /// `NUMBER` takes a pointer to `SIZE` bytes and only reads them; and every address inside `argument` is
    /// valid for what `NUMBER` does with it.
    unsafe fn request<const NUMBER: Opcode, const SIZE: usize>(
        &self,
        argument: [u8; SIZE],
    ) -> rustix::io::Result<()> {
        retry_on_intr(|| {
            // SAFETY: by the caller's contract.
            let setter = unsafe { Setter::<NUMBER, _>::new(argument) };
            // SAFETY: by the caller's contract.
            unsafe { ioctl(&self.device, setter) }
        })
    }

    /// The module's fdinfo of this file and its guest, as text: the ABI has no request to query.
    ///
    /// # Errors
    /// [`Call::Query`] if /proc is not mounted.
    pub(super) fn shown(&self) -> Result<String> {
        let path = format!("/proc/self/fdinfo/{}", self.device.as_raw_fd());
        let bytes = std::fs::read(path).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            HostError::new(Call::Query(self.dom), errno)
        })?;
        // The name of a process may be cut within a UTF-8 sequence.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::AsFd;
    use xen_eventfd_core::irq::Line;

    /// A file that is /dev/null: every request is refused.
    fn dev_null() -> PrivcmdFile {
        let null = open("/dev/null", OFlags::RDWR, Mode::empty()).unwrap();
        PrivcmdFile::on(null, DomId(5), 2)
    }

    #[test]
    fn errors_name_the_call() {
        let (file, eventfd) = (dev_null(), eventfd(0, EventfdFlags::empty()).unwrap());
        let refused = |call, result: Result<()>| {
            assert_eq!(result, Err(HostError::new(call, Errno::NOTTY)));
        };
        let (dom, fd) = (DomId(5), eventfd.as_fd());
        let queue = Queue { base: 0xFE00_0000, width: Width::Four, number: 3 };
        refused(Call::Assign(dom), file.assign(&queue, fd));
        refused(Call::Assign(dom), file.deassign(fd));
        refused(Call::Assign(dom), file.deassign_irq(fd));
        let lines = [Line::Isa(5), Line::PciIntx { device: 3, pin: 1 }, Line::Spi(33)];
        let msi = IrqOp::Msi { addr: 0xFEE0_0000, data: 0x41 };
        for operation in lines.map(|line| IrqOp::Set { line, up: true }).into_iter().chain([msi]) {
            refused(Call::Interrupt(dom), file.assign_irq(operation, fd));
        }
    }

    #[test]
    fn a_file_shows_its_fdinfo() {
        assert!(dev_null().shown().unwrap().contains("pos:"));
    }

    #[test]
    fn there_is_a_port_for_each_vcpu() {
        let (file, eventfd) = (dev_null(), eventfd(0, EventfdFlags::empty()).unwrap());
        let argument = file.ioeventfd(eventfd.as_fd());
        assert_eq!((argument.vcpus as usize, file.key.ports.len()), (2, 2));
    }
}
