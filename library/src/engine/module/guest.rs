//! A guest that the module serves, by whichever ABI.

use super::{ModuleAbi, ModuleEngine};
use crate::engine::doorbells::{Answers, Doorbells, Registered, Registration, Unmatched};
use crate::engine::{
    Attachment, IrqCounts, check_irq, check_line, check_space, named, status_named,
};
use crate::eventfd::{EventFd, IrqClaim};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xen_eventfd_core::dispatch::Leftover;
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::{Irq, Trigger};
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port, Space};
use xen_eventfd_host::{self as host, Call, Errno, HostError};
use xen_eventfd_ioreq::Hold;
use xen_eventfd_ioreq::sync::{Mutex, lock};

/// A guest that the module serves for us.
#[derive(Debug)]
pub(super) struct ModuleGuest<I: ModuleAbi> {
    engine: Arc<ModuleEngine<I>>,
    dom: DomId,
    server: IoServerId,
    /// Signalled once the guest is known to be dead, by the module or by this engine.
    gone: OwnedFd,
    /// `None` once the guest is let go of or known to be dead.
    open: Mutex<Option<Open<I>>>,
    /// As they were when last asked for: a dead guest has none.
    counters: Mutex<Counters>,
    last_error: Mutex<Option<HostError>>,
    serial: AtomicU64,
}

/// What is registered, and through what. Dropped from the top: the guest is let go of before others
/// may take it.
#[derive(Debug)]
struct Open<I> {
    interface: I,
    /// As the module compares. The claims and held kicks are those that matter for kicks that a
    /// dead engine left.
    doorbells: Doorbells<Device>,
    irqs: BTreeMap<u64, IrqFd>,
    /// With their serial numbers.
    channels: BTreeMap<Port, (u64, EventFd)>,
    hold: Hold,
}

/// The registers of a device, which the module answers.
#[derive(Debug)]
struct Device {
    registers: Registers,
    irq: Irq,
    serial: u64,
}

impl Answers for Device {
    fn registers(&self) -> Registers {
        self.registers
    }

    fn answer(&self, _: &Leftover<'_>) -> u64 {
        0
    }
}

#[derive(Debug)]
struct IrqFd {
    /// First, as it must not outlive the reference.
    #[expect(dead_code, reason = "no other raises an interrupt for the eventfd meanwhile")]
    claim: IrqClaim,
    irq: Irq,
    eventfd: EventFd,
    counts: Arc<IrqCounts>,
}

impl<I: ModuleAbi> Open<I> {
    /// What is registered. Of the module's counts, those that it does not report are missing.
    fn registered(&self, last_error: &Mutex<Option<HostError>>) -> Result<Vec<Registered>> {
        let kicks = answered(self.interface.assigned(), last_error)?;
        let kicks: HashMap<_, _> = kicks.into_iter().collect();
        let show = |ours: &Registration| {
            let delivered = kicks.get(&ours.doorbell).copied().unwrap_or(0);
            // This engine's own are those that a dead one left.
            Registered { doorbell: ours.doorbell, kicks: ours.kicks + delivered }
        };
        Ok(self.doorbells.table().iter().map(show).collect())
    }

    /// What waits for an eventfd, of which we know ourselves what a dead engine left.
    fn held(&self, last_error: &Mutex<Option<HostError>>) -> Result<Vec<Kick>> {
        let theirs = answered(self.interface.held(), last_error)?;
        let ours = self.doorbells.held().iter().copied();
        let all: BTreeSet<Kick> = theirs.into_iter().chain(ours).collect();
        Ok(all.into_iter().collect())
    }

    fn irq(&self, serial: u64) -> Result<&IrqFd> {
        self.irqs.get(&serial).ok_or_else(ended)
    }

    /// Ends an irqfd. Its last counts are worth less than its end.
    fn end_irq(&mut self, serial: u64) -> Result<()> {
        let Some(irqfd) = self.irqs.get(&serial) else { return Ok(()) };
        if let Err(error) = self.count(serial, irqfd) {
            tracing::debug!(%error, "the last counts of an irqfd are unknown");
        }
        self.interface.deassign_irq(&irqfd.irq, irqfd.eventfd.as_fd())?;
        self.irqs.remove(&serial);
        Ok(())
    }

