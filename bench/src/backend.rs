//! The backend: a process that reads the eventfd in a loop and records when it had
//! a count.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use xen_eventfd_bench::arch;

/// Added to the eventfd to make the backend print its records and end.
const OVER: u64 = 1 << 32;
/// More than the number of kicks.
const ROOM: usize = 8192;

/// A backend in a process of its own.
#[derive(Debug)]
pub(crate) struct Backend {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

/// One read of the eventfd: when, and the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) at: u64,
    pub(crate) count: u64,
}

impl Backend {
    /// Starts it; it waits in read() of a blocking eventfd.
    pub(crate) fn start(eventfd: &OwnedFd) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("backend")
            .stdin(Stdio::from(eventfd.try_clone()?))
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a backend")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        stdout.read_line(&mut String::new())?;
        Ok(Self { child, stdout })
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it; returns its records.
    pub(crate) fn end(mut self, eventfd: &OwnedFd) -> Result<Vec<Found>> {
        rustix::io::write(eventfd, &OVER.to_ne_bytes())?;
        let mut all = Vec::new();
        for line in self.stdout.lines() {
            let line = line?;
            let (at, count) = line.split_once(' ').context("two numbers")?;
            all.push(Found { at: at.parse()?, count: count.parse()? });
        }
        self.child.wait()?;
        Ok(all)
    }
}

/// The code of that process; standard input is the eventfd.
pub(crate) fn run() -> Result<()> {
    let eventfd = std::io::stdin();
    let mut all = vec![Found { at: 0, count: 0 }; ROOM];
    let mut used = 0;
    println!("ready");
    loop {
        let mut bytes = [0; 8];
        rustix::io::read(eventfd.as_fd(), &mut bytes)?;
        let (at, count) = (arch::now(), u64::from_ne_bytes(bytes));
        if count % OVER > 0 && used < ROOM {
            all[used] = Found { at, count: count % OVER };
            used += 1;
        }
        if count >= OVER {
            break;
        }
    }
    let mut out = std::io::stdout().lock();
    for Found { at, count } in &all[..used] {
        writeln!(out, "{at} {count}")?;
    }
    Ok(())
}
