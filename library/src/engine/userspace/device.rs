//! The interrupt of a device whose InterruptStatus and InterruptACK the engine answers.

use super::Shared;
use super::irq::Action;
use crate::engine::doorbells::Answers;
use std::sync::Arc;
use xen_eventfd_core::DomId;
use xen_eventfd_core::dispatch::Leftover;
use xen_eventfd_core::interrupt_state::{Interrupt, InterruptState};
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_host::{HostError, Result};
use xen_eventfd_ioreq::sync::{Mutex, lock};

/// The registers of one device, and the interrupt that is raised while a bit is set.
#[derive(Debug)]
pub(super) struct DeviceInterrupt {
    registers: Registers,
    interrupt: Raised,
    /// Distinguishes this registration from an equal one before or after it.
    pub(super) serial: u64,
    /// Held while the interrupt is raised or its line lowered for a change of it.
    state: Mutex<InterruptState>,
}

/// An interrupt, and what raises it.
#[derive(Debug)]
struct Raised {
    shared: Arc<Shared>,
    dom: DomId,
    irq: Irq,
    action: Action,
}

impl DeviceInterrupt {
    /// Where no bit is set. `action` raises `irq`.
    pub(super) fn new(
        shared: &Arc<Shared>,
        dom: DomId,
        (registers, irq): (Registers, Irq),
        action: Action,
    ) -> Self {
        let serial = shared.event_loop.serial();
        let interrupt = Raised { shared: Arc::clone(shared), dom, irq, action };
        Self { registers, interrupt, serial, state: Mutex::default() }
    }

    /// The interrupt that is raised.
    pub(super) fn irq(&self) -> Irq {
        self.interrupt.irq
    }

    /// Sets bits, and raises the interrupt if it was not raised for each of them.
    pub(super) fn set(&self, bits: u32) -> Result<()> {
        lock(&self.state).set(bits, &self.interrupt)
    }

    /// Clears bits, then sets others, and says how it stands.
    pub(super) fn change(&self, change: StatusChange) -> Result<DeviceStatus> {
        let mut state = lock(&self.state);
        state.change(change, &self.interrupt)?;
        Ok(state.status(self.registers, &self.interrupt))
    }

    /// How it stands.
    pub(super) fn status(&self) -> DeviceStatus {
        lock(&self.state).status(self.registers, &self.interrupt)
    }
}

impl Interrupt for Raised {
    type Error = HostError;

    fn irq(&self) -> Irq {
        self.irq
    }

    fn raise(&self) -> Result<()> {
        self.action.raise(&self.shared, self.dom)
    }

    fn lower(&self) -> Result<()> {
        let Some(line) = self.irq.leaves_up() else { return Ok(()) };
        self.shared.host().set_line(self.dom, line, false).inspect_err(|error| {
            tracing::debug!(%error, "a line was not lowered");
        })
    }
}

impl Answers for DeviceInterrupt {
    fn registers(&self) -> Registers {
        self.registers
    }

    fn answer(&self, access: &Leftover<'_>) -> u64 {
        lock(&self.state).answer(self.registers, access, &self.interrupt)
    }
}
