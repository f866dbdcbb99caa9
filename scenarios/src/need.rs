//! What a scenario needs.

use xen_eventfd::{Irq, Line, Trigger};
use xen_eventfd_core::{Space, irq::Arch};

/// What a machine or its guests must have for a scenario to mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Several CPUs, as it is about what happens at once: on one it passes and shows little.
    Race,
    /// I/O ports.
    Pio,
    /// Message-signalled interrupts.
    Msi,
    /// ISA and PCI lines, thus HVM guests.
    Lines,
    /// Shared peripheral interrupts.
    Spi,
}

impl Need {
    /// Whether guests of an architecture have it.
    #[must_use]
    pub fn is_met(self, arch: Arch) -> bool {
        let has = |irq| arch.owner(&irq).is_some();
        match self {
            Self::Race => true,
            Self::Pio => arch.has_space(Space::Pio),
            Self::Msi => has(Irq::Msi { addr: 0xFEE0_0000, data: 0x41 }),
            Self::Lines => has(Irq::Line(Line::Isa(0), Trigger::Pulse)),
            Self::Spi => has(Irq::Line(Line::Spi(32), Trigger::Pulse)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_guest_has_spis_and_no_ports_no_messages_and_no_lines_of_a_pc() {
        assert!([Arch::X86, Arch::Arm].into_iter().all(|arch| Need::Race.is_met(arch)));
        for (need, on_arm) in
            [(Need::Pio, false), (Need::Msi, false), (Need::Lines, false), (Need::Spi, true)]
        {
            assert_eq!(
                (need.is_met(Arch::X86), need.is_met(Arch::Arm)),
                (!on_arm, on_arm),
                "{need:?}"
            );
        }
    }
}
