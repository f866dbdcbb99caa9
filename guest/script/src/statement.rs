//! A parsed script: a flat list of statements for the interpreter.

use core::ops::RangeInclusive;

use crate::{Place, Width};

/// A listener, by its index in [`crate::Program::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(u8);

impl ListenerId {
    /// The id of the `index`th listener, if a program can have that many.
    pub(crate) fn new(index: usize) -> Option<Self> {
        if index < crate::MAX_LISTENERS { u8::try_from(index).ok().map(Self) } else { None }
    }

    /// The index in [`crate::Program::listeners`]: less than [`crate::MAX_LISTENERS`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A name with its source of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener<'a> {
    /// The name, as in the script and in the reports.
    pub name: &'a str,
    /// The source of its events.
    pub source: Source,
    /// The vCPU that listens to it.
    pub vcpu: usize,
}

/// The source of a listener's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An event channel that domain 0 may bind.
    Evtchn,
    /// A message signalled interrupt on this vector.
    Msi(u8),
    /// A line.
    Line(Line),
}

impl Source {
    /// The vector whose interrupts it counts, unless it is an event channel.
    pub(crate) fn vector(self) -> Option<u8> {
        match self {
            Self::Evtchn => None,
            Self::Msi(vector) => Some(vector),
            Self::Line(line) => Some(line.vector()),
        }
    }
}

/// The first vector of lines.
const FIRST_LINE: u8 = 0xc0;
/// The vectors of level-triggered lines: the I/O APIC's inputs from 16 on.
pub const LEVELS: RangeInclusive<u8> = FIRST_LINE + 16..=0xef;
/// The vectors that an MSI may have.
pub(crate) const MESSAGES: RangeInclusive<u8> = 0x20..=FIRST_LINE - 1;

/// A line to the I/O APIC that Xen emulates for an HVM guest, or to the interrupt controller of an Arm guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// An ISA interrupt, 0 to 15. It is edge-triggered.
    Isa(u8),
    /// A pin, 0 to 3, of a PCI device, 0 to 31. It is level-triggered: another interrupt is pending after
    /// each one is taken, while the line is up.
    Intx {
        /// The device on the guest's bus.
        device: u8,
        /// 0 is INTA.
        pin: u8,
    },
    /// A shared peripheral interrupt of an Arm guest, from 32 on.
    Spi {
        /// Its number.
        number: u8,
        /// Whether it is level-triggered.
        level: bool,
    },
}

impl Line {
    /// The I/O APIC input to which Xen connects it, below 48 (`hvm_isa_irq_to_gsi` and
    /// `hvm_pci_intx_gsi` in Xen's `asm/hvm/irq.h`).
    #[must_use]
    pub const fn input(self) -> u8 {
        match self {
            // On a PC the timer uses input 2, because the second interrupt controller cascades into it.
            Self::Isa(0) => 2,
            Self::Isa(irq) => irq,
            Self::Spi { number, .. } => number,
            Self::Intx { device, pin } => 16 + ((device * 4 + device / 8 + pin) & 31),
        }
    }

    /// Whether it is level-triggered.
    #[must_use]
    pub const fn is_level(self) -> bool {
        matches!(self, Self::Intx { .. } | Self::Spi { level: true, .. })
    }

    /// The vector that the guest assigns to its input; on Arm interrupts have none, and it is the number.
    #[must_use]
    pub const fn vector(self) -> u8 {
        match self {
            Self::Spi { number, .. } => number,
            line => FIRST_LINE + line.input(),
        }
    }

    /// Whether it is one of a PC.
    #[must_use]
    pub const fn is_pc(self) -> bool {
        !matches!(self, Self::Spi { .. })
    }
}

/// The value of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    /// The innermost loop's counter plus this constant.
    Counter(u64),
}

/// One statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement<'a> {
    Write { place: Place, width: Width, value: Value },
    Read { place: Place, width: Width },
    Peek { place: Place, width: Width },
    Rep { place: Place, width: Width, value: Value, count: u64 },
    Pair { place: Place, width: Width, value: Value },
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
    SoftReset,
    Poweroff,
    Crash,
}
