//! The registers of virtio-mmio (virtio 1.3, section 4.2.2), version 2: without the legacy interface.
//!
//! A register is read in any way, and written whole at its own address. Any other write has no effect. The word of
//! InterruptStatus is not here: the caller keeps it, and with it the interrupt. A read asks the caller for it, and
//! effects set and clear its bits. So it has one owner, also where an engine answers the register itself.

use crate::common::{Common, Field};
use crate::description::{Description, DescriptionError};
use crate::effect::{Effect, Route};
use crate::msix::NO_VECTOR;
use crate::state::{MmioState, StateError};
use crate::transport::TransportParts;
use crate::value::{gather, low};
use alloc::vec::Vec;
use xen_eventfd_core::Width;
use xen_eventfd_core::interrupt_status::CONFIG_CHANGE;

/// Bytes of a device's registers, its configuration included, as libxl has them in a guest's device tree
/// (`VIRTIO_MMIO_DEV_SIZE`).
pub const MMIO_SIZE: u32 = 0x200;
/// QueueNotify, from the device's base: a driver writes a queue's index, 4 bytes wide.
pub const QUEUE_NOTIFY: u32 = 0x50;
/// InterruptStatus, from the device's base. InterruptACK follows.
pub const INTERRUPT_STATUS: u32 = 0x60;

/// Where the device configuration begins.
const CONFIG: u32 = 0x100;
/// Bytes that are left for it.
const MAX_CONFIG: usize = (MMIO_SIZE - CONFIG) as usize;

/// "virt", as MagicValue reads.
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The version without the legacy interface.
const VERSION: u32 = 2;
/// VendorID: that of virtio functions on PCI, as drivers take any.
const VENDOR: u32 = 0x1AF4;
/// Base and length of a shared memory region that is not there (section 4.2.2).
const NO_REGION: u32 = u32::MAX;

/// What is at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    /// It reads as this, whatever is written.
    Constant(u32),
    DeviceId,
    /// A register of the device's that is only read.
    Read(Field),
    /// One that is only written, and reads as 0.
    Write(Field),
    /// One that is read and written.
    Both(Field),
    QueueReady,
    QueueNotify,
    InterruptStatus,
    InterruptAck,
}

/// The registers, each of 4 bytes. What is between them reads as 0.
const REGISTERS: [(u32, Register); 28] = [
    (0x000, Register::Constant(MAGIC)),
    (0x004, Register::Constant(VERSION)),
    (0x008, Register::DeviceId),
    (0x00C, Register::Constant(VENDOR)),
    (0x010, Register::Read(Field::DeviceFeature)),
    (0x014, Register::Write(Field::DeviceFeatureSelect)),
    (0x020, Register::Write(Field::DriverFeature)),
    (0x024, Register::Write(Field::DriverFeatureSelect)),
    (0x030, Register::Write(Field::QueueSelect)),
    (0x034, Register::Read(Field::QueueSizeMax)),
    (0x038, Register::Write(Field::QueueSize)),
    (0x044, Register::QueueReady),
    (QUEUE_NOTIFY, Register::QueueNotify),
    (INTERRUPT_STATUS, Register::InterruptStatus),
    (0x064, Register::InterruptAck),
    (0x070, Register::Both(Field::Status)),
    (0x080, Register::Write(Field::Descriptors { is_high: false })),
    (0x084, Register::Write(Field::Descriptors { is_high: true })),
    (0x090, Register::Write(Field::Driver { is_high: false })),
    (0x094, Register::Write(Field::Driver { is_high: true })),
    (0x0A0, Register::Write(Field::Device { is_high: false })),
    (0x0A4, Register::Write(Field::Device { is_high: true })),
    // SHMLenLow, SHMLenHigh, SHMBaseLow, SHMBaseHigh, whatever SHMSel at 0x0AC selects.
    (0x0B0, Register::Constant(NO_REGION)),
    (0x0B4, Register::Constant(NO_REGION)),
    (0x0B8, Register::Constant(NO_REGION)),
    (0x0BC, Register::Constant(NO_REGION)),
    (0x0C0, Register::Both(Field::QueueReset)),
    (0x0FC, Register::Read(Field::Generation)),
];

/// A device on virtio-mmio.
#[derive(Debug, Clone)]
pub struct Mmio {
    common: Common,
    /// What it was made of.
    description: Description,
}

impl Mmio {
    /// The registers of a device.
    ///
    /// # Errors
    /// As [`Description::check`]; a configuration that is longer than what [`MMIO_SIZE`] leaves for it.
    pub fn new(description: &Description) -> Result<Self, DescriptionError> {
        description.check(MAX_CONFIG)?;
        Ok(Self { common: Common::new(description), description: description.clone() })
    }

