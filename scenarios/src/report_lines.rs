//! Lines that the scenarios with hostile guests and backends print beside their results; a page of the
//! documentation is generated from them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The duration of kicks of a guest that does no harm, in ticks of its time stamp counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// What else ran: `alone`, or the attack.
    pub when: String,
    /// The minimum.
    pub min: u64,
    /// The median.
    pub median: u64,
    /// The maximum.
    pub max: u64,
}

const KICK: &str = "a neighbour's kick, ";

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { when, min, median, max } = self;
        write!(f, "{KICK}{when}: {min} ticks at least, median {median}, at most {max}")
    }
}

impl Neighbour {
    /// Parses such a line; `None`: another line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (when, ticks) = line.trim().strip_prefix(KICK)?.split_once(": ")?;
        let (min, rest) = ticks.split_once(" ticks at least, median ")?;
        let (median, max) = rest.split_once(", at most ")?;
        let [min, median, max] = [min, median, max].map(str::parse);
        Some(Self { when: when.to_owned(), min: min.ok()?, median: median.ok()?, max: max.ok()? })
    }
}

/// The results of a hostile guest's accesses, each of which makes one request of Xen or two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// The number of accesses.
    pub all: u64,
    /// The number of requests with each result.
    pub ends: Vec<(String, u64)>,
    /// How often a device was registered and removed during the attack.
    pub transient: u64,
}

const ENDS: &str = " accesses of two vCPUs, each request of which was answered once: ";
const TRANSIENT: &str = "; meanwhile a device came and went ";

impl fmt::Display for Accesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> =
            self.ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
        write!(f, "{}{ENDS}{}{TRANSIENT}{} times", self.all, ends.join(", "), self.transient)
    }
}

impl Accesses {
    /// Parses such a line; `None`: another line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (all, rest) = line.trim().split_once(ENDS)?;
        let (ends, transient) = rest.strip_suffix(" times")?.split_once(TRANSIENT)?;
        let end = |text: &str| {
            let (count, end) = text.split_once(' ')?;
            Some((end.to_owned(), count.parse().ok()?))
        };
        let ends = ends.split(", ").map(end).collect::<Option<_>>()?;
        Some(Self { all: all.parse().ok()?, ends, transient: transient.parse().ok()? })
    }
}

/// What a flood of kicks was, and what Linux made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flood {
    /// How many of the flood's kicks were answered while the neighbour kicked.
    pub kicks: u64,
    /// How many timers of deferred ends ran meanwhile.
    pub deferred: u64,
    /// How many events the longest upcall of dom0 handled.
    pub longest: u64,
}

const FLOOD: &str = "a flood, meanwhile: ";
const LONGEST: &str = " times, in the longest upcall ";
const DEFERRED: &str = " kicks, ends deferred ";

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kicks, deferred, longest } = self;
        write!(f, "{FLOOD}{kicks}{DEFERRED}{deferred}{LONGEST}{longest} events")
    }
}

impl Flood {
    /// Reads such a line; `None`: another one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (kicks, rest) = line.trim().strip_prefix(FLOOD)?.split_once(DEFERRED)?;
        let (deferred, longest) = rest.strip_suffix(" events")?.split_once(LONGEST)?;
        let [kicks, deferred, longest] = [kicks, deferred, longest].map(str::parse);
        Some(Self { kicks: kicks.ok()?, deferred: deferred.ok()?, longest: longest.ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_lines_can_be_parsed() {
        let kick = Neighbour { when: "beside a flood".to_owned(), min: 1, median: 22, max: 333 };
        assert_eq!(Neighbour::parse(&format!("        {kick}")), Some(kick));
        let ends = vec![("kicks".to_owned(), 7), ("reads of the VMM's".to_owned(), 0)];
        let accesses = Accesses { all: 9, ends, transient: 3 };
        assert_eq!(Accesses::parse(&accesses.to_string()), Some(accesses));
        let flood = Flood { kicks: 5, deferred: 2, longest: 9 };
        assert_eq!(Flood::parse(&format!("        {flood}")), Some(flood));
        assert_eq!(Flood::parse("a flood, meanwhile: many"), None);
        for other in ["ok      hostile_guest", "a neighbour's kick, alone: many", "7 accesses"] {
            assert_eq!((Neighbour::parse(other), Accesses::parse(other)), (None, None));
        }
    }
}
