//! From an eventfd to a guest's interrupt, and from a guest's event channel to an eventfd.

use super::Shared;
use super::device::DeviceInterrupt;
use crate::engine::IrqCounts;
use crate::eventfd::{EventFd, IrqClaim};
use crate::{Error, Result};
use rustix::event::{Timespec, epoll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::{Irq, IrqOp, Line};
use xen_eventfd_core::{DomId, Port};
use xen_eventfd_host::{Call, Errno, HostError, LocalPort};
use xen_eventfd_ioreq::sync::{Mutex, lock};
use xen_eventfd_ioreq::{FdSource, PortSource};

/// What an event of the guest's end of a channel signals.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// The eventfd that stands for events of the guest, if one does, and its serial number.
    pub(super) eventfd: Option<(u64, EventFd)>,
    /// An event came without a listener. It is not ended, so no further one comes: a guest may
    /// ring at no cost to us.
    pub(super) missed: bool,
    /// The port is unbound, and its number may be another's.
    pub(super) closed: bool,
}

/// A guest's port that is bound for as long as it is used, in either direction.
#[derive(Debug)]
pub(super) struct Channel {
    shared: Arc<Shared>,
    pub(super) local: LocalPort,
    pub(super) listener: Mutex<Listener>,
}

impl Channel {
    pub(super) fn bind(
        shared: &Arc<Shared>,
        dom: DomId,
        remote: Port,
    ) -> xen_eventfd_host::Result<Arc<Self>> {
        shared.event_loop.bind(dom, remote, |local| {
            Arc::new(Self { shared: Arc::clone(shared), local, listener: Mutex::default() })
        })
    }

    /// Unbinds the port. After this returns nothing is signalled for it.
    pub(super) fn close(&self) {
        self.shared.event_loop.remove_port(self.local);
        let mut listener = lock(&self.listener);
        listener.eventfd = None;
        if !std::mem::replace(&mut listener.closed, true)
            && let Err(error) = self.shared.events().unbind(self.local)
        {
            tracing::warn!(%error, "a port is still bound");
        }
    }
}

impl PortSource for Channel {
    fn event(&self, port: LocalPort) {
        let mut listener = lock(&self.listener);
        if listener.closed {
            return;
        }
        let Some((_, eventfd)) = &listener.eventfd else {
            listener.missed = true;
            return;
        };
        self.shared.signal(eventfd);
        if let Err(error) = self.shared.events().eoi(port) {
            tracing::warn!(%error, "an event was not ended");
        }
    }
}

/// What a signal does.
#[derive(Debug)]
pub(super) enum Action {
    Notify(Arc<Channel>),
    /// One operation, or two.
    Operate(IrqOp, Option<IrqOp>),
    /// Sets bits of a device's InterruptStatus, and raises its interrupt.
    Set(Arc<DeviceInterrupt>, u32),
}

impl Action {
    /// Does it once.
    pub(super) fn raise(&self, shared: &Shared, dom: DomId) -> xen_eventfd_host::Result<()> {
        let operate = |operation: &IrqOp| match *operation {
            IrqOp::Msi { addr, data } => shared.host().inject_msi(dom, addr, data),
            IrqOp::Set { line, up } => shared.host().set_line(dom, line, up),
        };
        match self {
            Self::Notify(channel) => shared.events().notify(channel.local),
            Self::Operate(operation, None) => operate(operation),
            Self::Operate(operation, Some(then)) => operate(operation).and_then(|()| operate(then)),
            Self::Set(device, bits) => device.set(*bits),
        }
    }
}

/// How signals of an eventfd are distinguished from what is in its counter.
#[derive(Debug)]
enum Signals {
    /// A read empties it: what is there is a signal.
    Counter,
    /// A read of a semaphore takes 1, and the rest of a write is no signal. So the eventfd is in an
    /// epoll set of its own, edge-triggered, which has an event for each write since the last one.
    Edges(OwnedFd),
}

impl Signals {
    fn of(eventfd: &EventFd) -> xen_eventfd_host::Result<Self> {
        if !eventfd.may_be_semaphore() {
            return Ok(Self::Counter);
        }
        let failed = |errno| HostError::new(Call::EventFd, errno);
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let (data, edges) = (epoll::EventData::new_u64(0), epoll::EventFlags::ET);
        epoll::add(&set, eventfd, data, epoll::EventFlags::IN | edges).map_err(failed)?;
        Ok(Self::Edges(set))
    }

    /// Takes what was signalled, without ever waiting. `false`: nothing was.
    fn take(&self, eventfd: &EventFd) -> xen_eventfd_host::Result<bool> {
        if let Self::Edges(set) = self {
            let mut events = Vec::with_capacity(1);
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(set, room, Some(&Timespec::default())) {
                Ok(0) => return Ok(false),
                // What was interrupted is looked for in the counter.
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(HostError::new(Call::EventFd, errno)),
            }
        }
        eventfd.consume()
    }

    /// Readable while there is something to take.
    fn fd<'a>(&'a self, eventfd: &'a EventFd) -> BorrowedFd<'a> {
        match self {
            Self::Counter => eventfd.as_fd(),
            Self::Edges(set) => set.as_fd(),
        }
    }
}

/// An eventfd that raises one interrupt.
#[derive(Debug)]
pub(super) struct IrqSource {
    shared: Arc<Shared>,
    dom: DomId,
    /// Held while a signal is passed on, so that a change or a deassign waits for it; `None` once it
    /// is deassigned.
    open: Mutex<Option<Open>>,
    pub(super) counts: Arc<IrqCounts>,
}

