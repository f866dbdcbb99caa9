//! The module `kernel/tests/floor`: the least that an ioeventfd can cost, and dom0's running time.

use anyhow::{Context, Result};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use xen_eventfd::DomId;

const NODE: &str = "/dev/xen/eventfd-floor";

/// An open file of it; whatever it serves ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Floor(File);

impl Floor {
    pub(crate) fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(NODE);
        Ok(Self(file.with_context(|| format!("{NODE}: is the floor's module loaded?"))?))
    }

    /// Serves a doorbell of 4 bytes.
    pub(crate) fn serve(&mut self, dom: DomId, addr: u64, eventfd: Option<&OwnedFd>) -> Result<()> {
        let fd = eventfd.map_or(-1, AsRawFd::as_raw_fd);
        let words = format!("{} {addr:x} {fd}", dom.0);
        self.0.write_all(words.as_bytes()).context("the floor's server")
    }

    /// How long dom0's vCPU has run, with what Xen did for it, in nanoseconds.
    pub(crate) fn running(&mut self) -> Result<u64> {
        let mut words = [0; 32];
        let length = self.0.read(&mut words)?;
        let words = words.get(..length).ok_or(Errno::IO)?;
        Ok(String::from_utf8_lossy(words).trim().parse()?)
    }
}
