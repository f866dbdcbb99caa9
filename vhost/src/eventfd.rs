//! Eventfds of this process, and how one is signalled that a backend has too.

use crate::{Error, Result};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{BorrowedFd, OwnedFd};
use xen_eventfd_host::{Signaller as _, aio};

/// A new eventfd, read without waiting.
pub(crate) fn new_eventfd() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| Error::System { what: "make an eventfd", errno })
}

/// Signals eventfds whatever a backend has done with them: it never waits. Made when it is first needed, as the
/// kernel takes its time to remove it.
#[derive(Debug, Default)]
pub(crate) struct Signaller(Option<aio::Context>);

impl Signaller {
    /// Adds 1 to the counter.
    pub(crate) fn signal(&mut self, eventfd: BorrowedFd<'_>) -> Result<()> {
        let failed = |errno| Error::System { what: "signal an eventfd", errno };
        let context = match &mut self.0 {
            Some(context) => context,
            none => none.insert(aio::Context::new().map_err(|error| failed(error.errno))?),
        };
        context.signal(eventfd).map_err(|error| failed(error.errno))
    }
}
