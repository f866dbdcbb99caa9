//! The backend's process.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use xen_eventfd_cli::failure::{Exit, Failure};

/// A backend that listens at a socket. It ends with its frontend, and at the latest with this.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    /// Starts this program again as a backend with a disk of so many MiB, and waits until it listens.
    pub(super) fn start(socket: &Path, mebibytes: u32) -> Result<Self, Failure> {
        let cannot = |error| Failure::system("start the backend", error);
        let program = std::env::current_exe().map_err(cannot)?;
        let mut command = Command::new(program);
        command.arg("demo-backend").arg("--socket").arg(socket);
        command.arg("--mebibytes").arg(mebibytes.to_string());
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cannot)?;
        let output = child.stdout.take();
        let process = Self(child);
        // It writes a line, or ends.
        let mut line = String::new();
        if let Some(output) = output {
            BufReader::new(output).read_line(&mut line).map_err(cannot)?;
        }
        match line.starts_with("listening at ") {
            true => Ok(process),
            false => Err(Failure::new(Exit::Failed, "the backend ended before it listened")),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
