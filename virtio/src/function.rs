//! The function: its configuration space, what its BARs lead to, and the effects of an access.
//!
//! # Invariants
//! * `known` is what the caller knows from the effects: [`Function::reconcile`] compares it with the
//!   registers after each access and each event, so that no way to a change can leave one out.

use crate::capabilities::{self, Places};
use crate::common::Common;
use crate::common_structure;
use crate::config_space::{
    BAR_0, ConfigSpace, DECODES_MEMORY, DECODES_PORTS, LINE_OFF, LINE_PENDING, MASTERS_BUS, STATUS,
};
use crate::description::{Description, DescriptionError, FunctionDescription};
use crate::effect::{Bar, Effect, Route};
use crate::layout::{
    COMMON, DEVICE, DOORBELL_BAR, DOORBELL_SIZE, ISR, PENDING, REGISTERS_BAR, REGISTERS_SIZE, TABLE,
};
use crate::msix::{ENABLE, MASK_ALL, MsiX};
use crate::state::{FunctionState, StateError};
use crate::transport::TransportParts;
use crate::value::{gather, word};
use alloc::vec::Vec;
use virtio_spec::pci::IsrStatus;
use xen_eventfd_core::{Access, Kick, Space, Width};

/// What the caller knows.
#[derive(Debug, Clone)]
struct Known {
    registers: Option<u64>,
    doorbell: Option<u64>,
    line: bool,
}

/// A virtio-pci function.
#[derive(Debug, Clone)]
pub struct Function {
    space: ConfigSpace,
    places: Places,
    common: Common,
    msix: MsiX,
    isr: IsrStatus,
    has_line: bool,
    known: Known,
    /// What it was made of.
    description: FunctionDescription,
}

impl Function {
    /// The function of a device.
    ///
    /// # Errors
    /// As [`FunctionDescription::check`].
    pub fn new(description: &FunctionDescription) -> Result<Self, DescriptionError> {
        description.check()?;
        let mut space = ConfigSpace::new(description.identity());
        for (index, size, at, flags) in [
            (REGISTERS_BAR, REGISTERS_SIZE, description.registers, 0),
            (DOORBELL_BAR, DOORBELL_SIZE, description.doorbell.into(), 1),
        ] {
            let register = BAR_0 + 4 * usize::from(index);
            space.put(register, &(at | flags).to_le_bytes());
            space.allow(register, &(!(size - 1)).to_le_bytes());
        }
        let device = &description.device;
        let msix = MsiX::new(device.queue_sizes.len() + 1);
        let places = capabilities::add(&mut space, msix.vectors(), device.config.len());
        Ok(Self {
            space,
            places,
            common: Common::new(device),
            msix,
            isr: IsrStatus::empty(),
            has_line: description.has_line,
            known: Known { registers: None, doorbell: None, line: false },
            description: description.clone(),
        })
    }

    /// Its whole state.
    pub fn state(&self) -> FunctionState {
        let (entries, pending) = self.msix.state();
        let config = self.common.config().to_vec();
        let device = Description { config, ..self.description.device.clone() };
        FunctionState {
            description: FunctionDescription { device, ..self.description.clone() },
            space: self.space.state(),
            common: self.common.state(),
            entries,
            pending,
            isr: self.isr.bits(),
        }
    }

    /// A function in a state, and what has to be done for its device to be in it too, when nothing was done yet:
    /// features accepted, BARs decoded, queues started, the line set. Which queue's calls are held is not in it.
    ///
    /// # Errors
    /// No function can be in that state.
    pub fn restore(state: &FunctionState) -> Result<(Self, Vec<Effect>), StateError> {
        let mut function = Self::new(&state.description)?;
        function.space.restore(&state.space)?;
        function.follow_control();
        function.msix.restore(&state.entries, state.pending)?;
        let msix = &function.msix;
        function.common.restore(&state.common, |vector| msix.mapped(vector))?;
        function.isr = IsrStatus::from_bits_retain(state.isr);
        if !(IsrStatus::QUEUE_INTERRUPT | IsrStatus::DEVICE_CONFIGURATION_INTERRUPT)
            .contains(function.isr)
        {
            return Err(StateError::Value);
        }
        let mut effects = Vec::new();
        function.common.begin(&mut effects);
        function.reconcile(&mut effects);
        Ok((function, effects))
    }

    /// Reads the configuration space. `held` returns for a queue whose route is [`Route::Masked`] whether its calls
    /// are pending; it is called only where the pending bits are read.
    pub fn read_config(
        &mut self,
        register: u16,
        width: Width,
        held: impl Fn(u16) -> bool,
    ) -> (u64, Vec<Effect>) {
        let mut effects = Vec::new();
        let data = self.places.window + 12;
        if touches(register, width, data)
            && let Some((bar, offset, width)) = self.window()
        {
            let value = match bar {
                Bar::Registers => self.read_register(offset, width, &held),
                Bar::Doorbell => 0,
            };
            let bytes = usize::from(width.bytes());
            self.space.put(data, &value.to_le_bytes()[..bytes]);
        }
        self.reconcile(&mut effects);
        (self.space.read(register, width), effects)
    }

