//! InterruptStatus of a virtio-mmio device: which bits are set, and when its interrupt is raised and lowered.
//!
//! The device's interrupt is asserted while the status is not 0 (virtio 1.3, 4.2.3.4). So each bit that is newly
//! set raises it, and a level-triggered line falls once the status is 0.
//!
//! # Invariants
//! * A bit is set before the interrupt is raised for it. A driver that is interrupted finds it.
//! * An interrupt is raised for each bit that is set, unless it was raised since the bit was last
//!   acknowledged: then the driver has yet to acknowledge it, and looks at its queues after that, as Linux's does.
//!   A driver that looks first and acknowledges then can miss what is used between the two, where the interrupt is
//!   no level-triggered line.
//! * What Xen refused was not done, and is tried again: to raise the interrupt at the next signal, to lower it at
//!   the driver's next access, which comes at once, as its line is still up.
//! * An engine changes a status, and raises or lowers the interrupt for that change, under one lock. So
//!   no line falls for an acknowledgement that a later signal has overtaken.

use super::dispatch::Leftover;
use super::interrupt_status::Registers;
use super::irq::Irq;
use super::status::DeviceStatus;
use super::wire::native::StatusChange;

/// How the interrupt of a device is raised and lowered.
pub trait Interrupt {
    /// Why Xen refused.
    type Error;

    /// Which it is.
    fn irq(&self) -> Irq;

    /// Raises it.
    ///
    /// # Errors
    /// What Xen answers.
    fn raise(&self) -> Result<(), Self::Error>;

    /// Lowers it if it is a level-triggered line; does nothing for any other.
    ///
    /// # Errors
    /// What Xen answers.
    fn lower(&self) -> Result<(), Self::Error>;
}

/// InterruptStatus of one device, and what came to its registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterruptState {
    bits: u32,
    /// The bits for which the interrupt was raised.
    raised_for: u32,
    /// The interrupt was raised, and not lowered since.
    up: bool,
    reads: u64,
    acks: u64,
    raised: u64,
    failed: u64,
    odd: u64,
}

impl InterruptState {
    /// No bit is set.
    pub const fn new() -> Self {
        let [reads, acks, raised, failed, odd] = [0; 5];
        Self { bits: 0, raised_for: 0, up: false, reads, acks, raised, failed, odd }
    }

    /// Sets bits, and raises the interrupt if it was not raised for each of them.
    ///
    /// # Errors
    /// Xen refused to raise it. The bits are set.
    pub fn set<I: Interrupt>(&mut self, bits: u32, interrupt: &I) -> Result<(), I::Error> {
        self.bits |= bits;
        if self.bits & !self.raised_for == 0 {
            return Ok(());
        }
        let raised = interrupt.raise();
        if raised.is_ok() {
            self.raised_for = self.bits;
            self.up = true;
            self.raised = self.raised.wrapping_add(1);
        } else {
            self.failed = self.failed.wrapping_add(1);
        }
        raised
    }

    /// Clears bits, and lowers the interrupt if none is left.
    fn clear<I: Interrupt>(&mut self, bits: u32, interrupt: &I) {
        self.bits &= !bits;
        self.raised_for &= !bits;
        self.settle(interrupt);
    }

    /// Lowers the interrupt if it is up without a bit.
    fn settle<I: Interrupt>(&mut self, interrupt: &I) {
        if self.bits == 0 && self.up {
            self.up = interrupt.lower().is_err();
        }
    }

    /// Clears bits, then sets others.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn change<I: Interrupt>(
        &mut self,
        change: StatusChange,
        interrupt: &I,
    ) -> Result<(), I::Error> {
        self.clear(change.clear, interrupt);
        if change.set == 0 {
            return Ok(());
        }
        self.set(change.set, interrupt)
    }

    /// Acts on an access to the registers; the result is the answer to a read.
    pub fn answer<I: Interrupt>(
        &mut self,
        registers: Registers,
        access: &Leftover<'_>,
        interrupt: &I,
    ) -> u64 {
        let write = match access {
            Leftover::Write(write) => write,
            Leftover::Read(access) => {
                self.reads = self.reads.wrapping_add(1);
                self.settle(interrupt);
                return registers.read(self.bits, access);
            }
        };
        match registers.acknowledged(write) {
            Some(bits) => {
                self.acks = self.acks.wrapping_add(1);
                self.clear(bits, interrupt);
            }
            None => self.odd = self.odd.wrapping_add(1),
        }
        0
    }

    /// How it stands.
    pub fn status<I: Interrupt>(&self, registers: Registers, interrupt: &I) -> DeviceStatus {
        let Self { bits, reads, acks, raised, failed, odd, .. } = *self;
        DeviceStatus { registers, irq: interrupt.irq(), bits, reads, acks, raised, failed, odd }
    }
}

#[cfg(test)]
mod tests {
    use super::super::interrupt_status::{ACK, CONFIG_CHANGE, USED_BUFFER};
    use super::super::ioreq::{Access, Kick, Space, Width};
    use super::super::irq::{Line, Trigger};
    use super::*;
    use core::cell::Cell;

    const AT: u64 = 0xFE00_0060;
    const READ: Access = Access { space: Space::Mmio, addr: AT, width: Width::Four };

    fn registers() -> Registers {
        Registers::new(AT).unwrap()
    }

    /// What Xen knows of the interrupt, and what it answers.
    #[derive(Clone, Default)]
    struct Wire {
        /// An edge that the guest has not taken.
        edge: Cell<bool>,
        line: Cell<bool>,
        refuses: Cell<bool>,
    }

    impl Wire {
        fn allowed(&self) -> Result<(), ()> {
            if self.refuses.get() {
                Err(())
            } else {
                Ok(())
            }
        }
    }

