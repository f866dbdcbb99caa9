//! The userspace engine: three threads that serve any number of guests.
//!
//! ```text
//! kicks:  event on a vCPU's port -> slot -> doorbells -> eventfd      (guest.rs, doorbells.rs)
//!         event on a port        -> eventfd                           (irq.rs)
//! irqs:   eventfd                -> interrupt                         (irq.rs)
//! watch:  a domain was released  -> drop what we hold of dead guests  (watch.rs, guest.rs)
//! ```
//!
//! The first two wait for nothing but their own events, the one in a read of them and the other in
//! `epoll_wait`: eventfds are signalled and read by paths that cannot block, and no lock that they
//! take is held across anything but a hypercall. The third talks to xenstore, which may be silent, so
//! nothing waits for it, and an engine that ends leaves it behind rather than wait long.
//!
//! Locks, in the order in which they are taken: a guest's `changes`, its `channels` or `hold`,
//! [`Shared::sources`], a guest's `dispatch`, a channel's listener or an irqfd, the signaller.

mod driven;
mod guest;
mod irq;
#[cfg(all(loom, test))]
mod loom_tests;
pub(super) mod server;
mod watch;

pub(crate) use driven::Driven;
pub use driven::Turn;

use super::module::Reserve;
use super::{Attachment, Engine};
use crate::driver::ThreadHook;
use crate::eventfd::{self, EventFd};
use crate::run_dir::RunDir;
use crate::sync::Mutex;
use crate::thread::Thread;
use crate::{EngineKind, Error, Result, lock};
use guest::{GuestCore, UserspaceGuest};
use irq::{Channel, IrqSource};
use rustix::event::epoll;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use watch::Watch;
use xen_eventfd_core::DomId;
use xen_eventfd_host::{Call, EventChannels, Host, HostError, LocalPort, Signaller, features};

/// What an event on one of our ports means.
#[derive(Debug, Clone)]
enum Source {
    /// A vCPU rang a doorbell.
    Doorbell(Arc<GuestCore>, usize),
    /// A guest rang an event channel.
    Channel(Arc<Channel>),
}

/// Everything that can wake the threads.
#[derive(Debug, Default)]
struct Sources {
    ports: BTreeMap<LocalPort, Source>,
    irqs: BTreeMap<u64, Arc<IrqSource>>,
}

/// What the threads and the callers share.
#[derive(Debug)]
struct Shared {
    host: Arc<dyn Host>,
    events: Arc<dyn EventChannels>,
    run_dir: RunDir,
    sources: Mutex<Sources>,
    guests: Mutex<BTreeMap<DomId, Arc<GuestCore>>>,
    signaller: Mutex<Box<dyn Signaller>>,
    epoll: OwnedFd,
    /// The threads are to stop, as soon as they wake.
    stopping: AtomicBool,
    /// Wakes the threads for interrupts and for the watch.
    stop: OwnedFd,
    failure: Mutex<Option<HostError>>,
    serial: AtomicU64,
}

/// Tokens of the sources that are always there; an irqfd's token is its serial number.
const STOP: u64 = 0;
const FIRST_SERIAL: u64 = 16;
/// How long an engine that ends waits for the thread that talks to xenstore.
const PATIENCE_FOR_WATCH: Duration = Duration::from_secs(1);

/// A running engine. Dropping it stops the threads.
#[derive(Debug)]
pub(crate) struct UserspaceEngine {
    shared: Arc<Shared>,
    /// How guests are kept from those who use this machine's kernel module.
    reserve: Reserve,
    threads: Vec<Thread>,
    watch: Option<Thread>,
}

fn own(what: &'static str) -> impl Fn(Errno) -> HostError {
    move |errno| HostError::new(Call::Open(what), errno)
}

/// Who does the engine's work.
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
    ) -> Result<(Self, Option<Driven>)> {
        let engine = Self::new(host, run_dir, reserve)?;
        match workers {
            Workers::Threads(hook) => Ok((engine.serve(hook)?, None)),
            Workers::Caller => {
                let driven = Driven::new(Arc::clone(&engine.shared))?;
                Ok((engine, Some(driven)))
            }
        }
    }

    fn new(host: Arc<dyn Host>, run_dir: RunDir, reserve: Reserve) -> Result<Self> {
        features::check_engine()?;
        let events: Arc<dyn EventChannels> = Arc::from(host.event_channels()?);
        let signaller = Mutex::new(host.signaller()?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(own("an epoll set"))?;
        let stop = eventfd::new()?;
        let shared = Arc::new(Shared {
            host,
            events,
            run_dir,
            sources: Mutex::default(),
            guests: Mutex::default(),
            signaller,
            epoll,
            stopping: AtomicBool::new(false),
            stop,
            failure: Mutex::default(),
            serial: AtomicU64::new(FIRST_SERIAL),
        });
        Ok(Self { shared, reserve, threads: Vec::new(), watch: None })
    }

    fn serve(mut self, hook: Option<ThreadHook>) -> Result<Self> {
        let (shared, hook) = (&self.shared, hook.as_ref());
        // Whoever can be woken now can be woken when it is to stop.
        shared.events.wake()?;
        shared.listen(shared.stop.as_fd(), STOP)?;
        let watch = Watch::new(shared)?;
        self.threads.push(self.spawn("xen-ioeventfd", hook, Shared::serve_kicks)?);
        self.threads.push(self.spawn("xen-irqfd", hook, Shared::serve_irqs)?);
        self.watch = Some(self.spawn("xen-watch", hook, |shared| watch.serve(shared))?);
        Ok(self)
    }

    /// Starts a thread, and waits until it has done what it is to do first.
    fn spawn(
        &self,
        name: &'static str,
        hook: Option<&ThreadHook>,
        serve: impl FnOnce(&Shared) -> xen_eventfd_host::Result<()> + Send + 'static,
    ) -> Result<Thread> {
        let shared = Arc::clone(&self.shared);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let hook = hook.cloned();
        let failed = |error| Error::NoEngine(format!("its thread {name} cannot start: {error}"));
        let thread = Thread::spawn(name, move || {
            let begun = hook.map_or(Ok(()), |hook| hook.run(name));
            let begins = begun.is_ok();
            // It is waited for.
            let _ = tell.send(begun);
            if begins {
                shared.run(serve);
            }
        });
        let thread = thread.map_err(failed)?;
        // A hook that panics says nothing.
        match told.recv().unwrap_or_else(|_| Err(std::io::Error::other("it panicked"))) {
            Ok(()) => Ok(thread),
            Err(error) => {
                thread.join();
                Err(failed(error))
            }
        }
    }
}

