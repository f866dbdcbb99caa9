//! One command of a stage: a line while it runs and a line when it passed, all of it if it failed.

use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use xen_eventfd_lab_runs::Tally;

/// A silent log looks like a hanging one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// No step of ours takes this long; one that does hangs.
const DEADLINE: Duration = Duration::from_secs(1800);

/// How many CPUs a command may keep busy; 0: all.
static CPUS: AtomicUsize = AtomicUsize::new(0);

/// From now on commands have so many CPUs: emulated machines run beside them.
pub(crate) fn limit(cpus: usize) {
    CPUS.store(cpus, Ordering::Relaxed);
}

/// A command to be run.
pub(crate) struct Step {
    command: Command,
    shown: String,
    deadline: Duration,
}

/// What came of it.
pub(crate) struct Done {
    pub(crate) ok: bool,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// That and standard error, as they came.
    pub(crate) all: String,
    time: Duration,
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target folder, as cargo itself finds it.
pub(crate) fn target() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(folder)
}

impl Step {
    /// A program, run at the root of the repository.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let shown = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into();
        let mut command = Command::new(program);
        command.current_dir(root()).stdin(Stdio::null()).env("CARGO_TERM_COLOR", "never");
        // What cargo set for this program is not meant for another cargo.
        for name in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_MANIFEST_DIR", "CARGO_BUILD_TARGET"] {
            command.env_remove(name);
        }
        let cpus = CPUS.load(Ordering::Relaxed);
        if cpus > 0 {
            // Tests wait more than they compute: nextest still runs as many as there are CPUs.
            command.env("CARGO_BUILD_JOBS", cpus.to_string());
            command.env("RUST_TEST_THREADS", cpus.to_string());
        }
        Self { command, shown, deadline: DEADLINE }
    }

    /// The cargo that runs this.
    pub(crate) fn cargo(words: &str) -> Self {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::new(program).words(words)
    }

    /// Arguments without spaces in them.
    pub(crate) fn words(self, words: &str) -> Self {
        words.split_whitespace().fold(self, Self::arg)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument.as_ref());
        self.shown = format!("{} {}", self.shown, argument.as_ref().to_string_lossy());
        self
    }

    pub(crate) fn folder(mut self, folder: &str) -> Self {
        self.command.current_dir(root().join(folder));
        self.shown = format!("{} (in {folder})", self.shown);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it and says nothing.
    pub(crate) fn quietly(mut self) -> Result<Done> {
        let since = Instant::now();
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = self.command.get_program().to_string_lossy().into_owned();
        let mut child =
            self.command.spawn().with_context(|| format!("{program} cannot be started"))?;
        let (lines, said) = channel();
        listen(child.stdout.take(), true, lines.clone());
        listen(child.stderr.take(), false, lines);
        let (mut stdout, mut all) = (String::new(), String::new());
        let mut shown = Instant::now();
        let in_time = loop {
            match said.recv_timeout(Duration::from_secs(1)) {
                Ok((is_stdout, line)) => {
                    if is_stdout {
                        stdout.push_str(&line);
                    }
                    all.push_str(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if since.elapsed() > self.deadline {
                child.kill().context("a step that takes too long cannot be ended")?;
                all.push_str(&format!("ended after {} s: too long\n", self.deadline.as_secs()));
                break false;
            }
            if shown.elapsed() > SIGN_OF_LIFE {
                shown = Instant::now();
                let last = all.lines().last().unwrap_or_default().trim();
                let last: String = last.chars().take(80).collect();
                println!("  ... {} s: {last}", since.elapsed().as_secs());
            }
        };
        let status = child.wait().with_context(|| format!("waiting for {program}"))?;
        Ok(Done { ok: in_time && status.success(), stdout, all, time: since.elapsed() })
    }

    /// What it is called in what is printed.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Runs it as a check of its own.
    pub(crate) fn check(self) -> Result<Tally> {
        let shown = self.shown.clone();
        Ok(Tally::one(&shown, self.run()?.ok))
    }

    /// Runs it and says how it went.
    pub(crate) fn run(self) -> Result<Done> {
        let shown = self.shown.clone();
        let done = self.quietly()?;
        done.report(&shown);
        Ok(done)
    }
}

impl Done {
    /// A line if it passed, everything if it failed.
    pub(crate) fn report(&self, shown: &str) {
        let seconds = self.time.as_secs();
        if self.ok {
            println!("  ok     {shown} ({seconds} s)");
        } else {
            println!("  FAILED {shown} ({seconds} s)");
            println!("{}", self.all.trim_end());
        }
    }
}

fn listen(stream: Option<impl Read + Send + 'static>, is_stdout: bool, to: Sender<(bool, String)>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if to.send((is_stdout, text)).is_err() {
                return;
            }
            line.clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_are_kept() {
        let done = Step::new("sh").arg("-c").arg("echo out; echo err >&2").quietly().unwrap();
        assert!(done.ok);
        assert_eq!(done.stdout, "out\n");
        assert!(done.all.contains("err\n"));
    }

    #[test]
    fn a_failure_and_a_hang_are_told() {
        assert!(!Step::new("false").quietly().unwrap().ok);
        assert!(Step::new("no-such-program").quietly().is_err());
        let hang = Step::new("sleep").arg("60").deadline(Duration::ZERO).quietly().unwrap();
        assert!(!hang.ok && hang.all.contains("too long"), "{}", hang.all);
    }
}
