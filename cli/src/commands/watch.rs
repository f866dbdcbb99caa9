//! `watch`: takes a guest's doorbell and prints the kicks as they come.

use crate::failure::{Exit, Failure};
use crate::session::{Outcome, Session};
use crate::signals::Signals;
use crate::spec::Watched;
use clap::Args;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use serde::Serialize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xen_eventfd::{Error, Kick, Missed, Space, Xen};

/// Take a guest's doorbell and print its kicks as they come.
///
/// It *takes* them: while it watches, whoever serves the doorbell now (the VMM, a backend behind
/// it) does not see them, and the device stands still. Afterwards they go there again. Those that
/// were taken are not sent again.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The guest, by name or number
    pub dom: String,
    /// [mmio:|pio:]ADDR[:LEN[:DATAMATCH]]; LEN bytes are taken (4 unless told), DATAMATCH chooses
    /// what is shown
    #[arg(value_name = "ADDR[:LEN[:DATAMATCH]]")]
    pub addr: Watched,
    /// Take the kicks from whoever serves them now
    #[arg(long)]
    pub take: bool,
    /// End after so many kicks
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
}

/// Equal kicks that came at about the same time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// When they were seen, in seconds since 1970.
    pub time: f64,
    /// When they were seen, in seconds since the watch began.
    pub after: f64,
    /// `mmio` or `pio`.
    pub space: &'static str,
    /// The address.
    pub addr: u64,
    /// Bytes written.
    pub width: u8,
    /// What was written.
    pub value: u64,
    /// How many.
    pub count: u64,
}

/// How a watch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Seen {
    /// Kicks that were shown.
    pub shown: u64,
    /// Kicks that were taken, but not chosen by the datamatch.
    pub other: u64,
    /// Kicks of which only the number is known: there were too many different ones at once.
    pub unknown: u64,
}

/// What `--json` prints, a line each.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Kick(&'a Line),
    Ended(Seen),
}

/// Watches a guest of this machine.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    check(arguments)?;
    let mut signals = Signals::new()?;
    let xen = session.open()?;
    if !session.json {
        eprintln!(
            "xen-eventfd: taking {} of {} from whoever serves it; end with Ctrl-C",
            arguments.addr.text, arguments.dom
        );
    }
    let print = |line: &Line| session.print(&Event::Kick(line), || line.prose());
    let seen = watch(&xen, arguments, Some(&mut signals), print)?;
    if session.json {
        session.print(&Event::Ended(seen), String::new)?;
    } else {
        eprintln!("xen-eventfd: {}", seen.prose());
    }
    Ok(Exit::Success)
}

fn check(arguments: &Arguments) -> Outcome {
    if arguments.take {
        return Ok(());
    }
    let sentence = format!(
        "watching takes the kicks of {} from whoever serves them now, so its device stands still \
         meanwhile; add --take if that is what you want",
        arguments.addr.text
    );
    Err(Failure::new(Exit::Usage, sentence))
}

/// Watches until enough was seen, time is up, or a signal comes.
///
/// # Errors
/// Without `--take`; the guest's absence, or its death meanwhile ([`Exit::GuestGone`]).
pub fn watch(
    xen: &Xen,
    arguments: &Arguments,
    mut signals: Option<&mut Signals>,
    mut show: impl FnMut(&Line) -> Outcome,
) -> Result<Seen, Failure> {
    check(arguments)?;
    let Watched { address, span, shown, .. } = &arguments.addr;
    let guest = xen.guest(xen.find(&arguments.dom)?.id)?;
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let rung = eventfd(0, flags).map_err(|errno| Failure::system("make an eventfd", errno))?;
    let fallback = guest.register_fallback(&rung, address, *span)?;
    let began = Instant::now();
    let deadline = arguments.duration.map(|duration| began + duration);
    let mut seen = Seen::default();
    loop {
        let gone = guest.gone();
        let mut watched =
            vec![PollFd::new(&rung, PollFlags::IN), PollFd::new(&gone, PollFlags::IN)];
        if let Some(signals) = &signals {
            watched.push(PollFd::new(&**signals, PollFlags::IN));
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(&mut watched, left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for kicks", errno)),
        }
        // Fails only if nothing has come.
        let _ = rustix::io::read(&rung, &mut [0; 8]);
        let Missed { kicks, overflowed } = fallback.take();
        seen.unknown += overflowed;
        for (kick, count) in kicks {
            if shown.takes(&kick) {
                seen.shown += count;
                show(&Line::new(&kick, count, began))?;
            } else {
                seen.other += count;
            }
        }
        let interrupted = signals.as_mut().and_then(|signals| signals.take()).is_some();
        let enough = arguments.count.is_some_and(|count| seen.shown >= count);
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if interrupted || enough || late {
            return Ok(seen);
        }
        if !guest.is_served() {
            return Err(Error::GuestDied(guest.dom()).into());
        }
    }
}

impl Line {
    fn new(kick: &Kick, count: u64, began: Instant) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let space = match kick.access.space {
            Space::Mmio => "mmio",
            Space::Pio => "pio",
        };
        let (addr, width) = (kick.access.addr, kick.access.width.bytes());
        let after = began.elapsed().as_secs_f64();
        Self { time, after, space, addr, width, value: kick.value, count }
    }

    fn prose(&self) -> String {
        let Self { after, space, addr, width, value, count, .. } = self;
        let times = if *count > 1 { format!("  x{count}") } else { String::new() };
        let s = if *width > 1 { "s" } else { "" };
        format!("{after:>12.6} s  {space} {addr:#x}  {width} byte{s}  value {value:#x}{times}")
    }
}

impl Seen {
    fn prose(&self) -> String {
        let mut text = format!("{} kicks", self.shown);
        if self.other > 0 {
            text += &format!(", {} others", self.other);
        }
        if self.unknown > 0 {
            text += &format!(", {} more of unknown value (too many at once)", self.unknown);
        }
        text + "; the doorbell is given back"
    }
}

fn seconds(word: &str) -> Result<Duration, String> {
    let seconds: f64 = word.parse().map_err(|_| format!("{word} is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
