//! The watch on domains that go.
//!
//! If xenstore itself goes, doorbells are served all the same, and the watch is set again as soon
//! as there is somebody to set it with. Who died in between is found then.

use super::{RELEASES, Shared};
use rustix::event::Timespec;
use std::time::{Duration, Instant};
use xen_eventfd_host::{HostError, Releases};

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Watch {
    /// `None` while it is broken.
    releases: Option<Box<dyn Releases>>,
    /// When to try again.
    next: Instant,
}

impl Watch {
    pub(super) fn new(releases: Box<dyn Releases>) -> Self {
        Self { releases: Some(releases), next: Instant::now() }
    }

    /// How long the thread may sleep.
    pub(super) fn patience(&self) -> Option<Timespec> {
        if self.releases.is_some() {
            return None;
        }
        let left = self.next.saturating_duration_since(Instant::now());
        Some(Timespec::try_from(left).unwrap_or_default())
    }

    /// Looks after the guests when there is news.
    pub(super) fn look(&mut self, shared: &Shared) {
        let Some(releases) = &mut self.releases else { return };
        match releases.drain() {
            Ok(false) => {}
            Ok(true) => shared.bury_the_dead(),
            Err(error) => {
                tracing::warn!(%error, "the watch on xenstore broke; setting up another");
                shared.ignore(releases.fd());
                self.releases = None;
                self.next = Instant::now();
            }
        }
    }

    /// Sets up another, if it broke and it is time.
    pub(super) fn mend(&mut self, shared: &Shared) {
        if self.releases.is_some() || Instant::now() < self.next {
            return;
        }
        match set(shared) {
            Ok(releases) => self.releases = Some(releases),
            Err(error) => {
                tracing::debug!(%error, "there is no watch on xenstore");
                self.next = Instant::now() + PAUSE;
            }
        }
        // Whatever happened in between; and while there is no watch, this is how one learns of it.
        shared.bury_the_dead();
    }
}

fn set(shared: &Shared) -> xen_eventfd_host::Result<Box<dyn Releases>> {
    let releases = shared.host.releases()?;
    shared.listen(releases.fd(), RELEASES).map_err(|error| match error {
        crate::Error::Host(error) => error,
        other => HostError::new(xen_eventfd_host::Call::EventFd, other.errno()),
    })?;
    Ok(releases)
}
