//! The `xen-virtio` command.
//!
//! ```text
//! guest's access to a register -> ioreq server -> devices -> registers: PCI bus, or virtio-mmio  (crate virtio)
//!                                                    \-> effects -> device -> backend (crate vhost)
//!                                                                      \-> engine: kicks, interrupts
//! ```

#![deny(unsafe_code)]

mod acpi;
mod backends;
mod commands;
#[doc(hidden)]
pub mod confinement;
mod daemon;
mod demo;
mod device;
mod devices;
mod error;
mod host;
mod hvm_info;
mod kind;
mod layout;
mod memory;
mod queue;
mod reconnect;
mod record;
mod registers;
mod resume;
mod server;
mod spec;
mod status;
mod toolstack;
mod types;

use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use xen_eventfd_cli::arguments::Options;
use xen_eventfd_cli::commands::{completion, man};
use xen_eventfd_cli::failure::{EXIT_CODES, Exit, Failure};
use xen_eventfd_cli::{output, usage};

#[derive(Debug, Parser)]
#[command(name = "xen-virtio", version, about, after_long_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Start(commands::start::Arguments),
    Serve(commands::serve::Arguments),
    Daemon(commands::daemon::Arguments),
    Check(commands::check::Arguments),
    List(commands::list::Arguments),
    Show(commands::show::Arguments),
    Top(commands::top::Arguments),
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
    let arguments = match usage::parse::<Arguments>(&words, |arguments| arguments.options.json) {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    let Arguments { options, command } = arguments;
    let session = options.session();
    session.trace();
    usage::conclude(match command {
        Command::Start(arguments) => commands::start::run(&session, &arguments),
        Command::Serve(arguments) => commands::serve::run(&session, &arguments),
        Command::Daemon(arguments) => commands::daemon::run(&session, &arguments),
        Command::Check(arguments) => commands::check::run(&session, &arguments),
        Command::List(arguments) => commands::list::run(&session, &arguments),
        Command::Show(arguments) => commands::show::run(&session, &arguments),
        Command::Top(arguments) => commands::top::run(&session, &arguments),
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
