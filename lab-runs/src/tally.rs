//! How many passed, how many failed, and how many could not be played.

use crate::kmod::kernel_log::emulator_broke;
use anyhow::Result;
use std::fmt;
use std::ops::AddAssign;
use std::process::ExitCode;

/// The result of a number of tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many passed.
    pub passed: u32,
    /// How many failed.
    pub failed: u32,
    /// Their engine has no way to do what they want.
    pub skipped: u32,
    /// The emulator broke dom0 or a program of it: what failed may be its doing.
    pub broken: bool,
    /// What failed, a line each: said once more at the end, where people and CI look first.
    failures: Vec<String>,
    /// Where the emulator broke a run, which was repeated.
    again: Vec<String>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.broken |= other.broken;
        self.failures.extend(other.failures);
        self.again.extend(other.again);
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
    /// One that passed.
    pub fn passed() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One that failed, and which and why.
    pub fn failed(which: impl Into<String>) -> Self {
        let which = which.into();
        let broken = emulator_broke(&which);
        let line = which.lines().next().unwrap_or_default().to_owned();
        Self { failed: 1, broken, failures: vec![line], ..Self::default() }
    }

    /// One that passed, or one that failed and which.
    pub fn one(which: &str, passed: bool) -> Self {
        if passed { Self::passed() } else { Self::failed(which) }
    }

    /// As many as were counted elsewhere, of what `which` ran.
    pub fn counted(which: &str, passed: u32, failed: u32) -> Self {
        let failures = if failed == 0 { vec![] } else { vec![which.to_owned()] };
        Self { passed, failed, failures, ..Self::default() }
    }

    /// Whether nothing was run.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Shows and counts a line of a program that tests: `ok NAME`, `FAILED NAME: WHY` or
    /// `skipped NAME: WHAT`; any other line is shown.
    pub fn receive(&mut self, place: &str, line: &str) {
        let shown = format!("{place}: {line}");
        println!("{shown}");
        match line.split_whitespace().next() {
            Some("ok") => self.passed += 1,
            Some("FAILED") => *self += Self::failed(shown),
            Some("skipped") => self.skipped += 1,
            _ => self.broken |= emulator_broke(line),
        }
    }

    /// The program has ended with this status. If it says that something failed, so have its lines;
    /// if not, it died on the way, and what it would still have tested is not known.
    pub fn end(&mut self, place: &str, status: i32) {
        if status != 0 && self.failed == 0 {
            self.receive(place, &format!("FAILED  ended with status {status} and no failure"));
        }
    }

    /// Shows and counts how one test went.
    pub fn judge(&mut self, place: &str, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.receive(place, &format!("ok      {what}")),
            Err(error) => self.receive(place, &format!("FAILED  {what}: {error:#}")),
        }
    }

    /// Runs that are not counted, as the emulator broke them.
    pub fn run_again(&mut self, place: &str) {
        self.again.push(place.to_owned());
    }

    /// Says again what failed and, as the last line, the sum. Fails if one has failed.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        for place in &self.again {
            println!("run once more, as the emulator broke it: {place}");
        }
        for line in &self.failures {
            println!("failed: {line}");
        }
        println!("{self}");
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn only_verdicts_count() {
        let mut tally = Tally::default();
        let lines = "ok      one_queue\nFAILED  msi: why\nskipped held: fallbacks\nv0: done\n\n\
            1 passed, 1 failed, 1 skipped";
        lines.lines().for_each(|line| tally.receive("here", line));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 1, 1));
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(Tally { skipped: 0, ..tally }.to_string(), "1 passed, 1 failed");
    }

    #[test]
    fn what_failed_is_known_at_the_end() {
        let mut tally = Tally::default();
        tally.receive("pv", "FAILED  msi: why");
        tally.judge("pvh", "the log", Err(anyhow!("a line\nand another")));
        tally.judge("pvh", "another", Ok(()));
        tally += Tally::counted("cargo test", 7, 2);
        tally += Tally::counted("cargo test of another", 7, 0);
        assert_eq!((tally.passed, tally.failed), (15, 4));
        let failures = ["pv: FAILED  msi: why", "pvh: FAILED  the log: a line", "cargo test"];
        assert_eq!(tally.failures, failures);
        assert!(!tally.broken);
    }

    #[test]
    fn a_program_that_dies_has_failed() {
        let mut tally = Tally::default();
        tally.receive("pv", "ok      one");
        tally.end("pv", 0);
        assert_eq!(tally.failed, 0);
        tally.end("pv", 139);
        assert_eq!(tally.failed, 1);
        tally.end("pv", 1);
        assert_eq!(tally.failed, 1, "what failed was said already");
    }

    #[test]
    fn an_emulator_that_broke_is_noticed_wherever_it_is_told() {
        let said = "[ 2.6] traps: xl[499] general protection fault";
        assert!(Tally::failed(format!("why\n{said}")).broken);
        let mut tally = Tally::default();
        tally.receive("pv", said);
        assert!(tally.broken && !tally.is_empty());
    }
}
