//! Requests to a disk, past the page cache, by Linux's asynchronous I/O if several are under way at once.

mod aio;

use crate::rounds;
use aio::{Context, Operation};
use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::fs::{Mode, OFlags};
use rustix::io::{pread, pwrite};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use xen_eventfd_bench::devices::{Disk, REQUESTS, Ticks};

/// What O_DIRECT wants of addresses.
const ALIGNMENT: usize = 4096;
/// Rounds that warm up.
const WARM_UP: u32 = 16;
/// Requests of a queue go to a part of the disk of this size, one after the other.
const PART: u64 = 64 << 20;

pub(crate) fn measure(path: &Path, disk: Disk) -> Result<Ticks> {
    let rounds = REQUESTS.div_ceil(disk.depth);
    if disk.queues == 1 {
        let mut round = Round::new(path, disk, 0)?;
        round.warm_up()?;
        return rounds::measure(rounds, disk.depth, || round.carry_out());
    }
    let queues = queues(path)?;
    ensure!(queues == disk.queues as usize, "{} has {queues} queues", path.display());
    let mut by_each = Vec::new();
    for queue in 0..disk.queues {
        let mut round = Round::new(path, disk, queue)?;
        on_cpu(queue)?;
        round.warm_up()?;
        by_each.push(round);
    }
    let requests = u64::from(rounds) * u64::from(disk.depth);
    rounds::marked(requests, || {
        std::thread::scope(|scope| {
            let each_of = |(cpu, mut round): (u32, Round)| {
                // All go on at once, so that meanwhile the others make as many.
                scope.spawn(move || {
                    on_cpu(cpu)?;
                    rounds::each(rounds, disk.depth, || round.carry_out())
                })
            };
            let threads: Vec<_> = (0..).zip(by_each).map(each_of).collect();
            let mut each = Vec::new();
            for thread in threads {
                each.extend(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
            }
            Ok(each)
        })
    })
}

/// How many queues Linux uses of a disk.
fn queues(path: &Path) -> Result<usize> {
    let name = path.file_name().context("a disk has a name")?;
    let queues = Path::new("/sys/block").join(name).join("mq");
    let entries = fs::read_dir(&queues).with_context(|| format!("reading {}", queues.display()))?;
    Ok(entries.count())
}

/// Has this thread run on that CPU alone.
fn on_cpu(cpu: u32) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu as usize);
    sched_setaffinity(None, &only).with_context(|| format!("there is no CPU {cpu}"))
}

/// As many requests as one queue has under way at once.
struct Round {
    file: OwnedFd,
    disk: Disk,
    /// Where its part of the disk begins.
    part: u64,
    /// Where in it the next request goes to.
    offset: u64,
    context: Option<Context>,
    memory: Vec<u8>,
}

impl Round {
    /// On a part of the disk that no other queue has.
    fn new(path: &Path, disk: Disk, queue: u32) -> Result<Self> {
        let access = if disk.write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())
            .with_context(|| format!("opening {}", path.display()))?;
        let depth = disk.depth / disk.queues;
        let context = if depth > 1 { Some(Context::new(depth)?) } else { None };
        let memory = vec![0; disk.bytes as usize * depth as usize + ALIGNMENT];
        Ok(Self { file, disk, part: u64::from(queue) * PART, offset: 0, context, memory })
    }

    fn warm_up(&mut self) -> Result<()> {
        (0..WARM_UP).try_for_each(|_| self.carry_out())
    }

    fn carry_out(&mut self) -> Result<()> {
        let length = self.memory.len() - ALIGNMENT;
        let begin = self.memory.as_ptr().align_offset(ALIGNMENT);
        let buffer = self.memory.get_mut(begin..begin + length).context("it is large enough")?;
        let at = self.part + self.offset;
        let done = match &mut self.context {
            None if self.disk.write => pwrite(&self.file, buffer, at)?,
            None => pread(&self.file, buffer, at)?,
            Some(context) => {
                let operation = if self.disk.write { Operation::Write } else { Operation::Read };
                context.carry_out(&self.file, operation, at, buffer)?
            }
        };
        ensure!(done == length, "{done} bytes of {length}");
        self.offset = (self.offset + length as u64) % PART;
        Ok(())
    }
}
