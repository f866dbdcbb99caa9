//! Orders after parsing: a flat list that the interpreter walks.

use crate::{Place, Width};

/// One of a program's names, by its place in [`crate::Program::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(u8);

impl ListenerId {
    /// The id of the `index`th listener, if a program can have so many.
    pub(crate) fn new(index: usize) -> Option<Self> {
        if index < crate::MAX_LISTENERS { u8::try_from(index).ok().map(Self) } else { None }
    }

    /// The place in [`crate::Program::listeners`]: less than [`crate::MAX_LISTENERS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener<'a> {
    /// The name, as in the orders and in the reports.
    pub name: &'a str,
    /// What rings it.
    pub source: Source,
    /// The vCPU that listens to it.
    pub vcpu: usize,
}

/// What rings a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An event channel that domain 0 may bind.
    Evtchn,
    /// A message signalled interrupt on this vector.
    Msi(u8),
}

/// What a write carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    /// The innermost loop's counter and what is added to it.
    Counter(u64),
}

/// One statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    Write { place: Place, width: Width, value: Value },
    Read { place: Place, width: Width },
    Peek { place: Place, width: Width },
    Rep { place: Place, width: Width, value: Value, count: u64 },
    Repeat { count: u64 },
    Until { listener: ListenerId },
    End,
    Meet,
    Pause { count: u64 },
    Listen { listener: ListenerId },
    Wait { listener: ListenerId, count: u64 },
    Send { listener: ListenerId, count: u64 },
    Balloon { pages: u64 },
    Time { place: Place, width: Width, value: Value, count: usize },
    StampWrite { place: Place, width: Width, value: Value, count: usize },
    StampWait { listener: ListenerId, count: usize },
    Stamps,
    Say { words: &'a str },
    Poweroff,
    Crash,
}
