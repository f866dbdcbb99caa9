//! The commands' port: scripts go in, their output and status come back. See `dom0/agent.sh`.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::prelude::*;

/// Longer scripts belong into the payload: the serial port's buffer in dom0 is not endless.
const LONGEST_SCRIPT: usize = 24 * 1024;

/// What a command said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 and the signal's number if one ended it.
    pub status: i32,
    /// What it wrote to standard output and standard error.
    pub lines: Vec<String>,
}

impl Output {
    /// Whether the status is zero.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// The lines as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ended(i32),
    /// dom0 killed it when its time was over.
    TimedOut,
}

/// Our side of the port.
#[derive(Debug)]
pub(crate) struct Commands {
    requests: PipeWriter,
    chunks: Receiver<Vec<u8>>,
    reader: Reader,
    id: u64,
}

/// Why no line came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Not yet.
    Quiet,
    /// Never again.
    Closed,
}

impl Commands {
    pub(crate) fn new(mut answers: PipeReader, requests: PipeWriter) -> Result<Self> {
        let (sender, chunks) = mpsc::channel();
        thread::Builder::new().name("commands".to_owned()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match answers.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        let chunk = buffer.get(..count).unwrap_or_default().to_vec();
                        if sender.send(chunk).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self { requests, chunks, reader: Reader::default(), id: 0 })
    }

    /// Asks dom0 to run a script; returns the request's number.
    pub(crate) fn request(&mut self, script: &str, timeout: Duration) -> Result<u64> {
        ensure!(
            script.len() <= LONGEST_SCRIPT,
            "a script of {} bytes is too long for the serial port: put it into the payload",
            script.len()
        );
        self.id += 1;
        let seconds = timeout.as_secs().max(1);
        let line = format!("run {} {seconds} {}\n", self.id, BASE64_STANDARD.encode(script));
        self.send(line.as_bytes())?;
        Ok(self.id)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.requests.write_all(bytes).context("dom0's commands' port is closed: QEMU ended")
    }

    /// The next line, waiting for at most `patience`.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<String, Silence> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(line) = self.reader.line() {
                return Ok(line);
            }
            let chunk = self.chunk(deadline.saturating_duration_since(Instant::now()))?;
            self.reader.feed(&chunk);
        }
    }

    /// The next bytes as they came.
    pub(crate) fn chunk(&mut self, patience: Duration) -> Result<Vec<u8>, Silence> {
        self.chunks.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::Quiet,
            RecvTimeoutError::Disconnected => Silence::Closed,
        })
    }
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Reader {
    bytes: Vec<u8>,
    lines: VecDeque<String>,
}

impl Reader {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let mut line =
                    String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
                line.truncate(line.trim_end_matches('\r').len());
                self.lines.push_back(line);
            } else {
                self.bytes.push(*byte);
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        self.lines.pop_front()
    }
}

/// Finds a command's output between its marks.
///
/// The agent puts a line feed before the last mark, so that a last line without one is not glued
/// to it: an empty line is held back until it is known not to be that one.
#[derive(Debug)]
pub(crate) struct Transcript {
    begin: String,
    end: String,
    timeout: String,
    begun: bool,
    empty: usize,
}

/// What a line of the port means for a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// These lines are output.
    Lines(Vec<String>),
    /// The command is over.
    Over(Vec<String>, Verdict),
}

impl Transcript {
    pub(crate) fn new(id: u64) -> Self {
        Self {
            begin: format!("@lab {id} begin"),
            end: format!("@lab {id} end "),
            timeout: format!("@lab {id} timeout "),
            begun: false,
            empty: 0,
        }
    }

    pub(crate) fn receive(&mut self, line: String) -> Received {
        if !self.begun {
            self.begun = line == self.begin;
            return Received::Lines(Vec::new());
        }
        if line.is_empty() {
            self.empty += 1;
            return Received::Lines(Vec::new());
        }
        let mut lines = vec![String::new(); std::mem::take(&mut self.empty)];
        let verdict = if line.starts_with(&self.timeout) {
            Some(Verdict::TimedOut)
        } else {
            line.strip_prefix(&self.end).and_then(|text| text.parse().ok()).map(Verdict::Ended)
        };
        match verdict {
            Some(verdict) => {
                lines.pop();
                Received::Over(lines, verdict)
            }
            None => {
                lines.push(line);
                Received::Lines(lines)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(text: &str) -> (Vec<String>, Option<Verdict>) {
        let mut reader = Reader::default();
        reader.feed(text.as_bytes());
        let mut transcript = Transcript::new(7);
        let mut all = Vec::new();
        while let Some(line) = reader.line() {
            match transcript.receive(line) {
                Received::Lines(lines) => all.extend(lines),
                Received::Over(lines, verdict) => {
                    all.extend(lines);
                    return (all, Some(verdict));
                }
            }
        }
        (all, None)
    }

    #[test]
    fn output_stands_between_its_marks() {
        let (lines, verdict) = receive("noise\n@lab 7 begin\none\r\n\ntwo\n\n@lab 7 end 3\n");
        assert_eq!(lines, ["one", "", "two"]);
        assert_eq!(verdict, Some(Verdict::Ended(3)));
    }

    #[test]
    fn the_last_line_needs_no_line_feed() {
        assert_eq!(receive("@lab 7 begin\nend\n@lab 7 end 0\n").0, ["end"]);
        assert_eq!(receive("@lab 7 begin\n\n@lab 7 end 0\n").0, Vec::<String>::new());
        assert_eq!(receive("@lab 7 begin\n\n\n@lab 7 end 0\n").0, [""]);
    }

    #[test]
    fn another_commands_marks_are_output() {
        let (lines, verdict) = receive("@lab 7 begin\n@lab 6 end 0\n\n@lab 7 timeout 137\n");
        assert_eq!(lines, ["@lab 6 end 0"]);
        assert_eq!(verdict, Some(Verdict::TimedOut));
    }
}
