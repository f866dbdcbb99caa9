//! `watch`: takes a guest's doorbell and prints the kicks as they come.

use crate::failure::{Exit, Failure};
use crate::output::{PATIENCE, Pushed, STDOUT, note};
use crate::quantity::{COUNT, TIME, count, time};
use crate::served;
use crate::session::{Outcome, Session, unwritten};
use crate::signals::Signals;
use crate::spec::Watched;
use clap::Args;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xen_eventfd::{DomId, Doorbell, Error, Fallback, Guest, Kick, Space, UnmatchedKicks, Xen};

/// Take a guest's doorbell and print its kicks as they come.
///
/// It *takes* them: while it watches, the VMM or backend that serves the doorbell now does not see
/// them, and the device stands still. Afterwards they go there again. Those that
/// were taken are not sent again.
///
/// It ends in order, and with 0, by any signal that ends a process (HUP, INT, QUIT, TERM, USR1, USR2
/// and others), unless that was ignored at the start, as by nohup. A terminal's stop (TSTP, TTIN,
/// TTOU) has no effect, as the guest's vCPUs would wait for it. It also ends when nothing reads its
/// output any more.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The guest, by name or number
    pub dom: String,
    /// `[mmio:|pio:]ADDR[:LEN[:DATAMATCH]]`; LEN bytes are taken (4 by default), DATAMATCH chooses
    /// what is shown
    #[arg(value_name = "ADDR[:LEN[:DATAMATCH]]")]
    pub addr: Watched,
    /// Take the kicks from the VMM or backend that serves them now
    #[arg(long)]
    pub take: bool,
    /// End after so many kicks
    #[arg(long, value_name = COUNT, value_parser = count)]
    pub count: Option<u64>,
    /// End after this time: 500ms, 2s, 1m; seconds without a unit
    #[arg(long = "for", value_name = TIME, value_parser = time)]
    pub duration: Option<Duration>,
}

/// Equal kicks that came at about the same time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// When they were seen, in seconds since 1970.
    pub time: f64,
    /// When they were seen, in seconds since the watch began.
    pub after: f64,
    /// The guest's number.
    pub domid: u16,
    /// `mmio` or `pio`.
    pub space: &'static str,
    /// The address.
    pub addr: u64,
    /// Bytes written.
    #[serde(rename = "len")]
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
    /// A signal ended it.
    #[serde(skip)]
    pub interrupted: bool,
}

/// The same, for a machine.
#[derive(Debug, Serialize)]
struct Ended {
    domid: u16,
    #[serde(flatten)]
    seen: Seen,
}

/// From one look for room to the next.
const TICK: Duration = Duration::from_millis(50);

/// Watches a guest of this machine.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    check(arguments)?;
    let mut signals = Signals::that_end()?;
    let xen = session.open()?;
    let watch = Watch::start(&xen, arguments)?;
    let (domid, guest) = (watch.guest.dom().0, served::Guest::of_engine(&xen, &watch.guest));
    if !session.json {
        note(&format!(
            "{} of {} is taken from the VMM that served it; end with Ctrl-C",
            arguments.addr.text, arguments.dom
        ));
    }
    let watch = watch.for_reader(rustix::stdio::stdout());
    // Readable when a signal came that ends the watch.
    let interrupt = signals.as_fd().try_clone_to_owned();
    let interrupt = interrupt.map_err(|error| Failure::system("wait for signals", error))?;
    if session.json {
        print(&session.line("watch.started", &guest, String::new)?, &interrupt)?;
    }
    let mut seen = watch.follow(Some(&mut signals), |line| {
        print(&session.line("watch.kick", line, || line.prose())?, &interrupt)
    })?;
    if session.json {
        let ended = Ended { domid, seen };
        print(&session.line("watch.ended", &ended, String::new)?, &interrupt)?;
    } else {
        note(&seen.prose());
    }
    // What was shown is read, however long that takes, but for a signal.
    let end = Instant::now() + PATIENCE;
    while !STDOUT.drained(TICK) {
        seen.interrupted |= signals.take_end().is_some();
        if seen.interrupted && Instant::now() >= end {
            break;
        }
    }
    STDOUT.failed().map_or(Ok(Exit::Success), |errno| Err(unwritten(errno)))
}

/// Has a line written; waits for room, but no longer than until a signal comes.
fn print(line: &[u8], interrupt: &impl AsFd) -> Outcome {
    loop {
        match STDOUT.push(line.to_vec()) {
            Pushed::Taken => return Ok(()),
            Pushed::Failed(errno) => return Err(unwritten(errno)),
            Pushed::Full => {}
        }
        let mut signals = [PollFd::new(interrupt, PollFlags::IN)];
        let tick = Timespec::try_from(TICK).ok();
        if poll(&mut signals, tick.as_ref()).is_ok_and(|ready| ready > 0) {
            // The line is lost: who ends the watch does not wait for it.
            return Ok(());
        }
    }
}

