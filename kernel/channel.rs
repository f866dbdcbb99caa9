// SPDX-License-Identifier: GPL-2.0

//! A guest's event channel, bound for as long as a process uses it: to ring it, or to receive it.
//!
//! # Invariants
//! * An event is ended exactly once: by the handler if a process listens, else by the one that begins to.
//!   Until then no further one comes, so a guest rings a channel without a listener at no cost to us.
//! * An event that finds its eventfd unread is ended as a spurious one, which makes the next one
//!   wait: a guest can ring as fast as it likes, and pays for it alone.
//! * Each has a [`Place`]: no process is charged for an interrupt descriptor, so there are only so
//!   many.

use crate::eventfd::{EventFd, OpenEventFd};
use crate::port::{Ended, Handler, Port};
use crate::protocol::{self, DomId};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::Arc;

/// Which file receives a channel.
struct Listener {
    eventfd: Option<OpenEventFd>,
    /// An event came while no process listened, and is not ended.
    missed: bool,
    signals: u64,
}

/// What the handler needs.
#[pin_data]
struct Listening {
    #[pin]
    listener: SpinLockIrq<Listener>,
}

impl Handler for Arc<Listening> {
    fn handle(&self, _port: protocol::Port) -> Ended {
        let mut listener = self.listener.lock();
        let Some(eventfd) = &listener.eventfd else {
            listener.missed = true;
            return Ended::Not;
        };
        let unread = eventfd.is_unread();
        eventfd.counter().signal();
        listener.signals = listener.signals.wrapping_add(1);
        if unread {
            Ended::Spurious
        } else {
            Ended::Served
        }
    }
}

/// Channels that are bound.
static BOUND: Atomic<u32> = Atomic::new(0);

/// The right to one of the channels of all guests.
struct Place;

impl Place {
    fn take() -> Result<Self> {
        let place = Self;
        if BOUND.fetch_add(1, Relaxed) < crate::module_parameters::max_channels.value() {
            return Ok(place);
        }
        // Its drop gives it back.
        drop(place);
        Err(ENOSPC)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        BOUND.fetch_sub(1, Relaxed);
    }
}

/// A bound channel.
pub(crate) struct Channel {
    remote: protocol::Port,
    listening: Arc<Listening>,
    port: Port<Arc<Listening>>,
    _place: Place,
}

impl Channel {
    /// Binds a port that the guest has allocated for this domain.
    pub(crate) fn bind(dom: DomId, remote: protocol::Port) -> Result<Self> {
        let place = Place::take()?;
        let none = Listener { eventfd: None, missed: false, signals: 0 };
        let listening = Arc::pin_init(
            pin_init!(Listening { listener <- new_spinlock_irq!(none, "Channel::listener") }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let port = Port::bind(listening.clone(), dom, remote)?;
        Ok(Self { remote, listening, port, _place: place })
    }

    /// The guest's port.
    pub(crate) fn remote(&self) -> protocol::Port {
        self.remote
    }

    /// Rings it. May be called from an interrupt.
    pub(crate) fn ring(&self) -> Result {
        self.port.ring()
    }

    /// Has an eventfd stand for the guest's events; one that came before signals it at once.
    ///
    /// # Errors
    /// `EBUSY` if one does already.
    pub(crate) fn listen(&self, eventfd: OpenEventFd) -> Result {
        let mut listener = self.listening.listener.lock();
        if listener.eventfd.is_some() {
            drop(listener);
            return Err(EBUSY);
        }
        let missed = core::mem::take(&mut listener.missed);
        if missed {
            eventfd.counter().signal();
        }
        listener.signals = u64::from(missed);
        listener.eventfd = Some(eventfd);
        drop(listener);
        if missed {
            self.port.end();
        }
        Ok(())
    }

    /// Has this eventfd, or whichever it is, no longer signalled; `false` if it was not. To be called
    /// where one may sleep.
    pub(crate) fn stop_listening(&self, eventfd: Option<&EventFd>) -> bool {
        let mut listener = self.listening.listener.lock();
        let is_meant = |ours: &OpenEventFd| eventfd.is_none_or(|one| ours.counter().is(one));
        if !listener.eventfd.as_ref().is_some_and(is_meant) {
            return false;
        }
        let ours = listener.eventfd.take();
        drop(listener);
        // Not under the lock: it may be the last reference to the file.
        drop(ours);
        true
    }

    /// How often the eventfd was signalled; `None` if none listens.
    pub(crate) fn signals(&self) -> Option<u64> {
        let listener = self.listening.listener.lock();
        listener.eventfd.as_ref().map(|_| listener.signals)
    }
}
