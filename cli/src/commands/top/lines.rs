//! Rates as lines: one for each guest, one for each of its doorbells below it.

use crate::module_status::DoorbellWords;
use crate::rates::{GuestRates, PlaceRates, Rates};
use crate::served::{Abi, Engine};
use crate::table::{NOTHING, Side, printable, table};
use xen_eventfd::Doorbell;

/// What the lines are sorted by: the number of the domain, or the highest rate first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The number of the domain.
    Dom,
    /// Kicks.
    Kicks,
    /// Kicks that no doorbell took.
    Held,
    /// Requests that no doorbell serves.
    Odd,
    /// Interrupts.
    Irqs,
}

/// The heads of the columns, and what sorts by them.
pub const HEADS: [(&str, Side, Option<Order>); 6] = [
    ("DOM", Side::Right, Some(Order::Dom)),
    ("GUEST", Side::Left, None),
    ("KICKS/S", Side::Right, Some(Order::Kicks)),
    ("HELD/S", Side::Right, Some(Order::Held)),
    ("ODD/S", Side::Right, Some(Order::Odd)),
    ("IRQS/S", Side::Right, Some(Order::Irqs)),
];

/// What a line is about: a guest, or a doorbell of it.
pub type Subject = (u16, Option<Doorbell>);

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub subject: Subject,
    /// In the order of [`HEADS`].
    pub cells: Vec<String>,
}

impl Order {
    const ALL: [Self; 5] = [Self::Dom, Self::Kicks, Self::Held, Self::Odd, Self::Irqs];

    /// The one in the next column to the right, or to the left.
    pub fn beside(self, right: bool) -> Self {
        let at = Self::ALL.iter().position(|order| *order == self).unwrap_or(0);
        let beside = if right { at.checked_add(1) } else { at.checked_sub(1) };
        beside.and_then(|at| Self::ALL.get(at)).copied().unwrap_or(self)
    }

    fn of_guest(self, guest: &GuestRates) -> f64 {
        let rates = guest.per_second.unwrap_or_default();
        match self {
            Self::Dom => 0.0,
            Self::Kicks => rates.kicks,
            Self::Held => rates.held,
            Self::Odd => rates.odd,
            Self::Irqs => rates.irqs,
        }
    }
}

/// The lines, sorted. Doorbells stay below their guest.
pub fn lines(guests: &[GuestRates], order: Order) -> Vec<Line> {
    let mut sorted: Vec<&GuestRates> = guests.iter().collect();
    // Stable: equals stay in the order of their numbers.
    sorted.sort_by(|one, other| order.of_guest(other).total_cmp(&order.of_guest(one)));
    sorted.into_iter().flat_map(|guest| of_guest(guest, order)).collect()
}

/// A table in plain text.
pub fn plain(guests: &[GuestRates]) -> String {
    if guests.is_empty() {
        return "No guest is served.".to_owned();
    }
    let rows: Vec<Vec<String>> =
        lines(guests, Order::Dom).into_iter().map(|line| line.cells).collect();
    table(&HEADS.map(|(head, side, _)| (head, side)), &rows)
}

fn of_guest(guest: &GuestRates, order: Order) -> Vec<Line> {
    let name = guest.name.as_deref().map_or_else(|| NOTHING.to_owned(), printable);
    let engine = match (guest.engine, guest.abi) {
        (Engine::Userspace, _) => " (userspace)",
        (Engine::Kernel, Some(Abi::Privcmd)) => " (privcmd)",
        (Engine::Kernel, _) => "",
    };
    let mut cells = vec![guest.domid.to_string(), name + engine];
    cells.extend(match guest.per_second {
        Some(Rates { kicks, held, odd, irqs }) => [kicks, held, odd, irqs].map(rate),
        None => [NOTHING; 4].map(str::to_owned),
    });
    let mut lines = vec![Line { subject: (guest.domid, None), cells }];
    let mut doorbells = guest.doorbells.clone();
    match order {
        Order::Kicks => {
            doorbells.sort_by(|one, other| other.per_second.kicks.total_cmp(&one.per_second.kicks))
        }
        Order::Held => {
            doorbells.sort_by(|one, other| other.per_second.held.total_cmp(&one.per_second.held))
        }
        Order::Odd => {
            doorbells.sort_by(|one, other| other.per_second.odd.total_cmp(&one.per_second.odd))
        }
        Order::Dom | Order::Irqs => {}
    }
    lines.extend(doorbells.into_iter().map(|doorbell| {
        let place = format!("  {:#}", DoorbellWords(&doorbell.doorbell));
        let mut cells = vec![String::new(), place];
        let PlaceRates { kicks, held, odd } = doorbell.per_second;
        cells.extend([kicks, held, odd].map(rate));
        cells.resize(HEADS.len(), String::new());
        Line { subject: (guest.domid, Some(doorbell.doorbell)), cells }
    }));
    lines
}

