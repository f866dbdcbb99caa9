//! The module `kernel/tests/floor`: the minimal cost of an ioeventfd, and dom0's clocks.

use crate::ticks::Clock;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use xen_eventfd::DomId;

const NODE: &str = "/dev/xen/eventfd-floor";

/// An open file of it; dropping it ends what it serves.
#[derive(Debug)]
pub(crate) struct Floor(File);

impl Floor {
    pub(crate) fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(NODE);
        Ok(Self(file.with_context(|| format!("{NODE}: is the floor module loaded?"))?))
    }

    /// Serves a doorbell of 4 bytes.
    pub(crate) fn serve(&mut self, dom: DomId, addr: u64, eventfd: Option<&OwnedFd>) -> Result<()> {
        let fd = eventfd.map_or(-1, AsRawFd::as_raw_fd);
        let words = format!("{} {addr:x} {fd}", dom.0);
        self.0.write_all(words.as_bytes()).context("the floor's server")
    }

    /// How long dom0's vCPU has run, including Xen's work for it, in nanoseconds of Xen's time.
    pub(crate) fn running(&mut self) -> Result<u64> {
        self.read().map(|[running, ..]| running)
    }

    /// One reading of dom0's time stamp counter and of Xen's clock.
    pub(crate) fn clock(&mut self) -> Result<Clock> {
        self.read().map(|[_, ticks, time]| Clock { ticks, time })
    }

    fn read(&mut self) -> Result<[u64; 3]> {
        let mut bytes = [0; 64];
        let length = self.0.read(&mut bytes)?;
        let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
        let numbers: Option<Vec<u64>> =
            text.split_whitespace().map(|word| word.parse().ok()).collect();
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .with_context(|| format!("{NODE}: {text:?} is not three numbers"))
    }
}
