//! How many tests passed and failed, from what cargo test and nextest print.

use crate::step::Step;
use anyhow::Result;
use xen_eventfd_lab_runs::Tally;

/// Passed and failed.
type Counts = (u32, u32);

/// Runs tests and counts them.
pub(crate) fn run(step: Step) -> Result<Tally> {
    let shown = step.shown().to_owned();
    let done = step.run()?;
    let (passed, mut failed) = count(&done.all);
    // Something did not build, nothing ran, or a test ended its program.
    if failed == 0 && (!done.ok || passed == 0) {
        failed = 1;
    }
    let tally = Tally::counted(&shown, passed, failed);
    println!("         {tally}");
    Ok(tally)
}

/// Counts the summaries in the output of `cargo test` (one for each program and each crate's
/// examples) and of nextest (one in all).
fn count(output: &str) -> Counts {
    let mut counts = (0, 0);
    for line in output.lines() {
        // Indented it is what nextest shows of a test that failed, and has counted itself.
        if let Some(result) = line.strip_prefix("test result: ") {
            // `ok. 3 passed; 0 failed; 1 ignored; ...`
            let said = result.split_once(". ").map_or("", |(_, said)| said);
            add(&mut counts, said.split(';'));
        } else if let Some((_, said)) = summary(line.trim_start()) {
            add(&mut counts, said.split(','));
        }
    }
    counts
}

/// `Summary [  47.6s] 276 tests run: 275 passed (2 slow), 1 failed, 9 skipped`
fn summary(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("Summary [")?.split_once(" run: ")
}

fn add<'a>((passed, failed): &mut Counts, said: impl Iterator<Item = &'a str>) {
    for count in said {
        let mut words = count.split_whitespace();
        let Some(Ok(number)) = words.next().map(str::parse::<u32>) else { continue };
        match (words.next(), words.next()) {
            (Some("passed"), _) => *passed += number,
            // A test that is killed for its time, or that cannot be started, has not passed.
            (Some("failed"), _) | (Some("timed"), Some("out")) | (Some("exec"), Some("failed")) => {
                *failed += number;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_count(output: &str, passed: u32, failed: u32) {
        assert_eq!(count(output), (passed, failed));
    }

    #[test]
    fn cargo_test_has_a_result_for_each_program() {
        let output = "\
running 2 tests
test tests::a ... ok
test tests::b ... FAILED

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests xen_eventfd

test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 1.20s
";
        assert_count(output, 13, 1);
    }

    #[test]
    fn nextest_has_one_summary() {
        let output = "\
------------
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 103 filtered out
     Summary [  47.604s] 276 tests run: 275 passed, 1 failed, 9 skipped
        FAIL [  31.114s] (276/276) xen-eventfd-cli::run a_backend
error: test run failed
";
        assert_count(output, 275, 1);
        assert_count("  Summary [ 0.1s] 1 test run: 1 passed, 0 skipped", 1, 0);
    }

    #[test]
    fn what_is_in_brackets_is_counted_once() {
        let line = "Summary [ 9.0s] 9 tests run: 5 passed (2 slow, 1 flaky), 2 failed, \
                    1 timed out, 1 exec failed, 4 skipped";
        assert_count(line, 5, 4);
    }

    #[test]
    fn a_run_that_was_cut_short_counts_what_ran() {
        assert_count("Summary [ 1.0s] 3/10 tests run: 2 passed, 1 failed, 0 skipped", 2, 1);
    }

    #[test]
    fn what_a_test_prints_does_not_count() {
        assert_count("7 passed, 3 failed\nrunning 4 tests\nerror: could not compile", 0, 0);
    }
}
