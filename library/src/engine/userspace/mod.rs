//! The userspace engine: doorbells and interrupts of any number of guests, on an event loop of
//! `xen-eventfd-ioreq`.
//!
//! ```text
//! kicks:  event on a vCPU's port -> slot -> doorbells -> eventfd      (guest.rs, doorbells.rs)
//!         event on a port        -> eventfd                           (irq.rs)
//!         access to registers    -> answer                            (device.rs)
//! irqs:   eventfd                -> interrupt                         (irq.rs, device.rs)
//! ```
//!
//! Eventfds are signalled and read by paths that cannot block, and no lock that the threads take is held
//! across anything but a hypercall.
//!
//! Locks, in the order in which they are taken: a guest's right to changes, its `channels` or `irqs`, the
//! event loop's sources, its server, its `doorbells`, a channel's listener or an irqfd, the interrupt of a
//! device, the signaller.

mod device;
mod guest;
mod irq;
#[cfg(all(loom, test))]
mod loom_tests;

use super::{Attachment, Engine};
use crate::eventfd::EventFd;
use crate::{EngineKind, Result};
use guest::UserspaceGuest;
use std::os::fd::AsFd;
use std::sync::Arc;
use xen_eventfd_core::DomId;
use xen_eventfd_host::{EventChannels, Host, Signaller};
use xen_eventfd_ioreq::sync::{Mutex, lock};
use xen_eventfd_ioreq::{EventLoop, Reserve, RunDir, ThreadHook, ThreadNames, Threads, Turns};

/// The engine's threads, as `ps -L` shows them.
const THREADS: ThreadNames =
    ThreadNames { ports: "xen-ioeventfd", fds: "xen-irqfd", watch: "xen-watch" };

/// What the guests of an engine share.
#[derive(Debug)]
struct Shared {
    event_loop: Arc<EventLoop>,
    signaller: Mutex<Box<dyn Signaller>>,
    /// How guests are kept from programs that use this machine's kernel module.
    reserve: Reserve,
}

/// A running engine. Dropping it stops the threads.
#[derive(Debug)]
pub(crate) struct UserspaceEngine {
    /// First, so that what is shared ends in the thread that drops the engine, and not in one of these, which
    /// may be confined to fewer system calls.
    #[expect(dead_code, reason = "stopped when this is dropped")]
    threads: Option<Threads>,
    shared: Arc<Shared>,
}

/// What does the engine's work.
#[derive(Debug)]
pub(crate) enum Workers {
    /// Threads of its own, which first do this.
    Threads(Option<ThreadHook>),
    /// Its caller.
    Caller,
}

impl UserspaceEngine {
    /// Starts the threads, or returns what its caller gives turns to.
    pub(crate) fn start(
        host: Arc<dyn Host>,
        run_dir: RunDir,
        reserve: Reserve,
        workers: Workers,
    ) -> Result<(Self, Option<Turns>)> {
        let shared = Arc::new(Shared::new(host, run_dir, reserve)?);
        let event_loop = &shared.event_loop;
        let (threads, turns) = match workers {
            Workers::Threads(hook) => {
                (Some(Threads::start(event_loop, THREADS, hook.as_ref())?), None)
            }
            Workers::Caller => (None, Some(Turns::new(Arc::clone(event_loop))?)),
        };
        Ok((Self { shared, threads }, turns))
    }
}

impl Engine for UserspaceEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Userspace
    }

    fn host(&self) -> &Arc<dyn Host> {
        self.shared.host()
    }

    fn run_dir(&self) -> &RunDir {
        self.shared.event_loop.run_dir()
    }

    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>> {
        Ok(Arc::new(UserspaceGuest::new(&self, dom)?))
    }
}

impl Shared {
    fn new(host: Arc<dyn Host>, run_dir: RunDir, reserve: Reserve) -> Result<Self> {
        let event_loop = EventLoop::new(Arc::clone(&host), run_dir)?;
        Ok(Self { event_loop, signaller: Mutex::new(host.signaller()?), reserve })
    }

    fn host(&self) -> &Arc<dyn Host> {
        self.event_loop.host()
    }

    fn events(&self) -> &dyn EventChannels {
        self.event_loop.events()
    }

    /// Signals an eventfd, whatever its backend does.
    fn signal(&self, eventfd: &EventFd) -> bool {
        match lock(&self.signaller).signal(eventfd.as_fd()) {
            Ok(()) => true,
            Err(error) => {
                // A guest could fill a log with these; they are counted.
                tracing::debug!(%error, "an eventfd was not signalled");
                false
            }
        }
    }
}
