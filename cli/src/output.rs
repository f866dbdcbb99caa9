//! Standard output and standard error, which may be closed, full, without a reader, or with one
//! that does not read.
//!
//! A result is written by [`put`], which waits for its reader. What is reported while an engine serves
//! goes through [`Background`]: no guest, no backend and no signal waits for a reader.

use crate::failure::Failure;
use crate::json;
use core::fmt;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines that wait for a reader.
const ROOM: usize = 1024;
/// How long the end of a command waits for a reader.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Standard output, for events.
pub static STDOUT: Background = Background::new(rustix::stdio::stdout);
/// Standard error, for notes and for what the engine reports.
pub static STDERR: Background = Background::new(rustix::stdio::stderr);

/// Whether standard error has objects instead of prose.
static JSON: AtomicBool = AtomicBool::new(false);

/// The program that speaks.
static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Sentences on standard error begin with this name, and not with `xen-eventfd`. Only the first call counts.
pub fn speak_as(program: &'static str) {
    let _ = PROGRAM.set(program);
}

/// The program's name.
pub fn program() -> &'static str {
    PROGRAM.get().unwrap_or(&"xen-eventfd")
}

/// From now on standard error has objects instead of prose, or prose again.
pub fn speak_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Whether standard error has objects instead of prose.
pub fn speaks_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Reports something on standard error, as long as it can be written.
pub fn note(sentence: &str) {
    report("note", sentence, &json!({ "message": sentence }));
}

/// Reports how a command failed, on standard error, as long as it can be written.
pub fn complain(failure: &Failure) {
    let Failure { exit, sentence } = failure;
    let object = json!({ "code": exit.name(), "exit": u8::from(*exit), "error": sentence });
    report("error", sentence, &object);
}

fn report(kind: &str, sentence: &str, object: &Value) {
    let line = match speaks_json().then(|| json::line(kind, object)) {
        Some(Ok(line)) => line,
        _ => format!("{}: {sentence}", program()),
    };
    STDERR.push(format!("{line}\n").into_bytes());
}

/// Writes all of `bytes`, and waits while there is no room.
///
/// # Errors
/// What the kernel answers; [`Errno::PIPE`] without a reader.
pub fn put(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another process of the terminal or the pipe has made it so.
            Err(Errno::AGAIN) => {
                let mut room = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                match poll(&mut room, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It will be written.
    Taken,
    /// It is dropped: so many wait already.
    Full,
    /// It is dropped: the descriptor cannot be written.
    Failed(Errno),
}

/// A descriptor that a thread of its own writes.
#[derive(Debug)]
pub struct Background {
    fd: fn() -> BorrowedFd<'static>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// The thread has begun, on the first line.
    begun: bool,
    /// It has taken a line that is not written yet.
    writing: bool,
    /// Why it has ended.
    failed: Option<Errno>,
}

impl Background {
    const fn new(fd: fn() -> BorrowedFd<'static>) -> Self {
        let state = State { lines: VecDeque::new(), begun: false, writing: false, failed: None };
        Self { fd, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Has a line written. Never waits.
    pub fn push(&'static self, line: Vec<u8>) -> Pushed {
        let mut state = self.state();
        if let Some(errno) = state.failed {
            return Pushed::Failed(errno);
        }
        if !state.begun {
            if let Err(error) = self.begin() {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                state.failed = Some(errno);
                return Pushed::Failed(errno);
            }
            state.begun = true;
        }
        if state.lines.len() >= ROOM {
            return Pushed::Full;
        }
        state.lines.push_back(line);
        self.changed.notify_all();
        Pushed::Taken
    }

    /// Waits until all is written or cannot be. `false`: that takes longer.
    pub fn drained(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        while state.failed.is_none() && (state.writing || !state.lines.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Why nothing is written any more.
    pub fn failed(&self) -> Option<Errno> {
        self.state().failed
    }

    /// Starts the thread, which no signal reaches: they are for the command.
    fn begin(&'static self) -> io::Result<()> {
        crate::signals::without_signals(|| {
            let thread = std::thread::Builder::new().name("xen-eventfd-output".to_owned());
            thread.spawn(|| self.write())
        })?
        .map(drop)
    }

    fn write(&self) {
        let mut state = self.state();
        loop {
            let Some(line) = state.lines.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.writing = true;
            drop(state);
            let written = put((self.fd)(), &line);
            state = self.state();
            state.writing = false;
            if let Err(errno) = written {
                state.failed = Some(errno);
                state.lines.clear();
                self.changed.notify_all();
                return;
            }
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the engine reports, as objects.
#[derive(Debug)]
pub struct LogObjects;

impl<S, N> FormatEvent<S, N> for LogObjects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, others } = fields;
        let level = event.metadata().level().as_str().to_lowercase();
        let object = json!({
            "level": level, "target": event.metadata().target(),
            "message": message, "fields": others,
        });
        writeln!(writer, "{}", json::line("log", &object).map_err(|_| fmt::Error)?)
    }
}

/// The fields of an event, as text.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: serde_json::Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => _ = self.others.insert(name.to_owned(), text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// What the engine reports, as a writer.
#[derive(Debug)]
pub struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whether a process reads it is not the engine's concern.
        let _ = STDERR.push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
