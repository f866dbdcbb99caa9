//! A driver that knows of the function what its configuration space says.

use core::cell::RefCell;
use virtio_spec::pci::CapCfgType;
use xen_eventfd_core::{Access, Kick, Space, Width};
use xen_eventfd_virtio::{
    Bar, Description, Effect, Function, FunctionDescription, Message, QueueSetup, Route,
};

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const RING_PACKED: u64 = 1 << 34;
pub(crate) const RING_RESET: u64 = 1 << 40;

pub(crate) const ACKNOWLEDGE: u64 = 1;
pub(crate) const DRIVER: u64 = 2;
pub(crate) const DRIVER_OK: u64 = 4;
pub(crate) const FEATURES_OK: u64 = 8;
pub(crate) const NEEDS_RESET: u64 = 64;

pub(crate) const NO_VECTOR: u64 = 0xFFFF;

/// Offsets in the common configuration (virtio 1.3, section 4.1.4.3).
pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00;
pub(crate) const DEVICE_FEATURE: u64 = 0x04;
pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08;
pub(crate) const DRIVER_FEATURE: u64 = 0x0C;
pub(crate) const CONFIG_VECTOR: u64 = 0x10;
pub(crate) const NUM_QUEUES: u64 = 0x12;
pub(crate) const DEVICE_STATUS: u64 = 0x14;
pub(crate) const GENERATION: u64 = 0x15;
pub(crate) const QUEUE_SELECT: u64 = 0x16;
pub(crate) const QUEUE_SIZE: u64 = 0x18;
pub(crate) const QUEUE_VECTOR: u64 = 0x1A;
pub(crate) const QUEUE_ENABLE: u64 = 0x1C;
pub(crate) const QUEUE_NOTIFY_OFF: u64 = 0x1E;
pub(crate) const QUEUE_DESC: u64 = 0x20;
pub(crate) const QUEUE_DRIVER: u64 = 0x28;
pub(crate) const QUEUE_DEVICE: u64 = 0x30;
pub(crate) const QUEUE_RESET: u64 = 0x3A;

/// Registers and bits of the configuration space.
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const STATUS: u16 = 0x06;
pub(crate) const BAR_0: u16 = 0x10;
pub(crate) const BAR_1: u16 = 0x14;
pub(crate) const PORTS: u64 = 1;
pub(crate) const MEMORY: u64 = 2;
pub(crate) const MASTER: u64 = 4;
pub(crate) const LINE_OFF: u64 = 1 << 10;
pub(crate) const MSIX_ENABLE: u64 = 1 << 15;
pub(crate) const MSIX_MASK_ALL: u64 = 1 << 14;

pub(crate) const REGISTERS: u32 = 0xE000_0000;
pub(crate) const DOORBELL: u16 = 0xC000;

/// A capability that a driver found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capability {
    /// Its address in the configuration space.
    pub(crate) at: u16,
    pub(crate) id: u64,
    /// Of virtio's: `cap_len`, `cfg_type`, `bar`, `offset`, `length`.
    pub(crate) len: u64,
    pub(crate) kind: u64,
    pub(crate) bar: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A network card with three queues.
pub(crate) fn description() -> FunctionDescription {
    let device = Description {
        device_type: 1,
        features: VERSION_1 | RING_RESET | 0x21,
        queue_sizes: vec![256, 128, 64],
        config: (0..=11).collect(),
    };
    FunctionDescription { device, has_line: true, registers: REGISTERS, doorbell: DOORBELL }
}

/// The same with a device that is another.
pub(crate) fn with(change: impl FnOnce(&mut Description)) -> FunctionDescription {
    let mut description = description();
    change(&mut description.device);
    description
}

/// A function and all that came of it.
pub(crate) struct Driver {
    pub(crate) function: RefCell<Function>,
    effects: RefCell<Vec<Effect>>,
    /// The queues whose calls are held.
    pub(crate) held: Vec<u16>,
}

impl Driver {
    pub(crate) fn new(description: &FunctionDescription) -> Self {
        let function = RefCell::new(Function::new(description).unwrap());
        Self { function, effects: RefCell::default(), held: Vec::new() }
    }

