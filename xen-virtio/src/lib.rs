//! The `xen-virtio` command.
#![forbid(unsafe_code)]

mod demo;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "xen-virtio", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves one frontend of vhost-user with a disk, for the demonstration.
    #[command(hide = true)]
    DemoBackend(demo::backend::Arguments),
}

/// Runs the command with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and versions are among the errors, with an exit code of their own.
        Err(error) => error.exit(),
    };
    let done = match arguments.command {
        Command::DemoBackend(arguments) => demo::backend::serve(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xen-virtio: {error}");
            ExitCode::FAILURE
        }
    }
}