/// A rate in words: with a digit after the point where it matters.
pub fn rate(rate: f64) -> String {
    if rate == 0.0 || rate >= 100.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::module_status::Owner;
    use crate::rates::DoorbellRates;
    use xen_eventfd::{Filter, Space, Width};

    fn doorbell(value: u64, kicks: f64) -> DoorbellRates {
        let filter = Filter::Value { width: Width::Four, value, mask: 0xFF };
        let doorbell = Doorbell::new(Space::Mmio, 0x50, filter).unwrap();
        DoorbellRates { doorbell, per_second: PlaceRates { kicks, ..PlaceRates::default() } }
    }

    /// One by the privcmd ABI that holds kicks, one that is busy, one of userspace.
    pub(in crate::commands::top) fn guests() -> Vec<GuestRates> {
        let guest = |domid, name: &str, per_second: Option<Rates>, doorbells| GuestRates {
            domid,
            name: Some(name.to_owned()),
            engine: if per_second.is_some() { Engine::Kernel } else { Engine::Userspace },
            abi: per_second.map(|_| if domid == 1 { Abi::Privcmd } else { Abi::Native }),
            owner: Owner::new(412, "backend".to_owned()),
            server: Some(7),
            per_second,
            doorbells,
        };
        let quiet = Rates { kicks: 1.5, held: 1.0, ..Rates::default() };
        let busy = Rates { kicks: 1000.0, irqs: 12.0, ..Rates::default() };
        vec![
            guest(1, "quiet", Some(quiet), vec![doorbell(0, 1.5)]),
            guest(2, "busy", Some(busy), vec![doorbell(0, 100.0), doorbell(1, 900.0)]),
            guest(3, "other", None, vec![]),
        ]
    }

    fn subjects(order: Order) -> Vec<(u16, Option<u64>)> {
        let value = |doorbell: Doorbell| match doorbell.filter() {
            Filter::Value { value, .. } => value,
            _ => unreachable!("these have values"),
        };
        let of = |line: Line| (line.subject.0, line.subject.1.map(value));
        lines(&guests(), order).into_iter().map(of).collect()
    }

    #[test]
    fn the_highest_rate_comes_first_and_doorbells_stay_with_their_guest() {
        let (quiet, busy) = ([(1, None), (1, Some(0))], (2, None));
        assert_eq!(
            subjects(Order::Kicks),
            [busy, (2, Some(1)), (2, Some(0)), quiet[0], quiet[1], (3, None)]
        );
        assert_eq!(subjects(Order::Held)[..2], quiet);
        assert_eq!(subjects(Order::Irqs)[0], busy);
        assert_eq!(subjects(Order::Dom)[..2], quiet);
    }

    #[test]
    fn doorbells_are_sorted_by_what_they_count() {
        let mut guest = guests().remove(1);
        let counts = [(1.0, 2.0, 3.0), (3.0, 1.0, 2.0), (2.0, 3.0, 1.0)];
        guest.doorbells = (0..)
            .zip(counts)
            .map(|(value, (kicks, held, odd))| DoorbellRates {
                per_second: PlaceRates { kicks, held, odd },
                ..doorbell(value, kicks)
            })
            .collect();
        for (order, sorted) in [
            (Order::Kicks, ["3.0", "2.0", "1.0"]),
            (Order::Held, ["2.0", "1.0", "3.0"]),
            (Order::Odd, ["1.0", "3.0", "2.0"]),
            (Order::Irqs, ["1.0", "3.0", "2.0"]),
        ] {
            let lines = lines(std::slice::from_ref(&guest), order);
            let kicks: Vec<&str> = lines[1..].iter().map(|line| line.cells[2].as_str()).collect();
            assert_eq!(kicks, sorted, "{order:?}");
        }
    }

    #[test]
    fn the_order_ends_at_the_columns_ends() {
        assert_eq!(Order::Kicks.beside(true), Order::Held);
        assert_eq!(Order::Kicks.beside(false), Order::Dom);
        assert_eq!((Order::Dom.beside(false), Order::Irqs.beside(true)), (Order::Dom, Order::Irqs));
    }

    #[test]
    fn a_table_is_text() {
        let expected = "\
DOM  GUEST                                  KICKS/S  HELD/S  ODD/S  IRQS/S
  1  quiet (privcmd)                            1.5     1.0      0       0
       mmio 0x50 len 4 value 0x0 mask 0xff      1.5       0      0
  2  busy                                      1000       0      0    12.0
       mmio 0x50 len 4 value 0x0 mask 0xff      100       0      0
       mmio 0x50 len 4 value 0x1 mask 0xff      900       0      0
  3  other (userspace)                            -       -      -       -
";
        assert_eq!(plain(&guests()), expected);
        assert_eq!(plain(&[]), "No guest is served.");
    }
}
