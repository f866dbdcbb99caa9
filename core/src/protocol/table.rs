//! Which registration gets a kick, and which two cannot stand side by side.
//!
//! The table is a sorted slice that an engine owns. At one address a write goes to the first of
//! these that takes it: a value, a wildcard of the width, a wildcard of any width, a fallback.
//! Two registrations collide if some write would reach both at the same rank; that is KVM's rule
//! (`ioeventfd_check_collision`), but for one thing: a wildcard may stand beside values, because
//! under Xen a claimed kick that matches nothing cannot fall through to the VMM.
//!
//! All values at one address and width share one mask, so that a match is a handful of binary
//! searches, whatever the number of registrations.

use super::doorbell::{Doorbell, Filter};
use super::ioreq::{Kick, Space, Width};
use core::cmp::Ordering;
use core::fmt;

/// Something that an engine keeps for one doorbell.
pub trait Entry {
    /// The doorbell.
    fn doorbell(&self) -> &Doorbell;
}

impl Entry for Doorbell {
    fn doorbell(&self) -> &Doorbell {
        self
    }
}

/// Why a registration cannot join a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collision {
    /// A write could belong to this one as well as to the new one.
    With(Doorbell),
    /// The values at this address and width are compared under another mask already.
    Mask(u64),
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::With(_) => f.write_str("the same writes are registered already"),
            Self::Mask(mask) => {
                write!(f, "values at this address are compared under the mask {mask:#x} already")
            }
        }
    }
}

impl core::error::Error for Collision {}

/// The order of a table: by address, then by who is asked first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    space: Space,
    addr: u64,
    rank: Rank,
    value: u64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Value(Width),
    Width(Width),
    Any,
    Fallback,
}

fn key(doorbell: &Doorbell) -> Key {
    let (rank, value) = match doorbell.filter() {
        Filter::Value { width, value, .. } => (Rank::Value(width), value),
        Filter::Width(width) => (Rank::Width(width), 0),
        Filter::Any { .. } => (Rank::Any, 0),
        Filter::Fallback { .. } => (Rank::Fallback, 0),
    };
    Key { space: doorbell.bytes().space(), addr: doorbell.bytes().first(), rank, value }
}

/// Where the entry with this key is, or would be.
fn search<E: Entry>(table: &[E], wanted: &Key) -> Result<usize, usize> {
    table.binary_search_by(|entry| key(entry.doorbell()).cmp(wanted))
}

/// The mask under which values at this address and width are compared.
fn mask_at<E: Entry>(table: &[E], space: Space, addr: u64, width: Width) -> Option<u64> {
    let group = Key { space, addr, rank: Rank::Value(width), value: 0 };
    let first = table.partition_point(|entry| key(entry.doorbell()).cmp(&group) == Ordering::Less);
    match table.get(first)?.doorbell() {
        doorbell if doorbell.bytes().space() != space || doorbell.bytes().first() != addr => None,
        doorbell => match doorbell.filter() {
            Filter::Value { width: found, mask, .. } if found == width => Some(mask),
            _ => None,
        },
    }
}

/// The index of the entry that gets this kick. `table` must be in order, as [`place`] keeps it.
pub fn find<E: Entry>(table: &[E], kick: &Kick) -> Option<usize> {
    let (space, addr, width) = (kick.access.space, kick.access.addr, kick.access.width);
    let at = |rank, value| {
        let index = search(table, &Key { space, addr, rank, value }).ok()?;
        table.get(index)?.doorbell().takes(kick).then_some(index)
    };
    // Most values are compared whole, and are then found by what was written.
    at(Rank::Value(width), kick.value)
        .or_else(|| {
            let mask = mask_at(table, space, addr, width)?;
            at(Rank::Value(width), kick.value & mask)
        })
        .or_else(|| at(Rank::Width(width), 0))
        .or_else(|| at(Rank::Any, 0))
        .or_else(|| at(Rank::Fallback, 0))
}

/// The index of the first entry at an address, whatever it takes.
pub fn first_at<E: Entry>(table: &[E], space: Space, addr: u64) -> Option<usize> {
    let begin = |entry: &E| (entry.doorbell().bytes().space(), entry.doorbell().bytes().first());
    let index = table.partition_point(|entry| begin(entry) < (space, addr));
    (begin(table.get(index)?) == (space, addr)).then_some(index)
}

/// The index at which `new` keeps the table in order.
///
/// # Errors
/// [`Collision`] names what is in its way; the table may stay as it is.
pub fn place<E: Entry>(table: &[E], new: &Doorbell) -> Result<usize, Collision> {
    let wanted = key(new);
    let with = |index: usize| match table.get(index) {
        Some(entry) => Err(Collision::With(*entry.doorbell())),
        None => Ok(index),
    };
    match new.filter() {
        Filter::Value { width, mask, .. } => {
            match mask_at(table, wanted.space, wanted.addr, width) {
                Some(found) if found != mask => return Err(Collision::Mask(found)),
                _ => {}
            }
        }
        // A wildcard of one width and one of any width would be asked for the same writes.
        Filter::Width(_) => {
            let any = Key { space: wanted.space, addr: wanted.addr, rank: Rank::Any, value: 0 };
            if let Ok(found) = search(table, &any) {
                with(found)?;
            }
        }
        Filter::Any { .. } => {
            for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
                let rank = Rank::Width(width);
                let fixed = Key { space: wanted.space, addr: wanted.addr, rank, value: 0 };
                if let Ok(found) = search(table, &fixed) {
                    with(found)?;
                }
            }
        }
        Filter::Fallback { .. } => {}
    }
    match search(table, &wanted) {
        Ok(found) => with(found),
        Err(free) => Ok(free),
    }
}

