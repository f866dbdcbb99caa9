//! A guest, and what can be registered for it.

use crate::AsEventFd;
use crate::address::{Datamatch, IoEventAddress};
use crate::engine::doorbells::{Registered, Unmatched};
use crate::engine::{Attachment, Engine, IrqCounts};
use crate::eventfd::EventFd;
use crate::guardian::Guard;
use crate::own::Own;
use crate::{EngineKind, Error, Result};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xen_eventfd_core::interrupt_status::{self, Registers};
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Counters, DomId, Doorbell, Filter, IoServerId, Kick, Port};
use xen_eventfd_host::HostError;
use xen_eventfd_ioreq::sync::{Mutex, lock};

/// A guest whose doorbells this engine serves. Cheap to clone.
///
/// The guest is let go of when the last clone and the last registration are dropped, or by
/// [`Guest::close`]: its vCPUs go on, and its kicks go to the VMM again.
///
/// # The difference from KVM
/// Xen routes an access by its address alone. Once a doorbell is registered, every access
/// to its bytes comes here, so a write that matches no registration cannot fall through to the
/// VMM. Register an eventfd for each queue, or a wildcard ([`crate::AnyValue`], [`crate::NoDatamatch`])
/// beside the datamatches, or a [fallback](Guest::register_fallback) that passes the VMM what it
/// missed. What still matches nothing is *held*, and delivered when its eventfd is registered.
///
/// # Fork
/// It is of no use in a child that is forked: calls fail with [`Error::Forked`], and dropping it, or
/// what was registered, does nothing. The parent's guest and registrations are not affected.
#[derive(Debug, Clone)]
pub struct Guest(Own<Attached>);

#[derive(Debug)]
struct Attached {
    attachment: Arc<dyn Attachment>,
    /// The kernel lets go of the guest when this process ends.
    by_kernel: bool,
    /// Released last: if the guest is not let go of cleanly, the guardian does the rest.
    guard: Option<Arc<Guard>>,
}

impl Guest {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        dom: DomId,
        guard: Option<Arc<Guard>>,
    ) -> Result<Self> {
        let by_kernel = engine.kind() != EngineKind::Userspace;
        let attachment = engine.attach(dom)?;
        Ok(Self(Own::new(Attached { attachment, by_kernel, guard })))
    }

    /// The guest in the engine's hands.
    fn engine(&self) -> Result<&dyn Attachment> {
        self.0.get().map(|taken| &*taken.attachment)
    }

    /// What the engine knows of it; in a forked child, nothing.
    fn ask<T: Default>(&self, what: impl FnOnce(&dyn Attachment) -> T) -> T {
        self.engine().map(what).unwrap_or_default()
    }

    /// The same in any process, for what never changes.
    fn constant(&self) -> &dyn Attachment {
        &*self.0.constant().attachment
    }

    /// Signals `eventfd` for each write to `addr` that matches.
    ///
    /// `datamatch` is a number, whose type is the width (`3_u32`: 4 bytes with the value 3), or
    /// [`crate::Masked`], [`crate::AnyValue`], [`crate::NoDatamatch`].
    ///
    /// # Errors
    /// [`Error::Exists`] if a write could belong to another registration as well;
    /// [`Error::Invalid`]; [`Error::NotAnEventFd`]; [`Error::GuestDied`]; [`Error::Host`] if Xen
    /// keeps no further range.
    ///
    #[doc = example!(r#"
let doorbell = IoEventAddress::Mmio(0xfe00_0050);
let (rx, tx) = (eventfd(0, EventfdFlags::empty())?, eventfd(0, EventfdFlags::empty())?);
let _rx = guest.register_ioevent(&rx, &doorbell, 0_u32)?;
let _tx = guest.register_ioevent(&tx, &doorbell, 1_u32)?;
let twin = guest.register_ioevent(&tx, &doorbell, 1_u32).unwrap_err();
assert_eq!(twin.errno(), rustix::io::Errno::EXIST);
"#)]
    pub fn register_ioevent<By>(
        &self,
        eventfd: &impl AsEventFd<By>,
        addr: &IoEventAddress,
        datamatch: impl Into<Datamatch>,
    ) -> Result<IoEvent> {
        let doorbell = addr.doorbell(datamatch.into())?;
        let serial =
            self.engine()?.register(doorbell, EventFd::new(eventfd.as_eventfd())?, None)?;
        Ok(IoEvent { guest: self.clone(), doorbell, serial, armed: true })
    }

    /// Takes a registration back by what it was: address, datamatch and eventfd. When this
    /// returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if not all of it is as it was.
    ///
    #[doc = example!(r#"
