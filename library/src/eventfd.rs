//! Eventfds that somebody handed us.

use crate::{Error, Result};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use xen_eventfd_host::{Call, HostError};

/// A new eventfd of our own.
pub(crate) fn new() -> xen_eventfd_host::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| HostError::new(Call::Open("an eventfd"), errno))
}

/// Our own reference to an eventfd, so that its owner may close his.
#[derive(Debug)]
pub(crate) struct EventFd {
    fd: OwnedFd,
    /// Names the eventfd itself, however many descriptors it has.
    id: u64,
}

impl EventFd {
    /// Takes a reference to an eventfd.
    pub(crate) fn new(theirs: BorrowedFd<'_>) -> Result<Self> {
        let raw = theirs.as_raw_fd();
        let not = |what: &str| Error::NotAnEventFd { fd: raw, what: what.to_owned() };
        let fd = rustix::io::fcntl_dupfd_cloexec(theirs, 3).map_err(|errno| match errno {
            Errno::BADF => not("not open"),
            other => Error::Host(HostError::new(Call::EventFd, other)),
        })?;
        let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = std::fs::read_to_string(path).map_err(|_| not("not to be found in /proc"))?;
        let id = parse_id(&info).ok_or_else(|| not("something else"))?;
        Ok(Self { fd, id })
    }

    /// Whether two references are to the same eventfd.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes what was signalled, without ever waiting. `false`: nothing was, or another reader
    /// was faster.
    pub(crate) fn consume(&self) -> xen_eventfd_host::Result<bool> {
        let mut count = [0; 8];
        let mut buffers = [IoSliceMut::new(&mut count)];
        // Whether a read may wait is said for this one read: O_NONBLOCK is the owner's to change.
        match rustix::io::preadv2(&self.fd, &mut buffers, u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(HostError::new(Call::EventFd, errno)),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn parse_id(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("eventfd-id:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptors_of_one_eventfd_are_the_same() {
        let one = eventfd(0, EventfdFlags::empty()).unwrap();
        let twin = rustix::io::fcntl_dupfd_cloexec(&one, 3).unwrap();
        let other = eventfd(0, EventfdFlags::empty()).unwrap();
        let reference = |fd: &OwnedFd| EventFd::new(fd.as_fd()).unwrap();
        assert!(reference(&one).is(&reference(&twin)));
        assert!(!reference(&one).is(&reference(&other)));
    }

    #[test]
    fn consuming_a_blocking_eventfd_does_not_wait() {
        let fd = eventfd(3, EventfdFlags::empty()).unwrap();
        let reference = EventFd::new(fd.as_fd()).unwrap();
        assert_eq!(reference.consume(), Ok(true));
        assert_eq!(reference.consume(), Ok(false));
    }

    #[test]
    fn other_descriptors_are_refused_by_name() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let error = EventFd::new(reader.as_fd()).unwrap_err();
        assert_eq!(error.errno(), Errno::INVAL);
    }
}
