//! The doorbells of one guest: which eventfd is for which kick, and what has come so far.

use crate::eventfd::EventFd;
use crate::{Error, Result};
use std::sync::Arc;
use xen_eventfd_core::claims::{self, Claim, Debt, Piece};
use xen_eventfd_core::dispatch::{Outcome, dispatch};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::held::Held;
use xen_eventfd_core::table::{self, Collision, Entry};
use xen_eventfd_core::{Counters, DomId, Doorbell, Kick, Request, Space};
use xen_eventfd_ioreq::MAX_HELD;
use xen_eventfd_ioreq::sync::{Mutex, lock};

/// Registrations that one guest can have with the userspace engine; the kernel module reports how many
/// it keeps.
pub const MAX_REGISTRATIONS: usize = 16_384;
/// Distinct kicks that the userspace engine keeps for one fallback.
pub const MAX_UNMATCHED: usize = 256;

/// The kicks that a fallback received.
pub(crate) type Unmatched = xen_eventfd_core::unmatched::Unmatched<MAX_UNMATCHED>;

/// One registration, as a value for people and machines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// The doorbell.
    pub doorbell: Doorbell,
    /// Kicks delivered to it.
    pub kicks: u64,
}

/// One registration.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(crate) doorbell: Doorbell,
    pub(crate) eventfd: Arc<EventFd>,
    /// Distinguishes this registration from an equal one before or after it.
    pub(crate) serial: u64,
    /// For a fallback: what it received.
    pub(crate) unmatched: Option<Arc<Mutex<Unmatched>>>,
    pub(crate) kicks: u64,
}

impl Entry for Registration {
    fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

/// All registrations of one guest.
#[derive(Debug, Default)]
pub(crate) struct Doorbells {
    table: Vec<Registration>,
    claims: Vec<Claim>,
    held: Held<MAX_HELD>,
    pub(crate) counters: Counters,
}

impl Doorbells {
    pub(crate) fn table(&self) -> &[Registration] {
        &self.table
    }

    pub(crate) fn held(&self) -> &[Kick] {
        self.held.marks()
    }

    /// Holds a kick that another engine answered.
    pub(crate) fn hold(&mut self, kick: Kick) {
        self.held.insert(kick);
    }

    /// Gives all of it up but for the counters.
    pub(crate) fn clear(&mut self) {
        *self = Self { counters: self.counters, ..Self::default() };
    }

    /// Whether a registration could join.
    pub(crate) fn check(&self, dom: DomId, doorbell: &Doorbell) -> Result<()> {
        if self.table.len() >= MAX_REGISTRATIONS
            || self.claims.len() >= claims::most(MAX_REGISTRATIONS)
        {
            return Err(Error::TooMany { dom, limit: MAX_REGISTRATIONS });
        }
        table::place(&self.table, doorbell).map(|_| ()).map_err(|why| exists(doorbell, &why))
    }

    /// Claims bytes. Returns those that are now to be mapped in Xen. From here on
    /// their kicks are held.
    pub(crate) fn claim(&mut self, bytes: Bytes) -> Vec<Bytes> {
        let pieces: Vec<Piece> = claims::acquire(&self.claims, bytes).collect();
        self.claims = pieces.iter().map(|piece| piece.claim).collect();
        owed(&pieces, Debt::Map)
    }

    /// Lets go of bytes. Returns those that Xen should take back; until [`Self::forget`] they
    /// are still known as mapped.
    pub(crate) fn unclaim(&mut self, bytes: Bytes) -> Vec<Bytes> {
        let pieces: Vec<Piece> = claims::release(&self.claims, bytes).collect();
        self.claims = pieces.iter().map(|piece| piece.claim).collect();
        self.held.forget(bytes, &self.claims);
        owed(&pieces, Debt::Unmap)
    }

    /// What is mapped in Xen and no longer claimed.
    pub(crate) fn stuck(&self) -> Vec<Bytes> {
        self.claims.iter().filter(|claim| claim.holders == 0).map(|claim| claim.bytes).collect()
    }

    /// Held kicks for bytes without a registration: they came to an engine that died.
    pub(crate) fn inherited(&self) -> Vec<Kick> {
        let claimed = |kick: &Kick| self.claims.iter().any(|claim| claim.bytes.meet(&kick.access));
        self.held.marks().iter().filter(|kick| !claimed(kick)).copied().collect()
    }

    /// Xen no longer routes these bytes to us.
    pub(crate) fn forget(&mut self, bytes: Bytes) {
        self.claims.retain(|claim| claim.bytes != bytes || claim.holders > 0);
    }

    /// Publishes a registration whose bytes are claimed, and delivers what was held for it.
    pub(crate) fn add(
        &mut self,
        new: Registration,
        signal: &mut dyn FnMut(&EventFd) -> bool,
    ) -> Result<()> {
        let doorbell = new.doorbell;
        let index = table::place(&self.table, &doorbell).map_err(|why| exists(&doorbell, &why))?;
        self.table.insert(index, new);
        let (table, mut found) = (&self.table, Vec::new());
        let owed = self.held.take_for(table, index, |kick| found.push(*kick));
        if owed && self.deliver(index, &found, signal) {
            self.counters.redelivered += 1;
        }
        Ok(())
    }

