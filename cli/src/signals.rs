//! Signals as something to poll for.
//!
//! All that can be blocked are, so that none ends or stops the process while vCPUs wait for its
//! engine. What was ignored at the beginning (`nohup`, a shell's `trap ''`) stays ignored.

use crate::failure::Failure;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::{flag, low_level};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// `si_code` of a signal that the kernel sends of itself, as a terminal's Ctrl-C.
const FROM_KERNEL: i32 = 0x80;

/// These end the process whatever it does, or are about what it does itself.
const LEFT_ALONE: [Signal; 8] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGXCPU,
];

/// All signals but those that mean a fault of this process, blocked and read from a descriptor.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// One that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub number: i32,
    /// The terminal sent it, to every process of the group.
    pub to_the_group: bool,
}

/// What a signal means to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It ends a process that does not expect it.
    End,
    /// It stops or continues a process, or notifies it.
    Other,
    /// A child has stopped, goes on, or ended.
    Child,
    /// It is about this process, or cannot be sent on.
    Own,
}

impl Signals {
    /// Takes the signals for this thread and all that it starts from now on. Call it before the
    /// engine is opened.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self, Failure> {
        Self::of(|_| true)
    }

    /// The same, but only those that end a process can be taken; the others have no effect.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn that_end() -> Result<Self, Failure> {
        Self::of(|signal| meaning(signal as i32) == Meaning::End)
    }

    fn of(read: impl Fn(Signal) -> bool) -> Result<Self, Failure> {
        let ignored = ignored();
        let mut signals = SigSet::all();
        for signal in LEFT_ALONE.into_iter().chain(ignored.iter().copied()) {
            signals.remove(signal);
        }
        if ignored.contains(&Signal::SIGCHLD) {
            // With SIGCHLD ignored the kernel does not keep how a child ended. It is blocked; all that
            // matters is that it is not ignored.
            signals.add(Signal::SIGCHLD);
            flag::register(Signal::SIGCHLD as i32, Arc::default())
                .map_err(|error| Failure::system("wait for children", error))?;
        }
        let blocked = signals.thread_block();
        Signal::iterator()
            .filter(|signal| !read(*signal))
            .for_each(|signal| signals.remove(signal));
        blocked
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

    /// The next one that ends a process; those before it are dropped.
    pub fn take_end(&mut self) -> Option<Caught> {
        while let Some(caught) = self.take() {
            if caught.meaning() == Meaning::End {
                return Some(caught);
            }
        }
        None
    }
}

impl Caught {
    /// What it means.
    pub fn meaning(&self) -> Meaning {
        meaning(self.number)
    }

    /// Whether the sender wants an end, as service managers, shutdowns and terminals do. The others
    /// have uses of a program's own.
    pub fn is_an_order_to_end(&self) -> bool {
        let orders = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
        orders.into_iter().any(|order| order as i32 == self.number)
    }

    /// The exit code that a shell would return for a process that it ended.
    pub fn code(&self) -> u8 {
        u8::try_from(self.number).map_or(u8::MAX, |number| number.saturating_add(128))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn meaning(number: i32) -> Meaning {
    match Signal::try_from(number) {
        Ok(Signal::SIGCHLD) => Meaning::Child,
        Ok(
            Signal::SIGTSTP
            | Signal::SIGTTIN
            | Signal::SIGTTOU
            | Signal::SIGCONT
            | Signal::SIGWINCH
            | Signal::SIGURG,
        ) => Meaning::Other,
        // A file that may not grow, as the log; a reader that is gone; real-time signals.
        Ok(Signal::SIGXFSZ | Signal::SIGPIPE) | Err(_) => Meaning::Own,
        Ok(_) => Meaning::End,
    }
}

/// Does something with all signals blocked. A thread that it starts has them blocked for good.
///
/// # Errors
/// When the kernel refuses.
pub fn without_signals<T>(what: impl FnOnce() -> T) -> io::Result<T> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let done = what();
    before.thread_set_mask()?;
    Ok(done)
}

/// Does something that starts programs: of the signals with a name they have none blocked that ends a process, nor SIGCHLD, as
/// they have what the thread that starts them has. Programs of Xen's toolstack wait for SIGCHLD, forever if it is blocked, and end a guest's QEMU,
/// which they start, by SIGHUP.
///
/// A signal that comes meanwhile comes again afterwards, to this thread.
///
/// # Errors
/// When the kernel refuses.
pub fn with_signals<T>(what: impl FnOnce() -> T) -> io::Result<T> {
    let before = SigSet::thread_get_mask()?;
    let wanted = |signal: &Signal| {
        let ends = matches!(meaning(*signal as i32), Meaning::End | Meaning::Child | Meaning::Own);
        ends && before.contains(*signal) && !LEFT_ALONE.contains(signal)
    };
    let mut signals = SigSet::empty();
    let mut caught = Vec::new();
    for signal in Signal::iterator().filter(wanted) {
        let came = Arc::new(AtomicBool::new(false));
        caught.push((signal, Arc::clone(&came), flag::register(signal as i32, came)?));
        signals.add(signal);
    }
    signals.thread_unblock()?;
    let done = what();
    before.thread_set_mask()?;
    for (signal, came, id) in caught {
        low_level::unregister(id);
        if came.load(Ordering::Acquire) {
            raise(signal)?;
        }
    }
    Ok(done)
}

/// The signals that this process ignores.
fn ignored() -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Signal::iterator().filter(|signal| mask >> (*signal as i32 - 1) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The signals that a program has blocked which is started now.
    fn blocked() -> u64 {
        let status = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let status = String::from_utf8(status.stdout).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    #[test]
    fn a_program_that_is_started_has_no_signal_blocked_by_which_it_is_ended() {
        let _signals = Signals::that_end().unwrap();
        let of = |signal: Signal| 1 << (signal as u32 - 1);
        let ends = of(Signal::SIGHUP) | of(Signal::SIGTERM) | of(Signal::SIGINT);
        let all = ends | of(Signal::SIGCHLD);
        assert_eq!(blocked() & all, all);
        assert_eq!(with_signals(blocked).unwrap() & all, 0);
        assert_eq!(blocked() & all, all);
    }

    #[test]
    fn a_signal_that_comes_while_a_program_is_started_is_not_lost() {
        let mut signals = Signals::that_end().unwrap();
        with_signals(|| raise(Signal::SIGTERM).unwrap()).unwrap();
        assert_eq!(signals.take_end().map(|caught| caught.number), Some(Signal::SIGTERM as i32));
        assert!(signals.take_end().is_none());
    }
}