let (kick, port) = (eventfd(0, EventfdFlags::empty())?, IoEventAddress::Pio(0xc050));
guest.register_ioevent(&kick, &port, NoDatamatch(2))?.keep();
guest.unregister_ioevent(&kick, &port, NoDatamatch(2))?;
assert!(guest.unregister_ioevent(&kick, &port, NoDatamatch(2)).is_err());
"#)]
    pub fn unregister_ioevent<By>(
        &self,
        eventfd: &impl AsEventFd<By>,
        addr: &IoEventAddress,
        datamatch: impl Into<Datamatch>,
    ) -> Result<()> {
        let doorbell = addr.doorbell(datamatch.into())?;
        self.engine()?.unregister(&doorbell, Some(&EventFd::new(eventfd.as_eventfd())?), None)
    }

    /// Takes back all registrations of an eventfd at an address, or at all addresses: whatever they
    /// match, fallbacks among them. When this returns, the eventfd is not signalled again. Returns how
    /// many there were.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if there is none; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
let (kick, bar) = (eventfd(0, EventfdFlags::empty())?, IoEventAddress::Mmio(0xfe00_0050));
guest.register_ioevent(&kick, &bar, 0_u32)?.keep();
guest.register_ioevent(&kick, &bar, 1_u16)?.keep();
guest.register_ioevent(&kick, &IoEventAddress::Pio(0xc050), 1_u16)?.keep();
assert_eq!(guest.unregister_all(&kick, Some(&bar))?, 2);
assert_eq!(guest.unregister_all(&kick, None)?, 1);
"#)]
    pub fn unregister_all<By>(
        &self,
        eventfd: &impl AsEventFd<By>,
        addr: Option<&IoEventAddress>,
    ) -> Result<usize> {
        let eventfd = EventFd::new(eventfd.as_eventfd())?;
        let place = addr.map(|addr| (addr.space(), addr.addr()));
        let mut ended = 0;
        while let Some(doorbell) = self.engine()?.find(&eventfd, place)? {
            match self.engine()?.unregister(&doorbell, Some(&eventfd), None) {
                Ok(()) => ended += 1,
                // Another call was faster.
                Err(Error::NotRegistered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if ended == 0 {
            let what = match addr {
                Some(addr) => format!("a doorbell at {:#x}", addr.addr()),
                None => "any doorbell".to_owned(),
            };
            return Err(Error::NotRegistered { what });
        }
        Ok(ended)
    }

    /// Signals `eventfd` for each write to `addr` that no other registration takes and that ends
    /// within `span` bytes (1 to 8), and keeps what was written.
    ///
    /// # Errors
    /// As [`Guest::register_ioevent`].
    ///
    #[doc = example!(r#"
let rest = eventfd(0, EventfdFlags::empty())?;
let fallback = guest.register_fallback(&rest, &IoEventAddress::Mmio(0xfe00_0050), 4)?;
// The guest writes 9, for which there is no registration.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 9)?;
let missed = fallback.take();
assert_eq!((missed.kicks[0].0.value, missed.kicks[0].1), (9, 1));
"#)]
    pub fn register_fallback<By>(
        &self,
        eventfd: &impl AsEventFd<By>,
        addr: &IoEventAddress,
        span: u8,
    ) -> Result<Fallback> {
        let doorbell = addr.doorbell(Filter::Fallback { span })?;
        let unmatched = Arc::new(Mutex::new(Unmatched::default()));
        let kept = Some(Arc::clone(&unmatched));
        let serial =
            self.engine()?.register(doorbell, EventFd::new(eventfd.as_eventfd())?, kept)?;
        let ioevent = IoEvent { guest: self.clone(), doorbell, serial, armed: true };
        Ok(Fallback { ioevent, unmatched })
    }

    /// Raises `irq` in the guest whenever `eventfd` is signalled; signals that came before count
    /// once. Several signals between two turns of the engine raise it once, as under KVM.
    ///
    /// Each write is one signal, however much it adds. Of an eventfd with `EFD_SEMAPHORE` each takes
    /// 1: the rest of a larger write is left in the counter, and raises nothing.
    ///
    /// # Errors
    /// [`Error::Busy`] if the eventfd raises an interrupt already, of whichever guest and by whichever
    /// descriptor (with the userspace engine: in this process);
    /// [`Error::InvalidIrq`]; [`Error::NotAnEventFd`];
    /// [`Error::GuestDied`]; [`Error::Host`] if the guest has not allocated the event channel for
    /// this domain.
    ///
    #[doc = example!(r#"
# let port = vcpu.alloc_unbound()?;
let call = eventfd(0, EventfdFlags::empty())?;
let _irqfd = guest.register_irqfd(&call, Irq::EventChannel(port))?;
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
# vcpu.wait(port)?; // the guest's interrupt
"#)]
    pub fn register_irqfd<By>(&self, eventfd: &impl AsEventFd<By>, irq: Irq) -> Result<IrqFd> {
        let (serial, counts) =
            self.engine()?.register_irq(EventFd::new(eventfd.as_eventfd())?, irq)?;
        Ok(IrqFd { guest: self.clone(), counts, serial, armed: true })
    }

    /// Takes an irqfd back by what it is: its eventfd, and the interrupt that it raises now. When this
    /// returns, it raises nothing any more.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it is not there; [`Error::GuestDied`]; [`Error::Host`] if the kernel
    /// engine refuses, and then it still raises interrupts.
    ///
    #[doc = example!(r#"
let (call, msi) = (eventfd(0, EventfdFlags::empty())?, Irq::Msi { addr: 0xfee0_0000, data: 0x41 });
guest.register_irqfd(&call, msi)?.keep();
guest.unregister_irqfd(&call, msi)?;
"#)]
    pub fn unregister_irqfd<By>(&self, eventfd: &impl AsEventFd<By>, irq: Irq) -> Result<()> {
        let eventfd = EventFd::new(eventfd.as_eventfd())?;
        let serial = self.engine()?.find_irq(&eventfd, &irq)?;
        self.engine()?.unregister_irq(serial)
    }

    /// Answers InterruptStatus and InterruptACK of a virtio-mmio device, which its driver reads and writes
    /// for each interrupt. From then on an interrupt wakes the backend, which signals its eventfd, and the
    /// guest; the VMM sleeps.
    ///
    /// `addr` is the guest physical address of InterruptStatus (0x60 from the device's base), and
    /// InterruptACK is 4 bytes behind it. `irq` is the device's interrupt: it is raised when a bit is set that it
    /// was not raised for since that was last acknowledged. A level-triggered line falls when no bit is set any
    /// more. Eventfds set bits by [`InterruptStatus::irq`].
    ///
    /// A read gets the bytes that it asks for, and InterruptACK reads 0. Writes that are not of the 4 bytes
    /// of InterruptACK change nothing.
    ///
    /// # Errors
    /// [`Error::InvalidStatus`]; [`Error::InvalidIrq`]; [`Error::Overlaps`] if one of the 8 bytes is a
    /// doorbell's or another device's; [`Error::TooMany`]; else as [`Guest::register_irqfd`] and
    /// [`Guest::register_ioevent`].
    ///
    #[doc = example!(r#"
let (base, msi) = (0xfe00_0000, Irq::Msi { addr: 0xfee0_0000, data: 0x41 });
let status = guest.register_interrupt_status(base + 0x60, msi)?;
let call = eventfd(0, EventfdFlags::empty())?;
let _call = guest.register_irqfd(&call, status.irq(InterruptStatus::USED_BUFFER))?;
// The backend has used a buffer.
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
// The guest's interrupt handler:
# vcpu.wait_msi(0x41)?;
# let read = vcpu.read(Space::Mmio, base + 0x60, Width::Four)?;
# assert_eq!(read, 1);
# vcpu.write(Space::Mmio, base + 0x64, Width::Four, read)?;
assert_eq!(status.status()?.bits, 0); // it is acknowledged
"#)]
    pub fn register_interrupt_status(&self, addr: u64, irq: Irq) -> Result<InterruptStatus> {
        let registers = registers(addr)?;
        let serial = self.engine()?.register_status(registers, irq)?;
        Ok(InterruptStatus { guest: self.clone(), registers, serial, armed: true })
    }

    /// Takes InterruptStatus back by what it was: its address and interrupt. The irqfds that set its bits
    /// end first. Returns the bits that are set. If they are not 0, a VMM that emulates the register from then on sets
    /// them there and raises the interrupt again: a read meanwhile was answered 0, and a line was lowered.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if not all of it is as it was; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
let (addr, msi) = (0xfe00_0060, Irq::Msi { addr: 0xfee0_0000, data: 0x41 });
guest.register_interrupt_status(addr, msi)?.keep();
assert_eq!(guest.unregister_interrupt_status(addr, msi)?, 0);
"#)]
    pub fn unregister_interrupt_status(&self, addr: u64, irq: Irq) -> Result<u32> {
        self.engine()?.unregister_status(registers(addr)?, Some(irq), None)
    }

    /// Signals `eventfd` whenever the guest rings its event channel `port`, which it must have
    /// allocated for this domain. The port may carry an irqfd the other way as well.
    ///
    /// The eventfd is signalled once at the beginning, as Xen does not report whether the guest rang
    /// before its port was bound.
    ///
    /// # Errors
    /// [`Error::Busy`] if the port has an eventfd already; else as [`Guest::register_irqfd`].
    ///
    #[doc = example!(r#"
# let port = vcpu.alloc_unbound()?;
let rung = eventfd(0, EventfdFlags::empty())?;
let _channel = guest.register_channel(&rung, port)?;
# vcpu.send(port)?; // the guest rings
rustix::io::read(&rung, &mut [0; 8])?;
"#)]
    pub fn register_channel<By>(
        &self,
        eventfd: &impl AsEventFd<By>,
        port: Port,
    ) -> Result<ChannelFd> {
        let serial = self.engine()?.listen(EventFd::new(eventfd.as_eventfd())?, port)?;
        Ok(ChannelFd { guest: self.clone(), port, serial, armed: true })
    }

    /// Takes that back by what it was. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if the port does not signal this eventfd; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
# let port = vcpu.alloc_unbound()?;
let rung = eventfd(0, EventfdFlags::empty())?;
guest.register_channel(&rung, port)?.keep();
guest.unregister_channel(&rung, port)?;
assert!(guest.unregister_channel(&rung, port).is_err());
"#)]
    pub fn unregister_channel<By>(&self, eventfd: &impl AsEventFd<By>, port: Port) -> Result<()> {
        let serial = self.engine()?.find_channel(&EventFd::new(eventfd.as_eventfd())?, port)?;
        self.engine()?.stop_listening(port, serial)
    }

    /// Lets go of the guest now, whatever is still registered: none of its vCPUs waits for us
    /// afterwards, and no server, port or page of the engine is left.
    ///
    /// # Errors
    /// [`Error::Host`] if Xen refused a part; then the record is kept, and `xen-eventfd reap` or
    /// the next engine does the rest.
    ///
    #[doc = example!(r#"
guest.close()?;
assert!(xen.guest(dom).is_ok(), "it is free again");
"#)]
    pub fn close(&self) -> Result<()> {
        self.engine()?.close()
    }

    /// The guest's number.
    ///
    #[doc = example!(r#"
assert_eq!(guest.dom(), dom);
"#)]
    pub fn dom(&self) -> DomId {
        self.constant().dom()
    }

    /// Our ioreq server in it. No other outranks it if this is the highest id of all (7).
    ///
    #[doc = example!(r#"
// All ids were free: the engine has the highest.
assert_eq!(guest.server().0, 7);
"#)]
    pub fn server(&self) -> IoServerId {
        self.constant().server()
    }

    /// Whether the guest's vCPUs go on if this process is killed: the kernel module serves it, and lets
    /// go of it then, or a guardian runs that will reap.
    ///
    /// `false` with [`Guardian::None`](crate::Guardian::None), and once the guardian has ended before
    /// this process, which is logged as a warning as well. The next [`Xen::guest`](crate::Xen::guest)
    /// starts another. A supervisor that runs `xen-eventfd reap` is not known here.
    ///
    #[doc = example!(r#"
// On a host of one's own there is no guardian by default.
assert!(!guest.is_guarded());
"#)]
    pub fn is_guarded(&self) -> bool {
        let guarded = |taken: &Attached| {
            taken.by_kernel || taken.guard.as_ref().is_some_and(|guard| guard.runs())
        };
        self.0.get().is_ok_and(guarded)
    }

    /// What its doorbells have seen. Of a guest that died the kernel engine knows what it had seen
    /// when it was last asked.
    ///
    #[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0xfe00_0050), 0_u32)?;
// The guest rings once, and reads its doorbell once.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 0)?;
# vcpu.read(Space::Mmio, 0xfe00_0050, Width::Four)?;
let counters = guest.counters();
assert_eq!((counters.delivered, counters.reads, counters.held), (1, 1, 0));
"#)]
    pub fn counters(&self) -> Counters {
        self.ask(|guest| guest.counters())
    }

    /// What is registered, in the order of addresses.
    ///
    #[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0xfe00_0050), 0_u32)?;
assert_eq!(guest.registered().len(), 1);
assert_eq!(guest.registered()[0].kicks, 0);
"#)]
    pub fn registered(&self) -> Vec<Registered> {
        self.ask(|guest| guest.registered())
    }

    /// Kicks that wait for their eventfd to be registered.
    ///
    #[doc = example!(r#"
let (one, two) = (eventfd(0, EventfdFlags::empty())?, eventfd(0, EventfdFlags::empty())?);
let doorbell = IoEventAddress::Mmio(0xfe00_0050);
let _one = guest.register_ioevent(&one, &doorbell, 1_u32)?;
// The guest writes 2, for which there is no registration yet.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 2)?;
assert_eq!(guest.held()[0].value, 2);
let _two = guest.register_ioevent(&two, &doorbell, 2_u32)?;
rustix::io::read(&two, &mut [0; 8])?; // delivered
assert!(guest.held().is_empty());
"#)]
    pub fn held(&self) -> Vec<Kick> {
        self.ask(|guest| guest.held())
    }

    /// The last time that the host refused to wake a vCPU, or that the kernel module did not answer a
    /// question ([`Guest::registered`] and [`Guest::held`] then list what the library knows itself).
    ///
    #[doc = example!(r#"
assert_eq!(guest.last_error(), None);
"#)]
    pub fn last_error(&self) -> Option<HostError> {
        self.ask(|guest| guest.last_error())
    }

    /// Whether the guest is still served: neither dead nor let go of.
    ///
    #[doc = example!(r#"
assert!(guest.is_served());
guest.close()?;
assert!(!guest.is_served());
"#)]
    pub fn is_served(&self) -> bool {
        self.ask(|guest| guest.is_served())
    }

    /// An eventfd that is readable once the guest is gone, or the engine has stopped and let go of
    /// it; to be watched beside others. Do not read it: every holder of the guest shares it.
    ///
    /// A guest is gone when it dies, and when it lives and has lost the engine's ioreq server: another
    /// process destroyed it, or Xen did at a soft reset (up to Xen 4.13; later ones keep it). It can
    /// then be taken again. xenstore reports the first alone, and in domain 0 alone: otherwise it is
    /// noticed within seconds.
    ///
    #[doc = example!(r#"
use rustix::event::{PollFd, PollFlags, poll};
// The guest is destroyed.
# model.destroy(dom);
poll(&mut [PollFd::new(&guest.gone(), PollFlags::IN)], None)?;
assert!(!guest.is_served());
"#)]
    pub fn gone(&self) -> BorrowedFd<'_> {
        self.constant().gone()
    }
}

/// A doorbell that is registered. Dropping it ends the registration.
#[derive(Debug)]
#[must_use = "dropping it ends the registration; `keep` it to end it by `unregister_ioevent`"]
pub struct IoEvent {
    guest: Guest,
    doorbell: Doorbell,
    serial: u64,
    armed: bool,
}

impl IoEvent {
    /// Leaves the registration in place until it is unregistered or the guest is let go of.
    ///
    #[doc = example!(r#"
let (kick, port) = (eventfd(0, EventfdFlags::empty())?, IoEventAddress::Pio(0xc050));
guest.register_ioevent(&kick, &port, 1_u16)?.keep();
guest.unregister_ioevent(&kick, &port, 1_u16)?;
"#)]
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// What is registered.
    ///
    #[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let queue = guest.register_ioevent(&kick, &IoEventAddress::Pio(0xc050), 1_u16)?;
assert_eq!(queue.doorbell().bytes().last(), 0xc051);
"#)]
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Ends the registration. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it was ended before; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let queue = guest.register_ioevent(&kick, &IoEventAddress::Pio(0xc050), 1_u16)?;
queue.end()?;
assert!(guest.registered().is_empty());
"#)]
    pub fn end(mut self) -> Result<()> {
        self.armed = false;
        self.guest.engine()?.unregister(&self.doorbell, None, Some(self.serial))
    }
}

impl Drop for IoEvent {
    fn drop(&mut self) {
        if self.armed {
            let _ = self
                .guest
                .engine()
                .and_then(|guest| guest.unregister(&self.doorbell, None, Some(self.serial)));
        }
    }
}

/// A fallback that is registered. Dropping it ends the registration.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct Fallback {
    ioevent: IoEvent,
    unmatched: Arc<Mutex<Unmatched>>,
}