/// The index of exactly this registration: address, filter, mask and all.
pub fn position<E: Entry>(table: &[E], doorbell: &Doorbell) -> Option<usize> {
    let index = search(table, &key(doorbell)).ok()?;
    (table.get(index)?.doorbell() == doorbell).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ADDR: u64 = 0xFE00_0050;

    fn doorbell(filter: Filter) -> Doorbell {
        Doorbell::new(Space::Mmio, ADDR, filter).unwrap()
    }

    fn value(value: u64) -> Doorbell {
        doorbell(Filter::Value { width: Width::Four, value, mask: 0xFFFF_FFFF })
    }

    fn table(doorbells: &[Doorbell]) -> Vec<Doorbell> {
        let mut table = Vec::new();
        for doorbell in doorbells {
            let index = place(&table, doorbell).unwrap();
            table.insert(index, *doorbell);
        }
        table
    }

    fn found(table: &[Doorbell], width: Width, data: u64) -> Option<Doorbell> {
        find(table, &Kick::new(Space::Mmio, ADDR, width, data)).map(|index| table[index])
    }

    #[test]
    fn the_most_particular_registration_gets_the_kick() {
        let wildcard = doorbell(Filter::Width(Width::Four));
        let rest = doorbell(Filter::Fallback { span: 4 });
        let table = table(&[rest, value(7), wildcard, value(0)]);
        assert_eq!(found(&table, Width::Four, 7), Some(value(7)));
        assert_eq!(found(&table, Width::Four, 8), Some(wildcard));
        assert_eq!(found(&table, Width::Two, 7), Some(rest));
        assert_eq!(found(&table, Width::Eight, 7), None);
    }

    #[test]
    fn whatever_is_written_the_first_at_its_address_is_found() {
        let table = table(&[value(7), doorbell(Filter::Width(Width::Two)), value(3)]);
        let at = |addr| first_at(&table, Space::Mmio, addr);
        assert_eq!((at(ADDR - 1), at(ADDR), at(ADDR + 1)), (None, Some(0), None));
        assert_eq!(first_at(&table, Space::Pio, ADDR), None);
    }

    #[test]
    fn a_neighbour_gets_nothing() {
        let table = table(&[value(1)]);
        for addr in [ADDR - 1, ADDR + 1] {
            assert_eq!(find(&table, &Kick::new(Space::Mmio, addr, Width::Four, 1)), None);
        }
        assert_eq!(find(&table, &Kick::new(Space::Pio, ADDR, Width::Four, 1)), None);
    }

    #[test]
    fn twins_collide_and_others_do_not() {
        let collides = |old: Filter, new: Filter| {
            place(&[doorbell(old)], &doorbell(new)) == Err(Collision::With(doorbell(old)))
        };
        let four = Filter::Width(Width::Four);
        let any = Filter::Any { span: 4 };
        let seven = value(7).filter();
        assert!(collides(four, four) && collides(any, any) && collides(seven, seven));
        assert!(collides(four, any) && collides(any, four));
        assert!(!collides(four, seven) && !collides(seven, any));
        assert!(!collides(four, Filter::Width(Width::Two)));
        assert!(!collides(seven, value(8).filter()));
        assert!(collides(Filter::Fallback { span: 4 }, Filter::Fallback { span: 8 }));
    }

    #[test]
    fn values_at_one_place_share_a_mask() {
        let masked = doorbell(Filter::Value { width: Width::Four, value: 3, mask: 0xFFFF });
        assert_eq!(place(&[value(7)], &masked), Err(Collision::Mask(0xFFFF_FFFF)));
        let narrow = doorbell(Filter::Value { width: Width::Two, value: 3, mask: 0xFF });
        assert!(place(&[value(7)], &narrow).is_ok());
    }

    #[test]
    fn removal_wants_the_full_tuple() {
        let table = table(&[value(1), value(2)]);
        assert_eq!(position(&table, &value(2)).map(|index| table[index]), Some(value(2)));
        assert_eq!(position(&table, &value(3)), None);
        let masked = doorbell(Filter::Value { width: Width::Four, value: 2, mask: 0xFF });
        assert_eq!(position(&table, &masked), None);
        let other_span = [doorbell(Filter::Any { span: 4 })];
        assert_eq!(position(&other_span, &doorbell(Filter::Any { span: 8 })), None);
    }

    /// Counts how often the table is looked at.
    struct Counted<'a>(Doorbell, &'a core::cell::Cell<u32>);

    impl Entry for Counted<'_> {
        fn doorbell(&self) -> &Doorbell {
            self.1.set(self.1.get() + 1);
            &self.0
        }
    }

    #[test]
    fn the_cost_of_a_match_is_logarithmic() {
        let looks = core::cell::Cell::new(0);
        let counted = |n: u64| {
            let table: Vec<_> = (0..n).map(|i| Counted(value(i), &looks)).collect();
            looks.set(0);
            assert!(find(&table, &Kick::new(Space::Mmio, ADDR, Width::Four, n - 1)).is_some());
            looks.get()
        };
        let (few, many) = (counted(16), counted(16 * 256));
        assert!(many <= few + 2 * 8 + 4, "{few} looks among 16, {many} among 4,096");
    }
}
