//! Which guest `run` serves, and how it waits for it.
//!
//! A guest that is built or reboots is found by its name. Its number is another one each time; if
//! the user gave a number, the guest is found again by the UUID that it had.

use crate::failure::{Exit, Failure};
use crate::handover::{Handover, Refused};
use crate::signals::{Caught, Signals};
use crate::spec::{CallSpec, KickSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use xen_eventfd::{DomId, Domain, DomainSelector, Error, Guest, Xen};
use xen_eventfd_host::Call;

/// From one look for the guest to the next.
const INTERVAL: Duration = Duration::from_millis(200);
/// The same for a guest that is there and not complete yet: each attempt to take it has all of its ioreq
/// servers for a moment, in which its device model would find none.
const INTERVAL_OF_ATTEMPTS: Duration = Duration::from_secs(1);
/// How long a guest may be there and not be complete: its vCPUs come after its name.
const UNDER_CONSTRUCTION: Duration = Duration::from_secs(60);

/// A guest that is, or will be, there.
#[derive(Debug)]
pub struct Awaited<'a> {
    word: &'a str,
    /// Whether to wait for it, and how long.
    wait: Option<Option<Duration>>,
    /// Whether to wait for it once it was there.
    follow: bool,
    /// As it was when it was found last.
    known: Option<Domain>,
    /// Since when a guest is there that cannot be taken.
    incomplete: Option<(DomId, Instant)>,
}

/// What came first.
#[derive(Debug)]
pub enum Came {
    /// The guest, with all that was asked for.
    Guest(Guest, Handover),
    /// A signal that ends a process.
    Signal(Caught),
}

impl<'a> Awaited<'a> {
    /// The guest that a user names.
    pub fn new(word: &'a str, wait: Option<Option<Duration>>, follow: bool) -> Self {
        Self { word, wait, follow, known: None, incomplete: None }
    }

    /// Takes the guest and registers for it, as soon as it is there. `waits` is called if it is not.
    ///
    /// # Errors
    /// [`Exit::NoGuest`] if it is not there, [`Exit::GuestGone`] if it does not come again, and
    /// whatever else keeps it from being served.
    pub fn take(
        &mut self,
        xen: &Xen,
        kicks: &[KickSpec],
        calls: &[CallSpec],
        mut signals: Option<&mut Signals>,
        mut waits: impl FnMut(),
    ) -> Result<Came, Failure> {
        let deadline = self.wait.flatten().and_then(|wait| Instant::now().checked_add(wait));
        let mut reported = false;
        loop {
            let why = match self.attach(xen) {
                Ok(guest) => match self.register(&guest, kicks, calls, deadline, &mut signals)? {
                    Some(came) => return Ok(came),
                    None => Error::GuestDied(guest.dom()),
                },
                Err(why) => why,
            };
            let left = left(deadline);
            if !self.is_worth_waiting(&why) || left == Some(Duration::ZERO) {
                return Err(self.failure(why));
            }
            if !reported {
                waits();
                reported = true;
            }
            let interval = if is_gone(&why) { INTERVAL } else { INTERVAL_OF_ATTEMPTS };
            let interval = left.map_or(interval, |left| left.min(interval));
            if let Some(caught) = pause(signals.as_deref_mut(), None, interval)? {
                return Ok(Came::Signal(caught));
            }
        }
    }

    fn attach(&mut self, xen: &Xen) -> Result<Guest, Error> {
        let domain = self.find(xen)?;
        let guest = xen.guest(domain.id);
        if self.incomplete.is_none_or(|(dom, _)| dom != domain.id) {
            self.incomplete = Some((domain.id, Instant::now()));
        }
        let guest = guest?;
        self.incomplete = None;
        self.known = Some(domain);
        Ok(guest)
    }

    fn find(&self, xen: &Xen) -> Result<Domain, Error> {
        let uuid = match (&self.known, self.word.parse()?) {
            (Some(known), DomainSelector::Number(_)) => &known.uuid,
            _ => return xen.find(self.word),
        };
        let same = |domain: &Domain| domain.uuid.is_some() && domain.uuid == *uuid;
        let domains = xen.host().domains()?;
        domains.into_iter().find(same).ok_or_else(|| Error::UnknownDomain(self.word.to_owned()))
    }

    /// Registers everything. `None`: the guest went meanwhile.
    fn register(
        &self,
        guest: &Guest,
        kicks: &[KickSpec],
        calls: &[CallSpec],
        deadline: Option<Instant>,
        signals: &mut Option<&mut Signals>,
    ) -> Result<Option<Came>, Failure> {
        let mut handover = Handover::new(kicks, calls)?;
        loop {
            let Refused { error, channel } = match handover.register(guest) {
                Ok(()) => return Ok(Some(Came::Guest(guest.clone(), handover))),
                Err(refused) => refused,
            };
            // A port that is not there is refused in the same way as a guest that is not.
            let died = match &error {
                Error::GuestDied(_) => true,
                error => !channel && is_gone(error),
            };
            if died || !guest.is_served() {
                return Ok(None);
            }
            // The guest allocates its event channels when its driver starts.
            let comes = channel && matches!(error, Error::Host(_));
            let left = left(deadline);
            if !(comes && self.waits()) || left == Some(Duration::ZERO) {
                return Err(error.into());
            }
            let interval = left.map_or(INTERVAL, |left| left.min(INTERVAL));
            if let Some(caught) = pause(signals.as_deref_mut(), Some(guest.gone()), interval)? {
                return Ok(Some(Came::Signal(caught)));
            }
        }
    }

    fn waits(&self) -> bool {
        self.wait.is_some() || self.follow
    }

    /// Whether another look may find the guest, or find it complete.
    fn is_worth_waiting(&self, why: &Error) -> bool {
        let waits = match &self.known {
            None => self.wait.is_some(),
            // It has been served, or was found and went at once.
            Some(_) => self.follow || self.wait.is_some(),
        };
        let incomplete = || match (why, self.incomplete) {
            (Error::Host(error), Some((_, since))) => {
                matches!(error.call, Call::Bind(..) | Call::Take(_) | Call::MapPage(..))
                    && matches!(error.errno, Errno::INVAL | Errno::AGAIN)
                    && since.elapsed() < UNDER_CONSTRUCTION
            }
            _ => false,
        };
        // The old guest may still be listed beside the new one.
        let two = self.known.is_some() && matches!(why, Error::AmbiguousName { .. });
        waits && (is_gone(why) || two || incomplete())
    }

    fn failure(&self, why: Error) -> Failure {
        if !is_gone(&why) {
            return why.into();
        }
        let exit = if self.known.is_some() { Exit::GuestGone } else { Exit::NoGuest };
        Failure::new(exit, why.to_string())
    }
}

/// There is no such guest, or no more.
fn is_gone(error: &Error) -> bool {
    match error {
        Error::UnknownDomain(_) | Error::GuestDied(_) => true,
        Error::Host(error) => error.is_gone(),
        _ => false,
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    Some(deadline?.saturating_duration_since(Instant::now()))
}

/// Waits for a signal that ends a process, for `woken`, or for so long.
fn pause(
    signals: Option<&mut Signals>,
    woken: Option<BorrowedFd<'_>>,
    so_long: Duration,
) -> Result<Option<Caught>, Failure> {
    let mut watched = Vec::new();
    watched.extend(signals.as_deref().map(|signals| PollFd::new(signals, PollFlags::IN)));
    watched.extend(woken.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let left = Timespec::try_from(so_long).ok();
    match poll(&mut watched, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Failure::system("wait for the guest", errno)),
    }
    Ok(signals.and_then(Signals::take_end))
}
