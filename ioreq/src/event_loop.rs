//! What a process that serves guests waits for, and what it does when it comes.
//!
//! ```text
//! event on a vCPU's port   -> slot -> Handler -> answer       (guest.rs)
//! event on another port    -> its PortSource
//! a descriptor is readable -> its FdSource
//! a domain was released    -> drop what we hold of dead guests (release_watch.rs, guest.rs)
//! ```
//!
//! [`Threads`](crate::Threads) wait for it, or the program's own event loop ([`Turns`](crate::Turns)).
//!
//! Locks, in the order in which they are taken: a guest's `life`, `hold`, the event loop's `sources`, a
//! guest's `server`. A [`Handler`](crate::Handler) is called with the last one held.

use crate::guest::GuestCore;
use crate::run_dir::RunDir;
use crate::sync::{Mutex, lock};
use crate::{Error, Result, Role};
use core::fmt;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xen_eventfd_core::{DomId, Port};
use xen_eventfd_host::{Call, EventChannels, Host, HostError, LocalPort, features};

/// What an event on one of our ports means.
pub trait PortSource: Send + Sync + fmt::Debug {
    /// An event came. No further one comes until it is ended ([`EventChannels::eoi`]).
    fn event(&self, port: LocalPort);
}

/// What a descriptor that is readable means.
pub trait FdSource: Send + Sync + fmt::Debug {
    /// The descriptor is readable, and is looked at again until it is not.
    fn ready(&self);
}

/// All that can wake the process.
#[derive(Debug, Default)]
struct Sources {
    ports: BTreeMap<LocalPort, Arc<dyn PortSource>>,
    fds: BTreeMap<u64, Arc<dyn FdSource>>,
}

/// What the threads of a process and its callers share: a host, its event channels, and what they mean.
#[derive(Debug)]
pub struct EventLoop {
    host: Arc<dyn Host>,
    events: Box<dyn EventChannels>,
    run_dir: RunDir,
    sources: Mutex<Sources>,
    guests: Mutex<BTreeMap<(DomId, Role), Arc<GuestCore>>>,
    epoll: OwnedFd,
    /// The threads are to stop, as soon as they wake.
    stopping: AtomicBool,
    /// Wakes the threads for descriptors and for the watch.
    stop: OwnedFd,
    failure: Mutex<Option<HostError>>,
    serial: AtomicU64,
}

/// Tokens of the sources that are always there; another's token is its serial number.
const STOP: u64 = 0;
pub(crate) const FIRST_SERIAL: u64 = 16;
/// How many descriptors are looked at before they are asked for again.
pub(crate) const DESCRIPTORS: usize = 64;

/// A new eventfd of our own.
///
/// # Errors
/// [`Errno::MFILE`] and the like.
pub fn new_eventfd() -> xen_eventfd_host::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed("an eventfd"))
}

/// That something of our own could not be made.
pub(crate) fn failed(what: &'static str) -> impl Fn(Errno) -> HostError {
    move |errno| HostError::new(Call::Open(what), errno)
}