/// What it is while it is assigned.
#[derive(Debug)]
struct Open {
    /// First, as it must not outlive the reference.
    #[expect(dead_code, reason = "no other raises an interrupt for the eventfd meanwhile")]
    claim: IrqClaim,
    eventfd: EventFd,
    signals: Signals,
    irq: Irq,
    action: Action,
    masked: bool,
    /// A signal came while it was masked.
    pending: bool,
}

/// That an irqfd is none any more.
fn ended() -> Error {
    Error::NotRegistered { what: "this interrupt".to_owned() }
}

impl IrqSource {
    pub(super) fn new(
        shared: &Arc<Shared>,
        dom: DomId,
        irq: Irq,
        (eventfd, claim): (EventFd, IrqClaim),
        action: Action,
    ) -> xen_eventfd_host::Result<Self> {
        let signals = Signals::of(&eventfd)?;
        let open = Open { eventfd, signals, claim, irq, action, masked: false, pending: false };
        let (shared, counts) = (Arc::clone(shared), Arc::default());
        Ok(Self { shared, dom, open: Mutex::new(Some(open)), counts })
    }

    /// Has the event loop pass on what is signalled.
    pub(super) fn listen(&self, serial: u64) -> Result<()> {
        match &*lock(&self.open) {
            Some(open) => {
                Ok(self.shared.event_loop.watch(open.signals.fd(&open.eventfd), serial)?)
            }
            None => Ok(()),
        }
    }

    /// Whether it is for this eventfd and interrupt.
    pub(super) fn is(&self, eventfd: &EventFd, irq: &Irq) -> bool {
        lock(&self.open).as_ref().is_some_and(|open| open.eventfd.is(eventfd) && open.irq == *irq)
    }

    fn pass_on(&self, open: &mut Open) -> xen_eventfd_host::Result<()> {
        match open.signals.take(&open.eventfd) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                // It would always be readable, and keep the thread busy.
                self.shared.event_loop.ignore(open.signals.fd(&open.eventfd));
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        }
        if open.masked {
            open.pending = true;
            return Ok(());
        }
        self.raise(&open.action)
    }

    fn raise(&self, action: &Action) -> xen_eventfd_host::Result<()> {
        let raised = action.raise(&self.shared, self.dom);
        let IrqCounts { raised: good, failed: bad } = &*self.counts;
        let counter = if raised.is_ok() { good } else { bad };
        counter.fetch_add(1, Ordering::Relaxed);
        raised
    }

    /// Has it raise another interrupt. When this returns, the one before is not raised again; every
    /// signal raises the one or the other.
    ///
    /// Returns the one before, whose line may still be up.
    pub(super) fn set(&self, irq: Irq, action: Action) -> Result<Irq> {
        let mut open = lock(&self.open);
        let open = open.as_mut().ok_or_else(ended)?;
        open.action = action;
        Ok(std::mem::replace(&mut open.irq, irq))
    }

    /// Keeps signals from raising it, or lets them again: then it is raised once if one came
    /// meanwhile.
    pub(super) fn mask(&self, masked: bool) -> Result<()> {
        let mut open = lock(&self.open);
        let open = open.as_mut().ok_or_else(ended)?;
        // What was signalled until now is passed on or pending, though the thread has not come by.
        if let Err(error) = self.pass_on(open) {
            tracing::debug!(%error, "an interrupt was not raised");
        }
        open.masked = masked;
        if !masked
            && std::mem::take(&mut open.pending)
            && let Err(error) = self.raise(&open.action)
        {
            tracing::debug!(%error, "an interrupt was not raised");
        }
        Ok(())
    }

    /// Whether a signal came while it was masked.
    pub(super) fn is_pending(&self) -> Result<bool> {
        let mut open = lock(&self.open);
        let open = open.as_mut().ok_or_else(ended)?;
        if let Err(error) = self.pass_on(open) {
            tracing::debug!(%error, "an interrupt was not raised");
        }
        Ok(open.pending)
    }

    /// Lowers its line if it is level-triggered.
    pub(super) fn lower(&self) -> Result<xen_eventfd_host::Result<()>> {
        let open = lock(&self.open);
        let line = open.as_ref().ok_or_else(ended)?.irq.leaves_up();
        Ok(line.map_or(Ok(()), |line| self.shared.host().set_line(self.dom, line, false)))
    }

    /// Passes on what was signalled so far, and nothing after that. What is masked is left in the
    /// eventfd. Afterwards neither the eventfd nor the port is held, also while this value lives.
    ///
    /// Returns which interrupt it was; its line may still be up.
    pub(super) fn finish(&self) -> Option<Irq> {
        let mut guard = lock(&self.open);
        let mut open = guard.take()?;
        if open.pending {
            self.shared.signal(&open.eventfd);
        } else if !open.masked
            && let Err(error) = self.pass_on(&mut open)
        {
            tracing::debug!(%error, "the last interrupt was not raised");
        }
        self.shared.event_loop.ignore(open.signals.fd(&open.eventfd));
        Some(open.irq)
    }

    /// Whether it sets bits of the InterruptStatus of these registers.
    pub(super) fn sets(&self, registers: Registers) -> bool {
        matches!(self.irq(), Some(Irq::Status { addr, .. }) if addr == registers.addr())
    }

    /// Which interrupt it raises; `None` once it is deassigned.
    pub(super) fn irq(&self) -> Option<Irq> {
        lock(&self.open).as_ref().map(|open| open.irq)
    }

    /// The line that it can lower, if it is level-triggered.
    pub(super) fn can_lower(&self) -> Option<Line> {
        self.irq().and_then(|irq| irq.leaves_up())
    }
}

impl FdSource for IrqSource {
    fn ready(&self) {
        let Some(open) = &mut *lock(&self.open) else { return };
        if let Err(error) = self.pass_on(open) {
            tracing::debug!(%error, "an interrupt was not raised");
        }
    }
}
