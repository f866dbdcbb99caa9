//! What an odd driver reads from its device, and the numbers by which one acts at random.

use core::fmt;

/// Values that were read, one after the other. Equal ones that follow each other are one entry.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    runs: [(u64, u32); 128],
    used: usize,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { runs: [(0, 0); 128], used: 0 }
    }

    pub(super) fn push(&mut self, value: u64) {
        if let Some((_, times)) =
            self.used.checked_sub(1).map(|last| &mut self.runs[last]).filter(|run| run.0 == value)
        {
            *times += 1;
        } else {
            self.runs[self.used] = (value, 1);
            self.used += 1;
        }
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (value, times)) in self.runs[..self.used].iter().enumerate() {
            let space = if number > 0 { " " } else { "" };
            match times {
                1 => write!(f, "{space}{value:x}")?,
                _ => write!(f, "{space}{value:x}*{times}")?,
            }
        }
        Ok(())
    }
}

/// Numbers that are the same in each run (Marsaglia's xorshift).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        for shift in [13, -7, 17] {
            self.0 ^= if shift > 0 { self.0 << shift } else { self.0 >> -shift };
        }
        self.0
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
