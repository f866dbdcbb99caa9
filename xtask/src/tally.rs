//! How many passed and how many failed.

use std::fmt;
use std::ops::AddAssign;

/// The result of a number of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
}

/// A check that passed or failed.
pub(crate) fn one(ok: bool) -> Tally {
    if ok { Tally { passed: 1, failed: 0 } } else { Tally { passed: 0, failed: 1 } }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Tally {
    /// Counts a line of the scenarios' program: `ok NAME` or `FAILED NAME: WHY`.
    pub(crate) fn count(&mut self, line: &str) {
        match line.split_whitespace().next() {
            Some("ok") => self.passed += 1,
            Some("FAILED") => self.failed += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verdicts_count() {
        let mut tally = Tally::default();
        for line in ["ok      one_queue", "FAILED  msi: why", "v0: done", "", "2 passed, 1 failed"]
        {
            tally.count(line);
        }
        assert_eq!(tally, Tally { passed: 1, failed: 1 });
    }
}