    /// With decoding and bus mastering on, as a driver's first steps are.
    pub(crate) fn awake(description: &FunctionDescription) -> Self {
        let driver = Self::new(description);
        driver.set_config(COMMAND, Width::Two, PORTS | MEMORY | MASTER);
        driver.effects();
        driver
    }

    /// Up to FEATURES_OK, MSI-X on, all vectors unmasked with the data 0x40 and up.
    pub(crate) fn negotiated(features: u64) -> Self {
        let driver = Self::awake(&with(|device| device.features = features | 0x21));
        driver.enable_msix();
        driver.negotiate(features);
        driver.effects();
        driver
    }

    /// With two queues that run, each with a vector of its own, after that for the configuration.
    pub(crate) fn running() -> Self {
        let driver = Self::negotiated(VERSION_1 | RING_RESET);
        driver.set(CONFIG_VECTOR, Width::Two, 0);
        driver.set_up(0, 1);
        driver.set_up(1, 2);
        driver.set_status(DRIVER_OK);
        driver.effects();
        driver
    }

    pub(crate) fn negotiate(&self, features: u64) {
        self.set_status(ACKNOWLEDGE);
        self.set_status(DRIVER);
        for (select, half) in [(0, features & 0xFFFF_FFFF), (1, features >> 32)] {
            self.set(DRIVER_FEATURE_SELECT, Width::Four, select);
            self.set(DRIVER_FEATURE, Width::Four, half);
        }
        self.set_status(FEATURES_OK);
    }

    /// Sets a bit of the device status.
    pub(crate) fn set_status(&self, bit: u64) {
        self.set(DEVICE_STATUS, Width::One, self.status() | bit);
    }

    pub(crate) fn status(&self) -> u64 {
        self.get(DEVICE_STATUS, Width::One)
    }

    /// Sets up a queue and enables it.
    pub(crate) fn set_up(&self, queue: u64, vector: u64) {
        self.set(QUEUE_SELECT, Width::Two, queue);
        self.set(QUEUE_SIZE, Width::Two, 16);
        self.set(QUEUE_VECTOR, Width::Two, vector);
        for (register, address) in
            [(QUEUE_DESC, 0x1_0000_1000), (QUEUE_DRIVER, 0x2_0000_2000), (QUEUE_DEVICE, 0x3000)]
        {
            self.set(register, Width::Four, (address + (queue << 16)) & 0xFFFF_FFFF);
            self.set(register + 4, Width::Four, (address + (queue << 16)) >> 32);
        }
        self.set(QUEUE_ENABLE, Width::Two, 1);
    }

    /// What [`Driver::set_up`] makes.
    pub(crate) fn setup(index: u16, route: Route) -> QueueSetup {
        let address = |base: u64| base + (u64::from(index) << 16);
        let (descriptors, driver) = (address(0x1_0000_1000), address(0x2_0000_2000));
        QueueSetup { index, size: 16, descriptors, driver, device: address(0x3000), route }
    }

    pub(crate) fn message(vector: u32) -> Message {
        Message { addr: 0xFEE0_0000, data: 0x40 + vector }
    }

    pub(crate) fn enable_msix(&self) {
        for vector in 0..4 {
            self.set_entry(vector, 0, 0xFEE0_0000);
            self.set_entry(vector, 4, 0);
            self.set_entry(vector, 8, 0x40 + vector);
            self.set_entry(vector, 12, 0);
        }
        self.set_msix(MSIX_ENABLE);
    }

    pub(crate) fn set_msix(&self, control: u64) {
        let msix = self.capabilities().into_iter().find(|cap| cap.id == 0x11).unwrap();
        self.set_config(msix.at + 2, Width::Two, control);
    }

    /// Writes a part of an entry of the MSI-X table.
    pub(crate) fn set_entry(&self, vector: u64, part: u64, value: u64) {
        let table = self.table();
        self.write(Space::Mmio, table + 16 * vector + part, Width::Four, value);
    }

    pub(crate) fn table(&self) -> u64 {
        self.msix_structure(4)
    }

    pub(crate) fn pending_bits(&self) -> u64 {
        self.read(Space::Mmio, self.msix_structure(8), Width::Eight)
    }