/// What a fallback received since it was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct UnmatchedKicks {
    /// Distinct kicks, in order, and how often each came.
    pub kicks: Vec<(Kick, u64)>,
    /// Kicks of which only the number is known, as there were more distinct ones than the engine
    /// keeps: [`crate::MAX_UNMATCHED`] in userspace, fewer in the kernel.
    pub overflowed: u64,
}

impl Fallback {
    /// Takes what was received so far.
    ///
    #[doc = example!(r#"
let rest = eventfd(0, EventfdFlags::empty())?;
let fallback = guest.register_fallback(&rest, &IoEventAddress::Mmio(0xfe00_0050), 4)?;
// The guest writes 9 twice.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 9)?;
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 9)?;
let (kick, times) = fallback.take().kicks[0];
assert_eq!((kick.value, times), (9, 2));
assert!(fallback.take().kicks.is_empty());
"#)]
    pub fn take(&self) -> UnmatchedKicks {
        let IoEvent { guest, doorbell, serial, .. } = &self.ioevent;
        let Ok(guest) = guest.engine() else { return UnmatchedKicks::default() };
        guest.collect(doorbell, *serial, &self.unmatched);
        let mut taken = std::mem::take(&mut *lock(&self.unmatched));
        UnmatchedKicks { kicks: taken.kicks().to_vec(), overflowed: taken.take_overflowed() }
    }

    /// What is registered.
    ///
    #[doc = example!(r#"
