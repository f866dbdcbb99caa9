//! An engine on its caller's event loop.

use crate::Result;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xen_eventfd_ioreq::Turns;

/// The work of an engine that has no threads of its own ([`crate::Builder::without_threads`]).
///
/// Watch its descriptor beside others, and call [`Driver::process`] whenever it is readable. Between
/// two calls nothing is delivered: a guest's vCPU that rings a doorbell waits until then, so do nothing
/// on that loop that takes long. All other calls (to register, to let go of a guest) are as ever, from
/// any thread.
///
/// With an engine in the kernel there is nothing to do: the descriptor never becomes readable.
///
/// Dropping it lets go of all guests.
///
#[doc = example!(r#"
# drop(guest);
# let other = tempfile::tempdir()?;
use rustix::event::{PollFd, PollFlags, poll};
let xen = Xen::builder().without_threads().run_dir(other.path()).open_on(host)?;
let mut driver = xen.driver().expect("it is taken once");
let guest = xen.guest(dom)?;
let kick = eventfd(0, EventfdFlags::NONBLOCK)?;
let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0xfe00_0050), 3_u32)?;

// The guest writes 3; its vCPU goes on when this loop has served it.
# let writes = vcpu.run(|vcpu| vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 3));
while rustix::io::read(&kick, &mut [0; 8]).is_err() {
    poll(&mut [PollFd::new(&driver, PollFlags::IN)], None)?;
    driver.process()?;
}
# writes.join()?;
"#)]
#[derive(Debug)]
#[must_use = "nothing is served unless `process` is called, and dropping it lets go of all guests"]
pub struct Driver(Work);

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Turn {
    /// Events of guests: doorbells and event channels.
    pub events: usize,
    /// Eventfds that were signalled to raise an interrupt.
    pub interrupts: usize,
}

#[derive(Debug)]
enum Work {
    Ours(Box<Turns>),
    /// The module does it. The descriptor is an eventfd that is never signalled.
    Kernels(OwnedFd),
}

impl Driver {
    pub(crate) fn of(turns: Turns) -> Self {
        Self(Work::Ours(Box::new(turns)))
    }

    pub(crate) fn idle() -> Result<Self> {
        Ok(Self(Work::Kernels(crate::eventfd::new()?)))
    }

    /// Serves what is ready, and never waits: at most one request of each vCPU and one event of each
    /// channel, and 64 eventfds. What is left keeps the descriptor readable.
    ///
    /// # Errors
    /// [`crate::Error::EngineStopped`] if the host failed. The guests are let go of then, and each
    /// further call returns the same.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
let xen = Xen::builder().without_threads().run_dir(other.path()).open_on(host)?;
let turn = xen.driver().expect("it is taken once").process()?;
assert_eq!((turn.events, turn.interrupts), (0, 0), "it is called for nothing, and does not wait");
"#)]
    pub fn process(&mut self) -> Result<Turn> {
        match &mut self.0 {
            Work::Ours(turns) => {
                let done = turns.turn()?;
                Ok(Turn { events: done.events, interrupts: done.fds })
            }
            Work::Kernels(_) => Ok(Turn::default()),
        }
    }
}

impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Work::Ours(turns) => turns.fd(),
            Work::Kernels(never) => never.as_fd(),
        }
    }
}
