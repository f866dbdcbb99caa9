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
pub mod output;
pub mod rates;
pub mod served;
pub mod session;
pub mod shown;
pub mod signals;
pub mod spec;
pub mod table;
pub mod terminal;
pub mod waiting;

use arguments::Arguments;
use clap::Parser;
use failure::{Exit, Failure};
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
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    let session = Session { host, ..arguments.session() };
    session.trace();
    let exit = match commands::dispatch(&session, arguments.command) {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.sentence.is_empty() {
                complain(&failure, session.json);
            }
            failure.exit
        }
    };
    output::STDERR.drained(output::PATIENCE);
    exit.into()
}

/// One sentence; for a machine, one object. Nobody may be left to read it.
fn complain(failure: &Failure, json: bool) {
    if json {
        let exit = u8::from(failure.exit);
        let object = serde_json::json!({ "error": failure.sentence, "exit": exit });
        let _ = output::STDERR.push(format!("{object}\n").into_bytes());
    } else {
        output::note(&failure.sentence);
    }
}