    /// The device with these registers, and this interrupt and serial number if they are given.
    fn device(
        &self,
        registers: Registers,
        irq: Option<Irq>,
        serial: Option<u64>,
    ) -> Result<&Device> {
        let found = self.doorbells.device(registers).map(|device| &**device);
        let same = |device: &&Device| {
            irq.is_none_or(|irq| irq == device.irq)
                && serial.is_none_or(|serial| serial == device.serial)
        };
        found.filter(same).ok_or_else(|| Error::NotRegistered { what: status_named(registers) })
    }

    /// Whether an irqfd can raise an interrupt, as far as devices with InterruptStatus are concerned.
    fn check_irq(&self, irq: Irq) -> Result<()> {
        let Irq::Status { addr, .. } = irq else {
            return check_line(&irq, self.doorbells.devices().map(|device| device.irq));
        };
        let registers = Registers::new(addr).map_err(|why| Error::InvalidStatus { addr, why })?;
        self.device(registers, None, None).map(|_| ())
    }

    /// Ends what signals the eventfd of a port.
    fn end_channel(&mut self, port: Port, serial: u64) -> Result<()> {
        let found = self.channels.get(&port).filter(|(its, _)| *its == serial);
        let Some((_, eventfd)) = found else { return Ok(()) };
        self.interface.deassign_channel(port, eventfd.as_fd())?;
        self.channels.remove(&port);
        Ok(())
    }

    /// Brings the counts of an irqfd up to date.
    fn count(&self, serial: u64, irqfd: &IrqFd) -> host::Result<()> {
        let before = self.irqs.range(..serial).filter(|(_, other)| other.irq == irqfd.irq).count();
        let (raised, failed) =
            self.interface.irq_counts(&irqfd.irq, irqfd.eventfd.as_fd(), before)?;
        irqfd.counts.raised.store(raised, Ordering::Relaxed);
        irqfd.counts.failed.store(failed, Ordering::Relaxed);
        Ok(())
    }
}

/// An answer of the module; nothing, if it does not answer, which is kept and logged. That the guest is
/// gone is an error.
fn answered<T: Default>(
    answer: host::Result<T>,
    last_error: &Mutex<Option<HostError>>,
) -> host::Result<T> {
    match answer {
        Err(error) if error.errno != Errno::NODEV => {
            tracing::warn!(%error, "the module does not answer");
            *lock(last_error) = Some(error);
            Ok(T::default())
        }
        answered => answered,
    }
}

/// That an irqfd is none any more.
fn ended() -> Error {
    Error::NotRegistered { what: "this interrupt".to_owned() }
}

impl<I: ModuleAbi> ModuleGuest<I> {
    /// What the engine took, with kicks that a dead one left.
    pub(super) fn new(
        engine: Arc<ModuleEngine<I>>,
        hold: Hold,
        gone: OwnedFd,
        interface: I,
    ) -> Result<Self> {
        let dom = hold.dom();
        let server = interface.server().map_err(|error| match error.errno {
            Errno::NODEV => Error::GuestDied(dom),
            _ => error.into(),
        })?;
        let mut doorbells = Doorbells::default();
        hold.held().for_each(|kick| doorbells.hold(kick));
        let (irqs, channels) = Default::default();
        let open = Open { interface, doorbells, irqs, channels, hold };
        Ok(Self {
            engine,
            dom,
            server,
            gone,
            open: Mutex::new(Some(open)),
            counters: Mutex::default(),
            last_error: Mutex::default(),
            serial: AtomicU64::new(0),
        })
    }

    fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, what: impl FnOnce(&mut Open<I>) -> Result<T>) -> Result<T> {
        let died = |open: &Open<I>| {
            // Before another may take what has its number.
            open.hold.forget();
            // The counter is not full: it was signalled once at most.
            let _ = rustix::io::write(&self.gone, &1_u64.to_ne_bytes());
        };
        with(self.dom, &self.open, died, what)
    }

    /// What a refusal of the module means that has `have` of a kind and keeps `limit` of it.
    fn refused(&self, error: Error, have: usize, limit: u32) -> Error {
        too_many(self.dom, error, have, limit as usize)
    }
}

