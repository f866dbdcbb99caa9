//! `exec`: the last step of `run`, in the child.
//!
//! LISTEN_PID must be the process id of the backend itself, which is known only between fork and
//! exec. Instead of running code there, `run` starts this command, which has the right process
//! id, sets the variable and becomes the backend.

use crate::failure::{Exit, Failure};
use clap::Args;
use nix::sys::signal::SigSet;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Become COMMAND, with LISTEN_PID set.
#[derive(Debug, Args)]
pub struct Arguments {
    /// End with this process
    #[arg(long, value_name = "PID")]
    pub parent: i32,
    /// The program, and what it is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub command: Vec<OsString>,
}

/// Becomes the command; returns only if it cannot.
pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let Some((program, words)) = arguments.command.split_first() else {
        return Err(Failure::new(Exit::Usage, "no command to become"));
    };
    // Without the engine its eventfds never ring again: the backend is told to end.
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|errno| Failure::system("ask for the end of the engine to be told", errno))?;
    if getppid().map(rustix::process::Pid::as_raw_nonzero).map(i32::from) != Some(arguments.parent)
    {
        return Err(Failure::new(Exit::Failed, "the engine ended before its backend began"));
    }
    // `run` blocks the signals that it reads; its backend does not want that.
    SigSet::empty().thread_set_mask().map_err(|errno| Failure::system("unblock signals", errno))?;
    let me = std::process::id().to_string();
    let error = Command::new(program).args(words).env("LISTEN_PID", me).exec();
    let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    let sentence = format!(
        "cannot start {}: {error}; name a program that is on the PATH, or its path",
        program.display()
    );
    Err(Failure::new(Exit::Backend(code), sentence))
}
