//! A device on virtio-mmio, of a guest of Arm.

use super::*;
use crate::layout::MmioPlace;
use virtio_bindings::virtio_mmio::*;
use xen_eventfd::Line;
use xen_eventfd_model::Stopped;

const PLACE: MmioPlace = MmioPlace { base: 0x200_0200, spi: 34 };

/// The device and its driver.
pub(super) struct Driver(pub(super) Bench, MmioPlace);

impl Driver {
    fn new() -> Self {
        Self::at(PLACE)
    }

    pub(super) fn at(place: MmioPlace) -> Self {
        Self(Bench::on(Layout::DeviceTree(vec![place])), place)
    }

    /// With its queue running.
    fn running() -> Self {
        let driver = Self::new();
        driver.start();
        driver
    }

    pub(super) fn start(&self) {
        for (register, value) in [
            (VIRTIO_MMIO_STATUS, 3),
            (VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
            (VIRTIO_MMIO_DRIVER_FEATURES, 1),
            (VIRTIO_MMIO_STATUS, 11),
            (VIRTIO_MMIO_QUEUE_SEL, 0),
            (VIRTIO_MMIO_QUEUE_NUM, 8),
            (VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, 0x2000),
            (VIRTIO_MMIO_QUEUE_USED_LOW, 0x3000),
            (VIRTIO_MMIO_QUEUE_READY, 1),
            (VIRTIO_MMIO_STATUS, 15),
        ] {
            self.set(register, value);
        }
    }

    pub(super) fn set(&self, register: u32, value: u64) {
        let addr = self.1.base + u64::from(register);
        self.0.vcpu.write(Space::Mmio, addr, Width::Four, value).unwrap();
    }

    pub(super) fn get(&self, register: u32) -> u64 {
        let addr = self.1.base + u64::from(register);
        self.0.vcpu.read(Space::Mmio, addr, Width::Four).unwrap()
    }

    /// Waits for the interrupt, and returns InterruptStatus, which it acknowledges.
    pub(super) fn interrupt(&self) -> u32 {
        let line = Line::Spi(self.1.spi);
        self.0.vcpu.run(move |vcpu| vcpu.wait_line(line)).join().unwrap();
        let status = self.get(VIRTIO_MMIO_INTERRUPT_STATUS);
        self.set(VIRTIO_MMIO_INTERRUPT_ACK, status);
        status.try_into().unwrap()
    }

    /// How often it was interrupted.
    pub(super) fn edges(&self) -> u64 {
        self.0.model.edges(DomId(1), Line::Spi(self.1.spi))
    }
}

#[test]
fn a_queue_starts_with_the_features_and_addresses_of_its_driver() {
    assert_eq!(Driver::running().0.calls(), [Call::Accept(VERSION_1), started()]);
}

#[test]
fn kicks_calls_and_acknowledgements_wake_no_server() {
    let driver = Driver::running();
    let before = driver.0.devices.requests();
    for _ in 0..3 {
        driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        driver.0.call();
        assert_eq!(driver.interrupt(), VIRTIO_MMIO_INT_VRING);
    }
    assert_eq!(driver.get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!((driver.0.kicks(), driver.edges()), (3, 3));
    assert_eq!(driver.0.devices.requests() - before, 0);
}

#[test]
fn a_changed_configuration_has_its_own_bit() {
    let driver = Driver::running();
    driver.0.state.lock().unwrap().config[0] = 0x77;
    driver.0.state.lock().unwrap().request = Some(Ok(true));
    signal(&driver.0.eventfds[2]);
    assert_eq!(driver.interrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert_eq!(driver.get(VIRTIO_MMIO_CONFIG) & 0xFF, 0x77);
    assert_eq!(driver.get(VIRTIO_MMIO_CONFIG_GENERATION), 1);
}

#[test]
fn a_reset_ends_the_queue_and_clears_the_status() {
    let driver = Driver::running();
    driver.0.calls();
    driver.0.call();
    driver.0.until("the call has come", || driver.edges() == 1);
    driver.set(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.get(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_eq!(driver.0.calls(), [Call::Reset]);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    driver.start();
    assert_eq!(driver.0.calls(), [Call::Accept(VERSION_1), started()]);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    driver.0.call();
    assert_eq!(driver.interrupt(), VIRTIO_MMIO_INT_VRING);
}

#[test]
fn a_queue_that_is_not_ready_any_more_is_stopped() {
    let driver = Driver::running();
    driver.0.calls();
    driver.set(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.0.calls(), [Call::Stop(0)]);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.0.calls(), [started()]);
}

#[test]
fn a_backend_that_finds_its_queue_broken_has_the_driver_reset_the_device() {
    let driver = Driver::running();
    signal(&driver.0.eventfds[1]);
    assert_eq!(driver.interrupt(), VIRTIO_MMIO_INT_CONFIG);
    assert_eq!(driver.get(VIRTIO_MMIO_STATUS), 15 | NEEDS_RESET);
    assert!(driver.0.devices.failure().is_some_and(|why| why.contains("broken")));
}

/// libxl leaves no gap between two devices.
#[test]
fn what_is_beside_the_registers_is_not_the_device_s() {
    let driver = Driver::running();
    for addr in [PLACE.base - 4, PLACE.base + 0x200] {
        let read = driver.0.vcpu.read(Space::Mmio, addr, Width::Four);
        assert_eq!(read, Err(Stopped::Abort), "{addr:#x}");
    }
    assert_eq!(driver.get(VIRTIO_MMIO_DEVICE_ID), 2);
}
