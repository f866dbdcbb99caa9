//! What all commands share: the global options and what they open.

use crate::commands::reap::Found;
use crate::failure::Failure;
use crate::json;
use crate::output::{self, Log};
use rustix::io::Errno;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use tracing_subscriber::filter::LevelFilter;
use xen_eventfd::{Builder, EngineKind, Host, Xen};

/// The global options.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Objects instead of prose on standard output.
    pub json: bool,
    /// Where engines keep locks and records.
    pub run_dir: Option<PathBuf>,
    /// Which engine.
    pub engine: Option<EngineKind>,
    /// How much is reported on standard error, beyond warnings.
    pub verbose: u8,
    /// Another host than this machine's Xen: the model, in tests.
    pub host: Option<Arc<dyn Host>>,
}

impl Session {
    /// The settings with which this session opens Xen.
    pub fn builder(&self) -> Builder {
        let mut builder = Xen::builder();
        if let Some(engine) = self.engine {
            builder = builder.engine(engine);
        }
        if let Some(run_dir) = &self.run_dir {
            builder = builder.run_dir(run_dir);
        }
        builder
    }

    /// Opens this machine's Xen, or the host of this session.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(&self) -> Result<Xen, Failure> {
        Ok(match &self.host {
            Some(host) => self.builder().open_on(Arc::clone(host))?,
            None => self.builder().open()?,
        })
    }

    /// Sweeps up after engines that were killed.
    ///
    /// # Errors
    /// As [`Builder::reap`].
    pub fn reap(&self) -> Result<Found, Failure> {
        Ok(match &self.host {
            Some(host) => self.builder().reap_on(&**host)?,
            None => self.builder().reap()?,
        })
    }

    /// Sends what the engine reports to standard error.
    pub fn trace(&self) {
        let level = match self.verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let lines = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(|| Log)
            // It would say so on standard error, and panic if that cannot be written.
            .log_internal_errors(false)
            .with_ansi(false)
            .without_time();
        // Fails only if a process listens already, as in a test.
        let _ = if self.json {
            lines.event_format(output::LogObjects).try_init()
        } else {
            lines.try_init()
        };
    }

    /// Prints a result: an object of a type (`docs/json.md`) on a line of its own, or prose.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(
        &self,
        kind: &str,
        object: &impl Serialize,
        prose: impl FnOnce() -> String,
    ) -> Outcome {
        put(&self.line(kind, object, prose)?)
    }

    /// What [`Session::print`] prints.
    ///
    /// # Errors
    /// When it cannot be said in JSON.
    pub fn line(
        &self,
        kind: &str,
        object: &impl Serialize,
        prose: impl FnOnce() -> String,
    ) -> Outcome<Vec<u8>> {
        let text = if self.json {
            json::line(kind, object).map_err(|error| Failure::system("write JSON", error))?
        } else {
            prose()
        };
        Ok(format!("{}\n", text.trim_end_matches('\n')).into_bytes())
    }
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written; without a word if the reader has gone, as in `… | head`.
pub fn put(bytes: &[u8]) -> Outcome {
    output::put(rustix::stdio::stdout(), bytes).map_err(unwritten)
}

/// A result that cannot be written.
pub fn unwritten(errno: Errno) -> Failure {
    match errno {
        Errno::PIPE => Failure::reader_gone(),
        _ => Failure::system("write the result", errno),
    }
}

/// What comes of something that has no result but its doing.
pub type Outcome<T = ()> = Result<T, Failure>;