/// What a refusal means where there may be `limit` registrations and are `have`. That too many event
/// channels are bound is an error of its own, with another limit: it is left as the host names it.
fn too_many(dom: DomId, error: Error, have: usize, limit: usize) -> Error {
    match error {
        Error::Host(HostError { call: Call::Bind(..), errno: Errno::NOSPC, .. })
            if have < limit =>
        {
            error
        }
        Error::Host(error) if error.errno == Errno::NOSPC => Error::TooMany { dom, limit },
        other => other,
    }
}

/// That the eventfd raises an interrupt, or the port has an eventfd.
fn busy(error: Error, what: impl FnOnce() -> String) -> Error {
    match error {
        Error::Host(error) if error.errno == Errno::BUSY => Error::Busy { what: what() },
        other => other,
    }
}

impl<I: ModuleAbi> Attachment for ModuleGuest<I> {
    fn dom(&self) -> DomId {
        self.dom
    }

    fn server(&self) -> IoServerId {
        self.server
    }

    fn register(
        &self,
        doorbell: Doorbell,
        eventfd: EventFd,
        unmatched: Option<Arc<Mutex<Unmatched>>>,
    ) -> Result<u64> {
        check_space(&*self.engine.host, &doorbell)?;
        let doorbell = I::compared(&doorbell)?;
        self.with(|open| {
            open.doorbells.check(self.dom, &doorbell)?;
            // First, so that what a dead engine left is not lost for want of it.
            let mut signaller = match open.doorbells.held() {
                [] => None,
                _ => Some(self.engine.host.signaller()?),
            };
            open.interface.assign(&doorbell, eventfd.as_fd()).map_err(|error| {
                let have = open.doorbells.table().len();
                self.refused(error, have, self.engine.control.info().max_doorbells)
            })?;
            let serial = self.serial();
            let eventfd = Arc::new(eventfd);
            let new = Registration { doorbell, eventfd, serial, unmatched, kicks: 0 };
            // To map the bytes was the module's to do.
            let _ = open.doorbells.claim(doorbell.bytes());
            open.doorbells.add(new, &mut |eventfd| {
                let signaller = signaller.as_mut();
                signaller.is_some_and(|signaller| signaller.signal(eventfd.as_fd()).is_ok())
            })?;
            Ok(serial)
        })
    }

