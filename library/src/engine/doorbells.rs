//! The doorbells of one guest: which eventfd is for which kick, and what has come so far.

use crate::eventfd::EventFd;
use crate::{Error, Result};
use core::fmt;
use std::sync::Arc;
use xen_eventfd_core::claims::{self, Claim, Debt, Piece};
use xen_eventfd_core::dispatch::{Leftover, Outcome, matched, unmatched};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::held::Held;
use xen_eventfd_core::interrupt_status::{self, Device, Registers};
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

/// What answers accesses to the registers of one device.
pub(crate) trait Answers: fmt::Debug + Send + Sync {
    fn registers(&self) -> Registers;

    /// Acts on an access that is all theirs; the result is the answer to a read.
    fn answer(&self, access: &Leftover<'_>) -> u64;
}

/// It, with its place.
#[derive(Debug)]
struct Placed<D> {
    registers: Registers,
    device: Arc<D>,
}

impl<D> Device for Placed<D> {
    fn registers(&self) -> Registers {
        self.registers
    }
}

/// All registrations of one guest.
#[derive(Debug)]
pub(crate) struct Doorbells<D> {
    table: Vec<Registration>,
    devices: Vec<Placed<D>>,
    claims: Vec<Claim>,
    held: Held<MAX_HELD>,
    pub(crate) counters: Counters,
}

impl<D> Default for Doorbells<D> {
    fn default() -> Self {
        let (table, devices, claims, held, counters) = Default::default();
        Self { table, devices, claims, held, counters }
    }
}

impl<D: Answers> Doorbells<D> {
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
        self.check_number(dom)?;
        if let Some(registers) = interrupt_status::in_the_way(&self.devices, doorbell) {
            let why = format!("InterruptStatus is registered at {:#x}", registers.addr());
            return Err(Error::Exists { addr: doorbell.bytes().first(), why });
        }
        table::place(&self.table, doorbell).map(|_| ()).map_err(|why| exists(doorbell, &why))
    }

    /// Whether there is room for one more registration.
    fn check_number(&self, dom: DomId) -> Result<()> {
        if self.table.len() + self.devices.len() >= MAX_REGISTRATIONS
            || self.claims.len() >= claims::most(MAX_REGISTRATIONS)
        {
            return Err(Error::TooMany { dom, limit: MAX_REGISTRATIONS });
        }
        Ok(())
    }

    /// Whether the registers of a device could join.
    pub(crate) fn check_device(&self, dom: DomId, registers: Registers) -> Result<()> {
        self.check_number(dom)?;
        self.place(registers).map(|_| ())
    }

    fn place(&self, registers: Registers) -> Result<usize> {
        interrupt_status::place(&self.devices, &self.table, registers)
            .map_err(|by| Error::Overlaps { addr: registers.addr(), by })
    }

    /// Answers the registers of a device from now on; their bytes are claimed.
    pub(crate) fn add_device(&mut self, device: Arc<D>) -> Result<()> {
        let registers = device.registers();
        let index = self.place(registers)?;
        self.devices.insert(index, Placed { registers, device });
        // What a dead engine answered was for a word that went with it.
        self.held.discard(registers.bytes());
        Ok(())
    }

    /// Answers them no longer.
    pub(crate) fn remove_device(&mut self, registers: Registers) -> Option<Arc<D>> {
        let index = interrupt_status::position(&self.devices, registers)?;
        Some(self.devices.remove(index).device)
    }

    /// The device with these registers.
    pub(crate) fn device(&self, registers: Registers) -> Option<&Arc<D>> {
        let index = interrupt_status::position(&self.devices, registers)?;
        self.devices.get(index).map(|placed| &placed.device)
    }

    /// All devices, in the order of addresses.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Arc<D>> {
        self.devices.iter().map(|placed| &placed.device)
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
        let outcome = match matched(&self.table, request) {
            Ok(outcome) => outcome,
            Err(leftover) => match leftover.device(&self.devices) {
                Some(index) => return self.answer(index, &leftover),
                None => unmatched(&self.claims, leftover),
            },
        };
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

    /// Has a device answer an access.
    fn answer(&self, index: usize, access: &Leftover<'_>) -> u64 {
        self.devices.get(index).map_or(0, |placed| placed.device.answer(access))
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
    use xen_eventfd_core::{Access, Filter, Width};
    use xen_eventfd_host::Errno;

    fn queue(value: u64) -> Doorbell {
        let filter = Filter::Value { width: Width::Four, value, mask: 0xFFFF_FFFF };
        Doorbell::new(Space::Mmio, 0x50, filter).unwrap()
    }

    /// A device that answers each read with 7.
    #[derive(Debug)]
    struct Seven(Registers);

    impl Answers for Seven {
        fn registers(&self) -> Registers {
            self.0
        }

        fn answer(&self, _: &Leftover<'_>) -> u64 {
            7
        }
    }

    #[test]
    fn an_access_goes_to_the_device_that_has_all_of_its_bytes() {
        let registers = Registers::new(0x60).unwrap();
        let mut doorbells = Doorbells::default();
        doorbells.hold(Kick::new(Space::Mmio, 0x64, Width::Four, 1));
        doorbells.claim(registers.bytes());
        doorbells.add_device(Arc::new(Seven(registers))).unwrap();
        assert!(
            doorbells.held().is_empty(),
            "an acknowledgement that a dead engine found is no kick"
        );
        let mut act = |request| doorbells.act(&request, &mut |_| true);
        let access = |addr, width| Access { space: Space::Mmio, addr, width };
        assert_eq!(act(Request::Read(access(0x60, Width::Four))), 7);
        assert_eq!(act(Request::Kick(Kick::new(Space::Mmio, 0x64, Width::Four, 1))), 7);
        assert_eq!(act(Request::Read(access(0x5C, Width::Eight))), 0);
        assert_eq!((doorbells.counters.reads, doorbells.counters.held), (1, 0));
        assert!(doorbells.remove_device(registers).is_some());
        assert!(doorbells.remove_device(registers).is_none());
    }

    #[test]
    fn there_are_so_many_registrations_and_no_more() {
        let eventfd = crate::eventfd::new().unwrap();
        let eventfd = Arc::new(EventFd::new(eventfd.as_fd()).unwrap());
        let mut doorbells = Doorbells::<Seven>::default();
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
        let claims = (1..limit).map(stuck).collect();
        let mut doorbells = Doorbells::<Seven> { claims, ..Doorbells::default() };
        assert!(doorbells.check(DomId(1), &queue(7)).is_ok());
        doorbells.claim(byte(0));
        doorbells.unclaim(byte(0));
        assert_eq!(doorbells.check(DomId(1), &queue(7)).unwrap_err().errno(), Errno::NOSPC);
        doorbells.forget(byte(0));
        assert!(doorbells.check(DomId(1), &queue(7)).is_ok());
    }
}
