//! `man`: the man page, from the same source as `--help`.

use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::{Args, Command};
use clap_mangen::Man;
use serde_json::json;

/// Print the man page, or that of a command.
///
/// For example `man run | man -l -`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The command
    pub command: Option<String>,
}

/// Prints the page of a program.
///
/// # Errors
/// It has no such command, or the page cannot be written.
pub fn run(
    session: &Session,
    mut program: Command,
    arguments: &Arguments,
) -> Result<Exit, Failure> {
    program.build();
    let page = match &arguments.command {
        None => program,
        Some(name) => find(&program, name)?,
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).map_err(|error| Failure::system("make the page", error))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    session.print("man", &json!({ "text": text }), || text.clone())?;
    Ok(Exit::Success)
}

fn find(program: &Command, name: &str) -> Result<Command, Failure> {
    let found = program.find_subcommand(name).filter(|command| !command.is_hide_set());
    let Some(found) = found else {
        let known: Vec<&str> =
            program.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
        let sentence = format!("there is no command {name}; there are {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, sentence));
    };
    Ok(found.clone().version(env!("CARGO_PKG_VERSION")))
}
