//! Interrupts that a device model raises (`xen/arch/x86/hvm/{irq,vmsi}.c`, `xen/arch/arm/{dm,vgic}.c`).

use crate::domain::{Domain, Kind};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use xen_eventfd_core::irq::{Arch, Line};

#[derive(Debug, Default)]
pub(crate) struct Interrupts {
    /// How many events and interrupts have arrived.
    pub(crate) arrivals: u64,
    /// Vectors that the guest has not taken yet; two of one vector are one, as in a local APIC.
    pub(crate) pending: BTreeSet<u8>,
    /// How often each vector was injected.
    pub(crate) injected: BTreeMap<u8, u64>,
    /// Lines by key.
    pub(crate) lines: BTreeMap<Name, Wire>,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) up: bool,
    pub(crate) edges: u64,
    /// Its interrupt has not been taken yet.
    pub(crate) pending: bool,
}

/// The key of a line: ISA, PCI or SPI, then its numbers.
pub(crate) type Name = (u8, u8, u8);

/// Of a [`Name`]: a shared peripheral interrupt.
const SPI: u8 = 2;

/// EOPNOTSUPP for another architecture's line, EINVAL for one that does not exist.
pub(crate) fn check(arch: Arch, line: Line) -> Result<Name, Errno> {
    match (arch, line) {
        (Arch::X86, Line::Spi(_)) | (Arch::Arm, Line::Isa(_) | Line::PciIntx { .. }) => {
            return Err(Errno::OPNOTSUPP);
        }
        (_, Line::Isa(0..=15) | Line::PciIntx { device: 0..=31, pin: 0..=3 }) => {}
        (_, Line::Spi(32..=1019)) => {}
        (_, Line::Isa(_) | Line::PciIntx { .. } | Line::Spi(_)) => return Err(Errno::INVAL),
    }
    Ok(name(line))
}

/// Its key.
pub(crate) fn name(line: Line) -> Name {
    match line {
        Line::Isa(isa) => (0, isa, 0),
        Line::PciIntx { device, pin } => (1, device, pin),
        Line::Spi(number) => {
            let [low, high, ..] = number.to_le_bytes();
            (SPI, low, high)
        }
    }
}

/// Delivery modes, bits 8 to 10 of an MSI's data.
const FIXED: u32 = 0;
const LOWEST_PRIORITY: u32 = 1;
/// Vectors below this are reserved for the processor: the local APIC records an error.
const FIRST_VECTOR: u8 = 16;

impl Domain {
    /// Wakes the threads that wait for an event or an interrupt.
    pub(crate) fn arrive(&mut self) {
        self.interrupts.arrivals += 1;
        self.arrival.notify_all();
    }

    /// EINVAL for a mode other than fixed and lowest priority, ESRCH if lowest priority finds no vCPU,
    /// ERANGE for an MSI that names neither vector nor interrupt.
    pub(crate) fn inject_msi(&mut self, addr: u64, data: u32) -> Result<(), Errno> {
        let [vector, ..] = data.to_le_bytes();
        let [_, low, high, ..] = addr.to_le_bytes();
        let destination = (low >> 4) | (high << 4);
        if vector == 0 {
            // The destination is a pirq's number; such an MSI notifies an event channel.
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

    /// Whether a local APIC has this id. A vCPU's is twice its number; logical ids are one bit
    /// each, as Linux sets them.
    fn has_apic(&self, destination: u8, logical: bool) -> bool {
        let vcpus = self.vcpus.len();
        if logical {
            return (0..vcpus.min(8)).any(|vcpu| destination & (1 << vcpu) != 0);
        }
        let number = usize::from(destination);
        destination == 0xFF || (number % 2 == 0 && number / 2 < vcpus)
    }

    /// Whether Xen emulates interrupt controllers for it. Only then can a line be set.
    pub(crate) fn has_lines(&self) -> bool {
        self.kind == Kind::Hvm
    }

    /// Raising a line that is up does nothing, but for an SPI: Xen injects one each time, and does not look at whether
    /// the guest has it level-triggered (`vgic_inject_irq`).
    pub(crate) fn set_line(&mut self, name: Name, up: bool) {
        let wire = self.interrupts.lines.entry(name).or_default();
        let rises = up && (name.0 == SPI || !wire.up);
        wire.up = up;
        if rises {
            wire.edges += 1;
            wire.pending = true;
            self.arrive();
        }
    }

    /// Takes the interrupt of a line, if one is pending. A PCI line is level-triggered: its interrupt
    /// is pending again while the line is up. An ISA line is edge-triggered, as a PC sets up its I/O
    /// APIC.
    pub(crate) fn take_line(&mut self, line: Line) -> bool {
        let wire = self.interrupts.lines.get_mut(&name(line));
        wire.is_some_and(|wire| {
            let again = wire.up && matches!(line, Line::PciIntx { .. });
            core::mem::replace(&mut wire.pending, again)
        })
    }
}
