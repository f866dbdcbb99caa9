//! `completion`: a script that completes the command line in a shell.

use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::{Args, Command};
use clap_complete::Shell;
use serde_json::json;

/// Print a completion script for a shell.
///
/// Bash looks for it in /usr/share/bash-completion/completions/, in a file with the program's name.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell
    pub shell: Shell,
}

/// Prints the script of a program.
///
/// # Errors
/// It cannot be written.
pub fn run(
    session: &Session,
    mut program: Command,
    arguments: &Arguments,
) -> Result<Exit, Failure> {
    let (mut script, name) = (Vec::new(), program.get_name().to_owned());
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    session.print("completion", &json!({ "text": script }), || script.clone())?;
    Ok(Exit::Success)
}
