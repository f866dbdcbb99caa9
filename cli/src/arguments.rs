//! The command line. `--help`, the man page and shell completion are all made from this.

use crate::commands;
use crate::failure::EXIT_CODES;
use crate::session::Session;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser, Subcommand};
use std::path::PathBuf;
use xen_eventfd::EngineKind;

/// ioeventfd and irqfd for Xen guests: a guest's doorbell signals an eventfd, an eventfd raises a
/// guest's interrupt, and the VMM stays asleep.
#[derive(Debug, Parser)]
#[command(name = "xen-eventfd", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Print objects (JSON) instead of prose
    #[arg(long, global = true)]
    pub json: bool,

    /// Where engines keep locks and records; all engines of a host must agree on it
    /// [default: /run/xen-eventfd]
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Who turns kicks into signals [default: auto, or XEN_EVENTFD_ENGINE]
    #[arg(long, global = true, value_name = "ENGINE", value_parser = engines())]
    pub engine: Option<EngineKind>,

    /// Tell more on standard error; repeat for still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole path on an in-process Xen; needs none of its own
    Demo(commands::demo::Arguments),
    /// Tell what this host has, what is missing and how to get it
    Doctor(commands::doctor::Arguments),
    /// Hand a guest's doorbells and interrupts to a backend, as eventfds
    Run(commands::run::Arguments),
    /// Take a guest's doorbell and print its kicks as they come
    Watch(commands::watch::Arguments),
    /// Measure the engine on an in-process Xen, against a bare eventfd
    Bench(commands::bench::Arguments),
    /// Sweep up after engines that were killed
    Reap(commands::reap::Arguments),
    /// Print a completion script for a shell
    Completion(commands::completion::Arguments),
    /// Print the man page
    Man(commands::man::Arguments),
    /// Wait for the process behind standard input to end, then reap
    #[command(hide = true)]
    Guard(commands::guard::Arguments),
    /// Become COMMAND, with LISTEN_PID set
    #[command(hide = true)]
    Exec(commands::exec::Arguments),
}

impl Arguments {
    /// The global options.
    pub fn session(&self) -> Session {
        Session {
            json: self.json,
            run_dir: self.run_dir.clone(),
            engine: self.engine,
            verbose: self.verbose,
        }
    }
}

fn engines() -> impl TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(["auto", "userspace"]).try_map(|name| name.parse::<EngineKind>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
