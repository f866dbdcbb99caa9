//! Prints where a round hangs, and ends the program.

use crate::PATIENCE;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Watches the soak from a thread of its own.
#[derive(Debug)]
pub(super) struct Watchdog(Arc<AtomicU64>);

impl Watchdog {
    /// The time limit of a round: every wait in it ends before.
    const LIMIT: Duration = PATIENCE.saturating_mul(3);

    pub(super) fn start() -> Self {
        let rounds = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&rounds);
        thread::spawn(move || {
            let mut last = 0;
            loop {
                thread::sleep(Self::LIMIT);
                let now = seen.load(Ordering::Relaxed);
                if now == last {
                    println!("stuck after {now} rounds:");
                    say_where();
                    std::process::exit(1);
                }
                last = now;
            }
        });
        Self(rounds)
    }

    /// Records that a round has ended.
    pub(super) fn feed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prints the kernel stack of each thread of each program.
pub(super) fn say_where() {
    for process in entries(Path::new("/proc")) {
        let command = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        if command.is_empty() {
            continue;
        }
        println!("  {}", command.replace('\0', " "));
        for task in entries(&process.join("task")) {
            let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
            println!("    {}: {}", read("comm").trim(), read("syscall").trim());
            read("stack").lines().for_each(|line| println!("      {line}"));
        }
    }
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.parse::<u32>().is_ok());
    entries.filter(|entry| numbered(&entry.file_name())).map(|entry| entry.path()).collect()
}
