//! What happens in a second, from two readings of the counters.
//!
//! A counter that was not there before, or that has gone back, has counted from nothing since: its
//! guest was taken, or its eventfd assigned, between the readings.

use crate::module_status::{self, DoorbellStatus, Owner, serialize};
use crate::served::{Abi, Engine, Guest};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use xen_eventfd::{Doorbell, Space};

/// A guest's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestRates {
    /// Its number.
    pub domid: u16,
    /// Its name.
    pub name: Option<String>,
    /// What serves it.
    pub engine: Engine,
    /// By which ABI the module serves it.
    pub abi: Option<Abi>,
    /// The process that took it.
    pub owner: Owner,
    /// Its doorbell server.
    pub server: Option<u16>,
    /// What the module counts; an engine in userspace does not report.
    pub per_second: Option<Rates>,
    /// In the order of addresses.
    pub doorbells: Vec<DoorbellRates>,
}

/// Events in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rates {
    /// Kicks that signalled an eventfd.
    pub kicks: f64,
    /// Kicks that no doorbell took.
    pub held: f64,
    /// Requests that no doorbell serves.
    pub odd: f64,
    /// Interrupts raised.
    pub irqs: f64,
}

/// A doorbell's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DoorbellRates {
    /// Where it listens, and to what.
    #[serde(flatten, serialize_with = "serialize::fields")]
    pub doorbell: Doorbell,
    /// What happened there.
    pub per_second: PlaceRates,
}

/// Events at a doorbell in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PlaceRates {
    /// Kicks that it took.
    pub kicks: f64,
    /// Kicks at its address that no doorbell took; reported by the first at that address.
    pub held: f64,
    /// Requests at its address that no doorbell serves; reported likewise.
    pub odd: f64,
}

/// What happened between two readings, for each guest of the second.
pub fn rates(before: &[Guest], now: &[Guest], elapsed: Duration) -> Vec<GuestRates> {
    let guest = |guest: &Guest| {
        let mut rates = GuestRates {
            domid: guest.domid,
            name: guest.name.clone(),
            engine: guest.engine,
            abi: guest.abi,
            owner: guest.owner.clone(),
            server: guest.server,
            per_second: None,
            doorbells: vec![],
        };
        if let Some(shown) = &guest.shown {
            let earlier = before.iter().filter_map(|other| other.shown.as_ref());
            let earlier = earlier.into_iter().find(|other| same_taking(other, shown));
            rates.per_second = Some(of_guest(earlier, shown, elapsed));
            rates.doorbells = of_doorbells(earlier, shown, elapsed);
        }
        rates
    };
    now.iter().map(guest).collect()
}

/// Whether two texts are of one guest that was taken once.
fn same_taking(one: &module_status::Guest, other: &module_status::Guest) -> bool {
    let server = |guest: &module_status::Guest| guest.served.map(|served| served.server);
    one.dom == other.dom && same_owner(&one.owner, &other.owner) && server(one) == server(other)
}

/// Whether a process is the same later, when it may have ended.
fn same_owner(before: &Owner, now: &Owner) -> bool {
    before.name == now.name && (before.pid == now.pid || now.ended)
}

fn of_guest(
    before: Option<&module_status::Guest>,
    now: &module_status::Guest,
    elapsed: Duration,
) -> Rates {
    let counters = |guest: &module_status::Guest| guest.served.map(|served| served.counters);
    let (was, is) = (before.and_then(counters).unwrap_or_default(), counters(now));
    let is = is.unwrap_or_default();
    let raised = |guest: &module_status::Guest| {
        Earlier::new(guest.irqs.iter().map(|irq| (irq.irq, irq.raised)))
    };
    let mut raised = before.map_or_else(Earlier::default, raised);
    let irqs = now.irqs.iter().map(|irq| since(raised.take(irq.irq), irq.raised));
    Rates {
        kicks: rate(was.delivered, is.delivered, elapsed),
        held: rate(was.held, is.held, elapsed),
        odd: rate(was.odd, is.odd, elapsed),
        irqs: per_second(irqs.fold(0, u64::saturating_add), elapsed),
    }
}