    /// Writes to the configuration space.
    pub fn write_config(&mut self, register: u16, width: Width, value: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.space.write(register, width, value);
        self.follow_control();
        let data = self.places.window + 12;
        if touches(register, width, data)
            && let Some((bar, offset, width)) = self.window()
        {
            let value = gather(width, |at| self.space.byte(data + usize::from(at)));
            self.write_bar(bar, offset, width, value, &mut effects);
        }
        self.reconcile(&mut effects);
        effects
    }

    /// Reads memory or a port. `None`: the bytes are not all in one of the function's BARs. `held` as
    /// [`Function::read_config`] has it.
    pub fn read(
        &mut self,
        access: Access,
        held: impl Fn(u16) -> bool,
    ) -> Option<(u64, Vec<Effect>)> {
        let (bar, offset) = self.locate(access)?;
        let value = match bar {
            Bar::Registers => self.read_register(offset, access.width, &held),
            Bar::Doorbell => 0,
        };
        let mut effects = Vec::new();
        self.reconcile(&mut effects);
        Some((value, effects))
    }

    /// Writes to memory or a port. `None` as [`Function::read`] has it.
    pub fn write(&mut self, write: Kick) -> Option<Vec<Effect>> {
        let (bar, offset) = self.locate(write.access)?;
        let mut effects = Vec::new();
        self.write_bar(bar, offset, write.access.width, write.value, &mut effects);
        self.reconcile(&mut effects);
        Some(effects)
    }

    /// A call of a queue that no irqfd takes to the guest, as with [`Route::Line`]. Nothing for a queue that
    /// has not started.
    pub fn signal_queue(&mut self, queue: u16) -> Vec<Effect> {
        let mut effects = Vec::new();
        let index = usize::from(queue);
        if self.common.has_started(queue) {
            if self.msix.is_enabled {
                let raised = self.msix.signal(self.common.queues[index].vector);
                effects.extend(raised.map(Effect::Raise));
            } else {
                self.isr |= IsrStatus::QUEUE_INTERRUPT;
            }
            self.reconcile(&mut effects);
        }
        effects
    }

    /// Where the function decodes a BAR, if it does.
    pub fn address(&self, bar: Bar) -> Option<u64> {
        let (index, size, decodes, last) = match bar {
            Bar::Registers => (REGISTERS_BAR, REGISTERS_SIZE, DECODES_MEMORY, u32::MAX),
            Bar::Doorbell => (DOORBELL_BAR, DOORBELL_SIZE, DECODES_PORTS, 0xFFFF),
        };
        let decoded =
            self.space.commands(decodes).then(|| self.space.bar(index.into(), size, last));
        decoded.flatten().map(u64::from)
    }

    /// Takes over what MSI-X has of the configuration space.
    fn follow_control(&mut self) {
        let control = self.space.word(self.places.msix_control);
        self.msix.is_enabled = control & ENABLE != 0;
        self.msix.is_held = control & MASK_ALL != 0 || !self.space.commands(MASTERS_BUS);
    }

    fn locate(&self, access: Access) -> Option<(Bar, u32)> {
        let (bar, size) = match access.space {
            Space::Mmio => (Bar::Registers, REGISTERS_SIZE),
            Space::Pio => (Bar::Doorbell, DOORBELL_SIZE),
        };
        let offset = access.addr.checked_sub(self.address(bar)?)?;
        let offset = u32::try_from(offset).ok()?;
        let end = offset.checked_add(access.width.bytes().into())?;
        (end <= size).then_some((bar, offset))
    }

    /// What the PCI configuration access capability selects: within a BAR, and aligned.
    fn window(&self) -> Option<(Bar, u32, Width)> {
        let at = self.places.window;
        let (bar, size) = match self.space.byte(at) {
            REGISTERS_BAR => (Bar::Registers, REGISTERS_SIZE),
            DOORBELL_BAR => (Bar::Doorbell, DOORBELL_SIZE),
            _ => return None,
        };
        let (offset, length) = (self.space.long(at + 4), self.space.long(at + 8));
        let width = Width::new(length).filter(|width| *width != Width::Eight)?;
        let end = offset.checked_add(length)?;
        (end <= size && offset.is_multiple_of(length)).then_some((bar, offset, width))
    }

