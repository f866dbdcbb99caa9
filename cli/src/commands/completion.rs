//! `completion`: a script that completes the command line in a shell.

use crate::arguments;
use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

/// Print a completion script for a shell.
///
/// For example `xen-eventfd completion bash >
/// /usr/share/bash-completion/completions/xen-eventfd`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    pub shell: Shell,
}

/// Prints the script.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let mut command = arguments::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "xen-eventfd", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    session.print("completion", &json!({ "text": script }), || script.clone())?;
    Ok(Exit::Success)
}
