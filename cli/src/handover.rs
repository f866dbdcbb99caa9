//! Eventfds that are registered for a guest, ready to be passed to a backend.

use crate::failure::Failure;
use crate::inherited::FIRST;
use crate::spec::{CallSpec, KickSpec, Place};
use rustix::event::{EventfdFlags, eventfd};
use serde::Serialize;
use std::os::fd::OwnedFd;
use xen_eventfd::{ChannelFd, Error, Guest, IoEvent, Irq, IrqFd};

/// Eventfds, registered for as long as this lives: kicks first, then calls.
#[derive(Debug)]
pub struct Handover {
    passed: Vec<Passed>,
    /// What each of them stands for.
    wanted: Vec<Wanted>,
    /// Held for its drop, once it is registered.
    registered: Vec<Option<Registration>>,
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

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Kick(Place),
    Call(Irq),
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop")]
enum Registration {
    Doorbell(IoEvent),
    Channel(ChannelFd),
    Irq(IrqFd),
}

impl Handover {
    /// Makes the eventfds.
    ///
    /// # Errors
    /// When the kernel has no more of them.
    pub fn new(kicks: &[KickSpec], calls: &[CallSpec]) -> Result<Self, Failure> {
        let kicks = kicks
            .iter()
            .enumerate()
            .map(|(index, kick)| (format!("kick{index}"), &kick.text, Wanted::Kick(kick.place)));
        let calls = calls
            .iter()
            .enumerate()
            .map(|(index, call)| (format!("call{index}"), &call.text, Wanted::Call(call.irq)));
        let (mut passed, mut wanted) = (Vec::new(), Vec::new());
        for ((name, what, this), fd) in kicks.chain(calls).zip(FIRST..) {
            passed.push(Passed { name, fd, what: what.clone(), eventfd: new_eventfd()? });
            wanted.push(this);
        }
        let registered = wanted.iter().map(|_| None).collect();
        Ok(Self { passed, wanted, registered })
    }

    /// Registers for a guest what is not registered yet.
    ///
    /// # Errors
    /// The first that is refused; the others are registered nonetheless.
    pub fn register(&mut self, guest: &Guest) -> Result<(), Refused> {
        let mut refused = Ok(());
        for ((passed, wanted), slot) in
            self.passed.iter().zip(&self.wanted).zip(&mut self.registered)
        {
            if slot.is_some() {
                continue;
            }
            match wanted.register(guest, &passed.eventfd) {
                Ok(registration) => *slot = Some(registration),
                Err(error) => {
                    refused = refused.and(Err(Refused { error, channel: wanted.is_channel() }));
                }
            }
        }
        refused
    }

    /// What is passed, in the order of the descriptors.
    pub fn passed(&self) -> &[Passed] {
        &self.passed
    }
}

/// A registration that was refused.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// It is one of an event channel, which the guest allocates when its driver starts.
    pub channel: bool,
}

impl Wanted {
    fn register(self, guest: &Guest, eventfd: &OwnedFd) -> Result<Registration, Error> {
        Ok(match self {
            Self::Kick(Place::Write(address, datamatch)) => {
                Registration::Doorbell(guest.register_ioevent(eventfd, &address, datamatch)?)
            }
            Self::Kick(Place::Channel(port)) => {
                Registration::Channel(guest.register_channel(eventfd, port)?)
            }
            Self::Call(irq) => Registration::Irq(guest.register_irqfd(eventfd, irq)?),
        })
    }

    fn is_channel(self) -> bool {
        matches!(self, Self::Kick(Place::Channel(_)) | Self::Call(Irq::EventChannel(_)))
    }
}

/// Blocking, as a backend expects to find it; the engine signals it by a path that never waits.
fn new_eventfd() -> Result<OwnedFd, Failure> {
    eventfd(0, EventfdFlags::CLOEXEC).map_err(|errno| Failure::system("make an eventfd", errno))
}