impl Engine for UserspaceEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Userspace
    }

    fn host(&self) -> &Arc<dyn Host> {
        &self.shared.host
    }

    fn run_dir(&self) -> &RunDir {
        &self.shared.run_dir
    }

    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>> {
        Ok(Arc::new(UserspaceGuest::new(&self, dom)?))
    }
}

impl Drop for UserspaceEngine {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if self.threads.is_empty() {
            return;
        }
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Err(error) = self.shared.events.wake() {
            tracing::warn!(%error, "the engine's thread for kicks stays");
            return;
        }
        self.threads.drain(..).for_each(Thread::join);
        if self.watch.take().is_some_and(|watch| !watch.join_within(PATIENCE_FOR_WATCH)) {
            tracing::warn!("xenstore does not answer; the thread that waits for it is left behind");
        }
    }
}

impl Shared {
    fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
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

    /// Fails if one of the threads has stopped.
    fn alive(&self) -> Result<()> {
        match &*lock(&self.failure) {
            None => Ok(()),
            Some(error) => Err(Error::EngineStopped(error.clone())),
        }
    }

    fn listen(&self, fd: BorrowedFd<'_>, token: u64) -> Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)
            .map_err(|errno| HostError::new(Call::EventFd, errno).into())
    }

    fn ignore(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Serves until told to stop, or until the host fails in a way that leaves nothing to serve.
    fn run(&self, serve: impl FnOnce(&Self) -> xen_eventfd_host::Result<()>) {
        // A fault of ours must not leave a vCPU waiting either.
        let served = catch_unwind(AssertUnwindSafe(|| serve(self)));
        let fault = HostError::new(Call::Event, Errno::NOTRECOVERABLE);
        let Err(error) = served.unwrap_or(Err(fault)) else { return };
        tracing::error!(%error, "the engine stops");
        *lock(&self.failure) = Some(error);
        self.each_guest(|guest| guest.give_up(self));
    }

    fn serve_kicks(&self) -> xen_eventfd_host::Result<()> {
        let mut ports = Vec::new();
        while !self.is_stopping() {
            self.events.wait(&mut ports)?;
            // Each port once a round, so no guest's flood delays another's turn.
            ports.drain(..).for_each(|port| self.event(port));
        }
        Ok(())
    }

    fn serve_irqs(&self) -> xen_eventfd_host::Result<()> {
        let mut ready = Vec::with_capacity(64);
        while !self.is_stopping() {
            ready.clear();
            let room = rustix::buffer::spare_capacity(&mut ready);
            match epoll::wait(&self.epoll, room, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(HostError::new(Call::Event, errno)),
            }
            for event in &ready {
                match event.data.u64() {
                    STOP => {}
                    serial => self.irq(serial),
                }
            }
        }
        Ok(())
    }

    fn event(&self, port: LocalPort) {
        let source = lock(&self.sources).ports.get(&port).cloned();
        match source {
            Some(Source::Doorbell(guest, vcpu)) => guest.serve(self, port, vcpu),
            Some(Source::Channel(channel)) => {
                let mut listener = lock(&channel.listener);
                if listener.closed {
                    return;
                }
                let Some((_, eventfd)) = &listener.eventfd else {
                    listener.missed = true;
                    return;
                };
                self.signal(eventfd);
                if let Err(error) = self.events.eoi(port) {
                    tracing::warn!(%error, "an event was not ended");
                }
            }
            // Its owner has let go of it since, or it only woke us.
            None => _ = self.events.eoi(port),
        }
    }

    fn irq(&self, serial: u64) {
        let Some(source) = lock(&self.sources).irqs.get(&serial).cloned() else { return };
        if let Err(error) = source.fire(self) {
            tracing::debug!(%error, "an interrupt was not raised");
        }
    }

    /// Looks after the guests when some domain went.
    fn reap_dead_guests(&self) {
        self.each_guest(|guest| guest.reap_if_dead(self));
    }

    fn each_guest(&self, what: impl Fn(&GuestCore)) {
        let guests: Vec<_> = lock(&self.guests).values().cloned().collect();
        guests.iter().for_each(|guest| what(guest));
    }
}
