//! Interrupts that a device model raises (`xen/arch/x86/hvm/{irq,vmsi}.c`).

use crate::domain::{Domain, Kind};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use xen_eventfd_core::irq::Line;

#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// How many events and interrupts have come.
    pub(crate) arrivals: u64,
    /// Vectors that the guest has yet to take; two of one are one, as in a local APIC.
    pub(crate) pending: BTreeSet<u8>,
    /// How often each vector was injected.
    pub(crate) injected: BTreeMap<u8, u64>,
    /// Lines by their name.
    pub(crate) lines: BTreeMap<Name, Wire>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) up: bool,
    pub(crate) edges: u64,
    /// Its interrupt has yet to be taken.
    pub(crate) pending: bool,
}

/// A line as a key: ISA or PCI, then its numbers.
pub(crate) type Name = (u8, u8, u8);

/// EOPNOTSUPP for an Arm line, EINVAL for one that is not there.
pub(crate) fn check(line: Line) -> Result<Name, Errno> {
    match line {
        Line::Isa(0..=15) | Line::PciIntx { device: 0..=31, pin: 0..=3 } => {}
        Line::Isa(_) | Line::PciIntx { .. } => return Err(Errno::INVAL),
        Line::Spi(_) => {}
    }
    name(line).ok_or(Errno::OPNOTSUPP)
}

/// Its key. `None`: x86 has no such line.
pub(crate) fn name(line: Line) -> Option<Name> {
    match line {
        Line::Isa(isa) => Some((0, isa, 0)),
        Line::PciIntx { device, pin } => Some((1, device, pin)),
        Line::Spi(_) => None,
    }
}

/// Modes of delivery, bits 8 to 10 of an MSI's data.
const FIXED: u32 = 0;
const LOWEST_PRIORITY: u32 = 1;
/// Vectors below this are the processor's own: the local APIC records an error.
const FIRST_VECTOR: u8 = 16;

impl Domain {
    /// Lets whoever waits for an event or an interrupt look again.
    pub(crate) fn arrive(&mut self) {
        self.interrupts.arrivals += 1;
        self.arrival.notify_all();
    }

    /// EINVAL for a mode other than fixed and lowest priority, ESRCH if the latter finds nobody,
    /// ERANGE for an MSI that names neither vector nor interrupt.
    pub(crate) fn inject_msi(&mut self, addr: u64, data: u32) -> Result<(), Errno> {
        let [vector, ..] = data.to_le_bytes();
        let [_, low, high, ..] = addr.to_le_bytes();
        let destination = (low >> 4) | (high << 4);
        if vector == 0 {
            // A pirq's number stands in the destination; it would ring an event channel.
            let named = destination != 0 || addr >> 40 != 0;
            return if named { Ok(()) } else { Err(Errno::RANGE) };
        }
        let found = self.has_apic(destination, addr & 4 != 0);
        match (data >> 8) & 7 {
            FIXED => {}
            LOWEST_PRIORITY if found => {}
            LOWEST_PRIORITY => return Err(Errno::SRCH),
            _ => return Err(Errno::INVAL),
        }
        if found && vector >= FIRST_VECTOR {
            self.interrupts.pending.insert(vector);
            *self.interrupts.injected.entry(vector).or_default() += 1;
            self.arrive();
        }
        Ok(())
    }

    /// Whether a local APIC has this number. A vCPU's is twice its own; logical ones are one bit
    /// each, as Linux sets them.
    fn has_apic(&self, destination: u8, logical: bool) -> bool {
        let vcpus = self.vcpus.len();
        if logical {
            return (0..vcpus.min(8)).any(|vcpu| destination & (1 << vcpu) != 0);
        }
        let number = usize::from(destination);
        destination == 0xFF || (number % 2 == 0 && number / 2 < vcpus)
    }

    /// Whether Xen emulates interrupt controllers for it. Only then may a line be set.
    pub(crate) fn has_lines(&self) -> bool {
        self.kind == Kind::Hvm
    }

    /// Raising a line that is up does nothing.
    pub(crate) fn set_line(&mut self, name: Name, up: bool) {
        let wire = self.interrupts.lines.entry(name).or_default();
        let rises = up && !wire.up;
        wire.up = up;
        if rises {
            wire.edges += 1;
            wire.pending = true;
            self.arrive();
        }
    }

    /// Takes the interrupt of a line, if there is one. That of a PCI line comes again as long as the
    /// line is up, that of an ISA line when it rises: so a PC's are set up in its I/O APIC.
    pub(crate) fn take_line(&mut self, line: Line) -> bool {
        let wire = name(line).and_then(|name| self.interrupts.lines.get_mut(&name));
        wire.is_some_and(|wire| {
            let again = wire.up && matches!(line, Line::PciIntx { .. });
            core::mem::replace(&mut wire.pending, again)
        })
    }
}
