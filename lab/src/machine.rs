//! A booted machine: Xen, dom0, and a way to have dom0 do things.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::prelude::*;

use crate::{
    boot::{Boot, Clock},
    commands::{Commands, Output, Received, Silence, Transcript, Verdict},
    console::Line,
    qemu::{Ports, Qemu},
    recorder::Recorder,
    run::Run,
};

/// The agent's number for the script that the image brings.
const OWN_SCRIPT: u64 = 0;

/// Xen and dom0, running. Dropping it ends them.
///
/// When a test panics while it holds one, the last lines of all consoles go to standard error.
#[derive(Debug)]
pub struct Machine {
    qemu: Qemu,
    recorder: Recorder,
    commands: Commands,
    run: Run,
    clock: Clock,
    boot_time: Duration,
    /// A command never came back: nothing more can be asked of dom0.
    lost: bool,
}

impl Machine {
    /// Waits until dom0 answers.
    pub(crate) fn new(qemu: Qemu, ports: Ports, run: Run, boot: &Boot) -> Result<Self> {
        let start = Instant::now();
        let recorder = Recorder::start(ports.console, run.folder())?;
        let commands = Commands::new(ports.answers, ports.requests)?;
        let mut machine = Self {
            qemu,
            recorder,
            commands,
            run,
            clock: boot.clock(),
            boot_time: Duration::ZERO,
            lost: true,
        };
        machine.wait_ready(start + boot.timeout).map_err(|error| {
            let title = format!("dom0 ({}) did not come up: {error}", boot.platform.name());
            anyhow!("{}", machine.report(&title))
        })?;
        machine.lost = false;
        machine.boot_time = start.elapsed();
        Ok(machine)
    }

    /// Runs a shell script in dom0. What it writes comes back together with its status; its
    /// standard input is empty.
    ///
    /// After `timeout` dom0 kills the script with all that it started in its process group, and
    /// the machine can be used further. A process left in the background should have its output
    /// redirected, or that turns up between the lines of later commands.
    ///
    /// # Errors
    ///
    /// The script did not end in time, or the machine is lost. The error shows the end of all
    /// consoles. A status other than zero is no error.
    pub fn run(&mut self, script: &str, timeout: Duration) -> Result<Output> {
        let mut lines = Vec::new();
        let status = self.run_with(script, timeout, |line| lines.push(line.to_owned()))?;
        Ok(Output { status, lines })
    }