let rest = eventfd(0, EventfdFlags::empty())?;
let fallback = guest.register_fallback(&rest, &IoEventAddress::Mmio(0xfe00_0050), 4)?;
assert!(fallback.doorbell().is_fallback());
"#)]
    pub fn doorbell(&self) -> &Doorbell {
        &self.ioevent.doorbell
    }
}

/// An eventfd that raises an interrupt. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it ends the registration; `keep` it to end it by `unregister_irqfd`"]
pub struct IrqFd {
    guest: Guest,
    counts: Arc<IrqCounts>,
    serial: u64,
    armed: bool,
}

impl IrqFd {
    /// Leaves the registration in place until it is unregistered or the guest is let go of.
    ///
    #[doc = example!(r#"
let (call, msi) = (eventfd(0, EventfdFlags::empty())?, Irq::Msi { addr: 0xfee0_0000, data: 0x41 });
guest.register_irqfd(&call, msi)?.keep();
guest.unregister_irqfd(&call, msi)?;
"#)]
    pub fn keep(mut self) {
        self.armed = false;
    }

    /// Raises another interrupt from now on, as when a guest writes another message into its device's
    /// MSI-X table. When this returns, the one before is not raised again. No signal is lost: each
    /// raises the one or the other. Masked or pending it is as it was, and its counts go on.
    ///
    /// # Errors
    /// As [`Guest::register_irqfd`], and then nothing has changed; [`Error::NotRegistered`] if it was
    /// unregistered.
    ///
    #[doc = example!(r#"
let (call, addr) = (eventfd(0, EventfdFlags::empty())?, 0xfee0_0000);
let irqfd = guest.register_irqfd(&call, Irq::Msi { addr, data: 0x41 })?;
irqfd.set_irq(Irq::Msi { addr, data: 0x42 })?;
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
# vcpu.wait_msi(0x42)?; // the guest's interrupt
"#)]
    pub fn set_irq(&self, irq: Irq) -> Result<()> {
        self.guest.engine()?.set_irq(self.serial, irq)
    }

