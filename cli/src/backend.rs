//! A backend as our child: what it is given, and how it ends.

use crate::failure::Failure;
use crate::handover::Passed;
use crate::output::note;
use crate::signals::{Caught, Meaning, Signals};
use command_fds::{CommandFdExt, FdMapping};
use nix::unistd::{getpgid, getpgrp, getpid, getsid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long a backend may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// A backend that runs.
#[derive(Debug)]
pub struct Backend {
    child: Child,
    /// Names the child for good, unlike its number.
    process: OwnedFd,
    /// A signal has stopped it.
    stopped: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, or because a signal of ours was passed on to it.
    Exited(ExitStatus),
    /// It was asked to, as the guest had died.
    GuestGone {
        /// The signal that asked us to end, meanwhile or just before.
        asked: Option<Caught>,
    },
}

impl Backend {
    /// Starts `command` with the eventfds in place. `helper` is this program's own file: its
    /// `exec` command is what sets LISTEN_PID. `notifies`: the backend is left the variables by
    /// which it notifies a service manager. `json`: that `command` cannot be started is reported as an
    /// object.
    ///
    /// # Errors
    /// When the helper cannot be started. That `command` cannot is reported by its exit code, 126 or
    /// 127, as by a shell.
    pub fn start(
        helper: &Path,
        passed: &[Passed],
        command: &[OsString],
        notifies: bool,
        json: bool,
    ) -> Result<Self, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            let program = command.first().map(OsString::as_os_str).unwrap_or_default();
            Failure::system(&format!("{what} {}", program.display()), error)
        };
        let names: Vec<&str> = passed.iter().map(|passed| passed.name.as_str()).collect();
        let mut child = Command::new(helper);
        child
            .arg("exec")
            .args(json.then_some("--json"))
            .arg("--parent")
            .arg(std::process::id().to_string())
            .args(notifies.then_some("--pass-notify"))
            .arg("--")
            .args(command)
            .env("LISTEN_FDS", passed.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        let mut mappings = Vec::new();
        for Passed { fd, eventfd, .. } in passed {
            let parent_fd =
                eventfd.try_clone().map_err(|error| failed("pass an eventfd to", error))?;
            mappings.push(FdMapping { parent_fd, child_fd: *fd });
        }
        child
            .fd_mappings(mappings)
            .map_err(|error| failed("pass eventfds to", std::io::Error::other(error)))?;
        let mut child = child.spawn().map_err(|error| failed("start", error))?;
        match pidfd(&child) {
            Ok(process) => Ok(Self { child, process, stopped: false }),
            Err(errno) => {
                let _ = child.kill();
                Err(failed("watch over", errno.into()))
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends, passing signals on to it; ends it when `gone` becomes readable.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn attend(
        mut self,
        gone: BorrowedFd<'_>,
        mut signals: Option<&mut Signals>,
    ) -> Result<End, Failure> {
        let failed = |error: std::io::Error| Failure::system("wait for the backend", error);
        let (mut guest_gone, mut asked) = (false, None);
        let mut patience = None;
        loop {
            let mut watched = vec![PollFd::new(&self.process, PollFlags::IN)];
            if let Some(signals) = &signals {
                watched.push(PollFd::new(&**signals, PollFlags::IN));
            }
            if !guest_gone {
                watched.push(PollFd::from_borrowed_fd(gone, PollFlags::IN));
            }
            let woken = poll(&mut watched, left(patience).as_ref());
            let ended = watched.first().is_some_and(|process| !process.revents().is_empty());
            let died = !guest_gone && watched.last().is_some_and(|fd| !fd.revents().is_empty());
            match woken {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            while let Some(caught) = signals.as_mut().and_then(|signals| signals.take()) {
                match caught.meaning() {
                    Meaning::Child => self.look_whether_stopped(),
                    Meaning::Own => {}
                    Meaning::Other => self.pass(caught),
                    Meaning::End => {
                        self.pass(caught);
                        self.wake();
                        if guest_gone || caught.is_an_order_to_end() {
                            asked = Some((caught, Instant::now()));
                        }
                    }
                }
            }
            if ended {
                let status = self.child.wait().map_err(failed)?;
                return Ok(match guest_gone {
                    true => End::GuestGone { asked: asked.map(|(caught, _)| caught) },
                    false => End::Exited(status),
                });
            }
            if died {
                guest_gone = true;
                patience = Some(Instant::now() + GRACE);
                // A backend that was asked to end long ago has a use of its own for the signal.
                asked = asked.filter(|(_, when): &(Caught, Instant)| when.elapsed() < GRACE);
                self.send(Signal::TERM);
                self.wake();
            }
            if patience.is_some_and(|deadline| Instant::now() >= deadline) {
                patience = None;
                self.send(Signal::KILL);
            }
        }
    }

    /// Passes a signal on, unless the terminal has sent it to the backend as well.
    fn pass(&self, caught: Caught) {
        let Some(signal) = Signal::from_named_raw(caught.number) else { return };
        // A terminal that goes away signals the leader of its session only.
        let to_the_leader = matches!(signal, Signal::HUP | Signal::CONT)
            && getsid(None).is_ok_and(|session| session == getpid());
        if !(caught.to_the_group && !to_the_leader && self.is_in_our_group()) {
            self.send(signal);
        }
    }

    fn is_in_our_group(&self) -> bool {
        // 0, which rustix does not accept, is a group outside of our PID namespace.
        getpgid(Some(nix::unistd::Pid::from_raw(self.child.id().cast_signed())))
            .is_ok_and(|group| group == getpgrp())
    }

    /// Has it go on, if it is stopped: it could not end otherwise.
    fn wake(&mut self) {
        self.look_whether_stopped();
        if self.stopped {
            self.send(Signal::CONT);
        }
    }

    fn look_whether_stopped(&mut self) {
        let Some(id) = self.id() else { return };
        let options = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        while let Ok(Some(status)) = waitid(WaitId::Pid(id), options) {
            self.stopped = status.stopped();
            if self.stopped {
                note(&format!(
                    "the backend is stopped, and the engine goes on; kill -CONT {id} lets it go on",
                    id = id.as_raw_nonzero()
                ));
            }
        }
    }

    fn id(&self) -> Option<Pid> {
        // Until it is waited for, its number is no other's.
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn send(&self, signal: Signal) {
        // Fails only when it has ended, which the poll reports as well.
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

/// The exit code that a shell would report: 128 + n for signal n.
pub fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// The time until a deadline, as `poll` wants it; `None` for ever.
fn left(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}

fn pidfd(child: &Child) -> Result<OwnedFd, Errno> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}
