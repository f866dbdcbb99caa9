//! virtio-drivers' transport over PCI, with the registers of the function reached by a vCPU's accesses.
//!
//! The crate has a PCI transport of its own, whose registers are memory of the process.

use super::cpu::{Cpu, Space, Width};
use super::disk::{Disk, Trouble};
use core::mem::size_of;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, PCI_CAP_ID_VNDR, PciRoot,
};
use virtio_drivers::transport::pci::{
    VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_CAP_ISR_CFG,
    VIRTIO_PCI_CAP_NOTIFY_CFG, virtio_device_type,
};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The ports of PCI's configuration mechanism 1.
const CONFIG_ADDRESS: u64 = 0xCF8;
const CONFIG_DATA: u64 = 0xCFC;

/// Offsets in the common configuration (virtio 1.3, section 4.1.4.3).
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0C;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1A;
const QUEUE_ENABLE: u64 = 0x1C;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;

/// The capability ID of MSI-X, and the bit of its message control that switches it on.
const PCI_CAP_ID_MSIX: u8 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
/// The entry of the MSI-X table that all queues share.
const ENTRY: u16 = 0;
/// The vector of a disk's interrupts.
const VECTOR: u8 = 0x41;
/// Where a local APIC takes messages: those for vCPU 0.
const APIC: u64 = 0xFEE0_0000;

/// A virtio function that a driver has found.
#[derive(Debug)]
pub(crate) struct Function {
    cpu: Cpu,
    device_type: DeviceType,
    common: u64,
    isr: u64,
    device: Option<u64>,
    doorbell: u64,
}

impl Disk<Function> {
    /// Looks for the disk on the PCI bus and starts it.
    pub(crate) fn find(cpu: Cpu) -> core::result::Result<Self, Trouble> {
        let function = Function::find(&cpu, DeviceType::Block, VECTOR);
        cpu.check()?;
        Self::new(function.ok_or(Trouble::NoDisk)?, cpu, |_, cpu| cpu.wait(VECTOR))
    }
}

impl Function {
    /// Looks for the first device of a type on bus 0, switches it on, and lets it interrupt by `vector`.
    /// `None` if there is none, or it has not what a modern function has.
    pub(crate) fn find(cpu: &Cpu, device_type: DeviceType, vector: u8) -> Option<Self> {
        let mut root = PciRoot::new(cpu.clone());
        let is_it = |info: &_| virtio_device_type(info) == Some(device_type);
        let (at, _) = root.enumerate_bus(0).find(|(_, info)| is_it(info))?;
        let bars = root.bars(at).ok()?;
        let on = Command::IO_SPACE | Command::MEMORY_SPACE | Command::BUS_MASTER;
        root.set_command(at, on);
        let place = |location: u32, offset: u32| {
            let bar = bars.get(location as usize & 7)?.as_ref()?;
            let base = match *bar {
                BarInfo::Memory { address, .. } => address,
                BarInfo::IO { address, .. } => address.into(),
            };
            Some(base + u64::from(offset))
        };
        let word = |register: u8| cpu.read_word(at, register);
        let (mut common, mut isr, mut device, mut doorbell) = (None, None, None, None);
        for capability in root.capabilities(at) {
            let register = capability.offset;
            if capability.id == PCI_CAP_ID_MSIX {
                let table = word(register + 4);
                enable_msix(cpu, at, register, place(table & 7, table & !7)?, vector);
            } else if capability.id == PCI_CAP_ID_VNDR {
                let found = place(word(register + 4) & 0xFF, word(register + 8));
                let [_, kind] = capability.private_header.to_le_bytes();
                match kind {
                    VIRTIO_PCI_CAP_COMMON_CFG => common = common.or(found),
                    VIRTIO_PCI_CAP_ISR_CFG => isr = isr.or(found),
                    VIRTIO_PCI_CAP_DEVICE_CFG => device = device.or(found),
                    VIRTIO_PCI_CAP_NOTIFY_CFG => doorbell = doorbell.or(found),
                    _ => {}
                }
            }
        }
        let (common, isr, doorbell) = (common?, isr?, doorbell?);
        Some(Self { cpu: cpu.clone(), device_type, common, isr, device, doorbell })
    }

    fn get(&self, offset: u64, width: Width) -> u32 {
        let value = self.cpu.read(Space::Mmio, self.common + offset, width);
        u32::try_from(value).unwrap_or(u32::MAX)
    }

    fn set(&self, offset: u64, width: Width, value: u64) {
        self.cpu.write(Space::Mmio, self.common + offset, width, value);
    }