fn check(arguments: &Arguments) -> Outcome {
    if arguments.take {
        return Ok(());
    }
    let sentence = format!(
        "watching takes the kicks of {} from the VMM that serves them now, so its device stands still \
         meanwhile; add --take if that is what you want",
        arguments.addr.text
    );
    Err(Failure::new(Exit::Usage, sentence))
}

/// A doorbell that is taken; given back when this is dropped.
#[derive(Debug)]
pub struct Watch {
    guest: Guest,
    rung: OwnedFd,
    fallback: Fallback,
    /// What is shown.
    shown: Doorbell,
    /// After how many.
    count: Option<u64>,
    began: Instant,
    deadline: Option<Instant>,
    /// For whom: without a reader, it ends.
    reader: Option<BorrowedFd<'static>>,
}

impl Watch {
    /// Takes the doorbell. Every kick from now on is seen.
    ///
    /// # Errors
    /// Without `--take`; the guest's absence; another engine's hold on it.
    pub fn start(xen: &Xen, arguments: &Arguments) -> Result<Self, Failure> {
        check(arguments)?;
        let Watched { address, span, shown, .. } = &arguments.addr;
        let guest = xen.guest(xen.find(&arguments.dom)?.id)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let rung = eventfd(0, flags).map_err(|errno| Failure::system("make an eventfd", errno))?;
        let fallback = guest.register_fallback(&rung, address, *span)?;
        let (count, began) = (arguments.count, Instant::now());
        let deadline = arguments.duration.and_then(|duration| began.checked_add(duration));
        Ok(Self { guest, rung, fallback, shown: *shown, count, began, deadline, reader: None })
    }

    /// Has it end when a pipe, a socket or a terminal has no reader any more.
    #[must_use]
    pub fn for_reader(self, reader: BorrowedFd<'static>) -> Self {
        Self { reader: Some(reader), ..self }
    }

    /// Shows kicks until there were enough, time is up, or a signal comes.
    ///
    /// # Errors
    /// The guest's death meanwhile ([`Exit::GuestGone`]); the end of the reader; what `show` fails
    /// with.
    pub fn follow(
        self,
        mut signals: Option<&mut Signals>,
        mut show: impl FnMut(&Line) -> Outcome,
    ) -> Result<Seen, Failure> {
        let mut seen = Seen::default();
        loop {
            self.wait(signals.as_deref())?;
            let UnmatchedKicks { kicks, overflowed, .. } = self.fallback.take();
            seen.unknown += overflowed;
            for (kick, count) in kicks {
                if self.shown.takes(&kick) {
                    seen.shown += count;
                    show(&Line::new(self.guest.dom(), &kick, count, self.began))?;
                } else {
                    seen.other += count;
                }
            }
            seen.interrupted = signals.as_mut().and_then(|signals| signals.take()).is_some();
            let enough = self.count.is_some_and(|count| seen.shown >= count);
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if seen.interrupted || enough || late {
                return Ok(seen);
            }
            if !self.guest.is_served() {
                return Err(Error::GuestDied(self.guest.dom()).into());
            }
        }
    }

    /// Waits for anything to happen.
    fn wait(&self, signals: Option<&Signals>) -> Outcome {
        let gone = self.guest.gone();
        let mut watched =
            vec![PollFd::new(&self.rung, PollFlags::IN), PollFd::new(&gone, PollFlags::IN)];
        // Nothing but its end is awaited of it.
        watched.extend(self.reader.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty())));
        watched.extend(signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
        let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
        match poll(&mut watched, left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for kicks", errno)),
        }
        if self.reader.and(watched.get(2)).is_some_and(|reader| !reader.revents().is_empty()) {
            return Err(Failure::reader_gone());
        }
        // Before the kicks are looked at, so that none stays without a signal. Fails only if
        // nothing has come.
        let _ = rustix::io::read(&self.rung, &mut [0; 8]);
        Ok(())
    }
}

impl Line {
    fn new(dom: DomId, kick: &Kick, count: u64, began: Instant) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let space = match kick.access.space {
            Space::Mmio => "mmio",
            Space::Pio => "pio",
        };
        let (addr, width) = (kick.access.addr, kick.access.width.bytes());
        let after = began.elapsed().as_secs_f64();
        Self { time, after, domid: dom.0, space, addr, width, value: kick.value, count }
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
