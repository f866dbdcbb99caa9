//! 2.1, 2.4 and 4.2.2.1: the device status, reset.

use crate::driver::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Driver, FEATURES_OK, NEEDS_RESET, QUEUE_RESET, RING_RESET,
    VERSION_1, description,
};
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_virtio::{Effect, Transport};

const RUNS: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

#[test]
fn the_device_must_not_consume_buffers_before_driver_ok() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set_up(0);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(driver.effects(), []);
    driver.set_status(DRIVER_OK);
    assert_eq!(driver.effects(), [Effect::DriverOk, Effect::QueueStarted(Driver::setup(0))]);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(driver.effects(), [Effect::Kick(0)]);
}

#[test]
fn driver_ok_is_refused_without_features_ok() {
    let driver = Driver::new(&description());
    driver.set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_eq!(driver.device_status(), ACKNOWLEDGE | DRIVER);
    assert_eq!(driver.effects(), []);
}

#[test]
fn the_device_must_send_a_configuration_change_notification_after_it_sets_device_needs_reset() {
    let driver = Driver::running();
    driver.device(|device| device.needs_reset());
    assert_eq!(driver.effects(), [Effect::SetInterruptStatus(VIRTIO_MMIO_INT_CONFIG)]);
    assert_eq!(driver.device_status(), RUNS | NEEDS_RESET);
    driver.set(VIRTIO_MMIO_STATUS, RUNS);
    assert_eq!(driver.device_status(), RUNS | NEEDS_RESET);
    assert!(driver.device.borrow().is_broken());
}

#[test]
fn device_needs_reset_before_driver_ok_notifies_of_nothing() {
    let driver = Driver::negotiated(VERSION_1);
    driver.device(|device| device.needs_reset());
    assert_eq!(driver.effects(), []);
    assert_eq!(driver.device_status() & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn a_driver_sets_no_bit_that_is_not_its_own_and_clears_none() {
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_STATUS, ACKNOWLEDGE | NEEDS_RESET | 0x30 | 0xFFFF_FF00);
    assert_eq!(driver.device_status(), RUNS);
    driver.set_status(128);
    assert_eq!(driver.device_status(), RUNS | 128);
}

/// The caller, which keeps InterruptStatus, clears its bits on the effect.
#[test]
fn upon_reset_the_device_must_clear_all_bits_in_interrupt_status_and_ready_bits_of_all_queues() {
    let driver = Driver::running();
    driver.device(|device| device.needs_reset());
    driver.effects();
    driver.set(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.effects(), [Effect::Reset]);
    assert_eq!(driver.device_status(), 0);
    driver.negotiate(VERSION_1 | RING_RESET);
    for queue in 0..3 {
        assert_eq!(driver.get_queue(queue, VIRTIO_MMIO_QUEUE_READY), 0);
        assert_eq!(driver.get_queue(queue, QUEUE_RESET), 0);
    }
    driver.set(VIRTIO_MMIO_STATUS, 0);
    driver.effects();
    driver.set(VIRTIO_MMIO_STATUS, 0);
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_device_must_not_send_notifications_or_interact_with_the_queues_after_reset() {
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_STATUS, 0);
    driver.effects();
    driver.device(|device| device.change_config(&[8]));
    driver.device(|device| device.notify_again());
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(driver.effects(), []);
}
