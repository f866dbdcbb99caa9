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

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use xen_eventfd_cli::failure::{EXIT_CODES, Exit, Failure};
use xen_eventfd_cli::output;
use xen_eventfd_cli::session::Session;

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
    /// Serves one frontend of vhost-user with a disk, for the demonstration.
    #[command(hide = true)]
    DemoBackend(demo::backend::Arguments),
}

/// Runs the command with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    output::speak_as("xen-virtio");
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and versions are among the errors, with an exit code of their own.
        Err(error) => error.exit(),
    };
    output::speak_json(arguments.json);
    let (json, verbose) = (arguments.json, arguments.verbose);
    let session = Session { json, verbose, ..Session::default() };
    session.trace();
    let done = match arguments.command {
        Command::Demo(arguments) => demo::run(&session, &arguments),
        Command::DemoBackend(arguments) => demo::backend::serve(&arguments)
            .map(|()| Exit::Success)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string())),
    };
    let exit = done.unwrap_or_else(|failure| {
        if !failure.sentence.is_empty() {
            output::complain(&failure);
        }
        failure.exit
    });
    output::STDERR.drained(output::PATIENCE);
    exit.into()
}
