//! What a device has on each transport: status, features, queues, configuration and its generation (virtio 1.3,
//! chapter 2). A transport gives each of the [`Field`]s a place among its registers.
//!
//! # Invariants
//! * `status` has FEATURES_OK only if the driver's features are acceptable, DRIVER_OK only with FEATURES_OK.
//! * A queue's size is a power of 2, or the driver has accepted VIRTIO_F_RING_PACKED.
//! * A queue that is enabled keeps its addresses and its size.
//! * `started` has what the caller knows of each queue: a queue has started only while the driver runs and has it
//!   enabled.

use crate::description::{Description, bits};
use crate::effect::{Effect, QueueSetup, Route};
use crate::msix::NO_VECTOR;
use crate::state::{CommonState, QueueState, StateError};
use crate::value::{high, low, with_half};
use alloc::vec::Vec;
use virtio_spec::{DeviceStatus, F};
use xen_eventfd_core::Width;

/// What a register is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
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
    /// The most that the size can be.
    QueueSizeMax,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    Descriptors {
        is_high: bool,
    },
    Driver {
        is_high: bool,
    },
    Device {
        is_high: bool,
    },
    QueueReset,
}

/// The bits of the status that a driver sets.
const SETTABLE: DeviceStatus = DeviceStatus::ACKNOWLEDGE
    .union(DeviceStatus::DRIVER)
    .union(DeviceStatus::FAILED)
    .union(DeviceStatus::FEATURES_OK)
    .union(DeviceStatus::DRIVER_OK);

/// The driver's features, once it and the device have agreed on them (FEATURES_OK).
fn accepted(status: DeviceStatus, features: u64) -> Option<u64> {
    status.contains(DeviceStatus::FEATURES_OK).then_some(features)
}

impl CommonState {
    /// The features that the driver and the device have agreed on (FEATURES_OK).
    pub fn accepted(&self) -> Option<u64> {
        accepted(DeviceStatus::from_bits_truncate(self.status), self.driver_features)
    }
}

