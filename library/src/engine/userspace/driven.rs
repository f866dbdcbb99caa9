//! The engine without threads: its caller has an event loop, and gives it turns.
//!
//! All that can wake the engine is in one epoll set, whose descriptor the caller watches. A turn takes
//! what is ready and waits for nothing: events by [`EventChannels::pending`], eventfds as the thread
//! for interrupts does, and news of domains that went. xenstore is asked only when the engine starts.
//! Xen is asked about the guests every other second, as xenstore does not tell of one that loses its server, and
//! once a second if the watch breaks.
//!
//! [`EventChannels::pending`]: xen_eventfd_host::EventChannels::pending

use super::{FIRST_SERIAL, Shared, lock, own};
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

const KICKS: u64 = 2;
const RELEASES: u64 = 3;
const TICK: u64 = 4;
const _: () = assert!(TICK < FIRST_SERIAL);
/// How many descriptors one turn looks at. Those that stay ready are the first of the next turn.
const DESCRIPTORS: usize = 64;
/// How often Xen is asked about the guests without a watch, and beside one.
const TICK_SECONDS: i64 = 1;
const TICK_SECONDS_BESIDE_WATCH: i64 = 2;

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Turn {
    /// Events of guests: doorbells and event channels.
    pub events: usize,
    /// Eventfds that were signalled to raise an interrupt.
    pub interrupts: usize,
}

/// The engine's work, in the hands of its caller.
#[derive(Debug)]
pub(crate) struct Driven {
    shared: Arc<Shared>,
    /// `None` if this host has no watch, or it broke.
    releases: Option<Box<dyn Releases>>,
    tick: OwnedFd,
    ports: Vec<LocalPort>,
    /// A forked child gives the engine no turns.
    process: ProcessTag,
}

impl Driven {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self> {
        let tick = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        );
        let tick = tick.map_err(own("a timer"))?;
        shared.listen(shared.events.fd(), KICKS)?;
        shared.listen(tick.as_fd(), TICK)?;
        let releases = match shared.host.releases() {
            Ok(releases) => Some(releases),
            Err(error) if error.errno == Errno::OPNOTSUPP => None,
            Err(error) => return Err(error.into()),
        };
        let driven =
            Self { shared, releases, tick, ports: Vec::new(), process: ProcessTag::current() };
        match &driven.releases {
            Some(releases) => {
                driven.shared.listen(releases.fd(), RELEASES)?;
                driven.ask_every(TICK_SECONDS_BESIDE_WATCH)?;
            }
            None => driven.ask_every(TICK_SECONDS)?,
        }
        Ok(driven)
    }

    /// Readable while a turn has something to do.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.shared.epoll.as_fd()
    }

    /// Does what is ready, and waits for nothing.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        if !self.process.is_current() {
            return Err(Error::Forked);
        }
        let (shared, mut turn) = (Arc::clone(&self.shared), Turn::default());
        shared.alive()?;
        shared.run(|shared| self.serve(shared, &mut turn));
        shared.alive()?;
        Ok(turn)
    }

    fn serve(&mut self, shared: &Shared, turn: &mut Turn) -> xen_eventfd_host::Result<()> {
        let mut ready = Vec::with_capacity(DESCRIPTORS);
        let room = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&shared.epoll, room, Some(&rustix::event::Timespec::default())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(HostError::new(Call::Event, errno)),
        }
        for event in &ready {
            match event.data.u64() {
                KICKS => {
                    shared.events.pending(&mut self.ports)?;
                    turn.events += self.ports.len();
                    // Each port once a turn, so no guest's flood delays another.
                    self.ports.drain(..).for_each(|port| shared.event(port));
                }
                RELEASES => self.look(shared)?,
                TICK => {
                    let _ = read(&self.tick, &mut [0; 8]);
                    shared.reap_dead_guests();
                }
                serial if serial >= FIRST_SERIAL => {
                    turn.interrupts += 1;
                    shared.irq(serial);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn look(&mut self, shared: &Shared) -> xen_eventfd_host::Result<()> {
        let Some(releases) = &mut self.releases else { return Ok(()) };
        match releases.drain() {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(%error, "the watch on xenstore broke; Xen is asked once a second");
                shared.ignore(releases.fd());
                self.releases = None;
                self.ask_every(TICK_SECONDS)?;
            }
        }
        shared.reap_dead_guests();
        Ok(())
    }

    fn ask_every(&self, seconds: i64) -> xen_eventfd_host::Result<()> {
        let period = rustix::event::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let timer = Itimerspec { it_interval: period, it_value: period };
        timerfd_settime(&self.tick, TimerfdTimerFlags::empty(), &timer)
            .map(drop)
            .map_err(own("a timer"))
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // Nothing of the parent's is dropped here.
            std::mem::forget((Arc::clone(&self.shared), self.releases.take()));
            return;
        }
        // Nothing serves the guests any more, so their vCPUs must not wait for us.
        let ended = HostError::new(Call::Event, Errno::CANCELED);
        if !self.shared.is_stopping() && self.shared.alive().is_ok() {
            *lock(&self.shared.failure) = Some(ended);
            self.shared.each_guest(|guest| guest.give_up(&self.shared));
        }
    }
}
