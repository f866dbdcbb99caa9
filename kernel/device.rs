// SPDX-License-Identifier: GPL-2.0

//! The interrupt of a device whose InterruptStatus and InterruptACK are answered here.
//!
//! # Invariants
//! * The word changes, and the interrupt is raised or its line lowered for that, under `state`, a
//!   spinlock. Handlers of vCPUs take it, and the wake-up of an eventfd takes it under `IrqFd::state`. No
//!   other lock is taken under it.

use crate::interrupt::Interrupt;
use crate::protocol::dispatch::Leftover;
use crate::protocol::interrupt_status::{self, Registers, Word};
use crate::protocol::status::DeviceStatus;
use crate::protocol::wire::native::StatusChange;
use kernel::prelude::*;
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::Arc;

/// Devices of one guest whose registers can be answered.
pub(crate) const MAX_DEVICES: usize = 256;

/// Devices in the order of addresses.
pub(crate) type Devices = KVVec<Arc<DeviceInterrupt>>;

struct State {
    word: Word,
    reads: u64,
    acks: u64,
    raised: u64,
    failed: u64,
    odd: u64,
}

/// The registers of one device, and the interrupt that is raised while a bit is set.
#[pin_data]
pub(crate) struct DeviceInterrupt {
    registers: Registers,
    interrupt: Interrupt,
    #[pin]
    state: SpinLockIrq<State>,
}

impl interrupt_status::Device for Arc<DeviceInterrupt> {
    fn registers(&self) -> Registers {
        self.registers
    }
}

impl DeviceInterrupt {
    /// Where no bit is set.
    pub(crate) fn new(registers: Registers, interrupt: Interrupt) -> Result<Arc<Self>> {
        let [reads, acks, raised, failed, odd] = [0; 5];
        let state = State { word: Word::new(), reads, acks, raised, failed, odd };
        let device = pin_init!(Self {
            registers,
            interrupt,
            state <- new_spinlock_irq!(state, "DeviceInterrupt::state"),
        });
        Arc::pin_init(device, GFP_KERNEL_ACCOUNT)
    }

    /// Where its registers are.
    pub(crate) fn registers(&self) -> Registers {
        self.registers
    }

    /// The interrupt that is raised.
    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Sets bits, and raises the interrupt if it was not raised for each of them. May be called from an
    /// interrupt.
    pub(crate) fn set(&self, bits: u32) -> Result {
        let mut state = self.state.lock();
        if !state.word.set(bits) {
            return Ok(());
        }
        let raised = self.interrupt.raise();
        if raised.is_ok() {
            state.word.raised();
            state.raised = state.raised.wrapping_add(1);
        } else {
            state.failed = state.failed.wrapping_add(1);
        }
        raised
    }

    /// Clears bits, and lowers the line if none is left.
    fn clear(&self, state: &mut State, bits: u32) {
        if state.word.clear(bits) {
            // It fails only if the guest is gone.
            let _ = self.interrupt.lower();
        }
    }

    /// Clears bits, then sets others, and says how it stands.
    pub(crate) fn change(&self, change: StatusChange) -> Result<DeviceStatus> {
        self.clear(&mut self.state.lock(), change.clear);
        if change.set != 0 {
            self.set(change.set)?;
        }
        Ok(self.status())
    }

    /// How it stands.
    pub(crate) fn status(&self) -> DeviceStatus {
        let (registers, irq) = (self.registers, self.interrupt.irq());
        let State { ref word, reads, acks, raised, failed, odd } = *self.state.lock();
        DeviceStatus { registers, irq, bits: word.bits(), reads, acks, raised, failed, odd }
    }

    /// Acts on an access to its registers; the result is the answer to a read. Called by handlers.
    pub(crate) fn answer(&self, access: &Leftover<'_>) -> u64 {
        let mut state = self.state.lock();
        let write = match access {
            Leftover::Write(write) => write,
            Leftover::Read(access) => {
                state.reads = state.reads.wrapping_add(1);
                return self.registers.read(state.word.bits(), access);
            }
        };
        match self.registers.acknowledged(write) {
            Some(bits) => {
                state.acks = state.acks.wrapping_add(1);
                self.clear(&mut state, bits);
            }
            None => state.odd = state.odd.wrapping_add(1),
        }
        0
    }
}
