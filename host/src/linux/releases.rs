//! A watch on the end of domains: xenstore's `@releaseDomain`, on a connection of its own.

use super::xenstore::{Connection, Watch};
use crate::{Releases, Result};
use std::os::fd::BorrowedFd;

const RELEASE: &str = "@releaseDomain";

/// The watch.
///
/// The end of a domain while the watch is being set may go unreported: check after opening it.
#[derive(Debug)]
pub(super) struct ReleaseWatch(Watch);

impl ReleaseWatch {
    pub(super) fn open() -> Result<Self> {
        Self::over(Connection::open_for_watch()?)
    }

    fn over(connection: Connection) -> Result<Self> {
        Watch::set(connection, RELEASE).map(Self)
    }
}

impl Releases for ReleaseWatch {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.connection().fd()
    }

    fn drain(&mut self) -> Result<bool> {
        self.0.drain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::xenstore::fake::Daemon;
    use crate::{Call, Errno, HostError};

    #[test]
    fn the_initial_event_is_not_reported_and_each_later_one_once() {
        let daemon = Daemon::new(&[]);
        let mut releases = ReleaseWatch::over(daemon.connect()).unwrap();
        assert_eq!(releases.drain(), Ok(false));
        daemon.fire(RELEASE, RELEASE);
        daemon.fire(RELEASE, RELEASE);
        assert_eq!(releases.drain(), Ok(true));
        assert_eq!(releases.drain(), Ok(false));
    }

    #[test]
    fn events_of_other_watches_are_not_reported() {
        let daemon = Daemon::new(&[]);
        let mut releases = ReleaseWatch::over(daemon.connect()).unwrap();
        daemon.fire("/local/domain/1", "other");
        assert_eq!(releases.drain(), Ok(false));
    }

    #[test]
    fn a_hang_up_is_an_error() {
        let daemon = Daemon::new(&[]);
        let mut releases = ReleaseWatch::over(daemon.connect()).unwrap();
        daemon.hang_up();
        let lost = HostError::new(Call::Xenstore(RELEASE.into()), Errno::CONNRESET);
        assert_eq!(releases.drain(), Err(lost));
    }
}
