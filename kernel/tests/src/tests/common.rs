//! The setup of most tests.

use crate::device::GuestFile;
use crate::device::structs::Doorbell;
use anyhow::{Result, bail, ensure};
use rustix::io::Errno;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::time::Instant;
use xen_eventfd::Port;
use xen_eventfd_host::{EventChannels, LocalPort};
use xen_eventfd_scenarios::test_context::{Guest, new_eventfd};
use xen_eventfd_scenarios::{PATIENCE, TestContext};

/// The first device's registers.
pub(super) const BASE: u64 = 0xFE00_0000;
/// Its doorbell.
pub(super) const DOORBELL: u64 = BASE + 0x50;

/// Another device's doorbell, which a guest kicks between two kicks.
pub(super) const BEAT: u64 = DOORBELL + 0x1000;

/// A guest that does nothing.
pub(super) const IDLE: &str = "say never";

/// Checks that a request is refused with this errno.
pub(super) fn refused<T: Debug>(
    result: Result<T, Errno>,
    errno: Errno,
    what: impl std::fmt::Display,
) -> Result<()> {
    match result {
        Err(found) if found == errno => Ok(()),
        other => bail!("{what}: {other:?} instead of {errno:?}"),
    }
}

/// Waits until a condition holds.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !holds()? {
        ensure!(since.elapsed() < PATIENCE, "timeout: waited until {what}");
        std::thread::yield_now();
    }
    Ok(())
}

/// The other end of one of a guest's event channels.
pub(super) struct Notifier {
    events: Box<dyn EventChannels>,
    port: LocalPort,
}

impl Notifier {
    pub(super) fn to(test: &TestContext<'_>, guest: &mut Guest, name: &str) -> Result<Self> {
        let port: Port = guest.port(name)?;
        let events = test.environment().host().event_channels()?;
        let port = events.bind(guest.dom(), port)?;
        Ok(Self { events, port })
    }

    pub(super) fn notify(&self) -> Result<()> {
        Ok(self.events.notify(self.port)?)
    }
}

/// The queues 0 and 1 of the first device, assigned.
pub(super) fn two_queues(file: &GuestFile) -> Result<[OwnedFd; 2]> {
    let queues = [new_eventfd()?, new_eventfd()?];
    for (value, queue) in (0..).zip(&queues) {
        file.assign(&Doorbell::value(DOORBELL, 4, value, queue))?;
    }
    Ok(queues)
}

/// A guest that kicks these two queues, each from a vCPU of its own, until it is stopped.
pub(super) struct Kicking {
    pub(super) guest: Guest,
    notifiers: [Notifier; 2],
}

impl Kicking {
    pub(super) fn start(test: &TestContext<'_>) -> Result<Self> {
        Self::doing(test, ["", ""])
    }

    /// After each kick it kicks [`BEAT`], with the queue's number.
    pub(super) fn with_beats(test: &TestContext<'_>) -> Result<Self> {
        let beat = |value| format!("; write mmio:{BEAT:#x} 4 {value}");
        Self::doing(test, [&beat(0), &beat(1)])
    }

    fn doing(test: &TestContext<'_>, more: [&str; 2]) -> Result<Self> {
        let [first, second] = more;
        let mut guest = test.guest(&format!(
            "listen evtchn stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0{first}; end | \
             listen evtchn halt; meet; until halt; write mmio:{DOORBELL:#x} 4 1{second}; end"
        ))?;
        guest.start()?;
        let notifiers =
            [Notifier::to(test, &mut guest, "stop")?, Notifier::to(test, &mut guest, "halt")?];
        Ok(Self { guest, notifiers })
    }

    /// Waits until both vCPUs are done: neither hangs.
    pub(super) fn stop(mut self) -> Result<()> {
        self.notifiers.iter().try_for_each(Notifier::notify)?;
        self.guest.finish()
    }
}
