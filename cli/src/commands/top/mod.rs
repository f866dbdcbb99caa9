//! `top`: what guests ring and how often, while it happens.
//!
//! The counters are read once in an interval ([`rates`] makes rates of two readings), and shown as
//! lines ([`lines`]): on a screen in a terminal ([`screen`]), as text anywhere else.

pub mod lines;
pub mod screen;

use crate::failure::{Exit, Failure};
use crate::naming::Naming;
use crate::quantity::{COUNT, TIME, count, time};
use crate::rates::{GuestRates, rates};
use crate::served::{Guest, Machine};
use crate::session::{Outcome, Session};
use crate::signals::Signals;
use clap::Args;
use lines::{Order, plain};
use ratatui::crossterm::event;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use screen::{Screen, View};
use serde::Serialize;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Show how often guests ring their doorbells, live.
///
/// For each guest that the kernel module serves and each of its doorbells: kicks, kicks that no
/// doorbell took (held), requests that no doorbell serves (odd) and interrupts, in a second. In a
/// terminal: up and down select, left and right sort, q ends it. An engine in userspace keeps its
/// counters to itself; its guests are named.
#[derive(Debug, Args)]
pub struct Arguments {
    /// From one reading to the next: 500ms, 2s, 1m; seconds without a unit
    #[arg(long, value_name = TIME, default_value = "1", value_parser = time)]
    pub interval: Duration,
    /// Print a table for each interval, as is done where there is no terminal
    #[arg(long)]
    pub plain: bool,
    /// End after so many intervals
    #[arg(long, value_name = COUNT, value_parser = count)]
    pub count: Option<u64>,
    /// Where to look
    #[command(flatten)]
    pub machine: Machine,
}

/// One interval, for a machine.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// How long it was.
    seconds: f64,
    guests: &'a [GuestRates],
}

/// Shows this machine.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let signals = Signals::new()?;
    let meter = Meter::start(session, arguments, signals)?;
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if terminal && !arguments.plain && !session.json {
        on_screen(meter)?;
    } else {
        in_lines(session, meter)?;
    }
    Ok(Exit::Success)
}

/// Reads the counters once in an interval.
struct Meter<'a> {
    session: &'a Session,
    arguments: &'a Arguments,
    signals: Signals,
    naming: Naming,
    guests: Vec<Guest>,
    read: Instant,
    /// Intervals that are still to come.
    left: Option<u64>,
}

/// Why [`wait`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// The interval is over.
    Due,
    /// A key may have been pressed.
    Key,
    /// A signal asks for the end, or the terminal is gone.
    End,
}

/// Waits for an interval's end, a signal, or a key if keys are wanted.
///
/// # Errors
/// The system does not let it wait.
pub fn wait(signals: &mut Signals, end: Instant, keys: bool) -> Outcome<Woken> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Woken::Due);
        }
        let stdin = std::io::stdin();
        let mut watched = vec![PollFd::new(&*signals, PollFlags::IN)];
        watched.extend(keys.then(|| PollFd::new(&stdin, PollFlags::IN)));
        let woken = poll(&mut watched, Timespec::try_from(left).ok().as_ref());
        let stdin = watched.get(1).map_or(PollFlags::empty(), PollFd::revents);
        let key = match woken {
            Ok(_) => !stdin.is_empty(),
            // The terminal may have changed its size.
            Err(Errno::INTR) => keys,
            Err(errno) => return Err(Failure::system("wait", errno)),
        };
        let gone = stdin.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        if signals.take().is_some() || gone {
            return Ok(Woken::End);
        }
        if key {
            return Ok(Woken::Key);
        }
    }
}

impl<'a> Meter<'a> {
    fn start(
        session: &'a Session,
        arguments: &'a Arguments,
        signals: Signals,
    ) -> Result<Self, Failure> {
        let naming = Naming::new(session, arguments.machine.is_real());
        let guests = arguments.machine.nameless_guests(session)?;
        let (read, left) = (Instant::now(), arguments.count);
        Ok(Self { session, arguments, signals, naming, guests, read, left })
    }

    /// As [`wait`].
    fn wait(&mut self, keys: bool) -> Outcome<Woken> {
        wait(&mut self.signals, self.read + self.arguments.interval, keys)
    }

    /// Reads the counters, and reports what happened since the last time.
    fn read(&mut self) -> Outcome<(Duration, Vec<GuestRates>)> {
        let mut guests = self.arguments.machine.nameless_guests(self.session)?;
        let now = Instant::now();
        self.naming.name(&mut guests);
        let elapsed = now.saturating_duration_since(self.read);
        let rates = rates(&self.guests, &guests, elapsed);
        (self.guests, self.read) = (guests, now);
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok((elapsed, rates))
    }

    fn is_over(&self) -> bool {
        self.left == Some(0)
    }
}

fn in_lines(session: &Session, mut meter: Meter<'_>) -> Outcome {
    let mut first = true;
    while !meter.is_over() && meter.wait(false)? == Woken::Due {
        let (elapsed, guests) = meter.read()?;
        let report = Report { seconds: elapsed.as_secs_f64(), guests: &guests };
        session.print("top", &report, || {
            format!("{}{}", if first { "" } else { "\n" }, plain(&guests))
        })?;
        first = false;
    }
    Ok(())
}

fn on_screen(mut meter: Meter<'_>) -> Outcome {
    let failed = |error| Failure::system("use the terminal", error);
    let mut view = View::new(Order::Kicks);
    let mut screen = Screen::open().map_err(failed)?;
    while !meter.is_over() {
        screen.draw(&mut view).map_err(failed)?;
        match meter.wait(true)? {
            Woken::End => return Ok(()),
            Woken::Due => view.update(meter.read()?.1),
            Woken::Key => {
                while event::poll(Duration::ZERO).map_err(failed)? {
                    if view.press(&event::read().map_err(failed)?).is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Arc;
    use xen_eventfd::Host;
    use xen_eventfd_model::{Config, Model};

    #[test]
    fn top_asks_for_a_name_once_and_not_at_each_interval() {
        let model = Model::new();
        let dom = model.domain(Config::new("web"));
        (0..50).for_each(|other| _ = model.domain(Config::new(format!("other{other}"))));
        let client = model.client("top");
        let host: Arc<dyn Host> = client.clone();
        let session = Session { host: Some(host), ..Session::default() };
        let tree = tempfile::tempdir().unwrap();
        let folder = tree.path().join("sys/kernel/debug/xen-eventfd");
        fs::create_dir_all(&folder).unwrap();
        let text = format!("dom:\t{}\ninterface:\tnative\nowner:\t412 b\nserver:\t7\n", dom.0);
        fs::write(folder.join(dom.0.to_string()), text).unwrap();
        let arguments = Arguments {
            interval: Duration::from_millis(1),
            plain: true,
            count: None,
            machine: Machine { root: tree.path().to_owned() },
        };
        let mut meter = Meter::start(&session, &arguments, Signals::new().unwrap()).unwrap();
        for _ in 0..20 {
            let (_, guests) = meter.read().unwrap();
            assert_eq!(guests[0].name.as_deref(), Some("web"));
        }
        assert_eq!(client.calls(), 1);
    }
}
