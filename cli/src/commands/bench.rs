//! `bench`: what the engine costs on this machine, on the model, against a bare eventfd.
//!
//! Everything is measured in one run and reported as a ratio, as absolute numbers are the machine's.
//! The model's own work (its locks, its condition variables) is part of what is measured, and
//! there is no VM exit in it: it compares one version of the engine with another, not Xen with KVM.

use crate::failure::{Exit, Failure};
use crate::quantity::{COUNT, count_to};
use crate::session::Session;
use crate::terminal::nanoseconds;
use clap::Args;
use hdrhistogram::Histogram;
use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;
use xen_eventfd::{Doorbell, Filter, IoEventAddress, Kick, Space, VcpuId, Width, Xen};
use xen_eventfd_core::table;
use xen_eventfd_model::{Config, Model, Stopped};

/// Measure the engine on an in-process Xen, against a bare eventfd.
///
/// What a match costs among 1, 64 and 4,096
/// registrations, and how long a kick takes to its backend, against a bare write to an eventfd in
/// the same run. Compare the ratios; the numbers themselves are this machine's.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How many kicks are measured at each size
    #[arg(long, value_name = COUNT, default_value_t = 5_000, value_parser = count_to::<1_000_000>)]
    pub kicks: u32,
}

const SIZES: [u32; 3] = [1, 64, 4_096];
const ADDR: u64 = 0xFE00_0050;
/// Matches in one measurement: enough for a clock that ticks in tens of ns.
const MATCHES: u32 = 200_000;
/// Of several measurements the best is the least disturbed.
const ROUNDS: u32 = 5;

/// Among so many registrations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtSize {
    /// How many.
    pub registrations: u32,
    /// One look into the table.
    pub match_ns: f64,
    /// The same, against one registration.
    pub match_ratio: f64,
    /// The guest's write, until it is answered: the median.
    pub answer_ns: u64,
    /// From the guest's write until the backend has read the eventfd: the median.
    pub kick_ns: u64,
    /// The same, against a bare eventfd.
    pub kick_ratio: f64,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// From a thread's write to a bare eventfd until another has read it: the median.
    pub eventfd_ns: u64,
    /// By the number of registrations.
    pub sizes: Vec<AtSize>,
}

/// Measures.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let report = measure(arguments.kicks)?;
    session.print("bench", &report, || report.prose())?;
    Ok(Exit::Success)
}

/// Measures all of it, with so many kicks at each size.
///
/// # Errors
/// When the engine fails.
pub fn measure(kicks: u32) -> Result<Report, Failure> {
    let eventfd_ns = bare_eventfd(kicks)?;
    let mut sizes: Vec<AtSize> = Vec::new();
    for registrations in SIZES {
        let match_ns = match_cost(registrations);
        let (answer_ns, kick_ns) = kick_cost(registrations, kicks)?;
        let one = sizes.first().map_or(match_ns, |first| first.match_ns);
        sizes.push(AtSize {
            registrations,
            match_ns,
            match_ratio: match_ns / one,
            answer_ns,
            kick_ns,
            kick_ratio: ratio(kick_ns, eventfd_ns),
        });
    }
    Ok(Report { eventfd_ns, sizes })
}

