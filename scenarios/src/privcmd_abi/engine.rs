//! The library's kernel engine by `IOCTL_PRIVCMD_IOEVENTFD` and `IOCTL_PRIVCMD_IRQFD`.
//!
//! The ABI has no request to query, so what the module counts is read from its text in fdinfo, and nothing
//! reports a guest's death but the next request.
//!
//! A guest is the file's as long as something is assigned for it. From the first moment on that is an interrupt
//! whose eventfd is never signalled: by it the guest has a server, and is kept from others, before it has a
//! doorbell.

use super::file::{PrivcmdFile, Queue};
use super::unsupported;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xen_eventfd::{Error, ModuleAbi, Result, module_status};
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::{Arch, Irq, IrqOp, Line, Raise, Trigger};
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::unmatched::UnmatchedKick;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::wire::privcmd::{QUEUE_MASK, QUEUE_NOTIFY};
use xen_eventfd_core::{Counters, DomId, Doorbell, Filter, IoServerId, Kick, Port, Space};
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::{self as host, Call, Errno, Host, HostError};
use xen_eventfd_ioreq::take_in_module;

/// What keeps the guest: an interrupt that is never raised, of a kind that each guest has.
const ANCHOR: Irq = match Arch::NATIVE {
    Arch::X86 => Irq::Msi { addr: 0xFEE0_0000, data: 0 },
    Arch::Arm => Irq::Line(Line::Spi(1019), Trigger::Level),
};

/// A doorbell in the terms of the ABI: the queue, and the writes that it then takes.
fn queue(doorbell: &Doorbell) -> Result<(Queue, Doorbell)> {
    if doorbell.bytes().space() != Space::Mmio {
        return Err(unsupported("doorbells at I/O ports"));
    }
    let Filter::Value { width, value, mask } = doorbell.filter() else {
        return Err(unsupported(if doorbell.is_fallback() { "fallbacks" } else { "wildcards" }));
    };
    let compared = QUEUE_MASK & width.mask();
    if mask != compared && mask != width.mask() {
        return Err(unsupported("masks of other bits than the low 16"));
    }
    let Ok(number) = u16::try_from(value) else {
        return Err(unsupported("values of more than 16 bits"));
    };
    let addr = doorbell.bytes().first();
    let Some(base) = addr.checked_sub(QUEUE_NOTIFY) else {
        return Err(unsupported("doorbells below 0x50"));
    };
    let taken = Doorbell::new(Space::Mmio, addr, Filter::Value { width, value, mask: compared })
        .map_err(|why| Error::Invalid { addr, why })?;
    Ok((Queue { base, width, number }, taken))
}

/// An interrupt as a device model operation.
fn operation(irq: &Irq) -> Result<IrqOp> {
    irq.check()?;
    match irq.raise() {
        Raise::Operate(operation, None) => Ok(operation),
        Raise::Operate(..) => Err(unsupported("pulses")),
        Raise::Notify(_) => Err(unsupported("interrupts by event channel")),
        Raise::Set(..) => Err(unsupported("InterruptStatus")),
    }
}

/// A guest's part of the file.
#[derive(Debug)]
pub(crate) struct Privcmd {
    dom: DomId,
    file: PrivcmdFile,
    #[expect(dead_code, reason = "being open is what it does")]
    anchor: OwnedFd,
}

impl Privcmd {
    /// What the module shows of the guest: alive, or else NODEV.
    fn shown(&self) -> host::Result<(module_status::Guest, module_status::Served)> {
        let answer = |errno| HostError::new(Call::Query(self.dom), errno);
        match self.file.shown()?.parse::<module_status::Guest>() {
            Ok(mut guest) => match guest.served.take() {
                Some(served) => Ok((guest, served)),
                None => Err(answer(Errno::NODEV)),
            },
            // The module does not show it any more.
            Err(module_status::Unreadable::Missing(_)) => Err(answer(Errno::NODEV)),
            Err(_) => Err(answer(Errno::PROTO)),
        }
    }
}

