//! Backends: a thread for each device that waits on the eventfds of its queues.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// The eventfd of one queue, and when each of its kicks was sent.
#[derive(Debug)]
pub(super) struct Queue {
    eventfd: OwnedFd,
    began: Instant,
    /// By the number of the kick, in ns since `began`.
    sent: Vec<AtomicU64>,
    /// How many kicks were read so far. They are read in the order in which they were sent, so
    /// this is the number of the next.
    received: AtomicUsize,
}

/// By device, then by queue.
pub(super) type Queues = Vec<Vec<Queue>>;

/// What a backend has received.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) kicks: u64,
    pub(super) signals: u64,
    pub(super) latency: Histogram<u64>,
}

/// The eventfds of all queues, for up to `kicks` kicks each.
pub(super) fn queues_of_devices(
    devices: usize,
    queues: usize,
    kicks: usize,
) -> Result<Queues, Failure> {
    let began = Instant::now();
    let each = || {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd =
            eventfd(0, flags).map_err(|errno| Failure::system("make an eventfd", errno))?;
        let sent = (0..kicks).map(|_| AtomicU64::new(0)).collect();
        Ok(Queue { eventfd, began, sent, received: AtomicUsize::new(0) })
    };
    (0..devices).map(|_| (0..queues).map(|_| each()).collect()).collect()
}

impl Queue {
    /// Notes that a kick is about to be sent.
    pub(super) fn stamp(&self, kick: usize) {
        if let Some(sent) = self.sent.get(kick) {
            sent.store(self.now(), Ordering::Release);
        }
    }

    /// Signals it: a VMM does, without an engine.
    pub(super) fn ring(&self) {
        // Fails only if the counter is full.
        let _ = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
    }

    /// What its backend has read so far.
    pub(super) fn received(&self) -> usize {
        self.received.load(Ordering::Acquire)
    }

    /// Reads the eventfd's counter, and reports the age of each kick in it.
    fn take(&self, mut age: impl FnMut(u64)) -> Option<u64> {
        let mut counter = [0; 8];
        rustix::io::read(&self.eventfd, &mut counter).ok()?;
        let (now, count) = (self.now(), u64::from_ne_bytes(counter));
        let new = usize::try_from(count).unwrap_or(0);
        let first = self.received.fetch_add(new, Ordering::AcqRel);
        for sent in self.sent.iter().skip(first).take(new) {
            age(now.saturating_sub(sent.load(Ordering::Acquire)));
        }
        Some(count)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl Default for Received {
    fn default() -> Self {
        // Any value, at three significant digits; growing on demand.
        let latency = Histogram::new(3).expect("3 is a number of digits that it takes");
        Self { kicks: 0, signals: 0, latency }
    }
}

impl Received {
    pub(super) fn add(&mut self, other: &Self) {
        self.kicks += other.kicks;
        self.signals += other.signals;
        // Both grow on demand, so this cannot fail for want of room.
        let _ = self.latency.add(&other.latency);
    }
}

/// Starts the backend of one device; it ends when `stop` is set and it is woken.
pub(super) fn start(
    queues_of_devices: Arc<Queues>,
    device: usize,
    stop: Arc<AtomicBool>,
) -> JoinHandle<Received> {
    std::thread::spawn(move || {
        let queues: &[Queue] = queues_of_devices.get(device).map(Vec::as_slice).unwrap_or_default();
        let mut received = Received::default();
        loop {
            let mut waiting: Vec<PollFd<'_>> =
                queues.iter().map(|each| PollFd::new(each, PollFlags::IN)).collect();
            let _ = poll(&mut waiting, None);
            if stop.load(Ordering::Acquire) {
                return received;
            }
            for each in queues {
                if let Some(count) = each.take(|age| _ = received.latency.record(age)) {
                    received.kicks += count;
                    received.signals += 1;
                }
            }
        }
    })
}
