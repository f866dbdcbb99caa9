//! Whether a run was flat.

use xen_eventfd_scenarios::soak::{LEAST, Sample, WARM_UP};

/// KiB for each round by which each kind of memory may grow: used in dom0, slabs, the process. The
/// first comes and goes by a megabyte by itself. A round has hundreds of registrations and kicks, so
/// a page that is lost in each is found in the others, and some bytes that are lost for each kick.
const GROWTH: [f64; 3] = [64.0, 4.0, 2.0];

/// The samples that are judged.
pub(super) fn judged(samples: &[Sample]) -> &[Sample] {
    let first = samples.iter().position(|sample| sample.round >= WARM_UP);
    first.and_then(|first| samples.get(first..)).unwrap_or_default()
}

/// How one kind of memory went, in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    pub(super) name: &'static str,
    /// The median of the first third of rounds, and of the last.
    pub(super) thirds: [u64; 2],
    /// For each round between them.
    pub(super) each: f64,
    pub(super) allowed: f64,
}

/// All that was not flat.
pub(super) fn faults(samples: &[Sample]) -> Vec<String> {
    let judged = judged(samples);
    let enough = |_: &(&Sample, &[Sample])| samples.len() as u64 >= LEAST;
    let Some((base, rounds)) = judged.split_first().filter(enough) else {
        return vec![format!("{} rounds are too few to report", samples.len())];
    };
    let mut faults = Vec::new();
    for sample in rounds {
        for ((name, before), (_, now)) in base.counts.named().iter().zip(sample.counts.named()) {
            if *before != now {
                faults.push(format!("{name}: {now} after round {}, not {before}", sample.round));
            }
        }
    }
    for Growth { name, thirds: [first, last], each, allowed } in growths(judged) {
        if each > allowed {
            faults.push(format!(
                "{name}: from {first} to {last} KiB, {each:.1} in each round, not {allowed:.0}"
            ));
        }
    }
    faults
}

/// Each kind of memory.
pub(super) fn growths(judged: &[Sample]) -> Vec<Growth> {
    let Some(first) = judged.first() else { return Vec::new() };
    let kinds = first.memory.named().map(|(name, _)| name);
    let one = |(kind, (name, allowed))| {
        let values: Vec<u64> = judged
            .iter()
            .filter_map(|sample| sample.memory.named().get(kind).map(|(_, value)| *value))
            .collect();
        growth(name, allowed, &values)
    };
    kinds.into_iter().zip(GROWTH).enumerate().map(one).collect()
}

fn growth(name: &'static str, allowed: f64, values: &[u64]) -> Growth {
    let third = (values.len() / 3).max(1);
    let (first, last) = (&values[..third], &values[values.len() - third..]);
    let thirds = [median(first), median(last)];
    // Kibibytes and rounds are few enough to be exact.
    #[expect(clippy::cast_precision_loss)]
    let between = |from: u64, to: u64| to as f64 - from as f64;
    let rounds = between(0, (values.len() - third).max(1) as u64);
    Growth { name, thirds, each: between(thirds[0], thirds[1]) / rounds, allowed }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_scenarios::soak::{Counts, Done, Memory};

    /// A run in which something becomes of each sample.
    fn run(rounds: u64, mut change: impl FnMut(&mut Sample)) -> Vec<Sample> {
        let one = |round| {
            let counts = Counts { channels: 20, descriptors: 9, ..Counts::default() };
            // Noise, as page caches make it.
            let noise = round * 7 % 5;
            let memory = Memory { used: 90_000 + 40 * noise, slab: 20_000 + noise, resident: 5000 };
            let mut sample = Sample { round, done: Done::default(), counts, memory };
            change(&mut sample);
            sample
        };
        (1..=rounds).map(one).collect()
    }

    #[test]
    fn a_flat_run_is_flat_whatever_its_first_rounds_were() {
        let samples = run(40, |sample| {
            if sample.round < WARM_UP {
                sample.counts.channels = 3;
                sample.memory.resident = 100;
            }
        });
        assert!(faults(&samples).is_empty());
    }

    #[test]
    fn one_descriptor_in_one_round_is_a_fault() {
        let samples = run(40, |sample| {
            if sample.round > 30 {
                sample.counts.descriptors += 1;
            }
        });
        let faults = faults(&samples);
        assert_eq!(faults.len(), 10);
        assert_eq!(faults[0], "descriptors: 10 after round 31, not 9");
    }

    #[test]
    fn what_is_less_than_before_is_no_less_a_fault() {
        let samples = run(20, |sample| sample.counts.channels -= usize::from(sample.round == 9));
        assert_eq!(faults(&samples), ["event channels: 19 after round 9, not 20"]);
    }

    #[test]
    fn a_page_in_each_round_is_found_and_noise_is_not() {
        let leak =
            |kibibytes: u64| run(60, |sample| sample.memory.resident += sample.round * kibibytes);
        assert!(faults(&leak(1)).is_empty());
        let faults = faults(&leak(4));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("the engine's process: from "), "{faults:?}");
    }

    #[test]
    fn a_few_rounds_tell_nothing() {
        assert_eq!(faults(&run(WARM_UP + 3, |_| {})).len(), 1);
        assert_eq!(faults(&[]).len(), 1);
    }
}