impl EventLoop {
    /// Opens the host's event channels. Nothing is served until there are [`Threads`](crate::Threads) or
    /// [`Turns`](crate::Turns).
    ///
    /// # Errors
    /// [`Error::Host`] if this Linux lacks what is needed, or refuses.
    pub fn new(host: Arc<dyn Host>, run_dir: RunDir) -> Result<Arc<Self>> {
        features::check_engine()?;
        let events = host.event_channels()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("an epoll set"))?;
        Ok(Arc::new(Self {
            host,
            events,
            run_dir,
            sources: Mutex::default(),
            guests: Mutex::default(),
            epoll,
            stopping: AtomicBool::new(false),
            stop: new_eventfd()?,
            failure: Mutex::default(),
            serial: AtomicU64::new(FIRST_SERIAL),
        }))
    }

    /// The host whose guests are served.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    /// The event channels.
    pub fn events(&self) -> &dyn EventChannels {
        &*self.events
    }

    /// Where locks and records are.
    pub fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    /// Fails with [`Error::Stopped`] if a thread has stopped.
    ///
    /// # Errors
    /// See above.
    pub fn alive(&self) -> Result<()> {
        match &*lock(&self.failure) {
            None => Ok(()),
            Some(error) => Err(Error::Stopped(error.clone())),
        }
    }

    /// A number that no other source has.
    pub fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Binds a guest's port, and has its events passed to a source.
    ///
    /// # Errors
    /// As [`EventChannels::bind`].
    pub fn bind<S: PortSource + 'static>(
        &self,
        dom: DomId,
        remote: Port,
        source: impl FnOnce(LocalPort) -> Arc<S>,
    ) -> xen_eventfd_host::Result<Arc<S>> {
        // Under the lock, so that its first event finds the source.
        let mut sources = lock(&self.sources);
        let local = self.events.bind(dom, remote)?;
        let source = source(local);
        sources.ports.insert(local, Arc::<S>::clone(&source));
        Ok(source)
    }

    /// Has events of a port passed to a source.
    pub(crate) fn add_port(&self, port: LocalPort, source: Arc<dyn PortSource>) {
        lock(&self.sources).ports.insert(port, source);
    }

    /// Events of a port mean nothing any more. To be called before the port is unbound, as its number is
    /// used again.
    pub fn remove_port(&self, port: LocalPort) {
        lock(&self.sources).ports.remove(&port);
    }

    /// Names a source by its serial number. It is asked once the loop [watches](Self::watch) its descriptor.
    pub fn add_fd(&self, serial: u64, source: Arc<dyn FdSource>) {
        lock(&self.sources).fds.insert(serial, source);
    }

    /// Asks the source of this number when a descriptor is readable.
    ///
    /// # Errors
    /// Linux's.
    pub fn watch(&self, fd: BorrowedFd<'_>, serial: u64) -> xen_eventfd_host::Result<()> {
        let data = epoll::EventData::new_u64(serial);
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)
            .map_err(|errno| HostError::new(Call::EventFd, errno))
    }

    /// A descriptor is not looked at any more.
    pub fn ignore(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// There is no source of this number any more. Another thread may still be in it.
    pub fn remove_fd(&self, serial: u64) {
        lock(&self.sources).fds.remove(&serial);
    }

    pub(crate) fn add_guest(&self, dom: DomId, role: Role, guest: &Arc<GuestCore>) {
        lock(&self.guests).insert((dom, role), Arc::clone(guest));
    }

    pub(crate) fn remove_guest(&self, dom: DomId, role: Role) {
        lock(&self.guests).remove(&(dom, role));
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has the threads stop as soon as they wake.
    pub(crate) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Wakes the threads, to stop.
    pub(crate) fn wake(&self) -> xen_eventfd_host::Result<()> {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        self.events.wake()
    }

    /// Readable once the threads are to stop.
    pub(crate) fn stop(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// The descriptors that are looked at.
    pub(crate) fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Makes sure that the threads can be woken when they are to stop.
    pub(crate) fn check_wake(&self) -> Result<()> {
        self.events.wake()?;
        Ok(self.watch(self.stop.as_fd(), STOP)?)
    }

    /// Serves until it is to stop, or until the host fails in a way that leaves nothing to serve.
    pub(crate) fn run(&self, serve: impl FnOnce(&Self) -> xen_eventfd_host::Result<()>) {
        // A fault of ours must not leave a vCPU waiting either.
        let served = catch_unwind(AssertUnwindSafe(|| serve(self)));
        let fault = HostError::new(Call::Event, Errno::NOTRECOVERABLE);
        let Err(error) = served.unwrap_or(Err(fault)) else { return };
        tracing::error!(%error, "the engine stops");
        self.fail(error);
    }

    /// Lets go of all guests, as nothing serves them any more.
    pub(crate) fn fail(&self, error: HostError) {
        *lock(&self.failure) = Some(error);
        self.each_guest(GuestCore::give_up);
    }

    pub(crate) fn serve_ports(&self) -> xen_eventfd_host::Result<()> {
        let mut ports = Vec::new();
        while !self.is_stopping() {
            self.events.wait(&mut ports)?;
            // Each port once a round, so no guest's flood delays another's turn.
            ports.drain(..).for_each(|port| self.event(port));
        }
        Ok(())
    }

    pub(crate) fn serve_fds(&self) -> xen_eventfd_host::Result<()> {
        let mut ready = Vec::with_capacity(DESCRIPTORS);
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
                    serial => self.ready(serial),
                }
            }
        }
        Ok(())
    }

    /// Passes an event to the source of its port.
    #[doc(hidden)]
    pub fn event(&self, port: LocalPort) {
        let source = lock(&self.sources).ports.get(&port).cloned();
        match source {
            Some(source) => source.event(port),
            // Its owner has let go of it since, or it only woke us.
            None => _ = self.events.eoi(port),
        }
    }

    /// Asks the source of a descriptor.
    #[doc(hidden)]
    pub fn ready(&self, serial: u64) {
        let source = lock(&self.sources).fds.get(&serial).cloned();
        if let Some(source) = source {
            source.ready();
        }
    }

    /// Drops what is held of guests that have died, when some domain has ended.
    #[doc(hidden)]
    pub fn reap_dead_guests(&self) {
        self.each_guest(GuestCore::reap_if_dead);
    }

    fn each_guest(&self, act: impl Fn(&GuestCore)) {
        let guests: Vec<_> = lock(&self.guests).values().cloned().collect();
        guests.iter().for_each(|guest| act(guest));
    }
}
