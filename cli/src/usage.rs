//! A program's trip from its words to its exit code: a command line that cannot be taken, one that only asks
//! for help or the version, and how a command ended.

use crate::failure::{Exit, Failure};
use crate::session::put;
use crate::{json, output};
use clap::Parser;
use clap::error::ErrorKind;
use serde_json::json;
use std::ffi::OsString;
use std::process::ExitCode;

/// Parses the words of a command line, the first of which is the program's name. What is no command is reported.
///
/// # Errors
/// It is none, or asks for help: the exit code.
pub fn parse<A: Parser>(words: &[OsString], json: impl FnOnce(&A) -> bool) -> Result<A, ExitCode> {
    match A::try_parse_from(words) {
        Ok(arguments) => {
            output::speak_json(json(&arguments));
            Ok(arguments)
        }
        Err(error) => {
            output::speak_json(asks_for_json(words));
            Err(ended(report(&error)))
        }
    }
}

/// Reports how a command failed, if it did; what was reported is written.
pub fn conclude(done: Result<Exit, Failure>) -> ExitCode {
    ended(done.unwrap_or_else(|failure| {
        if !failure.sentence.is_empty() {
            output::complain(&failure);
        }
        failure.exit
    }))
}

fn ended(exit: Exit) -> ExitCode {
    output::STDERR.drained(output::PATIENCE);
    exit.into()
}

/// Whether words that are no command line ask for objects: `--json` before the words of a backend.
fn asks_for_json(words: &[OsString]) -> bool {
    words.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json")
}

/// Reports it, as prose or as an object.
fn report(error: &clap::Error) -> Exit {
    if !output::speaks_json() {
        let _ = error.print();
        return if error.use_stderr() { Exit::Usage } else { Exit::Success };
    }
    let text = error.render().to_string();
    let (kind, object) = match error.kind() {
        ErrorKind::DisplayHelp => ("help", json!({ "text": text })),
        ErrorKind::DisplayVersion => {
            ("version", json!({ "version": env!("CARGO_PKG_VERSION"), "text": text.trim_end() }))
        }
        kind => {
            output::complain(&Failure::new(Exit::Usage, sentence(kind, &text)));
            return Exit::Usage;
        }
    };
    let reported = json::line(kind, &object).map_err(|error| Failure::system("write JSON", error));
    match reported.and_then(|line| put(format!("{line}\n").as_bytes())) {
        Ok(()) => Exit::Success,
        Err(failure) => {
            output::complain(&failure);
            failure.exit
        }
    }
}

/// What is wrong, in one line: without the usage, which `--help` prints.
fn sentence(kind: ErrorKind, text: &str) -> String {
    // clap's own sentence names hidden commands too.
    if matches!(
        kind,
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let program = output::program();
        return format!("there is no command; `{program} --help` lists which there are");
    }
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end));
    let text = text.get(..end.min().unwrap_or(text.len())).unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