    /// Its whole state.
    pub fn state(&self) -> MmioState {
        let config = self.common.config().to_vec();
        let description = Description { config, ..self.description.clone() };
        MmioState { description, common: self.common.state() }
    }

    /// A device in a state, and what has to be done for it to be in that state too, when nothing was done yet: features
    /// accepted, queues started.
    ///
    /// # Errors
    /// No device can be in that state.
    pub fn restore(state: &MmioState) -> Result<(Self, Vec<Effect>), StateError> {
        let mut device = Self::new(&state.description)?;
        device.common.restore(&state.common, |_| NO_VECTOR)?;
        let mut effects = Vec::new();
        device.common.begin(&mut effects);
        device.reconcile(&mut effects);
        Ok((device, effects))
    }

    /// Reads at an offset from the device's base. `status` returns InterruptStatus, and is called only where that is
    /// read. `None`: the bytes are not all the device's.
    pub fn read(&mut self, offset: u64, width: Width, status: impl FnOnce() -> u32) -> Option<u64> {
        let offset = Self::within(offset, width)?;
        let end = offset + u32::from(width.bytes());
        let is_read = offset < INTERRUPT_STATUS + 4 && INTERRUPT_STATUS < end;
        let status = if is_read { status() } else { 0 };
        if end > CONFIG {
            self.common.config_read();
        }
        Some(gather(width, |byte| {
            let at = offset + u32::from(byte);
            match at.checked_sub(CONFIG) {
                Some(at) => self.common.config_byte(at),
                None => self.value(at & !3, status).to_le_bytes()[(at & 3) as usize],
            }
        }))
    }

    /// Writes at an offset from the device's base. `None`: the bytes are not all the device's.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<Vec<Effect>> {
        let offset = Self::within(offset, width)?;
        let mut effects = Vec::new();
        match offset.checked_sub(CONFIG) {
            Some(at) => effects.extend(self.common.config_written(at, width, value)),
            None if width == Width::Four => self.set(offset, low(value), &mut effects),
            None => {}
        }
        self.reconcile(&mut effects);
        Some(effects)
    }

    fn within(offset: u64, width: Width) -> Option<u32> {
        let end = offset.checked_add(width.bytes().into())?;
        u32::try_from(offset).ok().filter(|_| end <= MMIO_SIZE.into())
    }

    fn value(&self, register: u32, status: u32) -> u32 {
        match find(register) {
            Some(Register::Constant(value)) => value,
            Some(Register::DeviceId) => self.description.device_type.into(),
            Some(Register::Read(field) | Register::Both(field)) => self.common.value(field),
            Some(Register::QueueReady) => self.common.value(Field::QueueEnable),
            Some(Register::InterruptStatus) => status,
            Some(Register::Write(_) | Register::QueueNotify | Register::InterruptAck) | None => 0,
        }
    }

    fn set(&mut self, register: u32, value: u32, effects: &mut Vec<Effect>) {
        let mut set = |field| self.common.set(field, value, |_| NO_VECTOR, effects);
        match find(register) {
            Some(Register::Write(field) | Register::Both(field)) => set(field),
            Some(Register::QueueReady) if value == 0 => self.common.disable_queue(effects),
            Some(Register::QueueReady) => set(Field::QueueEnable),
            Some(Register::QueueNotify) => {
                let queue = u16::try_from(value).ok();
                effects.extend(queue.and_then(|queue| self.common.kick(queue)));
            }
            Some(Register::InterruptAck) => effects.push(Effect::Acknowledged(value)),
            Some(
                Register::Constant(_)
                | Register::DeviceId
                | Register::Read(_)
                | Register::InterruptStatus,
            )
            | None => {}
        }
    }

    /// Appends what the caller does not know yet.
    fn reconcile(&mut self, effects: &mut Vec<Effect>) {
        self.common.reconcile(|_| Route::InterruptStatus, effects);
    }
}

/// What is at an offset that is a multiple of 4, or at any other: nothing.
fn find(register: u32) -> Option<Register> {
    REGISTERS.iter().find(|(at, _)| *at == register).map(|(_, register)| *register)
}

impl TransportParts for Mmio {
    fn common(&self) -> &Common {
        &self.common
    }

    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }

    fn notify_of_config(&mut self) -> Vec<Effect> {
        let is_live = self.common.is_live();
        is_live.then_some(Effect::SetInterruptStatus(CONFIG_CHANGE)).into_iter().collect()
    }
}