    /// Takes a registration away: exactly this doorbell with this eventfd, and this serial number
    /// if one is given. Its eventfd is not signalled again.
    pub(crate) fn remove(
        &mut self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Option<Registration> {
        self.find(doorbell, eventfd, serial)?;
        let index = table::position(&self.table, doorbell)?;
        Some(self.table.remove(index))
    }

    /// The registration of exactly this doorbell, with this eventfd and this serial number if they
    /// are given.
    pub(crate) fn find(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Option<&Registration> {
        let found = self.table.get(table::position(&self.table, doorbell)?)?;
        let same = eventfd.is_none_or(|eventfd| found.eventfd.is(eventfd))
            && serial.is_none_or(|serial| found.serial == serial);
        same.then_some(found)
    }

    /// A doorbell of this eventfd, at this place if one is given.
    pub(crate) fn of(&self, eventfd: &EventFd, place: Option<(Space, u64)>) -> Option<Doorbell> {
        let at = |doorbell: &Doorbell| (doorbell.bytes().space(), doorbell.bytes().first());
        let found = self.table.iter().find(|registration| {
            registration.eventfd.is(eventfd)
                && place.is_none_or(|place| at(&registration.doorbell) == place)
        });
        found.map(|registration| registration.doorbell)
    }

    /// Acts on one request; the result is the answer to a read.
    pub(crate) fn act(
        &mut self,
        request: &Request,
        signal: &mut dyn FnMut(&EventFd) -> bool,
    ) -> u64 {
        let outcome = dispatch(&self.table, &self.claims, request);
        match outcome {
            Outcome::Signal(index, kick) => {
                if !self.deliver(index, &[*kick], signal) {
                    return outcome.answer();
                }
            }
            Outcome::Hold(kick) => self.held.insert(*kick),
            Outcome::Late(_) | Outcome::Answer(_) | Outcome::Broadcast | Outcome::Odd { .. } => {}
        }
        self.counters.count(&outcome);
        outcome.answer()
    }

    /// Signals one registration for these kicks. A fallback keeps them.
    fn deliver(
        &mut self,
        index: usize,
        kicks: &[Kick],
        signal: &mut dyn FnMut(&EventFd) -> bool,
    ) -> bool {
        let Some(found) = self.table.get_mut(index) else { return false };
        if let Some(unmatched) = &found.unmatched {
            // Before the signal: the backend that is woken finds them.
            let mut unmatched = lock(unmatched);
            kicks.iter().for_each(|kick| unmatched.add(*kick, 1));
        }
        let signalled = signal(&found.eventfd);
        let counter = if signalled { &mut found.kicks } else { &mut self.counters.failed };
        *counter += 1;
        signalled
    }
}

fn owed(pieces: &[Piece], debt: Debt) -> Vec<Bytes> {
    pieces.iter().filter(|piece| piece.debt == debt).map(|piece| piece.claim.bytes).collect()
}

fn exists(doorbell: &Doorbell, why: &Collision) -> Error {
    Error::Exists { addr: doorbell.bytes().first(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use xen_eventfd_core::{Filter, Space, Width};
    use xen_eventfd_host::Errno;

    fn queue(value: u64) -> Doorbell {
        let filter = Filter::Value { width: Width::Four, value, mask: 0xFFFF_FFFF };
        Doorbell::new(Space::Mmio, 0x50, filter).unwrap()
    }

    #[test]
    fn there_are_so_many_registrations_and_no_more() {
        let eventfd = crate::eventfd::new().unwrap();
        let eventfd = Arc::new(EventFd::new(eventfd.as_fd()).unwrap());
        let mut doorbells = Doorbells::default();
        let mut add = |value| {
            let doorbell = queue(value);
            doorbells.check(DomId(1), &doorbell)?;
            let eventfd = Arc::clone(&eventfd);
            let new = Registration { doorbell, eventfd, serial: value, unmatched: None, kicks: 0 };
            doorbells.add(new, &mut |_| true)
        };
        for value in 0..MAX_REGISTRATIONS as u64 {
            add(value).unwrap();
        }
        let refused = add(MAX_REGISTRATIONS as u64).unwrap_err();
        assert_eq!(refused.errno(), Errno::NOSPC);
        assert!(doorbells.remove(&queue(7), None, None).is_some());
        assert!(doorbells.check(DomId(1), &queue(7)).is_ok());
    }

    #[test]
    fn what_xen_will_not_take_back_takes_the_place_of_registrations() {
        let byte = |addr| Bytes::new(Space::Mmio, addr, addr).unwrap();
        let stuck = |nth| Claim { bytes: byte(nth * 2), holders: 0 };
        let limit = claims::most(MAX_REGISTRATIONS) as u64;
        let mut doorbells =
            Doorbells { claims: (1..limit).map(stuck).collect(), ..Doorbells::default() };
        assert!(doorbells.check(DomId(1), &queue(7)).is_ok());
        doorbells.claim(byte(0));
        doorbells.unclaim(byte(0));
        assert_eq!(doorbells.check(DomId(1), &queue(7)).unwrap_err().errno(), Errno::NOSPC);
        doorbells.forget(byte(0));
        assert!(doorbells.check(DomId(1), &queue(7)).is_ok());
    }
}
