//! The ABI of the kernel patch, as an engine: the module serves a guest, and is asked by
//! `IOCTL_PRIVCMD_IOEVENTFD` and `IOCTL_PRIVCMD_IRQFD` (`docs/seed-abi.md`).
//!
//! What these cannot say is [`Error::Unsupported`]. They have no questions either, so what the
//! module counts is read from its text in fdinfo, and nothing tells of a guest's death but the next
//! thing that is asked.
//!
//! A guest is the file's as long as something is assigned for it. That is an interrupt which nobody
//! signals, from the first moment on: by it the guest has a server, and is kept from others, before
//! it has a doorbell.

use super::doorbells::{Counters, Doorbells, Registered, Registration, Unmatched};
use super::hold::Hold;
use super::{Attachment, Engine, IrqCounts, check_irq, module};
use crate::eventfd::{self, EventFd};
use crate::run_dir::RunDir;
use crate::shown::{self, Interrupt, Takes};
use crate::sync::Mutex;
use crate::{EngineKind, Error, Result, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xen_eventfd_core::irq::{Irq, Line, Trigger};
use xen_eventfd_core::seed::Operation;
use xen_eventfd_core::{DomId, Doorbell, Filter, IoServerId, Kick, Port, Space, Width};
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::linux::seed::{Queue, SeedFile};
use xen_eventfd_host::{Call, Errno, Host, HostError};

/// Where the notify register of a virtio-mmio device is.
const NOTIFY: u64 = 0x50;
/// The bits of a write that are compared.
const COMPARED: u64 = 0xFFFF;
/// What keeps the guest: an interrupt that is never raised.
const ANCHOR: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0 };
/// Its serial number.
const ANCHOR_SERIAL: u64 = 0;

fn unsupported(what: &'static str) -> Error {
    Error::Unsupported { what, engine: EngineKind::Privcmd }
}

/// A doorbell as the patch has it: what is asked for, and the writes that it then takes.
fn queue(doorbell: &Doorbell) -> Result<(Queue, Doorbell)> {
    if doorbell.bytes().space() != Space::Mmio {
        return Err(unsupported("doorbells at I/O ports"));
    }
    let (width, value, mask) = match doorbell.filter() {
        Filter::Value { width, value, mask } => (width, value, mask),
        Filter::Width(_) | Filter::Any { .. } => return Err(unsupported("wildcards")),
        Filter::Fallback { .. } => return Err(unsupported("fallbacks")),
    };
    let compared = COMPARED & width.mask();
    if mask != compared && mask != width.mask() {
        return Err(unsupported("masks of other bits than the low 16"));
    }
    let Ok(number) = u16::try_from(value) else {
        return Err(unsupported("values of more than 16 bits"));
    };
    let addr = doorbell.bytes().first();
    let Some(base) = addr.checked_sub(NOTIFY) else {
        return Err(unsupported("doorbells below 0x50"));
    };
    let taken = Doorbell::new(Space::Mmio, addr, Filter::Value { width, value, mask: compared })
        .map_err(|why| Error::Invalid { addr, why })?;
    Ok((Queue { base, width, number }, taken))
}

/// An interrupt as a device model operation.
fn operation(irq: &Irq) -> Result<Operation> {
    irq.check()?;
    match *irq {
        Irq::Msi { addr, data } => Ok(Operation::Msi { addr, data }),
        Irq::Line(line, Trigger::Level) => Ok(Operation::Set { line, up: true }),
        Irq::Line(_, Trigger::Pulse) => Err(unsupported("pulses")),
        Irq::EventChannel(_) => Err(unsupported("interrupts by event channel")),
    }
}

/// The module, as this process uses it by the requests of the patch.
#[derive(Debug)]
pub(crate) struct PrivcmdEngine {
    host: Arc<dyn Host>,
    run_dir: RunDir,
    /// For who holds a guest, and how much is kept for one: there the patch has no words.
    control: Control,
}

impl PrivcmdEngine {
    pub(crate) fn new(host: Arc<dyn Host>, run_dir: RunDir, control: Control) -> Self {
        Self { host, run_dir, control }
    }

