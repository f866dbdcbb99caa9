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
pub mod rates;
pub mod served;
pub mod session;
pub mod shown;
pub mod signals;
pub mod spec;
pub mod table;
pub mod terminal;

use arguments::Arguments;
use clap::Parser;
use failure::{Exit, Failure};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Runs one command line and says how it ended, on standard error if badly.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    let session = arguments.session();
    session.trace();
    match commands::dispatch(&session, arguments.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.sentence.is_empty() {
                complain(&failure, session.json);
            }
            failure.exit.into()
        }
    }
}

/// One sentence; for a machine, one object. Nobody may be left to read it.
fn complain(failure: &Failure, json: bool) {
    let line = if json {
        let exit = u8::from(failure.exit);
        serde_json::json!({ "error": failure.sentence, "exit": exit }).to_string()
    } else {
        format!("xen-eventfd: {}", failure.sentence)
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}
