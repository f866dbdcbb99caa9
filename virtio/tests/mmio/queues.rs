//! 2.6.1 and 4.2.2: the registers of queues, their readiness and their reset.

use crate::driver::{DRIVER_OK, Driver, QUEUE_RESET, RING_PACKED, VERSION_1};
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_virtio::{Effect, QueueState};

fn queue(driver: &Driver, index: usize) -> QueueState {
    driver.device.borrow().state().common.queues[index]
}

#[test]
fn queue_size_max_is_0_if_the_queue_is_not_available() {
    let driver = Driver::negotiated(VERSION_1);
    let sizes = [0, 1, 2, 3, 0xFFFF, u32::MAX];
    let read = sizes.map(|queue| driver.get_queue(queue, VIRTIO_MMIO_QUEUE_NUM_MAX));
    assert_eq!(read, [256, 128, 64, 0, 0, 0]);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.get(VIRTIO_MMIO_QUEUE_READY), 0);
}

#[test]
fn queue_size_max_stays_what_it_was() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set_up(1);
    assert_eq!(driver.get(VIRTIO_MMIO_QUEUE_NUM_MAX), 128);
}

#[test]
fn a_size_is_a_power_of_2_unless_rings_are_packed() {
    let split = Driver::negotiated(VERSION_1);
    let packed = Driver::negotiated(VERSION_1 | RING_PACKED);
    let size = |driver: &Driver, size| {
        driver.set(VIRTIO_MMIO_QUEUE_SEL, 1);
        driver.set(VIRTIO_MMIO_QUEUE_NUM, 128);
        driver.set(VIRTIO_MMIO_QUEUE_NUM, size);
        queue(driver, 1).size
    };
    for (asked, of_split, of_packed) in [(0, 128, 128), (3, 128, 3), (64, 64, 64), (257, 128, 128)]
    {
        assert_eq!((size(&split, asked), size(&packed, asked)), (of_split, of_packed), "{asked}");
    }
}

#[test]
fn low_and_high_halves_of_addresses_are_independent() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set(VIRTIO_MMIO_QUEUE_SEL, 2);
    for (number, register) in (1_u32..).zip([
        VIRTIO_MMIO_QUEUE_DESC_LOW,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        VIRTIO_MMIO_QUEUE_USED_LOW,
    ]) {
        driver.set(register + 4, number);
        driver.set(register, number << 12);
    }
    let QueueState { descriptors, driver: available, device: used, .. } = queue(&driver, 2);
    assert_eq!([descriptors, available, used], [0x1_0000_1000, 0x2_0000_2000, 0x3_0000_3000]);
}

#[test]
fn a_queue_that_is_ready_keeps_its_addresses_and_its_size() {
    let driver = Driver::running();
    let before = queue(&driver, 1);
    driver.set(VIRTIO_MMIO_QUEUE_SEL, 1);
    for register in [VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH]
    {
        driver.set(register, 8);
    }
    assert_eq!(queue(&driver, 1), before);
}

#[test]
fn a_queue_that_becomes_ready_while_the_driver_runs_starts_at_once() {
    let driver = Driver::running();
    driver.set_up(2);
    assert_eq!(driver.effects(), [Effect::QueueStarted(Driver::setup(2))]);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.effects(), []);
}

/// 4.2.2.2: it writes 0 to QueueReady and reads that back.
#[test]
fn to_stop_using_the_queue_the_driver_writes_0_to_queue_ready() {
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.effects(), [Effect::QueueStopped(1)]);
    assert_eq!(driver.get(VIRTIO_MMIO_QUEUE_READY), 0);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_eq!(driver.effects(), []);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(driver.effects(), [Effect::Kick(0)]);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.effects(), [Effect::QueueStarted(Driver::setup(1))]);
}

#[test]
fn a_queue_that_has_not_started_is_not_stopped() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set_up(0);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 0);
    driver.set_status(DRIVER_OK);
    assert_eq!(driver.effects(), [Effect::DriverOk]);
}

#[test]
fn after_a_queue_has_been_reset_the_device_must_not_execute_its_requests() {
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.set(QUEUE_RESET, 1);
    assert_eq!(driver.effects(), [Effect::QueueStopped(1)]);
    assert_eq!([QUEUE_RESET, VIRTIO_MMIO_QUEUE_READY].map(|at| driver.get(at)), [0, 0]);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    assert_eq!(driver.effects(), []);
    let state = queue(&driver, 1);
    assert_eq!((state.size, state.descriptors, state.driver, state.device), (128, 0, 0, 0));
}

#[test]
fn a_queue_is_not_reset_without_the_feature() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set_up(1);
    driver.set_status(DRIVER_OK);
    driver.effects();
    driver.set(QUEUE_RESET, 1);
    assert_eq!(driver.effects(), []);
    assert_eq!(driver.get(VIRTIO_MMIO_QUEUE_READY), 1);
}
