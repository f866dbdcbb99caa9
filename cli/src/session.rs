//! What all commands share: the global options and what they open.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use tracing_subscriber::filter::LevelFilter;
use xen_eventfd::{Builder, EngineKind, Xen};

/// The global options.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Objects instead of prose on standard output.
    pub json: bool,
    /// Where engines keep locks and records.
    pub run_dir: Option<PathBuf>,
    /// Which engine.
    pub engine: Option<EngineKind>,
    /// How much is told on standard error, beyond warnings.
    pub verbose: u8,
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

    /// Opens this machine's Xen.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(&self) -> Result<Xen, Failure> {
        Ok(self.builder().open()?)
    }

    /// Sends what the engine tells to standard error.
    pub fn trace(&self) {
        let level = match self.verbose {
            0 => LevelFilter::WARN,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        // Fails only if somebody listens already, as in a test.
        let _ = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .without_time()
            .try_init();
    }

    /// Prints a result: an object on a line of its own, or prose.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self, object: &impl Serialize, prose: impl FnOnce() -> String) -> Outcome {
        let text = if self.json {
            serde_json::to_string(object).map_err(|error| Failure::system("write JSON", error))?
        } else {
            prose()
        };
        put(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
    }
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written; without a word if the reader has gone, as in `… | head`.
pub fn put(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::reader_gone(),
        _ => Failure::system("write the result", error),
    })
}

/// What comes of something that has no result but its doing.
pub type Outcome<T = ()> = Result<T, Failure>;
