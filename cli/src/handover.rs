//! Eventfds that are registered for a guest, ready to be passed to a backend.

use crate::failure::Failure;
use crate::spec::{Call, Kick, Place};
use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;
use std::os::fd::OwnedFd;
use xen_eventfd::{ChannelFd, Guest, IoEvent, IrqFd};

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// Eventfds, registered for as long as this lives: kicks first, then calls.
#[derive(Debug, Default)]
pub struct Handover {
    passed: Vec<Passed>,
    // Held for their drop.
    doorbells: Vec<IoEvent>,
    channels: Vec<ChannelFd>,
    irqs: Vec<IrqFd>,
}

/// One eventfd, as the backend finds it.
#[derive(Debug, Serialize)]
pub struct Passed {
    /// Its name in LISTEN_FDNAMES: `kick0`, `call0`, …
    pub name: String,
    /// Its number in the backend.
    pub fd: i32,
    /// What the user asked for.
    pub what: String,
    /// The eventfd.
    #[serde(skip)]
    pub eventfd: OwnedFd,
}

impl Handover {
    /// Makes the eventfds and registers them.
    ///
    /// # Errors
    /// The first registration that is refused; then none is left.
    pub fn register(guest: &Guest, kicks: &[Kick], calls: &[Call]) -> Result<Self, Failure> {
        let mut this = Self::default();
        for (index, kick) in kicks.iter().enumerate() {
            let eventfd = new_eventfd()?;
            match kick.place {
                Place::Write(address, datamatch) => {
                    this.doorbells.push(guest.register_ioevent(&eventfd, &address, datamatch)?);
                }
                Place::Channel(port) => {
                    this.channels.push(guest.register_channel(&eventfd, port)?);
                }
            }
            this.pass(format!("kick{index}"), &kick.text, eventfd);
        }
        for (index, call) in calls.iter().enumerate() {
            let eventfd = new_eventfd()?;
            this.irqs.push(guest.register_irqfd(&eventfd, call.irq)?);
            this.pass(format!("call{index}"), &call.text, eventfd);
        }
        Ok(this)
    }

    /// What is passed, in the order of the descriptors.
    pub fn passed(&self) -> &[Passed] {
        &self.passed
    }

    fn pass(&mut self, name: String, what: &str, eventfd: OwnedFd) {
        let number = i32::try_from(self.passed.len()).unwrap_or(i32::MAX - FIRST);
        self.passed.push(Passed { name, fd: FIRST + number, what: what.to_owned(), eventfd });
    }
}

/// Blocking, as a backend expects to find it; the engine signals it by a path that never waits.
fn new_eventfd() -> Result<OwnedFd, Failure> {
    eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| Failure::system("make an eventfd", errno))
}