    fn unregister(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Result<()> {
        let doorbell = I::compared(doorbell)?;
        self.with(|open| {
            let found = open.doorbells.find(&doorbell, eventfd, serial);
            let found = found.ok_or_else(|| Error::NotRegistered { what: named(&doorbell) })?;
            open.interface.deassign(&doorbell, found.eventfd.as_fd())?;
            open.doorbells.remove(&doorbell, eventfd, serial);
            for piece in open.doorbells.unclaim(doorbell.bytes()) {
                open.doorbells.forget(piece);
            }
            Ok(())
        })
    }

    fn find(&self, eventfd: &EventFd, place: Option<(Space, u64)>) -> Result<Option<Doorbell>> {
        self.with(|open| {
            open.interface.alive()?;
            Ok(open.doorbells.of(eventfd, place))
        })
    }

    fn collect(&self, fallback: &Doorbell, serial: u64, unmatched: &Mutex<Unmatched>) {
        let collected = self.with(|open| {
            let Some(found) = open.doorbells.find(fallback, None, Some(serial)) else {
                return Ok(());
            };
            // A guest that goes on kicking does not keep us here.
            for _ in 0..=self.engine.control.info().max_missed {
                let received = open.interface.unmatched(fallback, found.eventfd.as_fd())?;
                let mut unmatched = lock(unmatched);
                unmatched.put_back(&received);
                if received.kick.is_none() {
                    break;
                }
            }
            Ok(())
        });
        if let Err(error) = collected {
            tracing::debug!(%error, dom = %self.dom, "the kicks of a fallback are unknown");
        }
    }

    fn register_irq(&self, eventfd: EventFd, irq: Irq) -> Result<(u64, Arc<IrqCounts>)> {
        check_irq(&*self.engine.host, self.dom, &irq)?;
        self.with(|open| {
            open.check_irq(irq)?;
            let claim = eventfd.claim()?;
            open.interface.assign_irq(&irq, eventfd.as_fd()).map_err(|error| {
                let error = busy(error, || "an interrupt for this eventfd".to_owned());
                self.refused(error, open.irqs.len(), self.engine.control.info().max_irqs)
            })?;
            let (serial, counts) = (self.serial(), Arc::new(IrqCounts::default()));
            let irqfd = IrqFd { claim, irq, eventfd, counts: Arc::clone(&counts) };
            open.irqs.insert(serial, irqfd);
            Ok((serial, counts))
        })
    }

    fn find_irq(&self, eventfd: &EventFd, irq: &Irq) -> Result<u64> {
        self.with(|open| {
            let same = |irqfd: &IrqFd| irqfd.eventfd.is(eventfd) && irqfd.irq == *irq;
            let found = open.irqs.iter().find(|(_, irqfd)| same(irqfd));
            found
                .map(|(serial, _)| *serial)
                .ok_or_else(|| Error::NotRegistered { what: irq.to_string() })
        })
    }

    fn set_irq(&self, serial: u64, irq: Irq) -> Result<()> {
        check_irq(&*self.engine.host, self.dom, &irq)?;
        self.with(|open| {
            open.check_irq(irq)?;
            let irqfd = open.irqs.get_mut(&serial).ok_or_else(ended)?;
            // It has its place among the interrupts.
            open.interface.set_irq(&irqfd.irq, irqfd.eventfd.as_fd(), &irq)?;
            irqfd.irq = irq;
            Ok(())
        })
    }

    fn mask_irq(&self, serial: u64, masked: bool) -> Result<()> {
        self.with(|open| {
            let irqfd = open.irq(serial)?;
            open.interface.mask_irq(&irqfd.irq, irqfd.eventfd.as_fd(), masked)
        })
    }

    fn is_pending(&self, serial: u64) -> Result<bool> {
        self.with(|open| {
            let irqfd = open.irq(serial)?;
            open.interface.is_pending(&irqfd.irq, irqfd.eventfd.as_fd())
        })
    }

    fn unregister_irq(&self, serial: u64) -> Result<()> {
        match self.with(|open| open.end_irq(serial)) {
            // With a guest that is dead, its interrupts have ended.
            Err(Error::GuestDied(_)) => Ok(()),
            ended => ended,
        }
    }

    fn count_irqs(&self, serial: u64) {
        let counted = self.with(|open| match open.irqs.get(&serial) {
            Some(irqfd) => Ok(open.count(serial, irqfd)?),
            None => Ok(()),
        });
        if let Err(error) = counted {
            tracing::debug!(%error, dom = %self.dom, "the counts of an irqfd are unknown");
        }
    }

    fn lower(&self, serial: u64) -> Result<()> {
        self.with(|open| {
            let irqfd = open.irq(serial)?;
            match irqfd.irq {
                Irq::Line(_, Trigger::Level) => {
                    open.interface.lower(&irqfd.irq, irqfd.eventfd.as_fd())
                }
                _ => Ok(open.interface.alive()?),
            }
        })
    }

    fn register_status(&self, registers: Registers, irq: Irq) -> Result<u64> {
        irq.check_of_device()?;
        check_irq(&*self.engine.host, self.dom, &irq)?;
        self.with(|open| {
            open.doorbells.check_device(self.dom, registers)?;
            open.check_irq(irq)?;
            check_line(&irq, open.irqs.values().map(|irqfd| irqfd.irq))?;
            open.interface.assign_status(registers, &irq)?;
            let serial = self.serial();
            // To map the bytes was the module's to do.
            let _ = open.doorbells.claim(registers.bytes());
            open.doorbells.add_device(Arc::new(Device { registers, irq, serial }))?;
            Ok(serial)
        })
    }

    fn unregister_status(
        &self,
        registers: Registers,
        irq: Option<Irq>,
        serial: Option<u64>,
    ) -> Result<u32> {
        self.with(|open| {
            let irq = open.device(registers, irq, serial)?.irq;
            let set = |irqfd: &IrqFd| matches!(irqfd.irq, Irq::Status { addr, .. } if addr == registers.addr());
            let ending: Vec<_> = open.irqs.iter().filter(|(_, irqfd)| set(irqfd)).collect();
            for (serial, irqfd) in ending {
                if let Err(error) = open.count(*serial, irqfd) {
                    tracing::debug!(%error, "the last counts of an irqfd are unknown");
                }
            }
            let bits = open.interface.deassign_status(registers, &irq)?;
            open.irqs.retain(|_, irqfd| !set(irqfd));
            open.doorbells.remove_device(registers);
            for piece in open.doorbells.unclaim(registers.bytes()) {
                open.doorbells.forget(piece);
            }
            Ok(bits)
        })
    }

    fn change_status(
        &self,
        registers: Registers,
        serial: u64,
        change: StatusChange,
    ) -> Result<DeviceStatus> {
        self.with(|open| {
            let irq = open.device(registers, None, Some(serial))?.irq;
            open.interface.change_status(registers, &irq, change)
        })
    }

    fn listen(&self, eventfd: EventFd, port: Port) -> Result<u64> {
        Irq::EventChannel(port).check()?;
        self.with(|open| {
            open.interface
                .assign_channel(port, eventfd.as_fd())
                .map_err(|error| busy(error, || format!("an eventfd for {port}")))?;
            let serial = self.serial();
            open.channels.insert(port, (serial, eventfd));
            Ok(serial)
        })
    }

    fn find_channel(&self, eventfd: &EventFd, port: Port) -> Result<u64> {
        self.with(|open| match open.channels.get(&port) {
            Some((serial, ours)) if ours.is(eventfd) => Ok(*serial),
            _ => Err(Error::NotRegistered { what: port.to_string() }),
        })
    }

    fn stop_listening(&self, port: Port, serial: u64) -> Result<()> {
        match self.with(|open| open.end_channel(port, serial)) {
            // With a guest that is dead, its channels have ended.
            Err(Error::GuestDied(_)) => Ok(()),
            ended => ended,
        }
    }

    fn close(&self) -> Result<()> {
        // The last counts, and whether it is dead.
        self.counters();
        let Some(open) = lock(&self.open).take() else { return Ok(()) };
        let Open { interface, doorbells, mut hold, .. } = open;
        // No vCPU waits for us after this.
        drop(interface);
        Ok(hold.settle(&*self.engine.host, doorbells.inherited())?)
    }

    fn counters(&self) -> Counters {
        let asked = self.with(|open| {
            let theirs = open.interface.counters()?;
            // What we signalled for a dead engine.
            let ours = open.doorbells.counters;
            let mut all = theirs;
            all.redelivered += ours.redelivered;
            all.failed = ours.failed;
            Ok(all)
        });
        if let Err(Error::Host(error)) = &asked {
            tracing::warn!(%error, dom = %self.dom, "the counters are those of an earlier answer");
            *lock(&self.last_error) = Some(error.clone());
        }
        let mut last = lock(&self.counters);
        if let Ok(counters) = asked {
            *last = counters;
        }
        *last
    }

    fn registered(&self) -> Vec<Registered> {
        // A dead guest has none.
        self.with(|open| open.registered(&self.last_error)).unwrap_or_default()
    }

    fn held(&self) -> Vec<Kick> {
        self.with(|open| open.held(&self.last_error)).unwrap_or_default()
    }

    /// A query that the module did not answer; it wakes vCPUs by a call that does not fail.
    fn last_error(&self) -> Option<HostError> {
        lock(&self.last_error).clone()
    }

    fn gone(&self) -> BorrowedFd<'_> {
        self.gone.as_fd()
    }

