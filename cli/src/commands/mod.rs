//! The commands, a module for each.

pub mod completion;
pub mod demo;
pub mod doctor;
pub mod exec;
pub mod guard;
pub mod list;
pub mod man;
pub mod reap;
pub mod run;
pub mod show;
pub mod top;
pub mod watch;

use crate::arguments::{Arguments, Command};
use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::CommandFactory;

/// Carries one out.
///
/// # Errors
/// The sentence to print and the code to exit with.
pub fn dispatch(session: &Session, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Demo(arguments) => demo::run(session, &arguments),
        Command::Doctor(arguments) => doctor::run(session, &arguments),
        Command::Run(arguments) => run::run(session, &arguments),
        Command::Watch(arguments) => watch::run(session, &arguments),
        Command::List(arguments) => list::run(session, &arguments),
        Command::Show(arguments) => show::run(session, &arguments),
        Command::Top(arguments) => top::run(session, &arguments),
        Command::Completion(arguments) => {
            completion::run(session, Arguments::command(), &arguments)
        }
        Command::Man(arguments) => man::run(session, Arguments::command(), &arguments),
        Command::Reap(arguments) => reap::run(session, &arguments),
        Command::Guard(arguments) => guard::run(session, &arguments),
        Command::Exec(arguments) => exec::run(&arguments),
    }
}
