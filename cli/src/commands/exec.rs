//! `exec`: the last step of `run`, in the child.
//!
//! LISTEN_PID and LISTEN_PIDFDID must be numbers of the backend itself, which are known only between
//! fork and exec. Instead of running code there, `run` starts this command, which has the right
//! numbers, sets the variables and becomes the backend.

use crate::failure::{Exit, Failure};
use crate::inherited::{is_for_us, pidfd_id};
use clap::Args;
use nix::sys::signal::SigSet;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Become COMMAND, with variables that are its own.
#[derive(Debug, Args)]
pub struct Arguments {
    /// End with this process
    #[arg(long, value_name = "PID")]
    pub parent: i32,
    /// Leave it the variables by which it notifies a service manager
    #[arg(long)]
    pub pass_notify: bool,
    /// The program, and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes the command; returns only if it cannot.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let Some((program, words)) = arguments.command.split_first() else {
        return Err(Failure::new(Exit::Usage, "no command to become"));
    };
    // Without the engine its eventfds are never signalled again: the backend has to end.
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|errno| Failure::system("ask for the end of the engine to be reported", errno))?;
    if getppid().map(rustix::process::Pid::as_raw_nonzero).map(i32::from) != Some(arguments.parent)
    {
        return Err(Failure::new(Exit::Failed, "the engine ended before its backend began"));
    }
    // `run` blocks the signals that it reads; its backend does not want that.
    SigSet::empty().thread_set_mask().map_err(|errno| Failure::system("unblock signals", errno))?;
    let error = become_backend(program, words, arguments.pass_notify);
    let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    let sentence = format!(
        "cannot start {}: {error}; name a program that is on the PATH, or its path",
        program.display()
    );
    Err(Failure::new(Exit::Backend(code), sentence))
}

/// What it finds is for this process, and nothing that was for its parent.
fn become_backend(program: &OsStr, words: &[OsString], notifies: bool) -> std::io::Error {
    let mut command = Command::new(program);
    command.args(words);
    for (name, _) in std::env::vars_os() {
        let ours = ["LISTEN_FDS", "LISTEN_FDNAMES"].iter().any(|of_run| name == *of_run);
        if is_for_us(&name, notifies) && !ours {
            command.env_remove(name);
        }
    }
    let me = std::process::id().to_string();
    if notifies && std::env::var_os("WATCHDOG_PID").is_some() {
        command.env("WATCHDOG_PID", &me);
    }
    if let Some(id) = pidfd_id() {
        command.env("LISTEN_PIDFDID", id.to_string());
    }
    command.env("LISTEN_PID", me).exec()
}
