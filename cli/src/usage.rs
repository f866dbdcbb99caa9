//! A command line that cannot be taken, and one that only asks for help or the version.

use crate::failure::{Exit, Failure};
use crate::session::put;
use crate::{json, output};
use clap::error::ErrorKind;
use serde_json::json;

/// Reports it, as prose or as an object.
pub(crate) fn report(error: &clap::Error) -> Exit {
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
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "there is no command; `xen-eventfd --help` lists which there are".to_owned();
    }
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end));
    let text = text.get(..end.min().unwrap_or(text.len())).unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