    /// Like [`Machine::run`], but hands on each line as it comes and returns the status.
    ///
    /// # Errors
    ///
    /// As for [`Machine::run`].
    pub fn run_with(
        &mut self,
        script: &str,
        timeout: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<i32> {
        let verdict = self.execute(script, timeout, &mut line);
        self.status(verdict, script, timeout)
    }

    /// Waits for the script that the image began by itself; see [`Boot::script`].
    pub(crate) fn run_own(&mut self, timeout: Duration, mut line: impl FnMut(&str)) -> Result<i32> {
        let verdict = self.receive(OWN_SCRIPT, timeout, &mut line);
        self.status(verdict, "the image's own script", timeout)
    }

    fn status(&mut self, verdict: Result<Verdict>, script: &str, timeout: Duration) -> Result<i32> {
        match verdict {
            Ok(Verdict::Ended(status)) => Ok(status),
            Ok(Verdict::TimedOut) => {
                let title = format!("dom0 did not finish within {timeout:?}: {script}");
                Err(anyhow!("{}", self.report(&title)))
            }
            Err(error) => {
                Err(anyhow!("{}", self.report(&format!("{error:#}; the command was: {script}"))))
            }
        }
    }

    /// Runs a script that must succeed.
    ///
    /// # Errors
    ///
    /// As for [`Machine::run`], and if the status is not zero.
    pub fn check(&mut self, script: &str, timeout: Duration) -> Result<Output> {
        let output = self.run(script, timeout)?;
        ensure!(
            output.success(),
            "{}",
            self.report(&format!(
                "`{script}` failed in dom0 with status {}:\n{}",
                output.status,
                output.text()
            ))
        );
        Ok(output)
    }

    /// Reads a file of dom0.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or as for [`Machine::run`].
    pub fn read_file(&mut self, path: &str) -> Result<Vec<u8>> {
        let output = self.run(&format!("base64 {}", quote(path)), Duration::from_secs(60))?;
        ensure!(output.success(), "dom0's {path} cannot be read: {}", output.text());
        let text: Vec<u8> =
            output.text().bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        BASE64_STANDARD.decode(text).with_context(|| format!("dom0's {path} came garbled"))
    }

    /// What Xen, dom0's kernel and the guests said on Xen's console so far.
    #[must_use]
    pub fn console(&self) -> Vec<Line> {
        self.recorder.lines(0)
    }

    /// Waits for a line on Xen's console, one of those already said included; `None` if it does
    /// not come in time.
    pub fn wait_console(&self, timeout: Duration, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        self.recorder.wait(0, timeout, wanted)
    }

    /// The folder that keeps what the consoles said: `xen.log`, `dom0.log`, `guest-<domid>.log`
    /// (Xen's debug port), `console.log` (all of it), `qemu.log`, and after [`Machine::finish`]
    /// `dom0-logs/` with dom0's `/var/log/xen`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// How long it took until dom0 answered.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Copies dom0's logs, the guests' consoles among them, into the run's folder, ends the
    /// machine, and returns that folder.
    ///
    /// # Errors
    ///
    /// The logs cannot be read or written.
    pub fn finish(mut self) -> Result<PathBuf> {
        self.save_logs()?;
        self.lost = true;
        Ok(self.run.folder().to_owned())
    }

    /// A text with this title and the last lines of all consoles.
    #[must_use]
    pub fn report(&mut self, title: &str) -> String {
        let mut text = title.to_owned();
        if self.qemu.has_ended() {
            let log = fs::read_to_string(self.run.folder().join("qemu.log")).unwrap_or_default();
            append(&mut text, "QEMU", log.lines());
        }
        for (voice, lines) in self.recorder.tails() {
            append(&mut text, voice, lines.iter().map(String::as_str));
        }
        if !self.lost && self.save_logs().is_ok() {
            for path in files_below(&self.run.folder().join("dom0-logs")) {
                let log = fs::read(&path).unwrap_or_default();
                let log = String::from_utf8_lossy(&log).into_owned();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                append(&mut text, &name, log.lines());
            }
        }
        let _ = write!(text, "\nall of it is in {}", self.run.folder().display());
        text
    }

    pub(crate) fn commands(&mut self) -> &mut Commands {
        &mut self.commands
    }

    /// Why nothing more can be expected of the machine, if so.
    pub(crate) fn fatal(&self) -> Option<String> {
        self.recorder.fatal()
    }

    fn wait_ready(&mut self, deadline: Instant) -> Result<()> {
        loop {
            let line = self.next_line(deadline, "it said nothing more")?;
            if line == "@lab ready" {
                return Ok(());
            }
            if let Some(why) = line.strip_prefix("@lab failed ") {
                bail!("{why}");
            }
        }
    }

    fn execute(
        &mut self,
        script: &str,
        timeout: Duration,
        emit: &mut dyn FnMut(&str),
    ) -> Result<Verdict> {
        ensure!(!self.lost, "dom0 does not answer any more");
        let id = self.commands.request(script, timeout)?;
        self.receive(id, timeout, emit)
    }

    /// Hands on what the script with this number says, until it is over.
    fn receive(
        &mut self,
        id: u64,
        timeout: Duration,
        emit: &mut dyn FnMut(&str),
    ) -> Result<Verdict> {
        // dom0 watches the timeout itself. We wait longer, for the case that dom0 is gone.
        let patience = match self.clock {
            Clock::Host | Clock::Instructions => timeout + Duration::from_secs(15),
            Clock::Deterministic | Clock::ShortTurns => timeout * 5 + Duration::from_secs(15),
        };
        let deadline = Instant::now() + patience;
        let mut transcript = Transcript::new(id);
        self.lost = true;
        loop {
            let line = self.next_line(deadline, "dom0 hangs")?;
            let (lines, verdict) = match transcript.receive(line) {
                Received::Lines(lines) => (lines, None),
                Received::Over(lines, verdict) => (lines, Some(verdict)),
            };
            lines.iter().for_each(|line| emit(line));
            if let Some(verdict) = verdict {
                self.lost = false;
                return Ok(verdict);
            }
        }
    }

    /// The next line of the commands' port. Fails at the deadline, and at once when the machine
    /// is lost.
    fn next_line(&mut self, deadline: Instant, otherwise: &str) -> Result<String> {
        loop {
            match self.commands.line(Duration::from_millis(200)) {
                Ok(line) => return Ok(line),
                Err(Silence::Closed) => bail!("QEMU ended"),
                Err(Silence::Quiet) => {}
            }
            if let Some(fatal) = self.fatal() {
                // What led to it may still be on its way.
                std::thread::sleep(Duration::from_millis(300));
                bail!("the machine is lost: {fatal}");
            }
            if Instant::now() >= deadline {
                bail!("{otherwise} (the time was over)");
            }
        }
    }

    fn save_logs(&mut self) -> Result<()> {
        let folder = self.run.folder().join("dom0-logs");
        let mut emit = Vec::new();
        let verdict = self.execute(
            "cd /var/log/xen && find . -type f -size +0",
            Duration::from_secs(10),
            &mut |line| emit.push(line.to_owned()),
        )?;
        ensure!(verdict == Verdict::Ended(0), "dom0's logs cannot be listed");
        for name in emit {
            let name = name.trim_start_matches("./");
            let target = folder.join(name);
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            let content = self.read_file(&format!("/var/log/xen/{name}"))?;
            fs::write(&target, content)
                .with_context(|| format!("{}: cannot write", target.display()))?;
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let report = self.report("the lab's consoles at the panic:");
            // A second panic, for instance as the disk is full, would abort the program.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{report}\n"));
        }
        self.qemu.end();
    }
}

fn append<'a>(text: &mut String, title: &str, lines: impl Iterator<Item = &'a str>) {
    let lines: Vec<&str> = lines.collect();
    let last = &lines[lines.len().saturating_sub(40)..];
    let _ = write!(text, "\n--- {title}{}", if last.is_empty() { ": nothing" } else { "" });
    for line in last {
        let _ = write!(text, "\n    {line}");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Quotes a word for dom0's shell.
#[must_use]
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
