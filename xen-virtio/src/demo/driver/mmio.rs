//! virtio-drivers' transport over virtio-mmio, with the registers reached by a vCPU's accesses.
//!
//! The crate has one of its own, whose registers are memory of the process, and which counts no kicks.

use super::cpu::{Cpu, Space, Width};
use super::disk::{Disk, Trouble};
use super::offsets::*;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A device whose registers a driver was given.
#[derive(Debug)]
pub(crate) struct Registers {
    cpu: Cpu,
    base: u64,
    spi: u32,
    device_type: DeviceType,
}

impl Disk<Registers> {
    /// Starts the disk that is there.
    pub(crate) fn at(cpu: Cpu, base: u64, spi: u32) -> core::result::Result<Self, Trouble> {
        let registers = Registers { cpu: cpu.clone(), base, spi, device_type: DeviceType::Block };
        let is_disk = registers.get(VIRTIO_MMIO_MAGIC_VALUE) == u32::from_le_bytes(*b"virt")
            && registers.get(VIRTIO_MMIO_VERSION) == 2
            && registers.get(VIRTIO_MMIO_DEVICE_ID) == 2;
        cpu.check()?;
        let registers = if is_disk { registers } else { return Err(Trouble::NoDisk) };
        Self::new(registers, cpu, |driver, _| {
            driver.ack_interrupt();
        })
    }
}

impl Registers {
    fn at(&self, register: u32) -> u64 {
        self.base + u64::from(register)
    }

    fn get(&self, register: u32) -> u32 {
        let value = self.cpu.read(Space::Mmio, self.at(register), Width::Four);
        u32::try_from(value).unwrap_or(u32::MAX)
    }

    fn set(&self, register: u32, value: u32) {
        self.cpu.write(Space::Mmio, self.at(register), Width::Four, value.into());
    }

    fn get_queue(&self, queue: u16, register: u32) -> u32 {
        self.set(VIRTIO_MMIO_QUEUE_SEL, queue.into());
        self.get(register)
    }
}

/// The halves of a value.
fn halves(value: u64) -> [u32; 2] {
    [value, value >> 32].map(|half| u32::try_from(half & 0xFFFF_FFFF).unwrap_or(0))
}

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn read_device_features(&mut self) -> u64 {
        [0, 1].into_iter().fold(0, |features, select| {
            self.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            features | u64::from(self.get(VIRTIO_MMIO_DEVICE_FEATURES)) << (32 * select)
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for (select, half) in (0..).zip(halves(features)) {
            self.set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.set(VIRTIO_MMIO_DRIVER_FEATURES, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.get_queue(queue, VIRTIO_MMIO_QUEUE_NUM_MAX)
    }

    fn notify(&mut self, queue: u16) {
        self.cpu.kick(Space::Mmio, self.at(VIRTIO_MMIO_QUEUE_NOTIFY), Width::Four, queue);
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.get(VIRTIO_MMIO_STATUS))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.set(VIRTIO_MMIO_STATUS, status.bits());
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
        self.set(VIRTIO_MMIO_QUEUE_SEL, queue.into());
        self.set(VIRTIO_MMIO_QUEUE_NUM, size);
        for (register, address) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, descriptors),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, driver),
            (VIRTIO_MMIO_QUEUE_USED_LOW, device),
        ] {
            let [low, high] = halves(address);
            self.set(register, low);
            self.set(register + 4, high);
        }
        self.set(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.set(VIRTIO_MMIO_QUEUE_SEL, queue.into());
        self.set(VIRTIO_MMIO_QUEUE_READY, 0);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.get_queue(queue, VIRTIO_MMIO_QUEUE_READY) == 1
    }

    /// As a kernel's: once the interrupt has come, it reads which it was and acknowledges that.
    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.cpu.wait_spi(self.spi);
        let status = self.get(VIRTIO_MMIO_INTERRUPT_STATUS);
        self.set(VIRTIO_MMIO_INTERRUPT_ACK, status);
        InterruptStatus::from_bits_retain(status)
    }

    fn read_config_generation(&self) -> u32 {
        self.get(VIRTIO_MMIO_CONFIG_GENERATION)
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        for (at, byte) in value.as_mut_bytes().iter_mut().enumerate() {
            let addr = self.at(VIRTIO_MMIO_CONFIG) + (offset + at) as u64;
            *byte = self.cpu.read(Space::Mmio, addr, Width::One).to_le_bytes()[0];
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        for (at, byte) in value.as_bytes().iter().enumerate() {
            let addr = self.at(VIRTIO_MMIO_CONFIG) + (offset + at) as u64;
            self.cpu.write(Space::Mmio, addr, Width::One, (*byte).into());
        }
        Ok(())
    }
}
