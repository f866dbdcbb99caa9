//! Processes that serve a guest: they outlive this one, and the next one finds them.

use crate::daemon::config::BackendCommand;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// A process that has run so long did not fail at its start.
const STEADY: Duration = Duration::from_secs(60);
/// How often it is started again after it failed.
const MOST_FAILURES: u32 = 8;
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// A process that was started once, whatever its number stands for by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// When it was started, in the kernel's ticks since it booted.
    started: u64,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Process {
    id: ProcessId,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    /// `None`: another `daemon` has started it.
    child: Option<Child>,
    began: Instant,
    /// When it is killed, as it was asked to end.
    deadline: Option<Instant>,
}

impl Process {
    /// Starts a command in a process group of its own. What it prints goes to `output`, or to standard error.
    pub(crate) fn start(command: &mut Command, output: Option<File>) -> io::Result<Self> {
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let output = output.map_or_else(|| Stdio::from(stderr), Stdio::from);
        command.stdin(Stdio::null()).stdout(output).process_group(0).current_dir("/");
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        let mut child = command.spawn()?;
        let opened = open(child.id());
        match opened {
            Ok((id, pidfd)) => {
                Ok(Self { id, pidfd, child: Some(child), began: Instant::now(), deadline: None })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Finds one again. `None`: it has ended.
    pub(crate) fn find(id: ProcessId) -> Option<Self> {
        let (found, pidfd) = open(id.pid).ok()?;
        let process = Self { id, pidfd, child: None, began: Instant::now(), deadline: None };
        (found == id).then_some(process)
    }

    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it has ended, and how. Never waits.
    pub(crate) fn ended(&mut self) -> Option<String> {
        if !has_ended(&self.pidfd) {
            return None;
        }
        let status = self.child.as_mut().and_then(|child| child.wait().ok());
        Some(status.map_or_else(|| "it ended".to_owned(), |status| status.to_string()))
    }

    /// Asks it to end, and kills it if it takes too long. What it has started ends with it.
    pub(crate) fn end(&mut self, now: Instant) {
        match self.deadline {
            None => {
                self.signal(Signal::TERM);
                self.deadline = Some(now + GRACE);
            }
            Some(deadline) if now >= deadline => {
                self.signal(Signal::KILL);
                self.deadline = Some(now + GRACE);
            }
            Some(_) => {}
        }
    }

    fn signal(&self, signal: Signal) {
        // Its number is its own until it is waited for. Fails if it has ended.
        let group =
            self.child.as_ref().and_then(|_| Pid::from_raw(i32::try_from(self.id.pid).ok()?));
        let _ = match group {
            Some(group) => kill_process_group(group, signal),
            None => pidfd_send_signal(&self.pidfd, signal),
        };
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&Timespec::default())), Ok(1))
}

/// The process that has this number now.
fn open(pid: u32) -> io::Result<(ProcessId, OwnedFd)> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty())?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let started = start_of(&stat).ok_or(io::ErrorKind::InvalidData)?;
    Ok((ProcessId { pid, started }, pidfd))
}

/// The 22nd word of `/proc/PID/stat`; the second is in brackets, and may have any character.
fn start_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A process that is started again when it ends.
#[derive(Debug, Default)]
pub(crate) struct Supervised {
    process: Option<Process>,
    failures: u32,
    /// Not before this.
    next: Option<Instant>,
}

impl Supervised {
    /// One that another `daemon` has started.
    pub(crate) fn again(id: Option<ProcessId>) -> Self {
        Self { process: id.and_then(Process::find), ..Self::default() }
    }

    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    pub(crate) fn id(&self) -> Option<ProcessId> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether it is to be started now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.process.is_none() && !self.has_given_up() && self.next.is_none_or(|next| now >= next)
    }

    /// When it is to be started, or killed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.process {
            Some(process) => process.deadline,
            None if self.has_given_up() => None,
            None => self.next,
        }
    }

    /// Whether it has failed so often that it is not started any more.
    pub(crate) fn has_given_up(&self) -> bool {
        self.failures > MOST_FAILURES
    }

    pub(crate) fn started(&mut self, started: io::Result<Process>, now: Instant) -> Option<String> {
        match started {
            Ok(process) => {
                self.process = Some(process);
                None
            }
            Err(error) => {
                self.failed(now);
                Some(error.to_string())
            }
        }
    }

    /// Takes notice of its end. Returns how it ended.
    pub(crate) fn look(&mut self, now: Instant) -> Option<String> {
        let process = self.process.as_mut()?;
        let Some(how) = process.ended() else {
            if process.deadline.is_some_and(|deadline| now >= deadline) {
                process.end(now);
            }
            return None;
        };
        if now.saturating_duration_since(process.began) >= STEADY {
            self.failures = 0;
        }
        self.process = None;
        self.failed(now);
        Some(how)
    }

    fn failed(&mut self, now: Instant) {
        self.next = Some(now + FIRST_DELAY * 2_u32.pow(self.failures.min(7)));
        self.failures += 1;
    }

    /// Asks it to end. `true`: it has.
    pub(crate) fn end(&mut self, now: Instant) -> bool {
        let Some(process) = &mut self.process else { return true };
        if process.ended().is_some() {
            self.process = None;
            return true;
        }
        process.end(now);
        false
    }
}

impl BackendCommand {
    /// The command, with its user and group. It has no other groups.
    pub(crate) fn command(&self) -> Command {
        let (program, words) = self.words.split_first().map_or(("", &[][..]), |(a, b)| (a, b));
        let mut command = Command::new(program);
        command.args(words);
        if let Some(group) = self.group {
            command.gid(group);
        }
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }
}
