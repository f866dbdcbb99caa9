//! `demo`: reports what happens on the model, with and without ioeventfd.

use crate::demo::{DEVICES, Means, QUEUES, Round, VCPUS, measure};
use crate::failure::{Exit, Failure};
use crate::quantity::{COUNT, count_to};
use crate::session::Session;
use crate::terminal::{Style, grouped, nanoseconds};
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Show the whole path on an in-process Xen; needs none of its own.
///
/// A guest's vCPUs ring their devices' doorbells, a
/// stand-in VMM answers the rest, and backends wait on eventfds. Once with ioeventfd and once
/// without, with what it costs the VMM. Needs no rights either.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many kicks the guest sends in each round
    #[arg(long, value_name = COUNT, default_value_t = 20_000, value_parser = count_to::<10_000_000>)]
    pub kicks: u32,
}

/// The latencies of a round, for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The shortest.
    pub min_ns: u64,
    /// Half are shorter.
    pub p50_ns: u64,
    /// 90 % are shorter.
    pub p90_ns: u64,
    /// 99 % are shorter.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many lay between each bound and the one before.
    pub histogram: Vec<Bucket>,
}

/// One bar of the histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Below this, and not below the one before.
    pub below_ns: u64,
    /// How many.
    pub kicks: u64,
}

/// A round, for a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Numbers {
    /// Kicks that the guest sent.
    #[serde(rename = "sent")]
    pub kicks: u64,
    /// The sum of what the backends read from their eventfds.
    pub delivered: u64,
    /// The difference.
    pub lost: i128,
    /// How often a backend found an eventfd signalled.
    pub signals: u64,
    /// How often the VMM woke up.
    pub vmm_wakeups: u64,
    /// Accesses that are the VMM's in any case.
    pub config_accesses: u64,
    /// How long the guest was at it.
    pub seconds: f64,
    /// From just before a kick until its backend has read the eventfd.
    pub latency: Latency,
}

/// Both rounds: the fields of the one with ioeventfd, and the other beside them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The guest's.
    pub vcpus: u32,
    /// The guest's.
    pub devices: usize,
    /// Of each device.
    pub queues: usize,
    /// With ioeventfd.
    #[serde(flatten)]
    pub with: Numbers,
    /// The VMM forwards each kick.
    pub without_ioeventfd: Numbers,
}

const BAR: u64 = 40;

/// Plays both rounds.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let with = measure(Means::Ioeventfd, arguments.kicks.into())?;
    let without = measure(Means::Vmm, arguments.kicks.into())?;
    let report = Report {
        vcpus: VCPUS,
        devices: DEVICES,
        queues: QUEUES,
        with: Numbers::new(&with),
        without_ioeventfd: Numbers::new(&without),
    };
    session.print("demo", &report, || report.prose(Style::of_stdout()))?;
    let lost = report.with.lost != 0 || report.without_ioeventfd.lost != 0;
    Ok(if lost { Exit::Failed } else { Exit::Success })
}

impl Numbers {
    /// What a round came to.
    pub fn new(round: &Round) -> Self {
        Self {
            kicks: round.kicks,
            delivered: round.delivered,
            lost: i128::from(round.kicks) - i128::from(round.delivered),
            signals: round.signals,
            vmm_wakeups: round.vmm_wakeups,
            config_accesses: round.config_accesses,
            seconds: round.took.as_secs_f64(),
            latency: Latency::new(&round.latency),
        }
    }
}

impl Latency {
    fn new(latency: &Histogram<u64>) -> Self {
        Self {
            min_ns: if latency.is_empty() { 0 } else { latency.min() },
            p50_ns: latency.value_at_quantile(0.5),
            p90_ns: latency.value_at_quantile(0.9),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
            histogram: buckets(latency),
        }
    }
}

/// One bucket for each doubling of a microsecond, from the first that holds something to the last.
fn buckets(latency: &Histogram<u64>) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    let (mut from, mut below) = (0, 1_000);
    while !latency.is_empty() && from <= latency.max() {
        let kicks = latency.count_between(from, below - 1);
        if kicks > 0 || !buckets.is_empty() {
            buckets.push(Bucket { below_ns: below, kicks });
        }
        (from, below) = (below, below.saturating_mul(2));
    }
    buckets
}

