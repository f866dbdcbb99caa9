//! The interrupt of a device whose InterruptStatus and InterruptACK the engine answers.

use super::Shared;
use super::irq::Action;
use crate::engine::doorbells::Answers;
use std::sync::Arc;
use xen_eventfd_core::DomId;
use xen_eventfd_core::dispatch::Leftover;
use xen_eventfd_core::interrupt_status::{Registers, Word};
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_host::Result;
use xen_eventfd_ioreq::sync::{Mutex, lock};

/// The registers of one device, and the interrupt that is raised while a bit is set.
#[derive(Debug)]
pub(super) struct DeviceInterrupt {
    shared: Arc<Shared>,
    dom: DomId,
    registers: Registers,
    irq: Irq,
    action: Action,
    /// Distinguishes this registration from an equal one before or after it.
    pub(super) serial: u64,
    /// Held while the interrupt is raised or its line lowered for a change of it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    word: Word,
    reads: u64,
    acks: u64,
    raised: u64,
    failed: u64,
    odd: u64,
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
        let (shared, state) = (Arc::clone(shared), Mutex::default());
        Self { shared, dom, registers, irq, action, serial, state }
    }

    /// The interrupt that is raised.
    pub(super) fn irq(&self) -> Irq {
        self.irq
    }

    /// Sets bits, and raises the interrupt if it was not raised for each of them.
    pub(super) fn set(&self, bits: u32) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.word.set(bits) {
            return Ok(());
        }
        let raised = self.action.raise(&self.shared, self.dom);
        match &raised {
            Ok(()) => {
                state.word.raised();
                state.raised += 1;
            }
            Err(_) => state.failed += 1,
        }
        raised
    }

    /// Clears bits, and lowers the line if none is left.
    fn clear(&self, state: &mut State, bits: u32) {
        if state.word.clear(bits)
            && let Some(line) = self.irq.leaves_up()
            && let Err(error) = self.shared.host().set_line(self.dom, line, false)
        {
            tracing::debug!(%error, "a line was not lowered");
        }
    }

    /// Clears bits, then sets others, and says how it stands.
    pub(super) fn change(&self, change: StatusChange) -> Result<DeviceStatus> {
        self.clear(&mut lock(&self.state), change.clear);
        if change.set != 0 {
            self.set(change.set)?;
        }
        Ok(self.status())
    }

    /// How it stands.
    pub(super) fn status(&self) -> DeviceStatus {
        let Self { registers, irq, .. } = *self;
        let State { word, reads, acks, raised, failed, odd } = *lock(&self.state);
        DeviceStatus { registers, irq, bits: word.bits(), reads, acks, raised, failed, odd }
    }
}

impl Answers for DeviceInterrupt {
    fn registers(&self) -> Registers {
        self.registers
    }

    fn answer(&self, access: &Leftover<'_>) -> u64 {
        let mut state = lock(&self.state);
        match access {
            Leftover::Read(access) => {
                state.reads += 1;
                self.registers.read(state.word.bits(), access)
            }
            Leftover::Write(write) => {
                match self.registers.acknowledged(write) {
                    Some(bits) => {
                        state.acks += 1;
                        self.clear(&mut state, bits);
                    }
                    None => state.odd += 1,
                }
                0
            }
        }
    }
}
