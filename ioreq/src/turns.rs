//! An event loop without threads: the program has one of its own, and gives it turns.
//!
//! All that can wake it is in one epoll set, whose descriptor the caller watches. A turn takes
//! what is ready and waits for nothing: events by [`EventChannels::pending`], descriptors as the thread
//! for them does, and news of domains that went. xenstore is asked only at the start.
//! Xen is asked about the guests every other second, as xenstore does not tell of one that loses its server, and
//! once a second if the watch breaks.
//!
//! [`EventChannels::pending`]: xen_eventfd_host::EventChannels::pending

use crate::event_loop::{DESCRIPTORS, EventLoop, FIRST_SERIAL, failed};
use crate::{Error, Result};
use rustix::event::epoll;
use rustix::io::{Errno, read};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use xen_eventfd_host::process::ProcessTag;
use xen_eventfd_host::{Call, HostError, LocalPort, Releases};

const PORTS: u64 = 2;
const RELEASES: u64 = 3;
const TICK: u64 = 4;
const _: () = assert!(TICK < FIRST_SERIAL);
/// How often Xen is asked about the guests without a watch, and beside one.
const TICK_SECONDS: i64 = 1;
const TICK_SECONDS_BESIDE_WATCH: i64 = 2;

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Turn {
    /// Events of guests.
    pub events: usize,
    /// Descriptors that were readable.
    pub fds: usize,
}

/// The turns of an event loop. Dropping it lets go of all guests.
#[derive(Debug)]
pub struct Turns {
    event_loop: Arc<EventLoop>,
    /// `None` if this host has no watch, or it broke.
    releases: Option<Box<dyn Releases>>,
    tick: OwnedFd,
    ports: Vec<LocalPort>,
    /// A forked child takes no turns.
    process: ProcessTag,
}

impl Turns {
    /// The turns of an event loop that has no threads.
    ///
    /// # Errors
    /// [`Error::Host`] if Linux or xenstore refuses.
    pub fn new(event_loop: Arc<EventLoop>) -> Result<Self> {
        let tick = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        );
        let tick = tick.map_err(failed("a timer"))?;
        event_loop.watch(event_loop.events().fd(), PORTS)?;
        event_loop.watch(tick.as_fd(), TICK)?;
        let releases = match event_loop.host().releases() {
            Ok(releases) => Some(releases),
            Err(error) if error.errno == Errno::OPNOTSUPP => None,
            Err(error) => return Err(error.into()),
        };
        let turns =
            Self { event_loop, releases, tick, ports: Vec::new(), process: ProcessTag::current() };
        match &turns.releases {
            Some(releases) => {
                turns.event_loop.watch(releases.fd(), RELEASES)?;
                turns.ask_every(TICK_SECONDS_BESIDE_WATCH)?;
            }
            None => turns.ask_every(TICK_SECONDS)?,
        }
        Ok(turns)
    }

    /// Readable while a turn has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event_loop.epoll()
    }

    /// Does what is ready, and waits for nothing.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the host failed: the guests are let go of then; [`Error::Forked`].
    pub fn turn(&mut self) -> Result<Turn> {
        if !self.process.is_current() {
            return Err(Error::Forked);
        }
        let (event_loop, mut turn) = (Arc::clone(&self.event_loop), Turn::default());
        event_loop.alive()?;
        event_loop.run(|event_loop| self.serve(event_loop, &mut turn));
        event_loop.alive()?;
        Ok(turn)
    }

    fn serve(&mut self, event_loop: &EventLoop, turn: &mut Turn) -> xen_eventfd_host::Result<()> {
        let mut ready = Vec::with_capacity(DESCRIPTORS);
        let room = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(event_loop.epoll(), room, Some(&rustix::event::Timespec::default())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(HostError::new(Call::Event, errno)),
        }
        for event in &ready {
            match event.data.u64() {
                PORTS => {
                    event_loop.events().pending(&mut self.ports)?;
                    turn.events += self.ports.len();
                    // Each port once a turn, so no guest's flood delays another.
                    self.ports.drain(..).for_each(|port| event_loop.event(port));
                }
                RELEASES => self.look(event_loop)?,
                TICK => {
                    let _ = read(&self.tick, &mut [0; 8]);
                    event_loop.reap_dead_guests();
                }
                serial if serial >= FIRST_SERIAL => {
                    turn.fds += 1;
                    event_loop.ready(serial);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn look(&mut self, event_loop: &EventLoop) -> xen_eventfd_host::Result<()> {
        let Some(releases) = &mut self.releases else { return Ok(()) };
        match releases.drain() {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(%error, "the watch on xenstore broke; Xen is asked once a second");
                event_loop.ignore(releases.fd());
                self.releases = None;
                self.ask_every(TICK_SECONDS)?;
            }
        }
        event_loop.reap_dead_guests();
        Ok(())
    }

    fn ask_every(&self, seconds: i64) -> xen_eventfd_host::Result<()> {
        let period = rustix::event::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let timer = Itimerspec { it_interval: period, it_value: period };
        timerfd_settime(&self.tick, TimerfdTimerFlags::empty(), &timer)
            .map(drop)
            .map_err(failed("a timer"))
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // Nothing of the parent's is dropped here.
            std::mem::forget((Arc::clone(&self.event_loop), self.releases.take()));
            return;
        }
        // Nothing serves the guests any more, so their vCPUs must not wait for us.
        let ended = HostError::new(Call::Event, Errno::CANCELED);
        if !self.event_loop.is_stopping() && self.event_loop.alive().is_ok() {
            self.event_loop.fail(ended);
        }
    }
}
