//! Requests to a disk, past the page cache, by Linux's asynchronous I/O if several are under way at once.

mod aio;

use crate::rounds;
use aio::{Context, Operation};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::{pread, pwrite};
use std::os::fd::OwnedFd;
use std::path::Path;
use xen_eventfd_bench::devices::{Disk, REQUESTS, Ticks};

/// What O_DIRECT wants of addresses.
const ALIGNMENT: usize = 4096;
/// Rounds that warm up.
const WARM_UP: u32 = 16;
/// Requests go to a part of the disk of this size, one after the other.
const PART: u64 = 64 << 20;

pub(crate) fn measure(path: &Path, disk: Disk) -> Result<Ticks> {
    let access = if disk.write { OFlags::RDWR } else { OFlags::RDONLY };
    let file = rustix::fs::open(path, access | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {}", path.display()))?;
    let (size, depth) = (disk.bytes as usize, disk.depth as usize);
    let mut memory = vec![0; size * depth + ALIGNMENT];
    let begin = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = memory.get_mut(begin..begin + size * depth).context("it is large enough")?;
    let context = if depth > 1 { Some(Context::new(disk.depth)?) } else { None };
    let mut round = Round { file, disk, offset: 0, context, buffer };

    for _ in 0..WARM_UP {
        round.carry_out()?;
    }
    let rounds = REQUESTS.div_ceil(disk.depth);
    rounds::measure(rounds, disk.depth, || round.carry_out())
}

/// As many requests as are under way at once.
struct Round<'a> {
    file: OwnedFd,
    disk: Disk,
    /// Where the next request goes to.
    offset: u64,
    context: Option<Context>,
    buffer: &'a mut [u8],
}

impl Round<'_> {
    fn carry_out(&mut self) -> Result<()> {
        let length = self.buffer.len();
        let done = match &mut self.context {
            None if self.disk.write => pwrite(&self.file, self.buffer, self.offset)?,
            None => pread(&self.file, &mut *self.buffer, self.offset)?,
            Some(context) => {
                let operation = if self.disk.write { Operation::Write } else { Operation::Read };
                context.carry_out(&self.file, operation, self.offset, self.buffer)?
            }
        };
        ensure!(done == length, "{done} bytes of {length}");
        self.offset = (self.offset + length as u64) % PART;
        Ok(())
    }
}
