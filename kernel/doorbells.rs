// SPDX-License-Identifier: GPL-2.0

//! The doorbells of one guest: who waits for which kick, and what has come so far.
//!
//! All of it lies under a spinlock that the handlers take with interrupts off, so nothing here
//! allocates, frees, or moves more than pointers: what may grow is given room first, by [`Room`], and
//! the claims are changed in a copy, by `claimed.rs`. That works because the one that changes what is
//! registered holds a mutex across both.

use crate::claimed::Claims;
use crate::eventfd::EventFd;
use crate::protocol::dispatch::{dispatch, Outcome};
use crate::protocol::doorbell::Bytes;
use crate::protocol::held::Held;
use crate::protocol::status::DoorbellStatus;
use crate::protocol::table::{self, Entry};
use crate::protocol::unmatched::Unmatched;
use crate::protocol::{Counters, Doorbell, DomId, Kick, Request, Space};
use crate::trace::{self, KickEnd};
use core::mem;
use kernel::prelude::*;

/// Doorbells that one guest can have.
pub(crate) const MAX_DOORBELLS: usize = 4096;
/// Distinct kicks held for one guest.
pub(crate) const MAX_HELD: usize = 64;
/// Distinct kicks kept for one fallback.
pub(crate) const MAX_UNMATCHED: usize = 32;

/// One registration.
pub(crate) struct Registration {
    doorbell: Doorbell,
    eventfd: EventFd,
    /// For a fallback: what it received.
    unmatched: Option<KBox<Unmatched<MAX_UNMATCHED>>>,
    /// Delivered to it.
    kicks: u64,
    /// Came to its address, if it is the first there, and no process took it.
    held: u64,
    /// Requests at its address, if it is the first there, that no doorbell serves.
    odd: u64,
}

impl Registration {
    pub(crate) fn new(doorbell: Doorbell, eventfd: EventFd) -> Result<KBox<Self>> {
        let unmatched = if doorbell.is_fallback() { Some(nothing_unmatched()?) } else { None };
        let new = Self { doorbell, eventfd, unmatched, kicks: 0, held: 0, odd: 0 };
        Ok(KBox::new(new, GFP_KERNEL_ACCOUNT)?)
    }

    fn deliver(&mut self, kick: &Kick) {
        if let Some(unmatched) = &mut self.unmatched {
            // Before the signal: who is woken finds it.
            unmatched.add(*kick, 1);
        }
        self.signal();
    }

    fn signal(&mut self) {
        self.kicks = self.kicks.wrapping_add(1);
        self.eventfd.signal();
    }
}

impl Entry for KBox<Registration> {
    fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

/// Registrations in the order of addresses. Pointers, as the spinlock is held while they make place.
type Table = KVVec<KBox<Registration>>;

/// All registrations of one guest.
pub(crate) struct Doorbells {
    table: Table,
    claims: Claims,
    held: KBox<Held<MAX_HELD>>,
    pub(crate) counters: Counters,
}

/// Memory for one more registration, and afterwards the memory that it replaced.
pub(crate) struct Room(Option<Table>);

impl Room {
    /// For a table of this length and capacity.
    pub(crate) fn to_grow((len, capacity): (usize, usize)) -> Result<Self> {
        if len < capacity {
            return Ok(Self(None));
        }
        let capacity = len.saturating_mul(2).clamp(8, MAX_DOORBELLS);
        Ok(Self(Some(Table::with_capacity(capacity, GFP_KERNEL_ACCOUNT)?)))
    }
}

/// On a stack frame of its own, as the marks pass through it.
#[inline(never)]
fn nothing_held() -> Result<KBox<Held<MAX_HELD>>> {
    Ok(KBox::new(Held::new(), GFP_KERNEL_ACCOUNT)?)
}

/// On a stack frame of its own, as above.
#[inline(never)]
fn nothing_unmatched() -> Result<KBox<Unmatched<MAX_UNMATCHED>>> {
    Ok(KBox::new(Unmatched::new(), GFP_KERNEL_ACCOUNT)?)
}

/// On a stack frame of its own, as above.
#[inline(never)]
fn hold_nothing(held: &mut Held<MAX_HELD>) {
    *held = Held::new();
}

impl Doorbells {
    /// No doorbell.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            table: Table::new(),
            claims: Claims::new(),
            held: nothing_held()?,
            counters: Counters::default(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The table's length and capacity.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.table.len(), self.table.capacity())
    }

    /// The registration at an index, in the order of addresses.
    pub(crate) fn shown(&self, index: usize) -> Option<DoorbellStatus> {
        let Registration { doorbell, kicks, held, odd, .. } = **self.table.get(index)?;
        Some(DoorbellStatus { doorbell, kicks, held, odd })
    }

    /// The held kick at an index.
    pub(crate) fn waiting(&self, index: usize) -> Option<Kick> {
        self.held.marks().get(index).copied()
    }

