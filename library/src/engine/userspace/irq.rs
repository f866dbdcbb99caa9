//! From an eventfd to a guest's interrupt, and from a guest's event channel to an eventfd.

use super::Shared;
use crate::engine::IrqCounts;
use crate::eventfd::EventFd;
use crate::sync::Mutex;
use crate::{Result, lock};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xen_eventfd_core::irq::{Irq, Line, Trigger};
use xen_eventfd_core::{DomId, Port};
use xen_eventfd_host::{EventChannels, LocalPort};

/// Who hears the guest's end of a channel.
#[derive(Debug, Default)]
pub(super) struct Listener {
    /// The eventfd that stands for events of the guest, if one does.
    pub(super) eventfd: Option<EventFd>,
    /// An event came while nobody listened. It is not ended, so no further one comes: a guest may
    /// ring at no cost to us.
    pub(super) missed: bool,
    /// The port is unbound, and its number may be another's.
    pub(super) closed: bool,
}

/// A guest's port that is bound for as long as somebody uses it, in either direction.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) local: LocalPort,
    pub(super) listener: Mutex<Listener>,
}

impl Channel {
    pub(super) fn bind(
        events: &dyn EventChannels,
        dom: DomId,
        remote: Port,
    ) -> xen_eventfd_host::Result<Self> {
        let local = events.bind(dom, remote)?;
        Ok(Self { local, listener: Mutex::default() })
    }

    /// Unbinds the port. After this returns nothing is signalled for it.
    pub(super) fn close(&self, shared: &Shared) {
        lock(&shared.sources).ports.remove(&self.local);
        let mut listener = lock(&self.listener);
        listener.eventfd = None;
        if !std::mem::replace(&mut listener.closed, true)
            && let Err(error) = shared.events.unbind(self.local)
        {
            tracing::warn!(%error, "a port stays bound");
        }
    }
}

/// What a signal does.
#[derive(Debug)]
pub(super) enum Action {
    Ring(Arc<Channel>),
    Msi { addr: u64, data: u32 },
    Line(Line, Trigger),
}

/// An eventfd that raises one interrupt.
#[derive(Debug)]
pub(super) struct IrqSource {
    pub(super) dom: DomId,
    pub(super) irq: Irq,
    /// Which eventfd it is.
    pub(super) eventfd: u64,
    /// Held while a signal is passed on, so that a deassign waits for it; `None` after that.
    open: Mutex<Option<(EventFd, Action)>>,
    pub(super) counts: Arc<IrqCounts>,
}

impl IrqSource {
    pub(super) fn new(dom: DomId, irq: Irq, eventfd: EventFd, action: Action) -> Self {
        let id = eventfd.id();
        let open = Mutex::new(Some((eventfd, action)));
        Self { dom, irq, eventfd: id, open, counts: Arc::default() }
    }

    /// Has the thread come by when it is signalled.
    pub(super) fn listen(&self, shared: &Shared, serial: u64) -> Result<()> {
        match &*lock(&self.open) {
            Some((eventfd, _)) => shared.listen(eventfd.as_fd(), serial),
            None => Ok(()),
        }
    }

    /// Passes on what was signalled.
    pub(super) fn fire(&self, shared: &Shared) -> xen_eventfd_host::Result<()> {
        match &*lock(&self.open) {
            Some((eventfd, action)) => self.pass_on(shared, eventfd, action),
            None => Ok(()),
        }
    }

    fn pass_on(
        &self,
        shared: &Shared,
        eventfd: &EventFd,
        action: &Action,
    ) -> xen_eventfd_host::Result<()> {
        match eventfd.consume() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                // It stays readable, and would keep the thread busy for ever.
                shared.ignore(eventfd.as_fd());
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
        }
        let host = &*shared.host;
        let raised = match action {
            Action::Ring(channel) => shared.events.notify(channel.local),
            Action::Msi { addr, data } => host.inject_msi(self.dom, *addr, *data),
            Action::Line(line, Trigger::Level) => host.set_line(self.dom, *line, true),
            // Xen's lines are test-and-set: without lowering, the next pulse would be lost.
            Action::Line(line, Trigger::Pulse) => host
                .set_line(self.dom, *line, true)
                .and_then(|()| host.set_line(self.dom, *line, false)),
        };
        let IrqCounts { raised: good, failed: bad } = &*self.counts;
        let counter = if raised.is_ok() { good } else { bad };
        counter.fetch_add(1, Ordering::Relaxed);
        raised
    }

    /// Passes on what was signalled so far, and nothing after that. Afterwards neither the eventfd
    /// nor the port is held, whoever still has this value.
    pub(super) fn finish(&self, shared: &Shared) {
        let mut open = lock(&self.open);
        let Some((eventfd, action)) = open.take() else { return };
        if let Err(error) = self.pass_on(shared, &eventfd, &action) {
            tracing::debug!(%error, "the last interrupt was not raised");
        }
        shared.ignore(eventfd.as_fd());
        drop(open);
        let Action::Line(line, Trigger::Level) = action else { return };
        // A line stays up for as long as somebody is there to lower it.
        let same = |other: &Arc<Self>| other.dom == self.dom && other.irq == self.irq;
        let lowered = lock(&shared.sources).irqs.values().any(same);
        if !lowered && let Err(error) = shared.host.set_line(self.dom, line, false) {
            tracing::debug!(%error, "a line was not lowered");
        }
    }
}
