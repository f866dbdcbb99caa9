//! The `xen-virtio` command.
//!
//! ```text
//! guest's access to a register -> ioreq server -> devices -> PCI bus -> function      (crate virtio)
//!                                                    \-> effects -> device -> backend (crate vhost)
//!                                                                      \-> engine: kicks, interrupts
//! ```

#![deny(unsafe_code)]

mod demo;
mod device;
mod devices;
mod error;
mod queue;
mod server;

use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use xen_eventfd_cli::commands::{completion, man};
use xen_eventfd_cli::failure::{EXIT_CODES, Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::{output, usage};

#[derive(Debug, Parser)]
#[command(name = "xen-virtio", version, about, after_long_help = EXIT_CODES)]
struct Arguments {
    /// Print objects instead of prose
    #[arg(long, global = true)]
    json: bool,
    /// Say more on standard error; twice for even more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Completion(completion::Arguments),
    Man(man::Arguments),
    /// Serves one frontend of vhost-user with a disk, for the demonstration.
    #[command(hide = true)]
    DemoBackend(demo::backend::Arguments),
}

/// Runs the command with these arguments, the first of which is its name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    output::speak_as("xen-virtio");
    let words: Vec<OsString> = words.into_iter().collect();
    let arguments = match usage::parse::<Arguments>(&words, |arguments| arguments.json) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let Arguments { json, verbose, command } = arguments;
    let session = Session { json, verbose, ..Session::default() };
    session.trace();
    usage::conclude(match command {
        Command::Demo(arguments) => demo::run(&session, &arguments),
        Command::Man(arguments) => man::run(&session, Arguments::command(), &arguments),
        Command::Completion(arguments) => {
            completion::run(&session, Arguments::command(), &arguments)
        }
        Command::DemoBackend(arguments) => demo::backend::serve(&arguments)
            .map(|()| Exit::Success)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string())),
    })
}
