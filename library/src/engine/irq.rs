//! From an eventfd to a guest's interrupt, and from a guest's event channel to an eventfd.

use crate::eventfd::EventFd;
use crate::lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use xen_eventfd_core::irq::{Irq, Line, Trigger};
use xen_eventfd_core::{DomId, Port};
use xen_eventfd_host::{EventChannels, Host, LocalPort};

/// Who hears the guest's end of a channel.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    /// The eventfd that stands for events of the guest, if one does.
    pub(crate) eventfd: Option<EventFd>,
    /// An event came while nobody listened. It is not ended, so no further one comes: a guest may
    /// ring at no cost to us.
    pub(crate) missed: bool,
}

/// A guest's port that is bound for as long as somebody uses it, in either direction.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) local: LocalPort,
    events: Weak<dyn EventChannels>,
    pub(crate) listener: Mutex<Listener>,
    pub(crate) received: AtomicU64,
}

impl Channel {
    pub(crate) fn bind(
        events: &Arc<dyn EventChannels>,
        dom: DomId,
        remote: Port,
    ) -> xen_eventfd_host::Result<Self> {
        Ok(Self {
            local: events.bind(dom, remote)?,
            events: Arc::downgrade(events),
            listener: Mutex::default(),
            received: AtomicU64::new(0),
        })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(events) = self.events.upgrade() {
            let _ = events.unbind(self.local);
        }
    }
}

/// What a signal does.
#[derive(Debug)]
pub(crate) enum Action {
    Ring(Arc<Channel>),
    Msi { addr: u64, data: u32 },
    Line(Line, Trigger),
}

/// An eventfd that raises one interrupt.
#[derive(Debug)]
pub(crate) struct IrqSource {
    pub(crate) dom: DomId,
    pub(crate) irq: Irq,
    pub(crate) eventfd: EventFd,
    action: Action,
    /// Held while a signal is passed on, so that a deassign waits for it; `false` after that.
    open: Mutex<bool>,
    pub(crate) raised: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl IrqSource {
    pub(crate) fn new(dom: DomId, irq: Irq, eventfd: EventFd, action: Action) -> Self {
        let (raised, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { dom, irq, eventfd, action, open: Mutex::new(true), raised, failed }
    }

    /// Passes on what was signalled.
    pub(crate) fn fire(
        &self,
        host: &dyn Host,
        events: &dyn EventChannels,
    ) -> xen_eventfd_host::Result<()> {
        let open = lock(&self.open);
        if !*open || !self.eventfd.consume()? {
            return Ok(());
        }
        let raised = match &self.action {
            Action::Ring(channel) => events.notify(channel.local),
            Action::Msi { addr, data } => host.inject_msi(self.dom, *addr, *data),
            Action::Line(line, Trigger::Level) => host.set_line(self.dom, *line, true),
            // Xen's lines are test-and-set: without lowering, the next pulse would be lost.
            Action::Line(line, Trigger::Pulse) => host
                .set_line(self.dom, *line, true)
                .and_then(|()| host.set_line(self.dom, *line, false)),
        };
        let counter = if raised.is_ok() { &self.raised } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        raised
    }

    /// Lowers a level-triggered line.
    pub(crate) fn lower(&self, host: &dyn Host) -> xen_eventfd_host::Result<()> {
        match self.action {
            Action::Line(line, _) => host.set_line(self.dom, line, false),
            Action::Ring(_) | Action::Msi { .. } => Ok(()),
        }
    }

    /// Passes on what was signalled so far, and nothing after that.
    pub(crate) fn finish(&self, host: &dyn Host, events: &dyn EventChannels) {
        if let Err(error) = self.fire(host, events) {
            tracing::debug!(%error, "the last interrupt was not raised");
        }
        *lock(&self.open) = false;
    }
}
