//! The common configuration structure (virtio 1.3, section 4.1.4.3).
//!
//! A field is read in any way, and written with its own width or, those of 64 bits, also whole. Any other
//! write has no effect.
//!
//! # Invariants
//! * `status` has FEATURES_OK only if the driver's features are acceptable, DRIVER_OK only with FEATURES_OK.
//! * A queue's size is a power of 2, or the driver has accepted VIRTIO_F_RING_PACKED.
//! * A queue that is enabled keeps its addresses and its size.

use crate::description::{Description, bits};
use crate::effect::Effect;
use crate::layout::COMMON;
use crate::msix::NO_VECTOR;
use crate::state::{CommonState, QueueState, StateError};
use crate::value::{high, low, with_half, word};
use alloc::vec::Vec;
use virtio_spec::{DeviceStatus, F};
use xen_eventfd_core::Width;

/// The registers, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    Queues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    Descriptors { is_high: bool },
    Driver { is_high: bool },
    Device { is_high: bool },
    QueueReset,
}

/// The bits of the status that a driver sets.
const SETTABLE: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FAILED)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK);

/// Offset and width of each.
const FIELDS: [(u32, Width, Field); 20] = [
    (0x00, Width::Four, Field::DeviceFeatureSelect),
    (0x04, Width::Four, Field::DeviceFeature),
    (0x08, Width::Four, Field::DriverFeatureSelect),
    (0x0C, Width::Four, Field::DriverFeature),
    (0x10, Width::Two, Field::ConfigVector),
    (0x12, Width::Two, Field::Queues),
    (0x14, Width::One, Field::Status),
    (0x15, Width::One, Field::Generation),
    (0x16, Width::Two, Field::QueueSelect),
    (0x18, Width::Two, Field::QueueSize),
    (0x1A, Width::Two, Field::QueueVector),
    (0x1C, Width::Two, Field::QueueEnable),
    (0x1E, Width::Two, Field::QueueNotifyOffset),
    (0x20, Width::Four, Field::Descriptors { is_high: false }),
    (0x24, Width::Four, Field::Descriptors { is_high: true }),
    (0x28, Width::Four, Field::Driver { is_high: false }),
    (0x2C, Width::Four, Field::Driver { is_high: true }),
    (0x30, Width::Four, Field::Device { is_high: false }),
    (0x34, Width::Four, Field::Device { is_high: true }),
    (0x3A, Width::Two, Field::QueueReset),
];

/// The registers of one queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// What the device offers.
    max_size: u16,
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) is_enabled: bool,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

impl Queue {
    fn restored((offered, state): (&Self, &QueueState)) -> Self {
        Self {
            max_size: offered.max_size,
            size: state.size,
            vector: state.vector,
            is_enabled: state.is_enabled,
            descriptors: state.descriptors,
            driver: state.driver,
            device: state.device,
        }
    }

    fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            vector: NO_VECTOR,
            is_enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Common {
    offered: u64,
    feature_select: u32,
    driver_select: u32,
    driver_features: u64,
    status: DeviceStatus,
    pub(crate) config_vector: u16,
    generation: u8,
    /// The device configuration has changed since the driver last read of it.
    config_changed: bool,
    queue_select: u16,
    pub(crate) queues: Vec<Queue>,
}

impl Common {
    pub(crate) fn new(description: &Description) -> Self {
        Self {
            offered: description.features,
            feature_select: 0,
            driver_select: 0,
            driver_features: 0,
            status: DeviceStatus::empty(),
            config_vector: NO_VECTOR,
            generation: 0,
            config_changed: false,
            queue_select: 0,
            queues: description.queue_sizes.iter().copied().map(Queue::new).collect(),
        }
    }

    /// All registers.
    pub(crate) fn state(&self) -> CommonState {
        let queue = |queue: &Queue| QueueState {
            size: queue.size,
            vector: queue.vector,
            is_enabled: queue.is_enabled,
            descriptors: queue.descriptors,
            driver: queue.driver,
            device: queue.device,
        };
        CommonState {
            feature_select: self.feature_select,
            driver_select: self.driver_select,
            driver_features: self.driver_features,
            status: self.status.bits(),
            config_vector: self.config_vector,
            generation: self.generation,
            config_changed: self.config_changed,
            queue_select: self.queue_select,
            queues: self.queues.iter().map(queue).collect(),
        }
    }