    /// Signals an eventfd, whatever its backend does.
    fn signal(&self, eventfd: &EventFd) -> bool {
        let signalled =
            self.host.signaller().and_then(|mut signaller| signaller.signal(eventfd.as_fd()));
        signalled.is_ok()
    }
}

impl Engine for PrivcmdEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Privcmd
    }

    fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>> {
        let hold = Hold::take(&*self.host, &self.run_dir, dom, EngineKind::Privcmd)?;
        let file = SeedFile::open(dom, self.host.vcpus(dom)?)?;
        let anchor = EventFd::new(eventfd::new()?.as_fd())?;
        let asked = operation(&ANCHOR)?;
        module::take(&self.control, dom, || {
            file.assign_irq(asked, anchor.as_fd())
                .map_err(|error| HostError::new(Call::Take(dom), error.errno))
        })?;
        let mut doorbells = Doorbells::default();
        hold.record.held().for_each(|kick| doorbells.hold(kick));
        let anchor = IrqFd { irq: ANCHOR, eventfd: anchor, counts: Arc::default() };
        let irqs = BTreeMap::from([(ANCHOR_SERIAL, anchor)]);
        let open = Open { file, doorbells, irqs, hold };
        let server = match open.shown(dom) {
            Ok(guest) => guest.served.map(|served| served.server),
            Err(error) if error.errno == Errno::NODEV => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Arc::new(PrivcmdGuest {
            engine: self,
            dom,
            server: server.ok_or(Error::GuestDied(dom))?,
            gone: eventfd::new()?,
            open: Mutex::new(Some(open)),
            counters: Mutex::default(),
            serial: AtomicU64::new(ANCHOR_SERIAL + 1),
        }))
    }
}

/// A guest that the module serves for us.
#[derive(Debug)]
struct PrivcmdGuest {
    engine: Arc<PrivcmdEngine>,
    dom: DomId,
    server: IoServerId,
    /// Signalled by ourselves.
    gone: OwnedFd,
    /// `None` once the guest is let go of or known to be dead.
    open: Mutex<Option<Open>>,
    /// As they were when last asked for: a dead guest has none.
    counters: Mutex<Counters>,
    serial: AtomicU64,
}

/// What is registered, and through what. Dropped from the top: the guest is let go of before others
/// may take it.
#[derive(Debug)]
struct Open {
    file: SeedFile,
    /// As the module compares. The claims and held kicks are those that matter for kicks that a
    /// dead engine left.
    doorbells: Doorbells,
    irqs: BTreeMap<u64, IrqFd>,
    hold: Hold,
}

#[derive(Debug)]
struct IrqFd {
    irq: Irq,
    eventfd: EventFd,
    counts: Arc<IrqCounts>,
}

impl Open {
    /// What the module shows of the guest: alive, or else NODEV.
    fn shown(&self, dom: DomId) -> xen_eventfd_host::Result<shown::Guest> {
        let answer = |errno| HostError::new(Call::Ask(dom), errno);
        match self.file.shown()?.parse::<shown::Guest>() {
            Ok(guest) if guest.served.is_some() => Ok(guest),
            // It is said to be dead, or not spoken of any more.
            Ok(_) | Err(shown::Unreadable::Missing(_)) => Err(answer(Errno::NODEV)),
            Err(shown::Unreadable::Line { .. }) => Err(answer(Errno::PROTO)),
        }
    }