    /// Keeps signals from raising the interrupt. When this returns, it is not raised again until
    /// [`IrqFd::unmask`]. A signal that comes meanwhile is [pending](IrqFd::is_pending); if the
    /// registration ends before it is raised, the eventfd has it again, for the next registration.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it was unregistered; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let irqfd = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;
irqfd.mask()?;
assert!(!irqfd.is_pending()?);
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
assert!(irqfd.is_pending()?); // what the guest reads in the table of pending bits
irqfd.unmask()?;
assert_eq!(irqfd.raised(), 1);
# vcpu.wait_msi(0x41)?;
"#)]
    pub fn mask(&self) -> Result<()> {
        self.guest.engine()?.mask_irq(self.serial, true)
    }

    /// Lets signals raise the interrupt again, and raises it once if it is pending.
    ///
    /// # Errors
    /// As [`IrqFd::mask`]. What Xen refuses to raise is counted, as ever.
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let irqfd = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;
irqfd.mask()?;
irqfd.unmask()?;
assert_eq!(irqfd.raised(), 0); // nothing was pending
"#)]
    pub fn unmask(&self) -> Result<()> {
        self.guest.engine()?.mask_irq(self.serial, false)
    }

    /// Whether a signal came since the interrupt was masked; `false` if it is not masked.
    ///
    /// # Errors
    /// As [`IrqFd::mask`].
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let irqfd = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
assert!(!irqfd.is_pending()?); // it is raised at once
"#)]
    pub fn is_pending(&self) -> Result<bool> {
        self.guest.engine()?.is_pending(self.serial)
    }

