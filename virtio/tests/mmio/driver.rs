//! A driver that accesses registers as section 4.2.2 has them, by the numbers of Linux's headers.

use core::cell::{Cell, RefCell};
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Description, Effect, Mmio, QueueSetup, Route};

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const RING_PACKED: u64 = 1 << 34;
pub(crate) const RING_RESET: u64 = 1 << 40;

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;

/// QueueReset, which Linux's header does not have yet (section 4.2.2).
pub(crate) const QUEUE_RESET: u32 = 0x0C0;

/// A network card with three queues.
pub(crate) fn description() -> Description {
    Description {
        device_type: 1,
        features: VERSION_1 | RING_RESET | 0x21,
        queue_sizes: vec![256, 128, 64],
        config: (0..=11).collect(),
    }
}

/// A device and all that came of it.
pub(crate) struct Driver {
    pub(crate) device: RefCell<Mmio>,
    effects: RefCell<Vec<Effect>>,
    /// InterruptStatus, as its owner has it, and how often it was asked for.
    pub(crate) status: Cell<u32>,
    pub(crate) asked: Cell<u32>,
}

impl Driver {
    pub(crate) fn new(description: &Description) -> Self {
        Self {
            device: RefCell::new(Mmio::new(description).unwrap()),
            effects: RefCell::default(),
            status: Cell::new(0),
            asked: Cell::new(0),
        }
    }

    /// Up to FEATURES_OK.
    pub(crate) fn negotiated(features: u64) -> Self {
        let driver = Self::new(&Description { features: features | 0x21, ..description() });
        driver.negotiate(features);
        driver.effects();
        driver
    }

    /// With two queues that run.
    pub(crate) fn running() -> Self {
        let driver = Self::negotiated(VERSION_1 | RING_RESET);
        driver.set_up(0);
        driver.set_up(1);
        driver.set_status(DRIVER_OK);
        driver.effects();
        driver
    }

    pub(crate) fn negotiate(&self, features: u64) {
        self.set_status(ACKNOWLEDGE);
        self.set_status(DRIVER);
        for (select, half) in [(0, features & 0xFFFF_FFFF), (1, features >> 32)] {
            self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES, u32::try_from(half).unwrap());
        }
        self.set_status(FEATURES_OK);
    }

    /// Sets a bit of the device status.
    pub(crate) fn set_status(&self, bit: u32) {
        self.set(VIRTIO_MMIO_STATUS, self.device_status() | bit);
    }

    pub(crate) fn device_status(&self) -> u32 {
        self.get(VIRTIO_MMIO_STATUS)
    }

    /// Sets up a queue and makes it ready.
    pub(crate) fn set_up(&self, queue: u32) {
        self.set(VIRTIO_MMIO_QUEUE_SEL, queue);
        self.set(VIRTIO_MMIO_QUEUE_NUM, 16);
        for (register, address) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1_0000_1000_u64),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2_0000_2000),
            (VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000),
        ] {
            let address = address + (u64::from(queue) << 16);
            self.set(register, u32::try_from(address & 0xFFFF_FFFF).unwrap());
            self.set(register + 4, u32::try_from(address >> 32).unwrap());
        }
        self.set(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// What [`Driver::set_up`] makes.
    pub(crate) fn setup(index: u16) -> QueueSetup {
        let address = |base: u64| base + (u64::from(index) << 16);
        QueueSetup {
            index,
            size: 16,
            descriptors: address(0x1_0000_1000),
            driver: address(0x2_0000_2000),
            device: address(0x3000),
            route: Route::InterruptStatus,
        }
    }

    /// Reads a register.
    pub(crate) fn get(&self, register: u32) -> u32 {
        u32::try_from(self.read(register.into(), Width::Four)).unwrap()
    }

    pub(crate) fn get_queue(&self, queue: u32, register: u32) -> u32 {
        self.set(VIRTIO_MMIO_QUEUE_SEL, queue);
        self.get(register)
    }

    /// Writes a register.
    pub(crate) fn set(&self, register: u32, value: u32) {
        self.write(register.into(), Width::Four, value.into());
    }

    pub(crate) fn read(&self, offset: u64, width: Width) -> u64 {
        let status = || {
            self.asked.set(self.asked.get() + 1);
            self.status.get()
        };
        self.device.borrow_mut().read(offset, width, status).expect("it is the device's")
    }

    pub(crate) fn write(&self, offset: u64, width: Width, value: u64) {
        let effects = self.device.borrow_mut().write(offset, width, value);
        self.effects.borrow_mut().extend(effects.expect("it is the device's"));
    }

    /// Does what only a device does, and keeps its effects.
    pub(crate) fn device(&self, act: impl FnOnce(&mut Mmio) -> Vec<Effect>) {
        let effects = act(&mut self.device.borrow_mut());
        self.effects.borrow_mut().extend(effects);
    }

    /// Takes the effects so far.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.effects.take()
    }
}
