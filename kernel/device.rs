// SPDX-License-Identifier: GPL-2.0

//! The interrupt of a device whose InterruptStatus and InterruptACK are answered here.
//!
//! # Invariants
//! * The word changes, and the interrupt is raised or its line lowered for that, under `state`, a
//!   spinlock. Handlers of vCPUs take it, and the wake-up of an eventfd takes it under `IrqFd::state`. No
//!   other lock is taken under it.

use crate::interrupt::Interrupt;
use crate::protocol::dispatch::Leftover;
use crate::protocol::interrupt_state::{self, InterruptState};
use crate::protocol::interrupt_status::{self, Registers};
use crate::protocol::irq::Irq;
use crate::protocol::status::DeviceStatus;
use crate::protocol::wire::native::StatusChange;
use kernel::prelude::*;
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::Arc;

/// Devices of one guest whose registers can be answered.
pub(crate) const MAX_DEVICES: usize = 256;

/// Devices in the order of addresses.
pub(crate) type Devices = KVVec<Arc<DeviceInterrupt>>;

/// The registers of one device, and the interrupt that is raised while a bit is set.
#[pin_data]
pub(crate) struct DeviceInterrupt {
    registers: Registers,
    interrupt: Interrupt,
    #[pin]
    state: SpinLockIrq<InterruptState>,
}

impl interrupt_status::Device for Arc<DeviceInterrupt> {
    fn registers(&self) -> Registers {
        self.registers
    }
}

impl interrupt_state::Interrupt for Interrupt {
    type Error = Error;

    fn irq(&self) -> Irq {
        self.irq()
    }

    fn raise(&self) -> Result {
        self.raise()
    }

    fn lower(&self) -> Result {
        self.lower()
    }
}

impl DeviceInterrupt {
    /// Where no bit is set.
    pub(crate) fn new(registers: Registers, interrupt: Interrupt) -> Result<Arc<Self>> {
        let device = pin_init!(Self {
            registers,
            interrupt,
            state <- new_spinlock_irq!(InterruptState::new(), "DeviceInterrupt::state"),
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
        self.state.lock().set(bits, &self.interrupt)
    }

    /// Clears bits, then sets others, and says how it stands.
    pub(crate) fn change(&self, change: StatusChange) -> Result<DeviceStatus> {
        let mut state = self.state.lock();
        state.change(change, &self.interrupt)?;
        Ok(state.status(self.registers, &self.interrupt))
    }

    /// How it stands.
    pub(crate) fn status(&self) -> DeviceStatus {
        self.state.lock().status(self.registers, &self.interrupt)
    }

    /// Acts on an access to its registers; the result is the answer to a read. Called by handlers.
    pub(crate) fn answer(&self, access: &Leftover<'_>) -> u64 {
        self.state.lock().answer(self.registers, access, &self.interrupt)
    }
}
