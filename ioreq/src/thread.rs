//! Threads of our own in a process that is another's program.
//!
//! They take none of its signals: a signal that the program waits for by a signalfd, or blocks in its
//! own threads, must not be delivered to one of ours.

use nix::sys::signal::{SigSet, SigmaskHow};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// A thread with all signals blocked.
#[derive(Debug)]
pub struct Thread {
    handle: JoinHandle<()>,
    /// Closed when the thread ends. The mutex only makes it `Sync`.
    ended: Mutex<Receiver<()>>,
}

impl Thread {
    /// Starts a thread. Its signals are blocked before its first instruction.
    pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (ends, ended): (Sender<()>, _) = channel();
        let run = move || {
            run();
            drop(ends);
        };
        // A thread inherits the mask of the one that starts it.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let handle = Builder::new().name(name.to_owned()).spawn(run);
        before.thread_set_mask()?;
        Ok(Self { handle: handle?, ended: Mutex::new(ended) })
    }

    /// Waits until the thread has ended.
    pub fn join(self) {
        // What unwound in there was reported by the panic.
        let _ = self.handle.join();
    }

    /// Waits until the thread has ended, but not for ever. `false`: it is left behind.
    pub fn join_within(self, patience: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let over = ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected);
        drop(ended);
        if over {
            self.join();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    #[test]
    fn a_thread_of_ours_blocks_all_signals_and_its_parent_goes_on_as_before() {
        let before = SigSet::thread_get_mask().unwrap();
        let blocks_all = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&blocks_all);
        let thread = Thread::spawn("blocks", move || {
            let mask = SigSet::thread_get_mask().unwrap();
            let kept = [Signal::SIGKILL, Signal::SIGSTOP];
            let all = Signal::iterator().filter(|signal| !kept.contains(signal));
            seen.store({ all }.all(|signal| mask.contains(signal)), SeqCst);
        });
        thread.unwrap().join();
        assert!(blocks_all.load(SeqCst));
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[test]
    fn a_thread_that_waits_for_something_is_left_behind() {
        let (go, gate) = channel::<()>();
        let thread = Thread::spawn("waits", move || _ = gate.recv()).unwrap();
        assert!(!thread.join_within(Duration::from_millis(1)));
        drop(go);
        let thread = Thread::spawn("does not", || {}).unwrap();
        assert!(thread.join_within(Duration::from_secs(30)));
    }
}