    /// Lowers a level-triggered line, when the guest has acknowledged the interrupt. Nothing for
    /// other kinds.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it was unregistered, as the line may be another's by now;
    /// [`Error::GuestDied`]; [`Error::Host`].
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let irqfd = guest.register_irqfd(&call, Irq::Line(Line::Isa(5), Trigger::Level))?;
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
# model.until("the line is up", |model| model.is_up(dom, Line::Isa(5)));
irqfd.lower()?; // the guest has acknowledged it
# assert!(!model.is_up(dom, Line::Isa(5)));
"#)]
    pub fn lower(&self) -> Result<()> {
        self.guest.engine()?.lower(self.serial)
    }

    /// How many interrupts it raised.
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let irqfd = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;
rustix::io::write(&call, &1_u64.to_ne_bytes())?;
# vcpu.wait_msi(0x41)?; // the guest's interrupt
# while irqfd.raised() == 0 {}
assert_eq!((irqfd.raised(), irqfd.failed()), (1, 0));
"#)]
    pub fn raised(&self) -> u64 {
        self.guest.ask(|guest| guest.count_irqs(self.serial));
        self.counts.raised.load(Ordering::Relaxed)
    }

    /// How many the host refused.
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let irqfd = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;
assert_eq!(irqfd.failed(), 0);
"#)]
    pub fn failed(&self) -> u64 {
        self.guest.ask(|guest| guest.count_irqs(self.serial));
        self.counts.failed.load(Ordering::Relaxed)
    }
}