    /// Table (4) or pending bits (8), as the MSI-X capability has them.
    fn msix_structure(&self, register: u16) -> u64 {
        let msix = self.capabilities().into_iter().find(|cap| cap.id == 0x11).unwrap();
        let value = self.config(msix.at + register, Width::Four);
        let bar = BAR_0 + 4 * u16::try_from(value & 7).unwrap();
        (self.config(bar, Width::Four) & !0xF) + (value & !7)
    }

    /// All capabilities, in their order.
    pub(crate) fn capabilities(&self) -> Vec<Capability> {
        let mut found = Vec::new();
        let mut at = u16::try_from(self.config(0x34, Width::One)).unwrap();
        while at != 0 {
            let get = |offset: u16, width| self.config(at + offset, width);
            let (len, kind, bar) = (get(2, Width::One), get(3, Width::One), get(4, Width::One));
            let (offset, length) = (get(8, Width::Four), get(12, Width::Four));
            found.push(Capability { at, id: get(0, Width::One), len, kind, bar, offset, length });
            at = u16::try_from(get(1, Width::One)).unwrap();
        }
        found
    }

    /// The first structure of a kind.
    pub(crate) fn capability(&self, kind: CapCfgType) -> Option<Capability> {
        let is_it = |cap: &Capability| cap.id == 9 && cap.kind == u64::from(u8::from(kind));
        self.capabilities().into_iter().find(is_it)
    }

    /// Where a structure is.
    pub(crate) fn structure(&self, kind: CapCfgType) -> u64 {
        let cap = self.capability(kind).unwrap();
        let bar = BAR_0 + 4 * u16::try_from(cap.bar).unwrap();
        (self.config(bar, Width::Four) & !0xF) + cap.offset
    }

    /// Reads of the common configuration.
    pub(crate) fn get(&self, offset: u64, width: Width) -> u64 {
        self.read(Space::Mmio, self.structure(CapCfgType::Common) + offset, width)
    }

    /// Writes to the common configuration.
    pub(crate) fn set(&self, offset: u64, width: Width, value: u64) {
        self.write(Space::Mmio, self.structure(CapCfgType::Common) + offset, width, value);
    }

    pub(crate) fn get_queue(&self, queue: u64, offset: u64, width: Width) -> u64 {
        self.set(QUEUE_SELECT, Width::Two, queue);
        self.get(offset, width)
    }

    pub(crate) fn isr(&self) -> u64 {
        self.read(Space::Mmio, self.structure(CapCfgType::Isr), Width::One)
    }

    pub(crate) fn kick(&self, queue: u64) {
        self.write(Space::Pio, DOORBELL.into(), Width::Two, queue);
    }

    pub(crate) fn config(&self, register: u16, width: Width) -> u64 {
        let held = |queue| self.held.contains(&queue);
        let (value, effects) = self.function.borrow_mut().read_config(register, width, held);
        self.effects.borrow_mut().extend(effects);
        value
    }

    pub(crate) fn set_config(&self, register: u16, width: Width, value: u64) {
        let effects = self.function.borrow_mut().write_config(register, width, value);
        self.effects.borrow_mut().extend(effects);
    }

    pub(crate) fn read(&self, space: Space, addr: u64, width: Width) -> u64 {
        let held = |queue| self.held.contains(&queue);
        let read = self.function.borrow_mut().read(Access { space, addr, width }, held);
        let (value, effects) = read.expect("the function decodes it");
        self.effects.borrow_mut().extend(effects);
        value
    }

    pub(crate) fn write(&self, space: Space, addr: u64, width: Width, value: u64) {
        let written = self.function.borrow_mut().write(Kick::new(space, addr, width, value));
        self.effects.borrow_mut().extend(written.expect("the function decodes it"));
    }

    /// Does what only a device does, and keeps its effects.
    pub(crate) fn device(&self, act: impl FnOnce(&mut Function) -> Vec<Effect>) {
        let effects = act(&mut self.function.borrow_mut());
        self.effects.borrow_mut().extend(effects);
    }

    /// Takes the effects so far.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.effects.take()
    }

    pub(crate) fn moved(bar: Bar, from: Option<u64>, to: Option<u64>) -> Effect {
        Effect::Moved { bar, from, to }
    }
}