    fn read_register(&mut self, offset: u32, width: Width, held: &dyn Fn(u16) -> bool) -> u64 {
        let end = offset + u32::from(width.bytes());
        let reads = |block: core::ops::Range<u32>| offset < block.end && block.start < end;
        if reads(DEVICE) {
            self.common.config_read();
        }
        let pending = if reads(PENDING) { self.pending(held) } else { 0 };
        let value = gather(width, |at| {
            let offset = offset + u32::from(at);
            match offset {
                _ if COMMON.contains(&offset) => common_structure::byte(&self.common, offset),
                _ if ISR.contains(&offset) => self.isr.bits(),
                _ if DEVICE.contains(&offset) => self.common.config_byte(offset - DEVICE.start),
                _ if TABLE.contains(&offset) => self.msix.table_byte(offset - TABLE.start),
                _ if PENDING.contains(&offset) => {
                    self.msix.pending_byte(offset - PENDING.start, pending)
                }
                _ => 0,
            }
        });
        if reads(ISR) {
            self.isr = IsrStatus::empty();
        }
        value
    }

    /// The vectors of queues whose calls the caller holds.
    fn pending(&self, held: &dyn Fn(u16) -> bool) -> u128 {
        let masked = |queue: u16| self.common.route(queue) == Some(Route::Masked);
        let queues = (0..).zip(&self.common.queues).filter(|(queue, _)| masked(*queue));
        let vectors = queues.filter(|(queue, _)| held(*queue)).map(|(_, queue)| 1 << queue.vector);
        vectors.fold(0, |all, vector: u128| all | vector)
    }

    fn write_bar(
        &mut self,
        bar: Bar,
        offset: u32,
        width: Width,
        value: u64,
        effects: &mut Vec<Effect>,
    ) {
        match bar {
            Bar::Registers => self.write_register(offset, width, value, effects),
            // What is wider than a queue's index is still one write of it.
            Bar::Doorbell => {
                let is_whole = offset == 0 && width != Width::One;
                effects.extend(is_whole.then(|| self.common.kick(word(value))).flatten());
            }
        }
    }

    fn write_register(&mut self, offset: u32, width: Width, value: u64, effects: &mut Vec<Effect>) {
        let last = offset + u32::from(width.bytes()) - 1;
        let within =
            |block: core::ops::Range<u32>| block.contains(&offset) && block.contains(&last);
        if within(COMMON) {
            let msix = &self.msix;
            let mapped = |vector| msix.mapped(vector);
            common_structure::write(&mut self.common, offset, width, value, mapped, effects);
            if effects.contains(&Effect::Reset) {
                self.isr = IsrStatus::empty();
                self.msix.forget();
            }
        } else if within(DEVICE) {
            effects.extend(self.common.config_written(offset - DEVICE.start, width, value));
        } else if within(TABLE) {
            self.msix.write(offset - TABLE.start, width, value);
        }
    }

    /// Appends what the caller does not know yet.
    fn reconcile(&mut self, effects: &mut Vec<Effect>) {
        self.reconcile_bars(effects);
        let (msix, has_line) = (&self.msix, self.has_line);
        let route = |vector| match (msix.is_enabled, has_line) {
            (true, _) => msix.route(vector),
            (false, true) => Route::Line,
            (false, false) => Route::Nowhere,
        };
        self.common.reconcile(route, effects);
        while let Some(message) = self.msix.release() {
            effects.push(Effect::Raise(message));
        }
        self.reconcile_line(effects);
    }

    fn reconcile_bars(&mut self, effects: &mut Vec<Effect>) {
        let now = [Bar::Registers, Bar::Doorbell].map(|bar| self.address(bar));
        let known = [&mut self.known.registers, &mut self.known.doorbell];
        for ((bar, known), to) in [Bar::Registers, Bar::Doorbell].into_iter().zip(known).zip(now) {
            if *known != to {
                effects.push(Effect::Moved { bar, from: *known, to });
                *known = to;
            }
        }
    }

    /// The line and its bit in the status register (virtio 1.3, section 4.1.4.5.1).
    fn reconcile_line(&mut self, effects: &mut Vec<Effect>) {
        let is_pending = !self.msix.is_enabled && !self.isr.is_empty();
        let status = self.space.word(STATUS) & !LINE_PENDING;
        let bit = if is_pending { LINE_PENDING } else { 0 };
        self.space.put(STATUS, &(status | bit).to_le_bytes());
        let line = is_pending && self.has_line && !self.space.commands(LINE_OFF);
        if self.known.line != line {
            effects.push(Effect::Line(line));
            self.known.line = line;
        }
    }
}

impl TransportParts for Function {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn notify_of_config(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.common.is_live() {
            self.isr |= IsrStatus::DEVICE_CONFIGURATION_INTERRUPT;
            if self.msix.is_enabled {
                effects.extend(self.msix.signal(self.common.config_vector).map(Effect::Raise));
            }
            self.reconcile(&mut effects);
        }
        effects
    }
}

/// Whether an access to the configuration space touches the 4 bytes at `data`.
fn touches(register: u16, width: Width, data: usize) -> bool {
    let first = usize::from(register);
    first < data + 4 && data < first + usize::from(width.bytes())
}