    /// What the fallback that is exactly this doorbell with this eventfd has received.
    pub(crate) fn unmatched(
        &mut self,
        doorbell: &Doorbell,
        eventfd: &EventFd,
    ) -> Result<&mut Unmatched<MAX_UNMATCHED>> {
        let index = self.position(doorbell, eventfd)?;
        let fallback = self.table.get_mut(index).and_then(|found| found.unmatched.as_mut());
        fallback.map(|unmatched| &mut **unmatched).ok_or(ENOENT)
    }

    fn position(&self, doorbell: &Doorbell, eventfd: &EventFd) -> Result<usize> {
        let index = table::position(&self.table, doorbell).ok_or(ENOENT)?;
        match self.table.get(index) {
            Some(found) if found.eventfd.is(eventfd) => Ok(index),
            _ => Err(ENOENT),
        }
    }

    /// Gives the registrations up. To be dropped outside the lock.
    pub(crate) fn clear(&mut self) -> (Table, Claims) {
        let claims = mem::replace(&mut self.claims, Claims::new());
        hold_nothing(&mut self.held);
        (mem::replace(&mut self.table, Table::new()), claims)
    }

    /// Whether a registration could join.
    pub(crate) fn check(&self, doorbell: &Doorbell) -> Result {
        if self.table.len() >= MAX_DOORBELLS {
            return Err(ENOSPC);
        }
        table::place(&self.table, doorbell).map(|_| ()).map_err(|_| EEXIST)
    }

    /// Swaps the claims.
    pub(crate) fn swap_claims(&mut self, claims: &mut Claims) {
        mem::swap(&mut self.claims, claims);
    }

    /// Forgets the kicks held for bytes that are no longer claimed.
    pub(crate) fn forget_held(&mut self, bytes: Bytes) {
        self.held.forget(bytes, &self.claims);
    }

    /// Publishes a registration whose bytes are claimed, and delivers what was held for it.
    pub(crate) fn add(&mut self, new: KBox<Registration>, room: &mut Room) -> Result {
        if let Some(next) = &mut room.0 {
            for registration in self.table.drain_all() {
                next.push_within_capacity(registration).map_err(|_| ENOMEM)?;
            }
            mem::swap(&mut self.table, next);
        }
        let index = table::place(&self.table, &new.doorbell).map_err(|_| EEXIST)?;
        self.table.insert_within_capacity(index, new).map_err(|_| ENOMEM)?;
        let Self { table, held, counters, .. } = self;
        let mut unmatched = table.get_mut(index).and_then(|new| new.unmatched.take());
        let owed = held.take_for(table, index, |kick| {
            if let Some(unmatched) = &mut unmatched {
                unmatched.add(*kick, 1);
            }
        });
        if let Some(new) = table.get_mut(index) {
            new.unmatched = unmatched;
            if owed {
                new.signal();
                counters.redelivered = counters.redelivered.wrapping_add(1);
            }
        }
        Ok(())
    }

    /// Whether exactly this doorbell is registered with this eventfd.
    pub(crate) fn has(&self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        self.position(doorbell, eventfd).map(|_| ())
    }

    /// Takes a registration away: exactly this doorbell with this eventfd. The eventfd is not
    /// signalled again. To be dropped outside the lock.
    pub(crate) fn remove(
        &mut self,
        doorbell: &Doorbell,
        eventfd: &EventFd,
    ) -> Result<KBox<Registration>> {
        let index = self.position(doorbell, eventfd)?;
        self.table.remove(index).map_err(|_| ENOENT)
    }

    /// Acts on one request of a vCPU; the result is the answer to a read.
    pub(crate) fn act(&mut self, dom: DomId, vcpu: usize, request: &Request) -> u64 {
        let outcome = dispatch(&self.table, &self.claims, request);
        match outcome {
            Outcome::Signal(index, kick) => {
                if let Some(registration) = self.table.get_mut(index) {
                    registration.deliver(kick);
                }
                trace::kick(dom, vcpu, kick, KickEnd::Delivered);
            }
            Outcome::Hold(kick) => {
                self.held.insert(*kick);
                if let Some(first) = self.first_at(kick.access.space, kick.access.addr) {
                    first.held = first.held.wrapping_add(1);
                }
                trace::kick(dom, vcpu, kick, KickEnd::Held);
            }
            Outcome::Late(kick) => trace::kick(dom, vcpu, kick, KickEnd::Late),
            Outcome::Odd { space: Some(space), addr } => {
                if let Some(first) = self.first_at(space, addr) {
                    first.odd = first.odd.wrapping_add(1);
                }
            }
            Outcome::Odd { space: None, .. } | Outcome::Answer(_) | Outcome::Broadcast => {}
        }
        self.counters.count(&outcome);
        outcome.answer()
    }

    /// Which one counts what comes to an address and no doorbell takes.
    fn first_at(&mut self, space: Space, addr: u64) -> Option<&mut Registration> {
        let index = table::first_at(&self.table, space, addr)?;
        self.table.get_mut(index).map(|first| &mut **first)
    }
}