impl ModuleAbi for Privcmd {
    /// The ABI does not report which process holds a guest: `control` does. Nothing signals `gone`.
    fn take(host: &dyn Host, control: &Control, dom: DomId, _: BorrowedFd<'_>) -> Result<Self> {
        let file = PrivcmdFile::open(dom, host.vcpus(dom)?)?;
        let made = eventfd(0, EventfdFlags::CLOEXEC);
        let anchor = made.map_err(|errno| HostError::new(Call::EventFd, errno))?;
        let asked = operation(&ANCHOR)?;
        take_in_module(control, dom, || {
            file.assign_irq(asked, anchor.as_fd())
                .map_err(|error| HostError::new(Call::Take(dom), error.errno))
        })?;
        Ok(Self { dom, file, anchor })
    }

    fn server(&self) -> host::Result<IoServerId> {
        Ok(self.shown()?.1.server)
    }

    fn compared(doorbell: &Doorbell) -> Result<Doorbell> {
        queue(doorbell).map(|(_, compared)| compared)
    }

    /// A queue is deassigned by its eventfd alone, so an eventfd has one queue.
    fn assign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        let (queue, _) = queue(doorbell)?;
        self.file.assign(&queue, eventfd).map_err(|error| match error.errno {
            Errno::BUSY => unsupported("two doorbells of one eventfd"),
            _ => error.into(),
        })
    }

    fn deassign(&self, _: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.file.deassign(eventfd)?)
    }

    fn unmatched(&self, _: &Doorbell, _: BorrowedFd<'_>) -> Result<UnmatchedKick> {
        Err(unsupported("fallbacks"))
    }

    fn assign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.file.assign_irq(operation(irq)?, eventfd)?)
    }

    fn deassign_irq(&self, _: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.file.deassign_irq(eventfd)?)
    }

    fn set_irq(&self, _: &Irq, _: BorrowedFd<'_>, _: &Irq) -> Result<()> {
        Err(unsupported("another interrupt for an eventfd"))
    }

    fn mask_irq(&self, _: &Irq, _: BorrowedFd<'_>, _: bool) -> Result<()> {
        Err(unsupported("masking an interrupt"))
    }

    fn is_pending(&self, _: &Irq, _: BorrowedFd<'_>) -> Result<bool> {
        Err(unsupported("masking an interrupt"))
    }

    /// The module tells irqfds apart by their interrupts, and shows them in the order of their
    /// assignment, the anchor first.
    fn irq_counts(&self, irq: &Irq, _: BorrowedFd<'_>, before: usize) -> host::Result<(u64, u64)> {
        let (shown, _) = self.shown()?;
        let wanted = operation(irq).ok().map(|operation| operation.irq());
        let mut same = shown.irqs.iter().filter(|shown| Some(shown.irq) == wanted);
        let found = same.nth(before + usize::from(*irq == ANCHOR));
        Ok(found.map_or((0, 0), |irq| (irq.raised, irq.failed)))
    }

    fn lower(&self, _: &Irq, _: BorrowedFd<'_>) -> Result<()> {
        Err(unsupported("lowering a line"))
    }

    fn assign_status(&self, _: Registers, _: &Irq) -> Result<()> {
        Err(unsupported("InterruptStatus"))
    }

    fn deassign_status(&self, _: Registers, _: &Irq) -> Result<u32> {
        Err(unsupported("InterruptStatus"))
    }

    fn change_status(&self, _: Registers, _: &Irq, _: StatusChange) -> Result<DeviceStatus> {
        Err(unsupported("InterruptStatus"))
    }

    fn assign_channel(&self, _: Port, _: BorrowedFd<'_>) -> Result<()> {
        Err(unsupported("event channels to eventfds"))
    }

    fn deassign_channel(&self, _: Port, _: BorrowedFd<'_>) -> Result<()> {
        Err(unsupported("event channels to eventfds"))
    }

    fn counters(&self) -> host::Result<Counters> {
        let (_, module_status::Served { counters, .. }) = self.shown()?;
        Ok(counters)
    }

    fn assigned(&self) -> host::Result<Vec<(Doorbell, u64)>> {
        let (shown, _) = self.shown()?;
        Ok(shown.doorbells.iter().map(|shown| (shown.doorbell, shown.kicks)).collect())
    }

    fn held(&self) -> host::Result<Vec<Kick>> {
        let (shown, _) = self.shown()?;
        Ok(shown.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::super::missing;
    use super::*;
    use xen_eventfd_core::Width;
    use xen_eventfd_core::irq::{Line, Trigger};

    fn at(addr: u64, filter: Filter) -> Result<(Queue, Doorbell)> {
        queue(&Doorbell::new(Space::Mmio, addr, filter).unwrap())
    }

    fn exactly(width: Width, value: u64) -> Filter {
        Filter::Value { width, value, mask: width.mask() }
    }

    #[test]
    fn a_value_of_16_bits_is_a_queue_whatever_the_width() {
        for width in [Width::Two, Width::Four, Width::Eight] {
            let (queue, taken) = at(0xFE00_0050, exactly(width, 0xFFFF)).unwrap();
            assert_eq!(queue, Queue { base: 0xFE00_0000, width, number: 0xFFFF });
            assert_eq!(taken.filter(), Filter::Value { width, value: 0xFFFF, mask: 0xFFFF });
            let masked = at(0xFE00_0050, Filter::Value { width, value: 0xFFFF, mask: 0xFFFF });
            assert_eq!(masked.unwrap(), (queue, taken));
        }
        let (queue, taken) = at(QUEUE_NOTIFY, exactly(Width::One, 0xFF)).unwrap();
        assert_eq!(queue, Queue { base: 0, width: Width::One, number: 0xFF });
        assert_eq!(taken.filter(), exactly(Width::One, 0xFF));
    }

    #[test]
    fn what_has_no_request_is_named() {
        let four = Width::Four;
        let pio = Doorbell::new(Space::Pio, 0xC050, exactly(four, 1)).unwrap();
        for (refused, what) in [
            (queue(&pio), "I/O ports"),
            (at(QUEUE_NOTIFY - 1, exactly(four, 1)), "below 0x50"),
            (at(QUEUE_NOTIFY, exactly(four, 0x1_0000)), "16 bits"),
            (at(QUEUE_NOTIFY, Filter::Value { width: four, value: 1, mask: 0xFF }), "masks"),
            (at(QUEUE_NOTIFY, Filter::Width(four)), "wildcards"),
            (at(QUEUE_NOTIFY, Filter::Any { span: 4 }), "wildcards"),
            (at(QUEUE_NOTIFY, Filter::Fallback { span: 4 }), "fallbacks"),
        ] {
            let refused = refused.unwrap_err();
            assert!(missing(&refused).unwrap().contains(what), "{refused}");
        }
    }

    #[test]
    fn an_interrupt_is_an_operation_that_raises_it() {
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        assert_eq!(operation(&msi).unwrap().irq(), msi);
        let line = Irq::Line(Line::Isa(5), Trigger::Level);
        let raise = IrqOp::Set { line: Line::Isa(5), up: true };
        assert_eq!(operation(&line).unwrap(), raise);
        for irq in [Irq::Line(Line::Isa(5), Trigger::Pulse), Irq::EventChannel(Port(3))] {
            let refused = operation(&irq).unwrap_err();
            assert!(missing(&refused).is_some(), "{refused}");
        }
        let refused = operation(&Irq::EventChannel(Port(0))).unwrap_err();
        assert_eq!(refused.errno(), Errno::INVAL);
    }

    #[test]
    fn what_the_module_shows_is_found_again() {
        let text = "dom:\t3\ninterface:\tprivcmd\nowner:\t412 backend\n\
            doorbell:\tmmio 0xfe000050 len 4 value 0x3 mask 0xffff kicks 10 held 0 odd 0\n\
            irq:\tmsi 0xfee00000 0x41 raised 3 failed 0\nirq:\tintx 3.1 level raised 0 failed 0\n";
        let guest: module_status::Guest = text.parse().unwrap();
        let (_, ours) = at(0xFE00_0050, exactly(Width::Four, 3)).unwrap();
        let (_, other) = at(0xFE00_0050, exactly(Width::Two, 3)).unwrap();
        let theirs = guest.doorbells[0].doorbell;
        assert!(theirs == ours && theirs != other, "{theirs:?}");
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        let intx = Irq::Line(Line::PciIntx { device: 3, pin: 1 }, Trigger::Level);
        let shown: Vec<_> = guest.irqs.iter().map(|shown| shown.irq).collect();
        assert_eq!(shown, [msi, intx].map(|irq| operation(&irq).unwrap().irq()));
    }
}
