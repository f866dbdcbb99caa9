//! The measuring of requests, between the marks that the profiler knows.

use anyhow::{Context, Result};
use xen_eventfd_bench::devices::Ticks;
use xen_eventfd_bench::{Spread, arch};

/// Measures so many rounds, in each of which so many requests are under way at once.
pub(crate) fn measure(
    rounds: u32,
    at_once: u32,
    carry_out: impl FnMut() -> Result<()>,
) -> Result<Ticks> {
    marked(u64::from(rounds) * u64::from(at_once), || each(rounds, at_once, carry_out))
}

/// How long each of so many rounds takes, divided by the number of requests that are under way at once.
pub(crate) fn each(
    rounds: u32,
    at_once: u32,
    mut carry_out: impl FnMut() -> Result<()>,
) -> Result<Vec<u64>> {
    let mut each = Vec::with_capacity(rounds as usize);
    for _ in 0..rounds {
        let before = arch::now();
        carry_out()?;
        each.push((arch::now() - before) / u64::from(at_once));
    }
    Ok(each)
}

/// So many requests between the marks, which says how long each took.
pub(crate) fn marked(requests: u64, carry_out: impl FnOnce() -> Result<Vec<u64>>) -> Result<Ticks> {
    arch::begin_mark();
    let began = arch::now();
    let each = carry_out()?;
    let all = arch::now() - began;
    arch::end_mark();
    Ok(Ticks { requests, each: Spread::of(each).context("no round")?, all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_is_carried_out_and_counts_its_requests() {
        let mut done = 0;
        let ticks = measure(3, 32, || {
            done += 1;
            Ok(())
        });
        assert_eq!((ticks.unwrap().requests, done), (96, 3));
        assert!(measure(0, 1, || Ok(())).is_err());
        assert!(measure(2, 1, || anyhow::bail!("no answer")).is_err());
    }
}