    impl Interrupt for Wire {
        type Error = ();

        fn irq(&self) -> Irq {
            Irq::Line(Line::Spi(33), Trigger::Level)
        }

        fn raise(&self) -> Result<(), ()> {
            self.allowed()?;
            self.edge.set(true);
            self.line.set(true);
            Ok(())
        }

        fn lower(&self) -> Result<(), ()> {
            self.allowed()?;
            self.line.set(false);
            Ok(())
        }
    }

    fn read(state: &mut InterruptState, wire: &Wire) -> u64 {
        state.answer(registers(), &Leftover::Read(&READ), wire)
    }

    fn acknowledge(state: &mut InterruptState, wire: &Wire, bits: u64) {
        let write = Kick::new(Space::Mmio, AT + ACK, Width::Four, bits);
        state.answer(registers(), &Leftover::Write(&write), wire);
    }

    #[test]
    fn an_interrupt_that_was_refused_is_tried_again() {
        let (mut state, wire) = (InterruptState::new(), Wire::default());
        wire.refuses.set(true);
        assert_eq!(state.set(USED_BUFFER, &wire), Err(()));
        assert_eq!(read(&mut state, &wire), 1, "the bit is set");
        wire.refuses.set(false);
        assert_eq!(state.set(USED_BUFFER, &wire), Ok(()));
        assert!(wire.edge.take(), "it was not raised");
        assert_eq!(state.set(USED_BUFFER, &wire), Ok(()));
        assert!(!wire.edge.get(), "the driver has yet to acknowledge it");
        assert_eq!(state.set(CONFIG_CHANGE, &wire), Ok(()));
        assert!(wire.edge.take());
        acknowledge(&mut state, &wire, 1);
        assert!(wire.line.get(), "a bit is set");
        assert_eq!(state.set(USED_BUFFER, &wire), Ok(()));
        assert!(wire.edge.take());
        let seen = state.status(registers(), &wire);
        assert_eq!((seen.bits, seen.raised, seen.failed), (3, 3, 1));
        assert_eq!((seen.reads, seen.acks, seen.odd), (1, 1, 0));
    }

    #[test]
    fn a_line_that_could_not_be_lowered_falls_at_the_next_access() {
        type Access = fn(&mut InterruptState, &Wire) -> u64;
        let read: Access = read;
        let write: Access = |state, wire| {
            acknowledge(state, wire, 0);
            0
        };
        for again in [read, write] {
            let (mut state, wire) = (InterruptState::new(), Wire::default());
            state.set(USED_BUFFER, &wire).unwrap();
            wire.refuses.set(true);
            acknowledge(&mut state, &wire, 1);
            assert!(wire.line.get());
            again(&mut state, &wire);
            assert!(wire.line.get(), "it is refused again");
            wire.refuses.set(false);
            again(&mut state, &wire);
            assert!(!wire.line.get());
        }
    }

    #[test]
    fn a_line_is_lowered_once() {
        let (mut state, wire) = (InterruptState::new(), Wire::default());
        state.set(USED_BUFFER, &wire).unwrap();
        state.change(StatusChange { clear: u32::MAX, set: 0 }, &wire).unwrap();
        // Another's, from here on.
        wire.line.set(true);
        acknowledge(&mut state, &wire, 1);
        read(&mut state, &wire);
        assert!(wire.line.get());
    }

    #[test]
    fn a_write_that_acknowledges_nothing_is_counted() {
        let (mut state, wire) = (InterruptState::new(), Wire::default());
        state.set(3, &wire).unwrap();
        for (offset, width) in [(0, Width::Four), (ACK, Width::One), (0, Width::Eight)] {
            let write = Kick::new(Space::Mmio, AT + offset, width, 3);
            assert_eq!(state.answer(registers(), &Leftover::Write(&write), &wire), 0);
        }
        let seen = state.status(registers(), &wire);
        assert_eq!((seen.bits, seen.acks, seen.odd), (3, 0, 3));
    }

    /// A device whose driver reads, acknowledges and then looks, as Linux's does, and what each of them
    /// has yet to do.
    #[derive(Clone, Default)]
    struct Played {
        state: InterruptState,
        wire: Wire,
        /// What the driver has read and not acknowledged.
        read: Option<u64>,
        /// Of each bit: something came since the driver looked.
        news: u32,
    }

    impl Played {
        fn signal(mut self, bit: u32) -> Self {
            self.news |= bit;
            self.state.set(bit, &self.wire).unwrap();
            self
        }

        fn step(mut self) -> Self {
            match self.read.take() {
                None => {
                    self.wire.edge.set(false);
                    self.read = Some(read(&mut self.state, &self.wire));
                }
                Some(bits) => {
                    acknowledge(&mut self.state, &self.wire, bits);
                    self.news &= !u32::try_from(bits).unwrap();
                }
            }
            self
        }

        /// Every order of signals and of what the driver does for interrupts of this kind.
        fn every(self, depth: u32, asserted: fn(&Self) -> bool) {
            assert_eq!(self.wire.line.get(), self.state.bits != 0);
            if self.read.is_some() || asserted(&self) {
                if depth > 0 {
                    self.clone().step().every(depth - 1, asserted);
                }
            } else {
                assert_eq!(self.news, 0, "the driver sleeps and does not know of it");
            }
            for bit in [USED_BUFFER, CONFIG_CHANGE] {
                if depth > 0 {
                    self.clone().signal(bit).every(depth - 1, asserted);
                }
            }
        }
    }

    #[test]
    fn no_bit_and_no_interrupt_is_lost_in_any_order() {
        Played::default().every(12, |played| played.wire.edge.get());
        Played::default().every(12, |played| played.wire.line.get());
    }
}