    /// Sets all registers. `mapped` as [`Common::write`] has it.
    pub(crate) fn restore(
        &mut self,
        state: &CommonState,
        mapped: impl Fn(u16) -> u16,
    ) -> Result<(), StateError> {
        if state.queues.len() != self.queues.len() {
            return Err(StateError::Size);
        }
        let status = DeviceStatus::from_bits_retain(state.status);
        if !(SETTABLE | DeviceStatus::DEVICE_NEEDS_RESET).contains(status) {
            return Err(StateError::Value);
        }
        let is_set = |vector: u16| mapped(vector) == vector;
        let restored = Self {
            offered: self.offered,
            feature_select: state.feature_select,
            driver_select: state.driver_select,
            driver_features: state.driver_features,
            status,
            config_vector: state.config_vector,
            generation: state.generation,
            config_changed: state.config_changed,
            queue_select: state.queue_select,
            queues: self.queues.iter().zip(&state.queues).map(Queue::restored).collect(),
        };
        let is_packed = restored.driver_features & bits(F::RING_PACKED) != 0;
        let fits = |queue: &Queue| {
            (1..=queue.max_size).contains(&queue.size)
                && (is_packed || queue.size.is_power_of_two())
                && is_set(queue.vector)
        };
        let is_negotiated = !status.contains(DeviceStatus::FEATURES_OK) || restored.acceptable();
        let is_live = !restored.is_live() || restored.negotiated(F::VERSION_1);
        let is_valid = is_negotiated
            && is_live
            && is_set(state.config_vector)
            && restored.queues.iter().all(fits);
        if is_valid {
            *self = restored;
        }
        is_valid.then_some(()).ok_or(StateError::Value)
    }

    /// The features that the driver and the device have agreed on (FEATURES_OK).
    pub(crate) fn accepted(&self) -> Option<u64> {
        self.status.contains(DeviceStatus::FEATURES_OK).then_some(self.driver_features)
    }

    /// The driver runs (DRIVER_OK).
    pub(crate) fn is_live(&self) -> bool {
        self.status.contains(DeviceStatus::DRIVER_OK)
    }

    /// Whether the device does nothing until it is reset.
    pub(crate) fn is_broken(&self) -> bool {
        self.status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }

    /// The device does nothing until it is reset.
    pub(crate) fn needs_reset(&mut self) {
        self.status |= DeviceStatus::DEVICE_NEEDS_RESET;
    }

    pub(crate) fn config_changed(&mut self) {
        self.config_changed = true;
    }