    fn get_queue(&self, queue: u16, offset: u64) -> u32 {
        self.set(QUEUE_SELECT, Width::Two, queue.into());
        self.get(offset, Width::Two)
    }

    /// The accesses to `size` bytes of the device configuration: offset, bytes and width of each.
    fn pieces(size: usize) -> impl Iterator<Item = (usize, usize, Width)> {
        let (bytes, width) = match size {
            1 => (1, Width::One),
            2 => (2, Width::Two),
            _ => (4, Width::Four),
        };
        (0..size).step_by(bytes).map(move |at| (at, bytes, width))
    }
}

/// Writes one entry of the table, unmasks it and switches MSI-X on.
fn enable_msix(cpu: &Cpu, at: DeviceFunction, register: u8, table: u64, vector: u8) {
    let entry = table + 16 * u64::from(ENTRY);
    for (offset, value) in [(0, APIC), (4, 0), (8, vector.into()), (12, 0)] {
        cpu.write(Space::Mmio, entry + offset, Width::Four, value);
    }
    cpu.clone().write_word(at, register, MSIX_ENABLE);
}

impl Transport for Function {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        [0, 1].into_iter().fold(0, |features, select| {
            self.set(DEVICE_FEATURE_SELECT, Width::Four, select);
            features | u64::from(self.get(DEVICE_FEATURE, Width::Four)) << (32 * select)
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for select in [0, 1] {
            self.set(DRIVER_FEATURE_SELECT, Width::Four, select);
            self.set(DRIVER_FEATURE, Width::Four, features >> (32 * select) & 0xFFFF_FFFF);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.get_queue(queue, QUEUE_SIZE)
    }

    fn notify(&mut self, queue: u16) {
        self.cpu.kick(Space::Pio, self.doorbell, Width::Two, queue);
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.get(DEVICE_STATUS, Width::One))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.set(DEVICE_STATUS, Width::One, status.bits().into());
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver: PhysAddr,
        device: PhysAddr,
    ) {
        self.set(QUEUE_SELECT, Width::Two, queue.into());
        self.set(QUEUE_SIZE, Width::Two, size.into());
        self.set(QUEUE_VECTOR, Width::Two, ENTRY.into());
        for (register, address) in
            [(QUEUE_DESC, descriptors), (QUEUE_DRIVER, driver), (QUEUE_DEVICE, device)]
        {
            self.set(register, Width::Four, address & 0xFFFF_FFFF);
            self.set(register + 4, Width::Four, address >> 32);
        }
        self.set(QUEUE_ENABLE, Width::Two, 1);
    }

    fn queue_unset(&mut self, _: u16) {
        // A queue ends with the reset of its device.
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.get_queue(queue, QUEUE_ENABLE) == 1
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let isr = self.cpu.read(Space::Mmio, self.isr, Width::One);
        InterruptStatus::from_bits_retain(u32::try_from(isr).unwrap_or(0))
    }

    fn read_config_generation(&self) -> u32 {
        self.get(CONFIG_GENERATION, Width::One)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let device = self.device.ok_or(Error::ConfigSpaceMissing)?;
        let mut value = T::new_zeroed();
        for (at, bytes, width) in Self::pieces(size_of::<T>()) {
            let read = self.cpu.read(Space::Mmio, device + (offset + at) as u64, width);
            let to = value.as_mut_bytes().get_mut(at..at + bytes);
            to.ok_or(Error::ConfigSpaceTooSmall)?.copy_from_slice(&read.to_le_bytes()[..bytes]);
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        let device = self.device.ok_or(Error::ConfigSpaceMissing)?;
        for (at, bytes, width) in Self::pieces(size_of::<T>()) {
            let bytes = value.as_bytes().iter().skip(at).take(bytes);
            let value = bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            self.cpu.write(Space::Mmio, device + (offset + at) as u64, width, value);
        }
        Ok(())
    }
}

impl ConfigurationAccess for Cpu {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        self.write(Space::Pio, CONFIG_ADDRESS, Width::Four, config_address(at, register));
        u32::try_from(self.read(Space::Pio, CONFIG_DATA, Width::Four)).unwrap_or(u32::MAX)
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        self.write(Space::Pio, CONFIG_ADDRESS, Width::Four, config_address(at, register));
        self.write(Space::Pio, CONFIG_DATA, Width::Four, data.into());
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

fn config_address(at: DeviceFunction, register: u8) -> u64 {
    let function =
        u64::from(at.bus) << 16 | u64::from(at.device) << 11 | u64::from(at.function) << 8;
    1 << 31 | function | u64::from(register & !3)
}
