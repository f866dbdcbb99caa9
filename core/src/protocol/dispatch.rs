//! What becomes of a vCPU's request: one rule for every engine.
//!
//! An engine signals, holds and counts as the [`Outcome`] says, and answers Xen with
//! [`Outcome::answer`].

use super::claims::{self, Claim};
use super::interrupt_status::{self, Device};
use super::ioreq::{Access, Kick, Request, Space};
use super::status::{Counter, Counters};
use super::table::{self, Entry};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The registration at this index of the table gets the kick: its eventfd is signalled before
    /// the request is answered.
    Signal(usize, &'a Kick),
    /// No registration gets the kick, and its bytes are claimed: it is held for an eventfd to come.
    Hold(&'a Kick),
    /// Its bytes are no longer claimed: the kick was published before they were given back.
    Late(&'a Kick),
    /// A read gets this value.
    Answer(u64),
    /// Xen notified every server; there is nothing to do.
    Broadcast,
    /// A request that no doorbell serves, and where it went.
    Odd {
        /// The address space, if it has one.
        space: Option<Space>,
        /// The address.
        addr: u64,
    },
}

/// An access to memory or a port that no doorbell takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover<'a> {
    /// A write.
    Write(&'a Kick),
    /// A read.
    Read(&'a Access),
}

impl Leftover<'_> {
    /// The index of the device whose InterruptStatus and InterruptACK it is to. `devices` are in order, as
    /// [`interrupt_status::place`] keeps them.
    #[inline]
    pub fn device<D: Device>(&self, devices: &[D]) -> Option<usize> {
        let access = match self {
            Self::Write(kick) => &kick.access,
            Self::Read(access) => access,
        };
        interrupt_status::find(devices, access)
    }
}

/// What becomes of a request by the table alone, which is in order, as [`table::place`] keeps it.
///
/// # Errors
/// The access, if it has no registration: it is to the registers of a device ([`Leftover::device`]), or
/// [`unmatched`] says what becomes of it.
#[inline]
pub fn matched<'a, E: Entry>(
    table: &[E],
    request: &'a Request,
) -> Result<Outcome<'a>, Leftover<'a>> {
    match request {
        Request::Kick(kick) => match table::find(table, kick) {
            Some(index) => Ok(Outcome::Signal(index, kick)),
            None => Err(Leftover::Write(kick)),
        },
        Request::Read(access) => Err(Leftover::Read(access)),
        // No doorbell is there.
        Request::Config(config) => Ok(Outcome::Odd { space: None, addr: config.addr() }),
        Request::Broadcast => Ok(Outcome::Broadcast),
        Request::Odd { space, addr, .. } => Ok(Outcome::Odd { space: *space, addr: *addr }),
    }
}

/// What becomes of an access that has no registration and is to no device's registers. `claims` are in
/// order, as [`claims`] keeps them.
#[inline]
pub fn unmatched<'a>(claims: &[Claim], leftover: Leftover<'a>) -> Outcome<'a> {
    match leftover {
        Leftover::Write(kick) if claims::holds(claims, &kick.access) => Outcome::Hold(kick),
        Leftover::Write(kick) => Outcome::Late(kick),
        Leftover::Read(_) => Outcome::Answer(0),
    }
}

impl Outcome<'_> {
    /// What Xen gets for an answer. That to a write is not looked at.
    #[inline]
    pub const fn answer(&self) -> u64 {
        match *self {
            Self::Answer(value) => value,
            _ => 0,
        }
    }

    /// Which counter counts it.
    #[inline]
    pub const fn counter(&self) -> Counter {
        match self {
            Self::Signal(..) => Counter::Delivered,
            Self::Hold(_) => Counter::Held,
            Self::Late(_) => Counter::Late,
            Self::Answer(_) => Counter::Reads,
            Self::Broadcast => Counter::Broadcasts,
            Self::Odd { .. } => Counter::Odd,
        }
    }
}

impl Counters {
    /// Counts a request, once it is done.
    #[inline]
    pub const fn count(&mut self, outcome: &Outcome<'_>) {
        let counter = self.of(outcome.counter());
        *counter = counter.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::doorbell::{Bytes, Doorbell, Filter};
    use super::super::ioreq::{Access, Odd, Width};
    use super::*;

    const ADDR: u64 = 0x50;

    fn outcome(table: &[Doorbell], holders: u32, request: &Request) -> (Counters, u64) {
        let bytes = Bytes::new(Space::Mmio, ADDR, ADDR + 3).unwrap();
        let claims = [Claim { bytes, holders }];
        let outcome =
            matched(table, request).unwrap_or_else(|leftover| unmatched(&claims, leftover));
        let mut counters = Counters::default();
        counters.count(&outcome);
        (counters, outcome.answer())
    }

    #[test]
    fn an_access_to_a_devices_registers_is_no_kick() {
        let registers = interrupt_status::Registers::new(0x60).unwrap();
        let acknowledge = Request::Kick(Kick::new(Space::Mmio, 0x64, Width::Four, 1));
        let access = Access { space: Space::Mmio, addr: 0x60, width: Width::Four };
        for request in [acknowledge, Request::Read(access)] {
            let leftover = matched::<Doorbell>(&[], &request).unwrap_err();
            assert_eq!(leftover.device(&[registers]), Some(0));
            assert_eq!(leftover.device::<interrupt_status::Registers>(&[]), None);
        }
    }

    #[test]
    fn each_request_has_one_outcome_and_one_counter() {
        let queue = Filter::Value { width: Width::Four, value: 1, mask: 0xFFFF_FFFF };
        let table = [Doorbell::new(Space::Mmio, ADDR, queue).unwrap()];
        let kick = |value| Request::Kick(Kick::new(Space::Mmio, ADDR, Width::Four, value));
        let access = Access { space: Space::Mmio, addr: ADDR, width: Width::Four };
        let odd = Request::Odd { why: Odd::Kind, space: None, addr: ADDR };
        let one = |field: fn(&mut Counters) -> &mut u64| {
            let mut counters = Counters::default();
            *field(&mut counters) = 1;
            (counters, 0)
        };
        assert_eq!(outcome(&table, 1, &kick(1)), one(|all| &mut all.delivered));
        assert_eq!(outcome(&table, 1, &kick(2)), one(|all| &mut all.held));
        assert_eq!(outcome(&table, 0, &kick(2)), one(|all| &mut all.late));
        assert_eq!(outcome(&table, 1, &Request::Read(access)), one(|all| &mut all.reads));
        assert_eq!(outcome(&table, 1, &Request::Broadcast), one(|all| &mut all.broadcasts));
        assert_eq!(outcome(&table, 1, &odd), one(|all| &mut all.odd));
        assert_eq!(Outcome::Answer(7).answer(), 7);
    }
}
