//! `top`: how often guests kick their devices, and are interrupted by them, while it happens.

use super::list::{self, Answer};
use crate::status::{DeviceStatus, Status};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// How long it was. The rates of a guest are of the time since it was read last, which is longer if its process did not
    /// answer before.
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
    let mut read = Instant::now();
    let mut counted = Counted::since(read);
    counted.report(list::answers(session)?, read);
    let mut left = arguments.count;
    while left != Some(0) && wait(&mut signals, read + arguments.interval, false)? == Woken::Due {
        read = Instant::now();
        let report = counted.report(list::answers(session)?, read);
        session.print("virtio.top", &report, || report.prose())?;
        left = left.map(|left| left.saturating_sub(1));
    }
    Ok(Exit::Success)
}

/// What guests had counted when they were read last. Their processes may not answer each time, and may let others wait, so
/// each reading has its own time.
#[derive(Debug)]
pub(super) struct Counted {
    /// When the last reading began.
    read: Instant,
    guests: BTreeMap<u16, (Instant, Option<Status>)>,
}

impl Counted {
    /// Nothing was read before this.
    pub(super) fn since(read: Instant) -> Self {
        Self { read, guests: BTreeMap::new() }
    }

    /// What has happened until a reading, which began at this time, to each guest since it was read last. What another
    /// process serves since, or what its driver has started anew, has counted from nothing. Of a guest whose process
    /// had not answered before, nothing is known yet.
    pub(super) fn report(&mut self, answers: Vec<Answer>, read: Instant) -> Report {
        let before = std::mem::replace(&mut self.read, read);
        let mut known = std::mem::take(&mut self.guests);
        let mut guests = Vec::new();
        for Answer { domid, at, status } in answers {
            let last = known.remove(&domid);
            let Some(now) = status else {
                self.guests.insert(domid, last.unwrap_or((at, None)));
                continue;
            };
            match &last {
                None => guests.push(GuestRates::of(None, &now, at - before)),
                Some((_, None)) => {}
                Some((then, Some(was))) => {
                    let same = Some(was).filter(|was| was.pid == now.pid);
                    guests.push(GuestRates::of(same, &now, at - *then));
                }
            }
            self.guests.insert(domid, (at, Some(now)));
        }
        Report { seconds: (read - before).as_secs_f64(), guests }
    }
}

impl GuestRates {
    fn of(before: Option<&Status>, now: &Status, elapsed: Duration) -> Self {
        let devices: Vec<DeviceRates> =
            now.devices.iter().map(|device| of_device(before, device, elapsed)).collect();
        let of = |count: fn(&Status) -> u64| rate(before.map_or(0, count), count(now), elapsed);
        Self {
            domid: now.domid,
            name: now.name.clone(),
            per_second: GuestEvents {
                kicks: of(|guest| guest.kicks),
                interrupts: devices.iter().map(|device| device.per_second.interrupts).sum(),
                register_accesses: of(|guest| guest.register_accesses),
            },
            devices,
        }
    }
}

impl Report {
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

    /// What is reported of readings that are two seconds apart. `Err`: the process does not answer; `Ok(None)`: there is
    /// none.
    fn reports(readings: impl IntoIterator<Item = Result<Option<Status>, ()>>) -> Vec<Report> {
        let mut at = Instant::now();
        let mut counted = Counted::since(at);
        let report = |reading: Result<Option<Status>, ()>| {
            at += TWO_SECONDS;
            let answer = |status| Answer { domid: 7, at, status };
            let answers = match reading {
                Ok(None) => vec![],
                Ok(Some(status)) => vec![answer(Some(status))],
                Err(()) => vec![answer(None)],
            };
            counted.report(answers, at)
        };
        readings.into_iter().map(report).collect()
    }

    /// Kicks a second of the guest and its second device, in the last report. `None`: it is not in it.
    fn kicks(readings: impl IntoIterator<Item = Result<Option<Status>, ()>>) -> Option<(f64, f64)> {
        let last = reports(readings).pop()?;
        let guest = last.guests.first()?;
        Some((guest.per_second.kicks, guest.devices[1].per_second.kicks))
    }

    fn report() -> Report {
        reports([Ok(Some(status())), Ok(Some(later(8)))]).remove(1)
    }

    #[test]
    fn a_rate_is_a_difference_by_a_time() {
        let report = report();
        let guest = &report.guests[0];
        let of_device = DeviceEvents { kicks: 4.0, interrupts: 4.0 };
        assert!(guest.devices.iter().all(|device| device.per_second == of_device));
        let expected = GuestEvents { kicks: 4.0, interrupts: 8.0, register_accesses: 4.0 };
        assert_eq!((report.seconds, &guest.per_second), (2.0, &expected));
    }

    #[test]
    fn what_another_process_serves_has_counted_from_nothing() {
        let other = Status { pid: 413, ..status() };
        assert_eq!(kicks([Ok(Some(other)), Ok(Some(status()))]), Some((2_000.0, 50.0)));
        assert_eq!(kicks([Ok(None), Ok(Some(status()))]), Some((2_000.0, 50.0)));
    }

    #[test]
    fn a_queue_that_was_started_anew_has_counted_from_nothing() {
        let mut again = later(8);
        again.devices[1].kicks = 6;
        assert_eq!(kicks([Ok(Some(status())), Ok(Some(again))]), Some((4.0, 3.0)));
    }

    #[test]
    fn a_reading_that_was_missed_makes_the_next_ones_time_longer() {
        let readings = [Ok(Some(status())), Err(()), Err(()), Ok(Some(later(12)))];
        assert_eq!(kicks(readings), Some((2.0, 2.0)));
        let again = Status { pid: 413, ..status() };
        assert_eq!(kicks([Ok(Some(status())), Err(()), Ok(Some(again))]), Some((1_000.0, 25.0)));
    }

    #[test]
    fn nothing_is_known_of_a_guest_that_had_never_answered() {
        assert_eq!(kicks([Err(()), Ok(Some(status()))]), None);
        assert_eq!(kicks([Err(()), Ok(Some(status())), Ok(Some(later(8)))]), Some((4.0, 4.0)));
    }

    /// A process that does not answer has those that are asked after it wait.
    #[test]
    fn each_guest_is_read_at_its_own_time() {
        let begin = Instant::now();
        let mut counted = Counted::since(begin);
        let answer = |status, at| vec![Answer { domid: 7, at, status: Some(status) }];
        counted.report(answer(status(), begin), begin);
        let report = counted.report(answer(later(8), begin + 2 * TWO_SECONDS), begin + TWO_SECONDS);
        assert_eq!((report.seconds, report.guests[0].per_second.kicks), (2.0, 2.0));
    }

    #[test]
    fn a_device_stands_below_its_guest() {
        let report = report();
        let expected = "\
DOM  GUEST                                KICKS/S  INTERRUPTS/S  ACCESSES/S
  7  web                                      4.0           8.0         4.0
       00:01.0 blk,socket=/run/disk.sock      4.0           4.0
       00:02.0 blk,socket=/run/disk.sock      4.0           4.0
";
        assert_eq!(report.prose(), expected);
        assert!(reports([Ok(None)])[0].prose().contains("No guest"));
    }
}