/// The registers of one queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// What the device offers.
    max_size: u16,
    size: u16,
    /// For its calls; [`NO_VECTOR`] on a transport without vectors.
    pub(crate) vector: u16,
    is_enabled: bool,
    descriptors: u64,
    driver: u64,
    device: u64,
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
    /// The device configuration.
    config: Vec<u8>,
    /// The route of each queue that has started.
    started: Vec<Option<Route>>,
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
            config: description.config.clone(),
            started: alloc::vec![None; description.queue_sizes.len()],
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

    /// Sets all registers. `mapped` as [`Common::set`] has it.
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
            config: self.config.clone(),
            started: self.started.clone(),
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

    /// What has to be done for a device that was restored to be as far as its driver, but for its queues.
    pub(crate) fn begin(&self, effects: &mut Vec<Effect>) {
        effects.extend(self.accepted().map(Effect::Features));
        effects.extend(self.is_live().then_some(Effect::DriverOk));
    }

    /// The features that the driver and the device have agreed on (FEATURES_OK).
    fn accepted(&self) -> Option<u64> {
        accepted(self.status, self.driver_features)
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

    /// The device configuration.
    pub(crate) fn config(&self) -> &[u8] {
        &self.config
    }

    /// A byte of the device configuration, 0 beyond its end.
    pub(crate) fn config_byte(&self, offset: u32) -> u8 {
        self.config.get(offset as usize).copied().unwrap_or(0)
    }

    /// Replaces the device configuration. What is longer than the one before is cut, what is shorter leaves the
    /// rest.
    pub(crate) fn set_config(&mut self, config: &[u8]) {
        if self.differs(config) {
            let bytes = config.len().min(self.config.len());
            self.config[..bytes].copy_from_slice(&config[..bytes]);
            self.config_changed = true;
        }
    }

    /// Whether [`Common::set_config`] changes something.
    pub(crate) fn differs(&self, config: &[u8]) -> bool {
        let bytes = config.len().min(self.config.len());
        self.config[..bytes] != config[..bytes]
    }

    /// The driver reads of the device configuration. The generation changes here and not with each change,
    /// as it would come round after 256 of them.
    pub(crate) fn config_read(&mut self) {
        if core::mem::take(&mut self.config_changed) {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// A write to the device configuration; nothing if it is not all in it.
    pub(crate) fn config_written(&self, offset: u32, width: Width, value: u64) -> Option<Effect> {
        let end = u64::from(offset) + u64::from(width.bytes());
        let fits = end <= self.config.len() as u64;
        fits.then_some(Effect::ConfigWritten { offset, width, value })
    }

    /// A kick that came by a register; nothing unless the queue has started.
    pub(crate) fn kick(&self, queue: u16) -> Option<Effect> {
        self.has_started(queue).then_some(Effect::Kick(queue))
    }

    pub(crate) fn has_started(&self, queue: u16) -> bool {
        self.route(queue).is_some()
    }

    /// The route of a queue that has started.
    pub(crate) fn route(&self, queue: u16) -> Option<Route> {
        self.started.get(usize::from(queue)).copied().flatten()
    }

    /// Appends what the caller does not know yet of queues. `route` returns how calls with a vector reach the guest.
    pub(crate) fn reconcile(&mut self, route: impl Fn(u16) -> Route, effects: &mut Vec<Effect>) {
        let is_live = self.is_live();
        for ((index, queue), known) in (0..).zip(&self.queues).zip(&mut self.started) {
            let now = (is_live && queue.is_enabled).then(|| route(queue.vector));
            match (*known, now) {
                (None, Some(route)) => effects.push(Effect::QueueStarted(QueueSetup {
                    index,
                    size: queue.size,
                    descriptors: queue.descriptors,
                    driver: queue.driver,
                    device: queue.device,
                    route,
                })),
                (Some(before), Some(route)) if before != route => {
                    effects.push(Effect::Rerouted { queue: index, route });
                }
                _ => {}
            }
            *known = now;
        }
    }

    /// What a read of a register returns.
    pub(crate) fn value(&self, field: Field) -> u32 {
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
            Field::QueueSizeMax => of_queue(|queue| queue.max_size.into()),
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
    pub(crate) fn set(
        &mut self,
        field: Field,
        value: u32,
        mapped: impl Fn(u16) -> u16,
        effects: &mut Vec<Effect>,
    ) {
        // What a register of 32 bits has beyond those of its field selects, and is, nothing that there is.
        let half = u16::try_from(value).unwrap_or(u16::MAX);
        match field {
            Field::DeviceFeatureSelect => self.feature_select = value,
            Field::DriverFeatureSelect => self.driver_select = value,
            Field::DriverFeature => self.write_features(value),
            Field::ConfigVector => self.config_vector = mapped(half),
            Field::Status => self.write_status(value, effects),
            Field::QueueSelect => self.queue_select = half,
            Field::QueueVector => {
                if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
                    queue.vector = mapped(half);
                }
            }
            Field::QueueReset => self.reset_queue(half, effects),
            Field::DeviceFeature
            | Field::Queues
            | Field::Generation
            | Field::QueueSizeMax
            | Field::QueueNotifyOffset => {}
            Field::QueueSize
            | Field::QueueEnable
            | Field::Descriptors { .. }
            | Field::Driver { .. }
            | Field::Device { .. } => self.set_up_queue(field, value),
        }
    }

    fn write_features(&mut self, value: u32) {
        if !self.status.contains(DeviceStatus::FEATURES_OK) && self.driver_select < 2 {
            let is_high = self.driver_select == 1;
            self.driver_features = with_half(self.driver_features, is_high, value);
        }
    }

    /// A driver sets bits and clears all or none; some it may not set.
    fn write_status(&mut self, value: u32, effects: &mut Vec<Effect>) {
        if value == 0 {
            if !self.status.is_empty() {
                effects.push(Effect::Reset);
            }
            self.reset();
            return;
        }
        let asked =
            DeviceStatus::from_bits_truncate(value.to_le_bytes()[0]) & SETTABLE & !self.status;
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

    /// The driver of a transport that has it takes a queue back (virtio 1.3, section 4.2.2.2). Its other registers stay.
    pub(crate) fn disable_queue(&mut self, effects: &mut Vec<Effect>) {
        let is_live = self.is_live();
        if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select))
            && core::mem::take(&mut queue.is_enabled)
            && is_live
        {
            effects.push(Effect::QueueStopped(self.queue_select));
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
                let size = u16::try_from(value).unwrap_or(0);
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