    /// Brings the counts of an irqfd up to date. The module tells irqfds apart by their interrupts,
    /// and shows them in the order of their assignment.
    fn count(&self, dom: DomId, serial: u64, irqfd: &IrqFd) -> xen_eventfd_host::Result<()> {
        let shown = self.shown(dom)?;
        let wanted = interrupt(&irqfd.irq);
        let before = self.irqs.range(..serial).filter(|(_, other)| other.irq == irqfd.irq).count();
        let mut same = shown.irqs.iter().filter(|irq| Some(irq.interrupt) == wanted);
        if let Some(irq) = same.nth(before) {
            irqfd.counts.raised.store(irq.raised, Ordering::Relaxed);
            irqfd.counts.failed.store(irq.failed, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// An interrupt as the module shows it, if this engine can have it.
fn interrupt(irq: &Irq) -> Option<Interrupt> {
    let trigger = shown::Trigger::Level;
    Some(match *irq {
        Irq::Msi { addr, data } => Interrupt::Msi { addr, data },
        Irq::Line(Line::Isa(line), _) => Interrupt::Isa { line: line.into(), trigger },
        Irq::Line(Line::PciIntx { device, pin }, _) => {
            Interrupt::Intx { device: device.into(), pin: pin.into(), trigger }
        }
        Irq::Line(Line::Spi(line), _) => Interrupt::Spi { line, trigger },
        Irq::EventChannel(_) => return None,
    })
}

/// Whether the module shows this doorbell.
fn is_shown_as(doorbell: &Doorbell, shown: &shown::Doorbell) -> bool {
    let Filter::Value { width, value, mask } = doorbell.filter() else { return false };
    let (bytes, place) = (doorbell.bytes(), shown.place);
    (place.space, place.addr, place.len) == (bytes.space(), bytes.first(), width.bytes().into())
        && place.takes == Takes::Value { value, mask }
}

/// What the module counted, and what we signalled for a dead engine.
fn counters(theirs: &shown::Counters, ours: &Counters) -> Counters {
    Counters {
        delivered: theirs.delivered,
        held: theirs.held,
        redelivered: theirs.redelivered + ours.redelivered,
        late: theirs.late,
        reads: theirs.reads,
        broadcasts: theirs.broadcasts,
        odd: theirs.odd,
        spurious: theirs.spurious,
        failed: ours.failed,
    }
}

fn kick(waiting: &shown::Waiting) -> Option<Kick> {
    Some(Kick::new(waiting.space, waiting.addr, Width::new(waiting.len)?, waiting.value))
}

impl PrivcmdGuest {
    fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, what: impl FnOnce(&mut Open) -> Result<T>) -> Result<T> {
        let died = || {
            self.engine.run_dir.remove(self.dom);
            // It has room: nobody signals it a second time.
            let _ = rustix::io::write(&self.gone, &1_u64.to_ne_bytes());
        };
        module::with(self.dom, &self.open, died, what)
    }

    /// How many of something the module keeps.
    fn full(&self, limit: u32) -> Error {
        Error::TooMany { dom: self.dom, limit: limit as usize }
    }
}

impl Attachment for PrivcmdGuest {
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
        let (queue, doorbell) = queue(&doorbell)?;
        self.with(|open| {
            open.doorbells.check(self.dom, &doorbell)?;
            // To deassign, the patch looks at the eventfd alone.
            if open.doorbells.table().iter().any(|other| other.eventfd.is(&eventfd)) {
                return Err(unsupported("two doorbells of one eventfd"));
            }
            open.file.assign(&queue, eventfd.as_fd()).map_err(|error| match error.errno {
                Errno::NOSPC => self.full(self.engine.control.info().max_doorbells),
                _ => error.into(),
            })?;
            let serial = self.serial();
            let eventfd = Arc::new(eventfd);
            let new = Registration { doorbell, eventfd, serial, unmatched, kicks: 0 };
            // To map the bytes was the module's to do.
            let _ = open.doorbells.claim(doorbell.bytes());
            open.doorbells.add(new, &mut |eventfd| self.engine.signal(eventfd))?;
            Ok(serial)
        })
    }

    fn unregister(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Result<()> {
        let (_, doorbell) = queue(doorbell)?;
        self.with(|open| {
            let addr = doorbell.bytes().first();
            let found = open.doorbells.find(&doorbell, eventfd, serial);
            let found = found.ok_or(Error::NotRegistered { addr })?;
            open.file.deassign(found.eventfd.as_fd())?;
            open.doorbells.remove(&doorbell, eventfd, serial);
            for piece in open.doorbells.unclaim(doorbell.bytes()) {
                open.doorbells.forget(piece);
            }
            Ok(())
        })
    }

    /// There are no fallbacks.
    fn collect(&self, _: &Doorbell, _: u64, _: &Mutex<Unmatched>) {}

    fn register_irq(&self, eventfd: EventFd, irq: Irq) -> Result<(u64, Arc<IrqCounts>)> {
        check_irq(&*self.engine.host, self.dom, &irq)?;
        let operation = operation(&irq)?;
        self.with(|open| {
            open.file.assign_irq(operation, eventfd.as_fd()).map_err(|error| {
                match error.errno {
                    Errno::BUSY => Error::Busy { what: "an interrupt for this eventfd".to_owned() },
                    Errno::NOSPC => self.full(self.engine.control.info().max_irqs),
                    _ => error.into(),
                }
            })?;
            let (serial, counts) = (self.serial(), Arc::new(IrqCounts::default()));
            let irqfd = IrqFd { irq, eventfd, counts: Arc::clone(&counts) };
            open.irqs.insert(serial, irqfd);
            Ok((serial, counts))
        })
    }

    fn find_irq(&self, eventfd: &EventFd, irq: &Irq) -> Option<u64> {
        let open = lock(&self.open);
        let same = |irqfd: &IrqFd| irqfd.eventfd.is(eventfd) && irqfd.irq == *irq;
        open.as_ref()?.irqs.iter().find_map(|(serial, irqfd)| same(irqfd).then_some(*serial))
    }

    fn unregister_irq(&self, serial: u64) {
        let ended = self.with(|open| {
            let Some(irqfd) = open.irqs.get(&serial) else { return Ok(()) };
            open.count(self.dom, serial, irqfd)?;
            open.file.deassign_irq(irqfd.eventfd.as_fd())?;
            open.irqs.remove(&serial);
            Ok(())
        });
        if let Err(error) = ended {
            tracing::debug!(%error, dom = %self.dom, "an irqfd was not ended");
        }
    }

    fn count_irqs(&self, serial: u64) {
        let counted = self.with(|open| match open.irqs.get(&serial) {
            Some(irqfd) => Ok(open.count(self.dom, serial, irqfd)?),
            None => Ok(()),
        });
        if let Err(error) = counted {
            tracing::debug!(%error, dom = %self.dom, "an irqfd was not asked");
        }
    }

    fn lower(&self, _: u64, _: &Irq) -> Result<()> {
        Err(unsupported("lowering a line"))
    }

    fn listen(&self, _: EventFd, _: Port) -> Result<()> {
        Err(unsupported("event channels to eventfds"))
    }

    /// There are none.
    fn stop_listening(&self, _: Port) {}

    fn close(&self) -> Result<()> {
        // The last counts, and whether it is dead.
        self.counters();
        let Some(open) = lock(&self.open).take() else { return Ok(()) };
        let Open { file, doorbells, irqs, mut hold } = open;
        // No vCPU waits for us after this.
        drop((file, irqs));
        hold.settle(&*self.engine.host, &self.engine.run_dir, doorbells.inherited())
    }

    fn counters(&self) -> Counters {
        let asked = self.with(|open| {
            let served = open.shown(self.dom)?.served;
            let theirs = served.map(|served| served.counters).unwrap_or_default();
            Ok(counters(&theirs, &open.doorbells.counters))
        });
        let mut last = lock(&self.counters);
        if let Ok(counters) = asked {
            *last = counters;
        }
        *last
    }

    fn registered(&self) -> Vec<Registered> {
        let listed = self.with(|open| {
            let shown = open.shown(self.dom)?.doorbells;
            let show = |ours: &Registration| {
                let theirs = shown.iter().find(|shown| is_shown_as(&ours.doorbell, shown));
                // Ours are those that a dead engine left.
                let kicks = ours.kicks + theirs.map_or(0, |shown| shown.kicks);
                Registered { doorbell: ours.doorbell, kicks }
            };
            Ok(open.doorbells.table().iter().map(show).collect())
        });
        listed.unwrap_or_default()
    }

    fn held(&self) -> Vec<Kick> {
        let held = self.with(|open| {
            let theirs = open.shown(self.dom)?.waiting;
            let ours = open.doorbells.held().iter().copied();
            let all: BTreeSet<Kick> = theirs.iter().filter_map(kick).chain(ours).collect();
            Ok(all.into_iter().collect())
        });
        held.unwrap_or_default()
    }

    /// The module wakes vCPUs by a call that does not fail.
    fn last_error(&self) -> Option<HostError> {
        None
    }

    fn gone(&self) -> BorrowedFd<'_> {
        self.gone.as_fd()
    }

    fn is_served(&self) -> bool {
        self.with(|open| Ok(open.shown(self.dom)?)).is_ok()
    }
}

impl Drop for PrivcmdGuest {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, dom = %self.dom, "a guest was not let go of cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let (queue, taken) = at(NOTIFY, exactly(Width::One, 0xFF)).unwrap();
        assert_eq!(queue, Queue { base: 0, width: Width::One, number: 0xFF });
        assert_eq!(taken.filter(), exactly(Width::One, 0xFF));
    }

    #[test]
    fn what_the_patch_cannot_say_is_named() {
        let four = Width::Four;
        let pio = Doorbell::new(Space::Pio, 0xC050, exactly(four, 1)).unwrap();
        for (refused, what) in [
            (queue(&pio), "I/O ports"),
            (at(NOTIFY - 1, exactly(four, 1)), "below 0x50"),
            (at(NOTIFY, exactly(four, 0x1_0000)), "16 bits"),
            (at(NOTIFY, Filter::Value { width: four, value: 1, mask: 0xFF }), "masks"),
            (at(NOTIFY, Filter::Width(four)), "wildcards"),
            (at(NOTIFY, Filter::Any { span: 4 }), "wildcards"),
            (at(NOTIFY, Filter::Fallback { span: 4 }), "fallbacks"),
        ] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.errno(), Errno::OPNOTSUPP);
            let text = refused.to_string();
            assert!(text.contains(what) && text.contains("kernel engine"), "{text}");
        }
    }

    #[test]
    fn an_interrupt_is_an_operation_that_raises_it() {
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        assert_eq!(operation(&msi).unwrap().irq(), msi);
        let line = Irq::Line(Line::Isa(5), Trigger::Level);
        let raise = Operation::Set { line: Line::Isa(5), up: true };
        assert_eq!(operation(&line).unwrap(), raise);
        for irq in [Irq::Line(Line::Isa(5), Trigger::Pulse), Irq::EventChannel(Port(3))] {
            let refused = operation(&irq).unwrap_err();
            assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
        }
        let refused = operation(&Irq::EventChannel(Port(0))).unwrap_err();
        assert_eq!(refused.errno(), Errno::INVAL);
    }

    #[test]
    fn what_the_module_shows_is_found_again() {
        let text = "dom:\t3\ninterface:\tseed\nowner:\t412 backend\n\
            doorbell:\tmmio 0xfe000050 len 4 value 0x3 mask 0xffff kicks 10 held 0\n\
            irq:\tmsi 0xfee00000 0x41 raised 3 failed 0\nirq:\tintx 3.1 level raised 0 failed 0\n";
        let guest: shown::Guest = text.parse().unwrap();
        let (_, ours) = at(0xFE00_0050, exactly(Width::Four, 3)).unwrap();
        let (_, other) = at(0xFE00_0050, exactly(Width::Two, 3)).unwrap();
        assert!(is_shown_as(&ours, &guest.doorbells[0]));
        assert!(!is_shown_as(&other, &guest.doorbells[0]));
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        let intx = Irq::Line(Line::PciIntx { device: 3, pin: 1 }, Trigger::Level);
        let shown: Vec<_> = guest.irqs.iter().map(|irq| Some(irq.interrupt)).collect();
        assert_eq!(shown, [interrupt(&msi), interrupt(&intx)]);
    }
}
