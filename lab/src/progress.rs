//! Says what a long set-up is doing: one line per stage, and bytes while something grows.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Writes to standard error; quiet when asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    /// Begins a stage.
    pub(crate) fn stage(&self, text: &str) {
        eprintln!("lab: {text}");
    }

    /// Runs `work` and shows how the files in `folder` grow towards `total` bytes meanwhile.
    pub(crate) fn bytes<T>(
        &self,
        what: &str,
        total: u64,
        folder: &Path,
        work: impl FnOnce() -> T,
    ) -> T {
        // A terminal gets a line that moves; a log gets a line now and then.
        let period = Duration::from_secs(if self.terminal { 1 } else { 10 });
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut shown = Instant::now();
                while !done.load(Ordering::Acquire) {
                    thread::sleep(Duration::from_millis(100));
                    if shown.elapsed() >= period {
                        shown = Instant::now();
                        self.show(what, size_of(folder), total);
                    }
                }
            });
            let result = work();
            done.store(true, Ordering::Release);
            if self.terminal {
                eprint!("\r\x1b[K");
            }
            result
        })
    }

    fn show(&self, what: &str, now: u64, total: u64) {
        let text = format!("lab: {what}: {} of {} MB", now / 1_000_000, total / 1_000_000);
        if self.terminal {
            eprint!("\r{text}\x1b[K");
            let _ = io::stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}