impl Drop for IrqFd {
    fn drop(&mut self) {
        if self.armed {
            let ended = self.guest.engine().and_then(|guest| guest.unregister_irq(self.serial));
            if let Err(error) = ended {
                tracing::debug!(%error, "an irqfd was not ended");
            }
        }
    }
}

/// The registers of a device, by the address of the first.
fn registers(addr: u64) -> Result<Registers> {
    Registers::new(addr).map_err(|why| Error::InvalidStatus { addr, why })
}

/// InterruptStatus and InterruptACK of a device, which the engine answers. Dropping it ends that, and the
/// irqfds that set its bits, and loses the bits that are set; afterwards the VMM answers the registers.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct InterruptStatus {
    guest: Guest,
    registers: Registers,
    serial: u64,
    armed: bool,
}

impl InterruptStatus {
    /// The bit of a used buffer.
    pub const USED_BUFFER: u32 = interrupt_status::USED_BUFFER;
    /// The bit of a changed configuration.
    pub const CONFIG_CHANGE: u32 = interrupt_status::CONFIG_CHANGE;

    /// The interrupt that sets these bits, for [`Guest::register_irqfd`]: they are set before the device's
    /// interrupt is raised. What [`IrqFd::raised`] counts is how often they were set.
    ///
    #[doc = example!(r#"
let msi = Irq::Msi { addr: 0xfee0_0000, data: 0x41 };
let status = guest.register_interrupt_status(0xfe00_0060, msi)?;
// An eventfd for changes of the configuration, as vhost-user devices have.
let changed = eventfd(0, EventfdFlags::empty())?;
let _changed = guest.register_irqfd(&changed, status.irq(InterruptStatus::CONFIG_CHANGE))?;
"#)]
    pub const fn irq(&self, bits: u32) -> Irq {
        Irq::Status { addr: self.registers.addr(), bits }
    }