    fn is_served(&self) -> bool {
        // Whatever else fails says nothing of the guest.
        let asked = self.with(|open| Ok(open.interface.counters()?));
        !matches!(asked, Err(Error::GuestDied(_)))
    }
}

impl<I: ModuleAbi> Drop for ModuleGuest<I> {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, dom = %self.dom, "a guest was not let go of cleanly");
        }
    }
}

/// Does something with a guest that the module serves, unless it is gone. If it turns out to be
/// dead, drops all that we hold of it, and then calls `died`.
fn with<Held, T>(
    dom: DomId,
    held: &Mutex<Option<Held>>,
    died: impl FnOnce(&Held),
    what: impl FnOnce(&mut Held) -> Result<T>,
) -> Result<T> {
    let mut held = lock(held);
    match held.as_mut().map_or(Err(Error::GuestDied(dom)), what) {
        Err(Error::Host(error)) if error.errno == Errno::NODEV => {
            if let Some(held) = held.take() {
                died(&held);
                tracing::info!(%dom, "a guest died");
            }
            Err(Error::GuestDied(dom))
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::doorbells::Registration;
    use crate::eventfd;
    use xen_eventfd_core::{Access, Filter, Width};
    use xen_eventfd_host::Host;
    use xen_eventfd_host::linux::eventfd::Control;
    use xen_eventfd_ioreq::{Reserve, Role, RunDir};

    #[test]
    fn a_guest_that_turns_out_to_be_dead_is_dropped_once() {
        let (dom, held, mut deaths) = (DomId(5), Mutex::new(Some(())), 0);
        let gone = HostError::new(Call::Query(dom), Errno::NODEV);
        for _ in 0..2 {
            let asked: Result<()> =
                with(dom, &held, |()| deaths += 1, |()| Err(Error::Host(gone.clone())));
            assert!(matches!(asked, Err(Error::GuestDied(DomId(5)))), "{asked:?}");
        }
        assert_eq!((deaths, lock(&held).is_some()), (1, false));
    }

    #[test]
    fn too_many_event_channels_are_not_too_many_interrupts() {
        let dom = DomId(5);
        let refused = |call, have| {
            let error = Error::Host(HostError::new(call, Errno::NOSPC));
            let error = too_many(dom, error, have, 1024);
            assert_eq!(error.errno(), Errno::NOSPC);
            error.to_string()
        };
        let channels = refused(Call::Bind(dom, Port(3)), 1023);
        assert!(channels.contains("max_channels") && !channels.contains("1024"), "{channels}");
        for call in [Call::Bind(dom, Port(3)), Call::Interrupt(dom)] {
            assert!(refused(call, 1024).contains("has 1024 registrations already"));
        }
    }

    /// A module that answers no query, and ends an irqfd unless it `refuses`.
    #[derive(Debug, Default)]
    struct Silent {
        refuses: bool,
        ended: AtomicU64,
    }

    fn broken() -> HostError {
        HostError::new(Call::Query(DomId(1)), Errno::INTR)
    }

    impl ModuleAbi for Silent {
        fn take(_: &dyn Host, _: &Control, _: DomId, _: BorrowedFd<'_>) -> Result<Self> {
            Ok(Self::default())
        }
        fn server(&self) -> host::Result<IoServerId> {
            Err(broken())
        }
        fn compared(doorbell: &Doorbell) -> Result<Doorbell> {
            Ok(*doorbell)
        }
        fn assign(&self, _: &Doorbell, _: BorrowedFd<'_>) -> Result<()> {
            Ok(())
        }
        fn deassign(&self, _: &Doorbell, _: BorrowedFd<'_>) -> Result<()> {
            Ok(())
        }
        fn unmatched(
            &self,
            _: &Doorbell,
            _: BorrowedFd<'_>,
        ) -> Result<xen_eventfd_core::unmatched::UnmatchedKick> {
            Err(broken().into())
        }
        fn assign_irq(&self, _: &Irq, _: BorrowedFd<'_>) -> Result<()> {
            Ok(())
        }
        fn deassign_irq(&self, _: &Irq, _: BorrowedFd<'_>) -> Result<()> {
            if self.refuses {
                return Err(broken().into());
            }
            self.ended.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        fn set_irq(&self, _: &Irq, _: BorrowedFd<'_>, _: &Irq) -> Result<()> {
            Ok(())
        }
        fn mask_irq(&self, _: &Irq, _: BorrowedFd<'_>, _: bool) -> Result<()> {
            Ok(())
        }
        fn is_pending(&self, _: &Irq, _: BorrowedFd<'_>) -> Result<bool> {
            Ok(false)
        }
        fn irq_counts(&self, _: &Irq, _: BorrowedFd<'_>, _: usize) -> host::Result<(u64, u64)> {
            Err(broken())
        }
        fn lower(&self, _: &Irq, _: BorrowedFd<'_>) -> Result<()> {
            Ok(())
        }
        fn assign_status(&self, _: Registers, _: &Irq) -> Result<()> {
            Ok(())
        }
        fn deassign_status(&self, _: Registers, _: &Irq) -> Result<u32> {
            if self.refuses { Err(broken().into()) } else { Ok(1) }
        }
        fn change_status(&self, _: Registers, _: &Irq, _: StatusChange) -> Result<DeviceStatus> {
            Err(broken().into())
        }
        fn assign_channel(&self, _: Port, _: BorrowedFd<'_>) -> Result<()> {
            Ok(())
        }
        fn deassign_channel(&self, _: Port, _: BorrowedFd<'_>) -> Result<()> {
            if self.refuses { Err(broken().into()) } else { Ok(()) }
        }
        fn counters(&self) -> host::Result<Counters> {
            Err(broken())
        }
        fn assigned(&self) -> host::Result<Vec<(Doorbell, u64)>> {
            Err(broken())
        }
        fn held(&self) -> host::Result<Vec<Kick>> {
            Err(broken())
        }
    }

    #[test]
    fn a_query_that_the_module_does_not_answer_is_reported_and_what_the_engine_knows_is_listed() {
        let (mut open, _dir) = open();
        let fd = eventfd::new().unwrap();
        let eventfd = Arc::new(EventFd::new(fd.as_fd()).unwrap());
        let doorbell = Doorbell::new(Space::Mmio, 0x50, Filter::Any { span: 4 }).unwrap();
        let new = Registration { doorbell, eventfd, serial: 1, unmatched: None, kicks: 0 };
        open.doorbells.add(new, &mut |_| true).unwrap();
        let access = Access { space: Space::Mmio, addr: 0x60, width: Width::Four };
        let left = Kick { access, value: 3 };
        open.doorbells.hold(left);

        let (one, two) = <(Mutex<_>, Mutex<_>)>::default();
        let registered = open.registered(&one).unwrap();
        assert_eq!(registered.iter().map(|it| it.doorbell).collect::<Vec<_>>(), [doorbell]);
        assert_eq!(open.held(&two).unwrap(), [left]);
        assert_eq!((lock(&one).clone(), lock(&two).clone()), (Some(broken()), Some(broken())));

        let gone = HostError::new(Call::Query(DomId(1)), Errno::NODEV);
        assert_eq!(answered::<()>(Err(gone.clone()), &one), Err(gone));
        assert_eq!(lock(&one).clone(), Some(broken()), "a guest's end is no failure");
    }

    /// An interface that answers nothing, with nothing registered.
    fn open() -> (Open<Silent>, tempfile::TempDir) {
        let model = xen_eventfd_model::Model::new();
        let dom = model.domain(xen_eventfd_model::Config::new("guest"));
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        let host = model.client("us");
        let hold =
            Hold::take(&*host, None, &run_dir, dom, super::super::SERVES, &Reserve::No).unwrap();
        let (interface, doorbells, irqs, channels) = Default::default();
        (Open { interface, doorbells, irqs, channels, hold }, dir)
    }

    #[test]
    fn an_irqfd_ends_though_its_counts_are_unknown_and_one_that_does_not_end_is_an_error() {
        let (mut open, _dir) = open();
        let fd = eventfd::new().unwrap();
        let eventfd = EventFd::new(fd.as_fd()).unwrap();
        let irqfd = IrqFd {
            claim: eventfd.claim().unwrap(),
            irq: Irq::Msi { addr: 0xFEE0_0000, data: 0x41 },
            eventfd,
            counts: Arc::default(),
        };
        open.interface.refuses = true;
        open.irqs.insert(7, irqfd);
        assert_eq!(open.end_irq(7).unwrap_err().errno(), Errno::INTR);
        assert!(open.irqs.contains_key(&7), "it can be tried again");
        open.interface.refuses = false;
        open.end_irq(7).unwrap();
        assert_eq!((open.interface.ended.load(Ordering::Relaxed), open.irqs.len()), (1, 0));
    }

    #[test]
    fn a_channel_that_does_not_end_is_an_error_and_can_be_tried_again() {
        let (mut open, _dir) = open();
        let fd = eventfd::new().unwrap();
        open.channels.insert(Port(5), (7, EventFd::new(fd.as_fd()).unwrap()));
        open.interface.refuses = true;
        assert_eq!(open.end_channel(Port(5), 7).unwrap_err().errno(), Errno::INTR);
        open.interface.refuses = false;
        open.end_channel(Port(5), 8).unwrap();
        assert!(open.channels.contains_key(&Port(5)), "another registration's handle ends nothing");
        open.end_channel(Port(5), 7).unwrap();
        assert!(open.channels.is_empty());
    }
}
