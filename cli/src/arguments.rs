//! The command line. `--help`, the man page and shell completion are all made from this.

use crate::commands;
use crate::failure::exit_codes;
use crate::session::Session;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::{PathBuf, absolute};
use xen_eventfd::EngineKind;

/// ioeventfd and irqfd for Xen guests: a guest's doorbell signals an eventfd, an eventfd raises a
/// guest's interrupt, and the VMM stays asleep.
#[derive(Debug, Parser)]
#[command(name = "xen-eventfd", version, after_help = exit_codes())]
pub struct Arguments {
    /// The options of every command
    #[command(flatten)]
    pub options: Options,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The options of every command, of this program and of `xen-virtio`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print JSON objects instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// Where engines keep locks and records; all engines of a host must agree on it
    /// [default: /run/xen-eventfd]
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// The engine that turns kicks into signals [default: auto, or XEN_EVENTFD_ENGINE]
    #[arg(long, global = true, value_name = "ENGINE", value_parser = engines())]
    pub engine: Option<EngineKind>,

    /// Print more on standard error; repeat for still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands. What each does is said at its arguments, for the help texts as well.
#[expect(missing_docs, reason = "a text here would replace the one at the arguments")]
#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(commands::demo::Arguments),
    Doctor(commands::doctor::Arguments),
    Run(commands::run::Arguments),
    Watch(commands::watch::Arguments),
    List(commands::list::Arguments),
    Show(commands::show::Arguments),
    Top(commands::top::Arguments),
    Reap(commands::reap::Arguments),
    Completion(commands::completion::Arguments),
    Man(commands::man::Arguments),
    #[command(hide = true)]
    Guard(commands::guard::Arguments),
    #[command(hide = true)]
    Exec(commands::exec::Arguments),
}

impl Options {
    /// What commands share of them.
    pub fn session(&self) -> Session {
        Session {
            json: self.json,
            // Some commands leave the working directory.
            run_dir: self
                .run_dir
                .as_deref()
                .map(|dir| absolute(dir).unwrap_or_else(|_| dir.into())),
            engine: self.engine,
            verbose: self.verbose,
            host: None,
        }
    }
}

fn engines() -> impl TypedValueParser<Value = EngineKind> {
    PossibleValuesParser::new(["auto", "kernel", "userspace"])
        .try_map(|name| name.parse::<EngineKind>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_run_dir_is_meant_where_it_is_given() {
        let arguments = Arguments::parse_from(["xen-eventfd", "--run-dir", "run", "guard"]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(arguments.options.session().run_dir, Some(here.join("run")));
    }

    #[test]
    fn every_command_says_in_a_line_what_it_does() {
        for command in Arguments::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!((10..80).contains(&about.len()), "{}: {about:?}", command.get_name());
        }
    }
}
