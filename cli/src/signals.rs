//! Signals as something to poll for.

use crate::failure::Failure;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// `si_code` of a signal that the kernel sends of itself, as a terminal's Ctrl-C.
const FROM_KERNEL: i32 = 0x80;

/// SIGINT, SIGTERM and SIGHUP, blocked and read from a descriptor.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// One that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub number: i32,
    /// The terminal sent it, to every process of the group: the child has it already.
    pub to_the_group: bool,
}

impl Signals {
    /// Takes the signals for this thread and all that it starts from now on. Call it before the
    /// engine is opened.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self, Failure> {
        let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        let signals: SigSet = signals.into_iter().collect();
        signals
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            })
            .map(Self)
            .map_err(|errno| Failure::system("wait for signals", errno))
    }

    /// The next one, if there is one.
    pub fn take(&mut self) -> Option<Caught> {
        let caught = self.0.read_signal().ok().flatten()?;
        let number = i32::try_from(caught.ssi_signo).ok()?;
        Some(Caught { number, to_the_group: caught.ssi_code == FROM_KERNEL })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