    /// Sets bits, and raises the device's interrupt for them: for what the VMM itself notifies of, such as a
    /// changed configuration.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it was unregistered; [`Error::GuestDied`]; [`Error::Host`] if Xen
    /// refused the interrupt, and the bits are set then.
    ///
    #[doc = example!(r#"
let msi = Irq::Msi { addr: 0xfee0_0000, data: 0x41 };
let status = guest.register_interrupt_status(0xfe00_0060, msi)?;
status.set(InterruptStatus::CONFIG_CHANGE)?;
# vcpu.wait_msi(0x41)?; // the guest's interrupt
assert_eq!(status.status()?.bits, InterruptStatus::CONFIG_CHANGE);
"#)]
    pub fn set(&self, bits: u32) -> Result<()> {
        self.change(StatusChange { clear: 0, set: bits }).map(drop)
    }

    /// Clears bits, as the driver's acknowledgement does; all of them when the driver resets the device.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it was unregistered; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
let msi = Irq::Msi { addr: 0xfee0_0000, data: 0x41 };
let status = guest.register_interrupt_status(0xfe00_0060, msi)?;
status.set(InterruptStatus::USED_BUFFER)?;
status.clear(u32::MAX)?; // the driver has reset the device
assert_eq!(status.status()?.bits, 0);
"#)]
    pub fn clear(&self, bits: u32) -> Result<()> {
        self.change(StatusChange { clear: bits, set: 0 }).map(drop)
    }

    /// Which bits are set, and what came to the registers.
    ///
    /// # Errors
    /// [`Error::NotRegistered`] if it was unregistered; [`Error::GuestDied`].
    ///
    #[doc = example!(r#"
let msi = Irq::Msi { addr: 0xfee0_0000, data: 0x41 };
let status = guest.register_interrupt_status(0xfe00_0060, msi)?;
# vcpu.read(Space::Mmio, 0xfe00_0060, Width::Four)?; // the guest reads it
assert_eq!((status.status()?.reads, status.status()?.acks), (1, 0));
"#)]
    pub fn status(&self) -> Result<DeviceStatus> {
        self.change(StatusChange::default())
    }

    fn change(&self, change: StatusChange) -> Result<DeviceStatus> {
        self.guest.engine()?.change_status(self.registers, self.serial, change)
    }

    /// Leaves the registration in place until it is unregistered or the guest is let go of.
    ///
    #[doc = example!(r#"
let msi = Irq::Msi { addr: 0xfee0_0000, data: 0x41 };
guest.register_interrupt_status(0xfe00_0060, msi)?.keep();
assert!(guest.register_interrupt_status(0xfe00_0060, msi).is_err(), "it is there");
"#)]
    pub fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for InterruptStatus {
    fn drop(&mut self) {
        if self.armed {
            let end = |guest: &dyn Attachment| {
                guest.unregister_status(self.registers, None, Some(self.serial))
            };
            if let Err(error) = self.guest.engine().and_then(end) {
                tracing::debug!(%error, "the registers of a device were not given back");
            }
        }
    }
}

/// An eventfd that stands for a guest's event channel. Dropping it ends that.
#[derive(Debug)]
#[must_use = "dropping it ends the registration"]
pub struct ChannelFd {
    guest: Guest,
    port: Port,
    serial: u64,
    armed: bool,
}

impl ChannelFd {
    /// Leaves the registration in place until it is unregistered or the guest is let go of.
    ///
    #[doc = example!(r#"
# let port = vcpu.alloc_unbound()?;
let rung = eventfd(0, EventfdFlags::empty())?;
guest.register_channel(&rung, port)?.keep();
assert!(guest.register_channel(&rung, port).is_err(), "it has an eventfd already");
"#)]
    pub fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for ChannelFd {
    fn drop(&mut self) {
        if self.armed {
            self.guest.ask(|guest| {
                if let Err(error) = guest.stop_listening(self.port, self.serial) {
                    tracing::warn!(%error, port = %self.port, "an event channel still has its eventfd");
                }
            });
        }
    }
}