fn of_doorbells(
    before: Option<&module_status::Guest>,
    now: &module_status::Guest,
    elapsed: Duration,
) -> Vec<DoorbellRates> {
    let before = before.map_or(&[][..], |guest| &guest.doorbells);
    let mut kicks = Earlier::new(before.iter().map(|status| (status.doorbell, status.kicks)));
    // Which doorbell is the first at an address may have changed, so these are taken together.
    let (were, are) = (at_addresses(before), at_addresses(&now.doorbells));
    let mut reported = BTreeSet::new();
    let rates = |status: &DoorbellStatus| {
        let doorbell = status.doorbell;
        let address = address(&doorbell);
        let [held, odd] = if reported.insert(address) {
            let was = were.get(&address).copied().unwrap_or_default();
            let is = are.get(&address).copied().unwrap_or_default();
            [since(was.held, is.held), since(was.odd, is.odd)]
        } else {
            [0; 2]
        };
        let per_second = PlaceRates {
            kicks: rate(kicks.take(doorbell), status.kicks, elapsed),
            held: per_second(held, elapsed),
            odd: per_second(odd, elapsed),
        };
        DoorbellRates { doorbell, per_second }
    };
    now.doorbells.iter().map(rates).collect()
}

/// What came to an address and was no doorbell's.
#[derive(Debug, Clone, Copy, Default)]
struct Nobodys {
    held: u64,
    odd: u64,
}

fn address(doorbell: &Doorbell) -> (Space, u64) {
    (doorbell.bytes().space(), doorbell.bytes().first())
}

fn at_addresses(doorbells: &[DoorbellStatus]) -> BTreeMap<(Space, u64), Nobodys> {
    let mut all = BTreeMap::<_, Nobodys>::new();
    for DoorbellStatus { doorbell, held, odd, .. } in doorbells {
        let sum = all.entry(address(doorbell)).or_default();
        sum.held = sum.held.saturating_add(*held);
        sum.odd = sum.odd.saturating_add(*odd);
    }
    all
}

/// The counters of an earlier reading. Several may have one key, as two eventfds may raise one
/// interrupt; then they are told apart by their order.
#[derive(Debug)]
struct Earlier<K>(BTreeMap<K, VecDeque<u64>>);

impl<K> Default for Earlier<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Earlier<K> {
    fn new(counters: impl Iterator<Item = (K, u64)>) -> Self {
        let mut earlier = Self::default();
        for (key, count) in counters {
            earlier.0.entry(key).or_default().push_back(count);
        }
        earlier
    }

    /// The next count of this key, or that of a counter that is new.
    fn take(&mut self, key: K) -> u64 {
        self.0.get_mut(&key).and_then(VecDeque::pop_front).unwrap_or(0)
    }
}

/// Events in a second, of a counter that was read twice.
pub fn rate(before: u64, now: u64, elapsed: Duration) -> f64 {
    per_second(since(before, now), elapsed)
}

