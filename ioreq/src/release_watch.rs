//! The watch on the end of guests.
//!
//! Its thread waits for xenstore's watch on domains that go, asks Xen about the guests when there is news,
//! and drops what is held of those that are dead. It is the only thread that talks to
//! xenstore, and nothing waits for it: while xenstored is silent, deaths are noticed late, and
//! everything else goes on.
//!
//! If xenstored goes, the watch is set again as soon as there is a daemon to set it with. As long as
//! there is no watch, Xen itself is asked about the guests, which costs a hypercall for each. That is
//! done beside a watch too, less often: another process may destroy the server of a guest that lives, and
//! so does Xen up to 4.13 at a soft reset, of which xenstore reports nothing.

use crate::event_loop::EventLoop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::time::Duration;
use xen_eventfd_host::{Call, HostError, Releases};

/// How long after a failure the watch is set again, and how often Xen is asked without one.
const PAUSE: Duration = Duration::from_secs(1);
/// How often Xen is asked beside a watch.
const PAUSE_BESIDE_WATCH: Duration = Duration::from_secs(2);

/// What is known of domains that go.
#[derive(Debug)]
pub(crate) enum Watch {
    Set(Box<dyn Releases>),
    /// To be set again.
    Broken,
    /// This host has none.
    Absent,
}

impl Watch {
    /// Sets a watch. One that this host does not have is no failure.
    pub(crate) fn new(event_loop: &EventLoop) -> xen_eventfd_host::Result<Self> {
        match event_loop.host().releases() {
            Ok(releases) => Ok(Self::Set(releases)),
            Err(error) if error.errno == Errno::OPNOTSUPP => Ok(Self::Absent),
            Err(error) => Err(error),
        }
    }

    /// Looks after the guests until the engine stops.
    pub(crate) fn serve(mut self, event_loop: &EventLoop) -> xen_eventfd_host::Result<()> {
        while !event_loop.is_stopping() {
            match self.wait(event_loop)? {
                Event::Stop => return Ok(()),
                Event::News => {
                    if !self.drain() {
                        continue;
                    }
                }
                Event::Pause => {}
            }
            // If the watch is broken, before anything that may take long.
            event_loop.reap_dead_guests();
            if matches!(self, Self::Broken) && !event_loop.is_stopping() {
                self.mend(event_loop);
                // Domains that went before the watch was set were not reported.
                event_loop.reap_dead_guests();
            }
        }
        Ok(())
    }

    fn wait(&self, event_loop: &EventLoop) -> xen_eventfd_host::Result<Event> {
        let stop_fd = event_loop.stop();
        let stop = PollFd::new(&stop_fd, PollFlags::IN);
        let polled = match self {
            Self::Set(releases) => {
                let releases = releases.fd();
                let pause = Timespec::try_from(PAUSE_BESIDE_WATCH).unwrap_or_default();
                poll(&mut [stop, PollFd::new(&releases, PollFlags::IN)], Some(&pause))
            }
            Self::Broken | Self::Absent => {
                let pause = Timespec::try_from(PAUSE).unwrap_or_default();
                poll(&mut [stop], Some(&pause))
            }
        };
        match (polled, self) {
            (Ok(0), _) => Ok(Event::Pause),
            (Ok(_), _) if event_loop.is_stopping() => Ok(Event::Stop),
            (Ok(_) | Err(Errno::INTR), Self::Set(_)) => Ok(Event::News),
            (Ok(_) | Err(Errno::INTR), _) => Ok(Event::Pause),
            (Err(errno), _) => Err(HostError::new(Call::Event, errno)),
        }
    }

    /// Whether there is news.
    fn drain(&mut self) -> bool {
        let Self::Set(releases) = self else { return false };
        releases.drain().unwrap_or_else(|error| {
            tracing::warn!(%error, "the watch on xenstore broke; setting up another");
            *self = Self::Broken;
            // Whatever happened in between.
            true
        })
    }

    /// Sets another watch.
    fn mend(&mut self, event_loop: &EventLoop) {
        match Self::new(event_loop) {
            Ok(watch) => *self = watch,
            Err(error) => tracing::debug!(%error, "there is no watch on xenstore"),
        }
    }
}

/// Why the thread woke.
enum Event {
    Stop,
    /// The watch has something to say.
    News,
    /// It is time to ask Xen.
    Pause,
}
