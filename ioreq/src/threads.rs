//! The threads that serve any number of guests.
//!
//! The first two wait for nothing but their own events, the one in a read of them and the other in
//! `epoll_wait`. The third talks to xenstore, which may be silent, so nothing waits for it, and a process
//! that ends leaves it behind rather than wait long.

use crate::event_loop::EventLoop;
use crate::release_watch::Watch;
use crate::thread::Thread;
use crate::{Error, Result};
use core::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// What each thread does first.
#[derive(Clone)]
pub struct ThreadHook(Arc<Hook>);

type Hook = dyn Fn(&str) -> io::Result<()> + Send + Sync;

impl ThreadHook {
    /// Calls this with the thread's name. If it fails or panics, [`Threads::start`] fails.
    pub fn new(hook: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }
}

impl fmt::Debug for ThreadHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadHook")
    }
}

/// The names of the threads, of at most 15 bytes.
#[derive(Debug, Clone, Copy)]
pub struct ThreadNames {
    /// The one that waits for events of guests.
    pub ports: &'static str,
    /// The one that waits for descriptors.
    pub fds: &'static str,
    /// The one that waits for the end of guests.
    pub watch: &'static str,
}

/// How long a process that ends waits for the thread that talks to xenstore.
const PATIENCE_FOR_WATCH: Duration = Duration::from_secs(1);

/// The threads that serve the guests of an event loop. Dropping it stops them.
#[derive(Debug)]
pub struct Threads {
    event_loop: Arc<EventLoop>,
    serving: Vec<Thread>,
    watch: Option<Thread>,
}

impl Threads {
    /// Starts the threads, with all signals blocked. Each calls the hook first.
    ///
    /// # Errors
    /// [`Error::Thread`]; [`Error::Host`] if xenstore refuses a watch.
    pub fn start(
        event_loop: &Arc<EventLoop>,
        names: ThreadNames,
        hook: Option<&ThreadHook>,
    ) -> Result<Self> {
        event_loop.check_wake()?;
        let watch = Watch::new(event_loop)?;
        let event_loop = Arc::clone(event_loop);
        let mut threads = Self { event_loop, serving: Vec::new(), watch: None };
        threads.serving.push(threads.spawn(names.ports, hook, EventLoop::serve_ports)?);
        threads.serving.push(threads.spawn(names.fds, hook, EventLoop::serve_fds)?);
        threads.watch = Some(threads.spawn(names.watch, hook, |events| watch.serve(events))?);
        Ok(threads)
    }

    /// Starts a thread, and waits until it has done what it is to do first.
    fn spawn(
        &self,
        name: &'static str,
        hook: Option<&ThreadHook>,
        serve: impl FnOnce(&EventLoop) -> xen_eventfd_host::Result<()> + Send + 'static,
    ) -> Result<Thread> {
        let event_loop = Arc::clone(&self.event_loop);
        let (tell, begun) = std::sync::mpsc::sync_channel(1);
        let hook = hook.cloned();
        let failed = |error: io::Error| Error::Thread { name, why: error.to_string() };
        let thread = Thread::spawn(name, move || {
            let begun = hook.map_or(Ok(()), |hook| (hook.0)(name));
            let begins = begun.is_ok();
            // It is waited for.
            let _ = tell.send(begun);
            if begins {
                event_loop.run(serve);
            }
        });
        let thread = thread.map_err(failed)?;
        // A hook that panics says nothing.
        match begun.recv().unwrap_or_else(|_| Err(io::Error::other("it panicked"))) {
            Ok(()) => Ok(thread),
            Err(error) => {
                thread.join();
                Err(failed(error))
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.event_loop.begin_stop();
        if self.serving.is_empty() {
            return;
        }
        if let Err(error) = self.event_loop.wake() {
            tracing::warn!(%error, "the engine's thread for kicks stays");
            return;
        }
        self.serving.drain(..).for_each(Thread::join);
        if self.watch.take().is_some_and(|watch| !watch.join_within(PATIENCE_FOR_WATCH)) {
            tracing::warn!("xenstore does not answer; the thread that waits for it is left behind");
        }
    }
}