/// What a counter counted between two readings.
fn since(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[expect(clippy::cast_precision_loss, reason = "a rate is read, not reckoned with")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served::Names;

    const MAX: u64 = u64::MAX;
    const TWO_SECONDS: Duration = Duration::from_secs(2);

    /// Guest 3 as its owner 412 has it, with these further lines.
    fn guest(lines: &str) -> Guest {
        owned(412, lines)
    }

    fn owned(pid: u32, lines: &str) -> Guest {
        let text = format!("dom:\t3\ninterface:\tnative\nowner:\t{pid} b\nserver:\t7\n{lines}");
        Guest::of_module(text.parse().unwrap(), &Names::Unknown(String::new()))
    }

    #[test]
    fn counters_go_on_when_their_owner_has_ended() {
        let before = [guest("delivered:\t10\n")];
        let now = owned(0, "owner-state:\tended\ndelivered:\t14\n");
        assert_eq!(kicks(&before, now), 2.0);
    }

    fn one(before: &[Guest], now: Guest) -> GuestRates {
        rates(before, &[now], TWO_SECONDS).pop().unwrap()
    }

    fn kicks(before: &[Guest], now: Guest) -> f64 {
        one(before, now).per_second.unwrap().kicks
    }

    #[test]
    fn counters_at_their_end_add_up_to_no_more() {
        let doorbell = |value| {
            format!("doorbell:\tpio 1 len 1 value {value} mask 0xff kicks 0 held {MAX} odd 0\n")
        };
        let irq = format!("irq:\tisa 5 pulse raised {MAX} failed 0\n");
        let now = guest(&[doorbell(0), doorbell(1), irq.clone(), irq].concat());
        let reported = one(&[], now);
        #[expect(clippy::cast_precision_loss, reason = "a rate is read, not reckoned with")]
        let most = MAX as f64 / TWO_SECONDS.as_secs_f64();
        assert_eq!(
            (reported.doorbells[0].per_second.held, reported.per_second.unwrap().irqs),
            (most, most)
        );
    }

    #[test]
    fn a_rate_is_a_difference_by_a_time() {
        let before =
            guest("delivered:\t100\nheld:\t1\nodd:\t2\nirq:\tisa 5 pulse raised 7 failed 0\n");
        let now =
            guest("delivered:\t300\nheld:\t5\nodd:\t8\nirq:\tisa 5 pulse raised 9 failed 0\n");
        let expected = Rates { kicks: 100.0, held: 2.0, odd: 3.0, irqs: 1.0 };
        assert_eq!(one(&[before], now).per_second, Some(expected));
    }

    #[test]
    fn a_counter_that_went_back_has_begun_anew() {
        assert_eq!(kicks(&[guest("delivered:\t100\n")], guest("delivered:\t10\n")), 5.0);
    }

    #[test]
    fn a_guest_that_was_taken_by_another_has_begun_anew() {
        assert_eq!(kicks(&[owned(1, "delivered:\t100\n")], owned(2, "delivered:\t300\n")), 150.0);
    }

    #[test]
    fn guests_come_and_go() {
        assert_eq!(kicks(&[], guest("delivered:\t10\n")), 5.0);
        assert_eq!(rates(&[guest("delivered:\t10\n")], &[], TWO_SECONDS), []);
    }

    #[test]
    fn doorbells_come_and_go() {
        let value = |value: u8, kicks: u8| {
            format!(
                "doorbell:\tmmio 0x50 len 4 value {value} mask 0xff kicks {kicks} held 0 odd 0\n"
            )
        };
        let before = guest(&(value(1, 10) + &value(2, 20)));
        let now = guest(&(value(2, 26) + &value(3, 8)));
        let kicks: Vec<f64> =
            one(&[before], now).doorbells.iter().map(|d| d.per_second.kicks).collect();
        assert_eq!(kicks, [3.0, 4.0]);
    }

    #[test]
    fn what_is_nobodys_is_the_addresss_whoever_tells_it() {
        let wildcard = |held: u8, odd: u8| {
            format!("doorbell:\tmmio 0x50 len 4 wildcard kicks 0 held {held} odd {odd}\n")
        };
        let value = |held: u8, odd: u8| {
            let place = "mmio 0x50 len 4 value 1 mask 0xff";
            format!("doorbell:\t{place} kicks 0 held {held} odd {odd}\n")
        };
        let (before, now) = (guest(&wildcard(6, 1)), guest(&(value(10, 7) + &wildcard(0, 0))));
        let reported = one(&[before], now).doorbells;
        let reported: Vec<_> = reported
            .iter()
            .map(|doorbell| (doorbell.per_second.held, doorbell.per_second.odd))
            .collect();
        assert_eq!(reported, [(2.0, 3.0), (0.0, 0.0)]);
    }

    #[test]
    fn two_eventfds_of_one_interrupt_are_two_counters() {
        let irqs = |one: u8, other: u8| {
            let line = |raised| format!("irq:\tisa 5 pulse raised {raised} failed 0\n");
            guest(&(line(one) + &line(other)))
        };
        let rates = one(&[irqs(10, 2)], irqs(12, 4)).per_second.unwrap();
        assert_eq!(rates.irqs, 2.0);
    }

    #[test]
    fn an_engine_in_userspace_does_not_tell() {
        let text = "dom:\t3\ninterface:\treserved\nowner:\t412 b\n";
        let guest = Guest::of_module(text.parse().unwrap(), &Names::Unknown(String::new()));
        assert_eq!(one(&[], guest).per_second, None);
    }

    #[test]
    fn no_time_is_no_rate() {
        let rates = rates(&[], &[guest("delivered:\t10\n")], Duration::ZERO);
        assert_eq!(rates[0].per_second, Some(Rates::default()));
    }
}