impl Report {
    /// The story, for a newcomer.
    pub fn prose(&self, style: Style) -> String {
        let Self { with, without_ioeventfd: without, .. } = self;
        let guest = format!(
            "A guest with {VCPUS} vCPUs and {DEVICES} virtio devices of {QUEUES} queues each, on an \
             in-process Xen.\nTo start I/O it rings a doorbell: it writes a queue's number to its \
             device (a kick).\nA backend for each device waits on eventfds, one for each queue. A \
             VMM answers\neverything else: {} reads of configuration registers.\n",
            grouped(with.config_accesses)
        );
        let table = self.table(style);
        let lost = match with.lost {
            0 => style.good("No kick was lost."),
            lost => style.bad(&format!("{lost} kicks were lost. This is a bug; please report it.")),
        };
        let coalesced = format!(
            "An eventfd counts: several kicks before a backend reads are one signal with their\n\
             number in it, so what the backends read is summed: {} kicks, {} signals.\n",
            grouped(with.kicks),
            grouped(with.signals)
        );
        let spared = format!(
            "Without ioeventfd the VMM woke up {} times to pass kicks on (at times two at once).\n\
             With it, it slept through all of them and woke up {} times, for its own registers.\n\
             The times are those of threads of this program: there are no VM exits in them.\n",
            grouped(without.vmm_wakeups),
            grouped(with.vmm_wakeups),
        );
        let histogram = histogram(&with.latency, style);
        format!(
            "{}\n\n{guest}\n{table}\n{lost}\n{coalesced}\n{spared}\n{}\n{histogram}\nOn a real Xen: \
             `xen-eventfd doctor`, then `xen-eventfd run --help`.\n",
            style.strong("Doorbells as eventfds"),
            style.strong("From a kick to its backend, with ioeventfd"),
        )
    }

    fn table(&self, style: Style) -> String {
        let row = |name: &str, show: &dyn Fn(&Numbers) -> String| {
            format!("{name:<26}{:>16}{:>18}\n", show(&self.with), show(&self.without_ioeventfd))
        };
        let head = format!("{:<26}{:>16}{:>18}", "", "with ioeventfd", "without");
        let mut table = style.strong(&head) + "\n";
        table += &row("kicks sent", &|n| grouped(n.kicks));
        table += &row("kicks delivered", &|n| grouped(n.delivered));
        table += &row("lost", &|n| n.lost.to_string());
        table += &row("VMM wake-ups", &|n| grouped(n.vmm_wakeups));
        table += &row("half of the kicks within", &|n| nanoseconds(n.latency.p50_ns));
        table += &row("99 of 100 within", &|n| nanoseconds(n.latency.p99_ns));
        table +=
            &row("took", &|n| format!("{:.2} s", Duration::from_secs_f64(n.seconds).as_secs_f64()));
        table
    }
}

fn histogram(latency: &Latency, style: Style) -> String {
    let most = latency.histogram.iter().map(|bucket| bucket.kicks).max().unwrap_or(0);
    let line = |Bucket { below_ns, kicks }: &Bucket| {
        let bar = style.bar(*kicks, most, BAR);
        format!("{:>12} {:>10}  {bar}\n", format!("< {}", nanoseconds(*below_ns)), grouped(*kicks))
    };
    latency.histogram.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kick_is_lost_and_the_vmm_sleeps_through_them() {
        let with = Numbers::new(&measure(Means::Ioeventfd, 2_000).unwrap());
        assert_eq!((with.kicks, with.delivered, with.lost), (2_000, 2_000, 0));
        assert!(with.signals <= with.kicks && with.config_accesses > 0);
        assert!(with.vmm_wakeups <= with.config_accesses, "{with:?}");
        assert!(
            with.latency.p50_ns > 100 && with.latency.max_ns >= with.latency.p99_ns,
            "{with:?}"
        );
        assert_eq!(with.latency.histogram.iter().map(|b| b.kicks).sum::<u64>(), 2_000);
    }

    #[test]
    fn without_it_every_kick_is_the_vmms() {
        let round = measure(Means::Vmm, 2_000).unwrap();
        assert_eq!((round.kicks, round.delivered), (2_000, 2_000));
        assert_eq!(round.vmm_requests, round.kicks + round.config_accesses);
    }

    #[test]
    fn buckets_double_and_hold_everything() {
        let mut latency = Histogram::new(3).unwrap();
        [5_u64, 1_500, 1_600, 9_000].into_iter().for_each(|ns| latency.record(ns).unwrap());
        let found: Vec<(u64, u64)> =
            buckets(&latency).iter().map(|b| (b.below_ns, b.kicks)).collect();
        assert_eq!(found, [(1_000, 1), (2_000, 2), (4_000, 0), (8_000, 0), (16_000, 1)]);
    }

    #[test]
    fn plain_text_has_no_escapes() {
        let numbers = Numbers::new(&measure(Means::Ioeventfd, 100).unwrap());
        let report = Report {
            vcpus: VCPUS,
            devices: DEVICES,
            queues: QUEUES,
            with: numbers.clone(),
            without_ioeventfd: numbers,
        };
        let text = report.prose(Style::PLAIN);
        assert!(!text.contains('\x1b') && text.contains("No kick was lost"), "{text}");
    }
}