/// One look into a table, at its best.
fn match_cost(registrations: u32) -> f64 {
    let width = Width::Four;
    let doorbell = |value: u32| {
        let filter = Filter::Value { width, value: value.into(), mask: width.mask() };
        Doorbell::new(Space::Mmio, ADDR, filter)
    };
    let table: Vec<Doorbell> = (0..registrations).filter_map(|v| doorbell(v).ok()).collect();
    let round = || {
        let began = Instant::now();
        for turn in 0..MATCHES {
            let value = turn.wrapping_mul(0x9E37_79B9) % registrations;
            let kick = Kick::new(Space::Mmio, ADDR, width, value.into());
            black_box(table::find(black_box(&table), black_box(&kick)));
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(MATCHES)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// The median from a write to an eventfd until another thread has read it.
fn bare_eventfd(kicks: u32) -> Result<u64, Failure> {
    let waiter = Waiter::start()?;
    let mut latency = histogram();
    for _ in 0..kicks {
        let began = Instant::now();
        waiter.ring()?;
        record(&mut latency, began, waiter.received()?);
    }
    Ok(latency.value_at_quantile(0.5))
}

/// The medians from a guest's write until it is answered, and until its backend has read.
fn kick_cost(registrations: u32, kicks: u32) -> Result<(u64, u64), Failure> {
    let model = Model::new();
    let dom = model.domain(Config::new("bench"));
    let vcpu = model.vcpu(dom, VcpuId(0));
    let run_dir = tempfile::tempdir().map_err(|e| Failure::system("make a directory", e))?;
    let xen = Xen::builder().run_dir(run_dir.path()).open_on(model.client("engine"))?;
    let guest = xen.guest(dom)?;
    let waiter = Waiter::start()?;
    let address = IoEventAddress::Mmio(ADDR);
    let _doorbells = (0..registrations)
        .map(|queue| guest.register_ioevent(&*waiter.eventfd, &address, queue))
        .collect::<Result<Vec<_>, _>>()?;
    let stopped = |why: Stopped| Failure::new(Exit::Failed, format!("the guest stopped: {why}"));
    let (mut answer, mut latency) = (histogram(), histogram());
    for turn in 0..kicks {
        let queue = u64::from(turn.wrapping_mul(0x9E37_79B9) % registrations);
        let began = Instant::now();
        vcpu.write(Space::Mmio, ADDR, Width::Four, queue).map_err(stopped)?;
        record(&mut answer, began, Instant::now());
        record(&mut latency, began, waiter.received()?);
    }
    Ok((answer.value_at_quantile(0.5), latency.value_at_quantile(0.5)))
}

/// A thread that reads an eventfd and says when it did.
struct Waiter {
    eventfd: Arc<OwnedFd>,
    /// Until this is dropped.
    woken: Option<Receiver<Instant>>,
}

impl Waiter {
    fn start() -> Result<Self, Failure> {
        let failed = |errno| Failure::system("make an eventfd", errno);
        let eventfd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
        let (report, woken) = channel();
        let waits = Arc::clone(&eventfd);
        std::thread::spawn(move || {
            while rustix::io::read(&*waits, &mut [0; 8]).is_ok() {
                if report.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { eventfd, woken: Some(woken) })
    }

    fn ring(&self) -> Result<(), Failure> {
        rustix::io::write(&*self.eventfd, &1_u64.to_ne_bytes())
            .map(drop)
            .map_err(|errno| Failure::system("signal an eventfd", errno))
    }

    fn received(&self) -> Result<Instant, Failure> {
        let received = self.woken.as_ref().and_then(|woken| woken.recv().ok());
        received.ok_or_else(|| Failure::new(Exit::Failed, "an eventfd could not be read"))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.woken = None;
        // Wakes the thread, which finds that none listens.
        let _ = self.ring();
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 is a number of digits that it takes")
}

fn record(latency: &mut Histogram<u64>, began: Instant, ended: Instant) {
    let ns = ended.saturating_duration_since(began).as_nanos();
    // It grows on demand, so there is always room.
    let _ = latency.record(u64::try_from(ns).unwrap_or(u64::MAX));
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people, of times far below 2^52 ns")]
fn ratio(ns: u64, against: u64) -> f64 {
    ns as f64 / against.max(1) as f64
}

impl Report {
    fn prose(&self) -> String {
        let mut text = format!(
            "A write to an eventfd reaches its reader in {} (median): the yardstick.\n\n\
             {:>13}{:>12}{:>8}{:>14}{:>14}{:>10}\n",
            nanoseconds(self.eventfd_ns),
            "registrations",
            "match",
            "ratio",
            "kick answered",
            "kick received",
            "ratio"
        );
        for size in &self.sizes {
            text += &format!(
                "{:>13}{:>12}{:>8}{:>14}{:>14}{:>10}\n",
                size.registrations,
                format!("{:.1} ns", size.match_ns),
                format!("{:.1}", size.match_ratio),
                nanoseconds(size.answer_ns),
                nanoseconds(size.kick_ns),
                format!("{:.1}", size.kick_ratio),
            );
        }
        text + "\nMatch: one look into the table, against one registration. Kick: a guest's write on \
                an\nin-process Xen, until it is answered and until its backend has read the eventfd, \
                against\nthe yardstick. There is no VM exit in it: compare versions of the engine, \
                not hypervisors.\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_measured() {
        let report = measure(20).unwrap();
        assert_eq!(report.sizes.iter().map(|size| size.registrations).collect::<Vec<_>>(), SIZES);
        assert!(report.eventfd_ns > 100, "{report:?}");
        assert!(report.sizes.iter().all(|size| size.match_ns > 0.0 && size.kick_ns > 100));
    }
}
