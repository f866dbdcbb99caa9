//! Connects to backends that are away, in a thread of its own: no vCPU waits for it.

use crate::devices::Devices;
use crate::layout::At;
use crate::resume::Again;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use xen_eventfd_ioreq::Thread;

/// How long between two attempts: at first, and at most, to which it doubles.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(2)];

/// Wakes the thread.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    #[default]
    Nothing,
    /// A backend is away.
    Look,
    /// Nothing more is wanted.
    End,
}

impl Waker {
    /// A backend is away.
    pub(crate) fn wake(&self) {
        let mut wanted = self.wanted();
        if *wanted == Wanted::Nothing {
            *wanted = Wanted::Look;
        }
        self.changed.notify_all();
    }

    /// The thread is not needed any more.
    pub(crate) fn end(&self) {
        *self.wanted() = Wanted::End;
        self.changed.notify_all();
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a backend is away. Returns whether there is more to do.
    fn wait(&self) -> bool {
        let wanted = self.wanted();
        let nothing = |wanted: &mut Wanted| *wanted == Wanted::Nothing;
        let waited = self.changed.wait_while(wanted, nothing);
        let mut wanted = waited.unwrap_or_else(PoisonError::into_inner);
        let goes_on = *wanted != Wanted::End;
        if goes_on {
            *wanted = Wanted::Nothing;
        }
        goes_on
    }

    /// Waits for the next attempt. Returns whether there is more to do.
    fn pause(&self, pause: Duration) -> bool {
        let is_needed = |wanted: &mut Wanted| *wanted != Wanted::End;
        let waited = self.changed.wait_timeout_while(self.wanted(), pause, is_needed);
        *waited.unwrap_or_else(PoisonError::into_inner).0 != Wanted::End
    }
}

/// Starts the thread. It ends with the devices.
pub(crate) fn start(devices: &Arc<Devices>, waker: &Arc<Waker>) -> std::io::Result<()> {
    let (devices, waker) = (Arc::downgrade(devices), Arc::clone(waker));
    // What it waits for has a time limit; it is not waited for itself.
    Thread::spawn("xen-virtio-back", move || run(&devices, &waker)).map(drop)
}

fn run(devices: &Weak<Devices>, waker: &Waker) {
    // Why each is still away, as it was logged.
    let mut reasons = BTreeMap::new();
    while waker.wait() {
        let mut pause = PAUSES[0];
        loop {
            let Some(devices) = devices.upgrade() else { return };
            let away = devices.away();
            if away.is_empty() {
                break;
            }
            let mut attempt = |(at, again): &(At, Again)| {
                let reason = attempt(&devices, *at, again);
                let is_there = reason.is_none();
                if reasons.insert(*at, reason.clone()) != Some(reason.clone())
                    && let Some(reason) = reason
                {
                    tracing::warn!(device = %at, "the backend is not there yet: {reason}");
                }
                is_there
            };
            let came = away.iter().filter(|away| attempt(away)).count();
            drop(devices);
            pause = if came > 0 { PAUSES[0] } else { (2 * pause).min(PAUSES[1]) };
            if !waker.pause(pause) {
                return;
            }
        }
    }
}

/// Tries to have a backend again. Returns why it is not there.
fn attempt(devices: &Arc<Devices>, at: At, again: &Again) -> Option<String> {
    // A backend that answers this far is likely to answer what a vCPU may have to wait for.
    let resumed = again.connect().and_then(|backend| devices.resume(at, backend));
    if again.has_session() && resumed.is_err() {
        // It was tried, and a backend that serves one connection waits for its end.
        again.forget_session();
    }
    resumed.err().map(|error| error.to_string())
}
