//! The `xen-eventfd` command, as a library: `main` calls [`run`], and tests call the commands on
//! the model.
//!
//! One module per command in [`commands`], named like it. What a user may write for a doorbell or
//! an interrupt is in [`spec`]; how a command ends, in [`failure`].
#![forbid(unsafe_code)]

pub mod arguments;
pub mod backend;
pub mod commands;
pub mod demo;
pub mod failure;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod handover;
pub mod inherited;
pub mod json;
pub mod module_status;
pub mod naming;
pub mod output;
pub mod quantity;
pub mod rates;
pub mod served;
pub mod session;
pub mod signals;
pub mod spec;
pub mod table;
pub mod terminal;
pub mod usage;
pub mod waiting;

use arguments::Arguments;
use session::Session;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use xen_eventfd::Host;

/// Runs one command line and says how it ended, on standard error if badly.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_on(words, None)
}

/// The same, on another host than this machine's Xen: the model, in tests.
pub fn run_on(words: impl IntoIterator<Item = OsString>, host: Option<Arc<dyn Host>>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    match usage::parse::<Arguments>(&words, |arguments| arguments.options.json) {
        Ok(arguments) => {
            let session = Session { host, ..arguments.options.session() };
            session.trace();
            usage::conclude(commands::dispatch(&session, arguments.command))
        }
        Err(exit) => exit,
    }
}
