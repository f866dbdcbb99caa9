//! How many passed, how many failed, and how many could not be played.

use crate::kmod::kernel_log::emulator_broke;
use std::fmt;
use std::ops::AddAssign;

/// The result of a number of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    /// Their engine has no way to do what they want.
    pub(crate) skipped: u32,
    /// The emulator broke dom0 or a program of it: what failed may be its doing.
    pub(crate) broken: bool,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        match self.skipped {
            0 => Ok(()),
            skipped => write!(f, ", {skipped} skipped"),
        }
    }
}

impl Tally {
    /// One that passed, or one that failed.
    pub(crate) fn one(passed: bool) -> Self {
        if passed {
            Self { passed: 1, ..Self::default() }
        } else {
            Self { failed: 1, ..Self::default() }
        }
    }

    /// Counts a line of the scenarios' program: `ok NAME`, `FAILED NAME: WHY` or
    /// `skipped NAME: WHAT`.
    pub(crate) fn count(&mut self, line: &str) {
        self.broken |= emulator_broke(line);
        match line.split_whitespace().next() {
            Some("ok") => self.passed += 1,
            Some("FAILED") => self.failed += 1,
            Some("skipped") => self.skipped += 1,
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
        let lines = "ok      one_queue\nFAILED  msi: why\nskipped held: fallbacks\nv0: done\n\n\
            1 passed, 1 failed, 1 skipped";
        lines.lines().for_each(|line| tally.count(line));
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 1, broken: false });
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(Tally { skipped: 0, ..tally }.to_string(), "1 passed, 1 failed");
    }
}
