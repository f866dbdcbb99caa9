//! Reproducible random numbers.

use anyhow::Result;
use rustix::io::Errno;
use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this run, which it prints: `KERNEL_TEST_SEED`, or a new one each time.
pub(super) fn seed() -> Result<u64> {
    let seed = match std::env::var("KERNEL_TEST_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            now.as_secs() << 30 | u64::from(now.subsec_nanos())
        }
    };
    println!("KERNEL_TEST_SEED={seed}");
    Ok(seed)
}

/// The errnos that the header documents, and those of the kernel's ioctl path.
pub(super) const ERRNOS: [Errno; 14] = [
    Errno::BADF,
    Errno::BUSY,
    Errno::EXIST,
    Errno::FAULT,
    Errno::INVAL,
    Errno::MFILE,
    Errno::NODEV,
    Errno::NOENT,
    Errno::NOMEM,
    Errno::NOSPC,
    Errno::NOTTY,
    Errno::OPNOTSUPP,
    Errno::PERM,
    Errno::TOOBIG,
];

/// Marsaglia's xorshift, 64 bits.
pub(super) struct Random(u64);

impl Random {
    /// Starts at this seed; 0 would be a fixed point.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 32) % end as u64).unwrap_or(0)
    }

    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn word(&mut self, choice: &[u32]) -> [u8; 4] {
        self.one_of(choice).to_ne_bytes()
    }

    pub(super) fn one_of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[self.below(choice.len())]
    }
}
