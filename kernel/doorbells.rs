// SPDX-License-Identifier: GPL-2.0

//! The doorbells of one guest: who waits for which kick, and what has come to each.
//!
//! Handlers of any number of vCPUs read a table and count in its registrations at once. A table is
//! changed by the owner of its [`Ports`](crate::ports::Ports), in a copy.

use crate::device::Devices;
use crate::eventfd::EventFd;
use crate::protocol::interrupt_status;
use crate::protocol::status::DoorbellStatus;
use crate::protocol::table::{self, Entry};
use crate::protocol::unmatched::{Unmatched, UnmatchedKick};
use crate::protocol::{Doorbell, Kick, Space};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::Arc;

/// Doorbells that one guest can have.
pub(crate) const MAX_DOORBELLS: usize = 4096;
/// Distinct kicks held for one guest.
pub(crate) const MAX_HELD: usize = 64;
/// Distinct kicks kept for one fallback.
pub(crate) const MAX_UNMATCHED: usize = 32;

/// Registrations in the order of addresses.
pub(crate) type Table = KVVec<Arc<Registration>>;

/// What a fallback received.
type Received = SpinLockIrq<Unmatched<MAX_UNMATCHED>>;

/// One registration.
pub(crate) struct Registration {
    doorbell: Doorbell,
    eventfd: EventFd,
    /// Of a fallback alone.
    received: Option<Pin<KBox<Received>>>,
    /// Delivered to it.
    kicks: Atomic<u64>,
    /// Came to its address, if it is the first there, and no process took it.
    held: Atomic<u64>,
    /// Requests at its address, if it is the first there, that no doorbell serves.
    odd: Atomic<u64>,
}

impl Entry for Arc<Registration> {
    fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

/// On a stack frame of its own, as the kicks pass through it.
#[inline(never)]
fn nothing_received() -> Result<Pin<KBox<Received>>> {
    KBox::pin_init(
        new_spinlock_irq!(Unmatched::new(), "Registration::received"),
        GFP_KERNEL_ACCOUNT,
    )
}

impl Registration {
    pub(crate) fn new(doorbell: Doorbell, eventfd: EventFd) -> Result<Arc<Self>> {
        let received = if doorbell.is_fallback() { Some(nothing_received()?) } else { None };
        let [kicks, held, odd] = [const { Atomic::new(0) }; 3];
        let new = Self { doorbell, eventfd, received, kicks, held, odd };
        Ok(Arc::new(new, GFP_KERNEL_ACCOUNT)?)
    }

    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Signals its eventfd for a kick.
    pub(crate) fn deliver(&self, kick: &Kick) {
        // Before the signal: who is woken finds it.
        self.remember(kick);
        self.signal();
    }

    /// Keeps a kick until it is taken, if this is a fallback.
    pub(crate) fn remember(&self, kick: &Kick) {
        if let Some(received) = &self.received {
            received.lock().add(*kick, 1);
        }
    }

    /// Signals its eventfd.
    pub(crate) fn signal(&self) {
        self.kicks.add(1, Relaxed);
        self.eventfd.signal();
    }

    /// A kick at its address is held.
    pub(crate) fn count_held(&self) {
        self.held.add(1, Relaxed);
    }

    /// A request at its address is one that no doorbell serves.
    pub(crate) fn count_odd(&self) {
        self.odd.add(1, Relaxed);
    }

    /// What came to it.
    pub(crate) fn status(&self) -> DoorbellStatus {
        DoorbellStatus {
            doorbell: self.doorbell,
            kicks: self.kicks.load(Relaxed),
            held: self.held.load(Relaxed),
            odd: self.odd.load(Relaxed),
        }
    }

    /// Takes one kick that it received, if it is a fallback.
    pub(crate) fn take_received(&self) -> Result<UnmatchedKick> {
        Ok(self.received.as_ref().ok_or(ENOENT)?.lock().take())
    }

    /// Puts back what was taken and could not be reported.
    pub(crate) fn put_back(&self, taken: &UnmatchedKick) {
        if let Some(received) = &self.received {
            received.lock().put_back(taken);
        }
    }

    /// Which one counts what comes to an address and no doorbell takes.
    pub(crate) fn first_at(table: &Table, space: Space, addr: u64) -> Option<&Self> {
        table.get(table::first_at(table, space, addr)?).map(|first| &**first)
    }
}

/// Whether a registration could join, beside these devices.
pub(crate) fn check(table: &Table, devices: &Devices, doorbell: &Doorbell) -> Result {
    if table.len() >= MAX_DOORBELLS {
        return Err(ENOSPC);
    }
    if interrupt_status::in_the_way(devices, doorbell).is_some() {
        return Err(EEXIST);
    }
    table::place(table, doorbell).map(drop).map_err(|_| EEXIST)
}

/// The registration that is exactly this doorbell with this eventfd.
pub(crate) fn find<'a>(
    table: &'a Table,
    doorbell: &Doorbell,
    eventfd: &EventFd,
) -> Result<&'a Registration> {
    let found = table::position(table, doorbell).and_then(|index| table.get(index));
    found.filter(|found| found.eventfd.is(eventfd)).map(|found| &**found).ok_or(ENOENT)
}

/// Adds a registration, for which there is room.
pub(crate) fn insert(table: &mut Table, new: &Arc<Registration>) -> Result {
    let index = table::place(table, &new.doorbell).map_err(|_| EEXIST)?;
    table.insert_within_capacity(index, new.clone()).map_err(|_| ENOMEM)
}

/// Takes a registration away.
pub(crate) fn remove(table: &mut Table, doorbell: &Doorbell) -> Result {
    let index = table::position(table, doorbell).ok_or(ENOENT)?;
    table.remove(index).map(drop).map_err(|_| ENOENT)
}
