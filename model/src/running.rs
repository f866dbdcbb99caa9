//! Threads with a time limit.

use crate::Model;
use core::time::Duration;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};

/// The time limit of every wait. Generous, so that a loaded machine causes no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A guest's code that runs in its own thread. Dropping it leaves the thread alone.
#[derive(Debug)]
pub struct Running<T> {
    model: Model,
    what: String,
    done: Receiver<T>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Running<T> {
    pub(crate) fn start(
        model: Model,
        what: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Self {
        let (send, done) = channel();
        let thread = thread::spawn(move || {
            // The receiver may have been dropped.
            let _ = send.send(work());
        });
        Self { model, what, done, thread }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it panicked; or after 30 s, with a list of what every vCPU waits for.
    pub fn join(self) -> T {
        match self.done.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} did not end.\n{}", self.what, self.model.describe())
            }
            Err(RecvTimeoutError::Disconnected) => match self.thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("a thread that ends without a panic has sent its result"),
            },
        }
    }
}
