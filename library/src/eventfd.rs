//! Eventfds that a caller passed.

use crate::{Error, Result};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use xen_eventfd_host::process::ProcessTag;
use xen_eventfd_host::{Call, HostError, features};
pub(crate) use xen_eventfd_ioreq::new_eventfd as new;

/// Our own reference to an eventfd, so that its owner may close his.
#[derive(Debug)]
pub(crate) struct EventFd {
    fd: OwnedFd,
    /// Names the eventfd itself, however many descriptors it has.
    id: u64,
    /// Whether it was made with `EFD_SEMAPHORE`. Linux reports it since 6.5.
    semaphore: Option<bool>,
}

/// The eventfds that raise interrupts in this process, with whatever engine and in whatever guest.
static RAISING: Mutex<BTreeSet<(ProcessTag, u64)>> = Mutex::new(BTreeSet::new());

/// The right to raise an interrupt for what an eventfd counts. One has it at a time: of two readers of
/// a counter there would be no wakeup.
#[derive(Debug)]
pub(crate) struct IrqClaim((ProcessTag, u64));

impl Drop for IrqClaim {
    fn drop(&mut self) {
        RAISING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

impl EventFd {
    /// Takes a reference to an eventfd.
    pub(crate) fn new(theirs: BorrowedFd<'_>) -> Result<Self> {
        let raw = theirs.as_raw_fd();
        let not = |what: &str| Error::NotAnEventFd { fd: raw, what: what.to_owned() };
        let fd = rustix::io::fcntl_dupfd_cloexec(theirs, 3).map_err(|errno| match errno {
            Errno::BADF => not("not open"),
            // That is what Linux returns where no number from 3 on is allowed.
            Errno::INVAL => Error::Host(HostError::new(Call::EventFd, Errno::MFILE)),
            other => Error::Host(HostError::new(Call::EventFd, other)),
        })?;
        let info = features::fdinfo(fd.as_fd())?;
        let id = features::eventfd_id(&info)?.ok_or_else(|| not("something else"))?;
        Ok(Self { fd, id, semaphore: parse_semaphore(&info) })
    }

    /// Takes the right to raise an interrupt for it, which must not go on when it is no longer
    /// referred to here.
    ///
    /// # Errors
    /// [`Error::Busy`] if it raises one already, of whichever guest.
    pub(crate) fn claim(&self) -> Result<IrqClaim> {
        // What a parent has claimed is not claimed in a forked child, which may open Xen for itself.
        let claim = (ProcessTag::current(), self.id);
        if !RAISING.lock().unwrap_or_else(PoisonError::into_inner).insert(claim) {
            return Err(Error::Busy { what: "an interrupt for this eventfd".to_owned() });
        }
        Ok(IrqClaim(claim))
    }

    /// Whether a read may leave something in the counter: it takes 1 of a semaphore.
    pub(crate) fn may_be_semaphore(&self) -> bool {
        self.semaphore.unwrap_or(true)
    }

    /// Whether two references are to the same eventfd.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id
    }

    /// Takes what was signalled, without ever waiting. `false`: nothing was, or another reader
    /// was faster.
    pub(crate) fn consume(&self) -> xen_eventfd_host::Result<bool> {
        features::take(self.fd.as_fd())
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn parse_semaphore(fdinfo: &str) -> Option<bool> {
    let found = fdinfo.lines().find_map(|line| line.strip_prefix("eventfd-semaphore:"));
    found.map(|flag| flag.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

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
    fn a_kernel_that_does_not_tell_of_semaphores_may_have_one() {
        for (info, may_be) in [
            ("eventfd-id: 4\n", true),
            ("eventfd-semaphore: 1\n", true),
            ("eventfd-semaphore: 0\n", false),
        ] {
            assert_eq!(parse_semaphore(info).unwrap_or(true), may_be, "{info}");
        }
    }

    #[test]
    fn one_at_a_time_raises_an_interrupt_for_an_eventfd() {
        let one = eventfd(0, EventfdFlags::empty()).unwrap();
        let twin = rustix::io::fcntl_dupfd_cloexec(&one, 3).unwrap();
        let [one, twin] = [one, twin].map(|fd| EventFd::new(fd.as_fd()).unwrap());
        let claim = one.claim().unwrap();
        assert_eq!(twin.claim().unwrap_err().errno(), Errno::BUSY);
        drop(claim);
        assert!(twin.claim().is_ok());
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
