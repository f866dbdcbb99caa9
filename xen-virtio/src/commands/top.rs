//! `top`: how often guests kick their devices, and are interrupted by them, while it happens.

use super::list;
use crate::status::{DeviceStatus, Status};
use clap::Args;
use serde::Serialize;
use std::time::{Duration, Instant};
use xen_eventfd_cli::commands::top::lines::rate as in_words;
use xen_eventfd_cli::commands::top::{Woken, wait};
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::quantity::{COUNT, TIME, count, time};
use xen_eventfd_cli::rates::rate;
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::signals::Signals;
use xen_eventfd_cli::table::{Side, cell, table};

/// Show how often guests use their devices, live.
///
/// For each guest that is served and each of its devices, a table for each interval: kicks and interrupts in a second, and
/// of the guest how often a vCPU waited for the process that serves it, for an access to a register.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// From one reading to the next: 500ms, 2s, 1m; seconds without a unit
    #[arg(long, value_name = TIME, default_value = "1", value_parser = time)]
    interval: Duration,
    /// End after so many intervals
    #[arg(long, value_name = COUNT, value_parser = count)]
    count: Option<u64>,
}

/// One interval.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// How long it was.
    seconds: f64,
    guests: Vec<GuestRates>,
}

/// A guest's.
#[derive(Debug, PartialEq, Serialize)]
struct GuestRates {
    domid: u16,
    name: Option<String>,
    per_second: GuestEvents,
    devices: Vec<DeviceRates>,
}

#[derive(Debug, PartialEq, Serialize)]
struct GuestEvents {
    kicks: f64,
    interrupts: f64,
    register_accesses: f64,
}

/// A device's.
#[derive(Debug, PartialEq, Serialize)]
struct DeviceRates {
    function: String,
    device: String,
    per_second: DeviceEvents,
}

#[derive(Debug, PartialEq, Serialize)]
struct DeviceEvents {
    kicks: f64,
    interrupts: f64,
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let (mut before, mut read) = (list::guests(session)?, Instant::now());
    let mut left = arguments.count;
    while left != Some(0) && wait(&mut signals, read + arguments.interval, false)? == Woken::Due {
        let (now, elapsed) = (list::guests(session)?, read.elapsed());
        read = Instant::now();
        let report = Report::of(&before, &now, elapsed);
        session.print("virtio.top", &report, || report.prose())?;
        before = now;
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(Exit::Success)
}

impl Report {
    /// What happened between two readings, for each guest of the second. What another process serves since, or what its
    /// driver has started anew, has counted from nothing.
    pub(super) fn of(before: &[Status], now: &[Status], elapsed: Duration) -> Self {
        let guest = |guest: &Status| {
            let same = |other: &&Status| other.domid == guest.domid && other.pid == guest.pid;
            let before = before.iter().find(same);
            let devices: Vec<DeviceRates> =
                guest.devices.iter().map(|device| of_device(before, device, elapsed)).collect();
            let was = |count: fn(&Status) -> u64| before.map_or(0, count);
            let interrupts = devices.iter().map(|device| device.per_second.interrupts).sum();
            GuestRates {
                domid: guest.domid,
                name: guest.name.clone(),
                per_second: GuestEvents {
                    kicks: rate(was(|guest| guest.kicks), guest.kicks, elapsed),
                    interrupts,
                    register_accesses: rate(
                        was(|guest| guest.register_accesses),
                        guest.register_accesses,
                        elapsed,
                    ),
                },
                devices,
            }
        };
        Self { seconds: elapsed.as_secs_f64(), guests: now.iter().map(guest).collect() }
    }

    pub(super) fn prose(&self) -> String {
        if self.guests.is_empty() {
            return list::NO_GUEST.to_owned();
        }
        let heads = [
            ("DOM", Side::Right),
            ("GUEST", Side::Left),
            ("KICKS/S", Side::Right),
            ("INTERRUPTS/S", Side::Right),
            ("ACCESSES/S", Side::Right),
        ];
        let mut rows = Vec::new();
        for GuestRates { domid, name, per_second, devices } in &self.guests {
            let GuestEvents { kicks, interrupts, register_accesses } = per_second;
            let mut row = vec![domid.to_string(), cell(name.as_deref())];
            row.extend([kicks, interrupts, register_accesses].map(|events| in_words(*events)));
            rows.push(row);
            for DeviceRates { function, device, per_second } in devices {
                let function = function.trim_start_matches("0000:");
                let place = format!("  {function} {device}");
                let [kicks, interrupts] = [per_second.kicks, per_second.interrupts].map(in_words);
                rows.push(vec![String::new(), place, kicks, interrupts, String::new()]);
            }
        }
        table(&heads, &rows)
    }
}

fn of_device(before: Option<&Status>, device: &DeviceStatus, elapsed: Duration) -> DeviceRates {
    let mut devices = before.iter().flat_map(|guest| &guest.devices);
    let was = devices.find(|other| other.function == device.function);
    let [kicks, interrupts] = was.map_or([0; 2], |was| [was.kicks, was.interrupts]);
    DeviceRates {
        function: device.function.clone(),
        device: device.device.clone(),
        per_second: DeviceEvents {
            kicks: rate(kicks, device.kicks, elapsed),
            interrupts: rate(interrupts, device.interrupts, elapsed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::status;
    use super::*;

    const TWO_SECONDS: Duration = Duration::from_secs(2);

    /// The guest of the tests later: each of its counters has gone on by as much.
    fn later(by: u64) -> Status {
        let mut status = status();
        status.kicks += by;
        status.register_accesses += by;
        for device in &mut status.devices {
            device.kicks += by;
            device.interrupts += by;
        }
        status
    }

    fn kicks(before: &[Status], now: Status) -> (f64, f64) {
        let report = Report::of(before, &[now], TWO_SECONDS);
        let guest = &report.guests[0];
        (guest.per_second.kicks, guest.devices[1].per_second.kicks)
    }

    #[test]
    fn a_rate_is_a_difference_by_a_time() {
        let report = Report::of(&[status()], &[later(8)], TWO_SECONDS);
        let guest = &report.guests[0];
        let of_device = DeviceEvents { kicks: 4.0, interrupts: 4.0 };
        assert!(guest.devices.iter().all(|device| device.per_second == of_device));
        let expected = GuestEvents { kicks: 4.0, interrupts: 8.0, register_accesses: 4.0 };
        assert_eq!((report.seconds, &guest.per_second), (2.0, &expected));
    }

    #[test]
    fn what_another_process_serves_has_counted_from_nothing() {
        assert_eq!(kicks(&[Status { pid: 413, ..status() }], later(0)), (2_000.0, 50.0));
        assert_eq!(kicks(&[], later(0)), (2_000.0, 50.0));
    }

    #[test]
    fn a_queue_that_was_started_anew_has_counted_from_nothing() {
        let mut again = later(8);
        again.devices[1].kicks = 6;
        assert_eq!(kicks(&[status()], again), (4.0, 3.0));
    }

    #[test]
    fn a_device_stands_below_its_guest() {
        let report = Report::of(&[status()], &[later(8)], TWO_SECONDS);
        let expected = "\
DOM  GUEST                                KICKS/S  INTERRUPTS/S  ACCESSES/S
  7  web                                      4.0           8.0         4.0
       00:01.0 blk,socket=/run/disk.sock      4.0           4.0
       00:02.0 blk,socket=/run/disk.sock      4.0           4.0
";
        assert_eq!(report.prose(), expected);
        assert!(Report::of(&[], &[], TWO_SECONDS).prose().contains("No guest"));
    }
}
