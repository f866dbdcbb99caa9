//! What the scenarios of hostile guests and backends tell beside their verdicts: lines that people
//! read, and that a page is made of.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How long kicks of a guest took that does no harm, in ticks of its time stamp counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Beside what: `alone`, or the attack.
    pub when: String,
    /// The least.
    pub min: u64,
    /// The median.
    pub median: u64,
    /// The most.
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
    /// Reads such a line; `None`: another one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (when, ticks) = line.trim().strip_prefix(KICK)?.split_once(": ")?;
        let (min, rest) = ticks.split_once(" ticks at least, median ")?;
        let (median, max) = rest.split_once(", at most ")?;
        let [min, median, max] = [min, median, max].map(str::parse);
        Some(Self { when: when.to_owned(), min: min.ok()?, median: median.ok()?, max: max.ok()? })
    }
}

/// What became of the accesses of a hostile guest, each of which makes one request of Xen or two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    /// How many there were.
    pub all: u64,
    /// How many requests came to each end.
    pub ends: Vec<(String, u64)>,
    /// How often a device came and went meanwhile.
    pub fleeting: u64,
}

const ENDS: &str = " accesses of two vCPUs, each request of which was answered once: ";
const FLEETING: &str = "; meanwhile a device came and went ";

impl fmt::Display for Accesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> =
            self.ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
        write!(f, "{}{ENDS}{}{FLEETING}{} times", self.all, ends.join(", "), self.fleeting)
    }
}

impl Accesses {
    /// Reads such a line; `None`: another one.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (all, rest) = line.trim().split_once(ENDS)?;
        let (ends, fleeting) = rest.strip_suffix(" times")?.split_once(FLEETING)?;
        let end = |text: &str| {
            let (count, end) = text.split_once(' ')?;
            Some((end.to_owned(), count.parse().ok()?))
        };
        let ends = ends.split(", ").map(end).collect::<Option<_>>()?;
        Some(Self { all: all.parse().ok()?, ends, fleeting: fleeting.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_read() {
        let kick = Neighbour { when: "beside a flood".to_owned(), min: 1, median: 22, max: 333 };
        assert_eq!(Neighbour::parse(&format!("        {kick}")), Some(kick));
        let ends = vec![("kicks".to_owned(), 7), ("reads of the VMM's".to_owned(), 0)];
        let accesses = Accesses { all: 9, ends, fleeting: 3 };
        assert_eq!(Accesses::parse(&accesses.to_string()), Some(accesses));
        for other in ["ok      hostile_guest", "a neighbour's kick, alone: many", "7 accesses"] {
            assert_eq!((Neighbour::parse(other), Accesses::parse(other)), (None, None));
        }
    }
}