    /// The driver reads of the device configuration. The generation changes here and not with each change,
    /// as it would come round after 256 of them.
    pub(crate) fn config_read(&mut self) {
        if core::mem::take(&mut self.config_changed) {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    pub(crate) fn byte(&self, offset: u32) -> u8 {
        let field = FIELDS
            .iter()
            .find(|(at, width, _)| (*at..*at + u32::from(width.bytes())).contains(&offset));
        field.map_or(0, |(at, _, field)| self.value(*field).to_le_bytes()[(offset - at) as usize])
    }

    fn value(&self, field: Field) -> u32 {
        let queue = self.queues.get(usize::from(self.queue_select));
        let of_queue = |value: fn(&Queue) -> u32| queue.map_or(0, value);
        match field {
            Field::DeviceFeatureSelect => self.feature_select,
            Field::DeviceFeature => part(self.offered, self.feature_select),
            Field::DriverFeatureSelect => self.driver_select,
            Field::DriverFeature => part(self.driver_features, self.driver_select),
            Field::ConfigVector => self.config_vector.into(),
            Field::Queues => u32::try_from(self.queues.len()).unwrap_or(0),
            Field::Status => self.status.bits().into(),
            Field::Generation => self.generation.into(),
            Field::QueueSelect => self.queue_select.into(),
            Field::QueueSize => of_queue(|queue| queue.size.into()),
            Field::QueueVector => queue.map_or(NO_VECTOR, |queue| queue.vector).into(),
            Field::QueueEnable => of_queue(|queue| queue.is_enabled.into()),
            Field::Descriptors { is_high } => half(queue.map(|queue| queue.descriptors), is_high),
            Field::Driver { is_high } => half(queue.map(|queue| queue.driver), is_high),
            Field::Device { is_high } => half(queue.map(|queue| queue.device), is_high),
            // One doorbell for all queues. A reset is complete before the next access.
            Field::QueueNotifyOffset | Field::QueueReset => 0,
        }
    }

    /// Writes a register. `mapped` returns the vector that an event gets for the one that the driver wrote.
    /// Starts and stops of queues follow from the registers, except for `stopped`.
    pub(crate) fn write(
        &mut self,
        offset: u32,
        width: Width,
        value: u64,
        mapped: impl Fn(u16) -> u16 + Copy,
        effects: &mut Vec<Effect>,
    ) {
        if width == Width::Eight {
            if offset + 8 <= COMMON.end {
                self.write(offset, Width::Four, low(value).into(), mapped, effects);
                self.write(offset + 4, Width::Four, high(value).into(), mapped, effects);
            }
            return;
        }
        let is_it = |(at, of, _): &&(u32, Width, Field)| (*at, *of) == (offset, width);
        let Some((_, _, field)) = FIELDS.iter().find(is_it) else { return };
        match field {
            Field::DeviceFeatureSelect => self.feature_select = low(value),
            Field::DriverFeatureSelect => self.driver_select = low(value),
            Field::DriverFeature => self.write_features(low(value)),
            Field::ConfigVector => self.config_vector = mapped(word(value)),
            Field::Status => self.write_status(word(value).to_le_bytes()[0], effects),
            Field::QueueSelect => self.queue_select = word(value),
            Field::QueueVector => {
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.vector = mapped(word(value));
                }
            }
            Field::QueueReset => self.reset_queue(word(value), effects),
            Field::DeviceFeature | Field::Queues | Field::Generation | Field::QueueNotifyOffset => {
            }
            Field::QueueSize
            | Field::QueueEnable
            | Field::Descriptors { .. }
            | Field::Driver { .. }
            | Field::Device { .. } => self.set_up_queue(*field, low(value)),
        }
    }

    fn write_features(&mut self, value: u32) {
        if !self.status.contains(DeviceStatus::FEATURES_OK) && self.driver_select < 2 {
            let is_high = self.driver_select == 1;
            self.driver_features = with_half(self.driver_features, is_high, value);
        }
    }

    /// A driver sets bits and clears all or none; some it may not set.
    fn write_status(&mut self, value: u8, effects: &mut Vec<Effect>) {
        if value == 0 {
            if !self.status.is_empty() {
                effects.push(Effect::Reset);
            }
            self.reset();
            return;
        }
        let asked = DeviceStatus::from_bits_truncate(value) & SETTABLE & !self.status;
        self.status |= asked & !(DeviceStatus::FEATURES_OK | DeviceStatus::DRIVER_OK);
        if asked.contains(DeviceStatus::FEATURES_OK) && self.acceptable() {
            self.status |= DeviceStatus::FEATURES_OK;
            effects.push(Effect::Features(self.driver_features));
        }
        if asked.contains(DeviceStatus::DRIVER_OK) && self.negotiated(F::VERSION_1) {
            self.status |= DeviceStatus::DRIVER_OK;
            effects.push(Effect::DriverOk);
        }
    }

    /// Whether the driver's features are some that a device can agree to.
    fn acceptable(&self) -> bool {
        self.driver_features & !self.offered == 0 && self.driver_features & bits(F::VERSION_1) != 0
    }

    fn negotiated(&self, feature: F) -> bool {
        self.status.contains(DeviceStatus::FEATURES_OK) && self.driver_features & bits(feature) != 0
    }

    /// Resets all registers but the generation.
    fn reset(&mut self) {
        self.feature_select = 0;
        self.driver_select = 0;
        self.driver_features = 0;
        self.status = DeviceStatus::empty();
        self.config_vector = NO_VECTOR;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = Queue::new(queue.max_size);
        }
    }

    fn reset_queue(&mut self, value: u16, effects: &mut Vec<Effect>) {
        let may = value == 1 && self.negotiated(F::RING_RESET);
        let is_live = self.is_live();
        let index = self.queue_select;
        if let Some(queue) = self.queues.get_mut(usize::from(index)).filter(|_| may) {
            if queue.is_enabled && is_live {
                effects.push(Effect::QueueStopped(index));
            }
            *queue = Queue::new(queue.max_size);
        }
    }

    /// What may change only while the queue is not enabled.
    fn set_up_queue(&mut self, field: Field, value: u32) {
        let is_packed = self.negotiated(F::RING_PACKED);
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if queue.is_enabled {
            return;
        }
        match field {
            Field::QueueEnable => queue.is_enabled = value == 1,
            Field::QueueSize => {
                let size = word(value.into());
                if (1..=queue.max_size).contains(&size) && (is_packed || size.is_power_of_two()) {
                    queue.size = size;
                }
            }
            Field::Descriptors { is_high } => {
                queue.descriptors = with_half(queue.descriptors, is_high, value);
            }
            Field::Driver { is_high } => queue.driver = with_half(queue.driver, is_high, value),
            Field::Device { is_high } => queue.device = with_half(queue.device, is_high, value),
            _ => {}
        }
    }
}

/// The features that a select register chooses.
fn part(features: u64, select: u32) -> u32 {
    match select {
        0 => low(features),
        1 => high(features),
        _ => 0,
    }
}

fn half(value: Option<u64>, is_high: bool) -> u32 {
    let value = value.unwrap_or(0);
    if is_high { high(value) } else { low(value) }
}
