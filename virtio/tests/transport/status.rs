//! 2.1 and 2.4: the device status, reset.

use crate::driver::{
    ACKNOWLEDGE, DEVICE_STATUS, DRIVER, DRIVER_OK, Driver, FEATURES_OK, NEEDS_RESET, QUEUE_ENABLE,
    QUEUE_RESET, RING_RESET, VERSION_1, description,
};
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Effect, Route, Transport};

const RUNS: u64 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

#[test]
fn the_device_must_not_consume_buffers_or_send_used_buffer_notifications_before_driver_ok() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set_up(0, 1);
    driver.kick(0);
    driver.device(|function| function.signal_queue(0));
    assert_eq!(driver.effects(), []);
    driver.set_status(DRIVER_OK);
    let setup = Driver::setup(0, Route::Message(Driver::message(1)));
    assert_eq!(driver.effects(), [Effect::DriverOk, Effect::QueueStarted(setup)]);
    driver.kick(0);
    driver.device(|function| function.signal_queue(0));
    assert_eq!(driver.effects(), [Effect::Kick(0), Effect::Raise(Driver::message(1))]);
}

#[test]
fn driver_ok_is_refused_without_features_ok() {
    let driver = Driver::awake(&description());
    driver.set_status(ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
    assert_eq!(driver.effects(), []);
}

#[test]
fn the_device_must_send_a_configuration_change_notification_after_it_sets_device_needs_reset() {
    let driver = Driver::running();
    driver.device(|function| function.needs_reset());
    assert_eq!(driver.effects(), [Effect::Raise(Driver::message(0))]);
    assert_eq!(driver.status(), RUNS | NEEDS_RESET);
    driver.set(DEVICE_STATUS, Width::One, RUNS);
    assert_eq!(driver.status(), RUNS | NEEDS_RESET);
}

#[test]
fn device_needs_reset_before_driver_ok_notifies_of_nothing() {
    let driver = Driver::negotiated(VERSION_1);
    driver.device(|function| function.needs_reset());
    assert_eq!((driver.effects(), driver.isr()), (vec![], 0));
    assert_eq!(driver.status() & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn a_driver_sets_no_bit_that_is_not_its_own_and_clears_none() {
    let driver = Driver::running();
    driver.set(DEVICE_STATUS, Width::One, ACKNOWLEDGE | NEEDS_RESET | 0x30);
    assert_eq!(driver.status(), RUNS);
    driver.set_status(128);
    assert_eq!(driver.status(), RUNS | 128);
}

#[test]
fn the_device_must_reset_when_0_is_written_to_device_status_and_present_a_0_once_that_is_done() {
    let driver = Driver::running();
    driver.device(|function| function.needs_reset());
    driver.effects();
    driver.set(DEVICE_STATUS, Width::One, 0);
    assert_eq!(driver.effects(), [Effect::Reset]);
    assert_eq!(driver.status(), 0);
    driver.set(DEVICE_STATUS, Width::One, 0);
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_device_must_not_send_notifications_or_interact_with_the_queues_after_reset() {
    let driver = Driver::running();
    driver.set_entry(2, 12, 1);
    driver.device(|function| function.signal_queue(1));
    driver.device(|function| function.change_config(&[9]));
    assert_eq!(driver.pending_bits(), 1 << 2);
    driver.set(DEVICE_STATUS, Width::One, 0);
    driver.effects();
    assert_eq!((driver.pending_bits(), driver.isr()), (0, 0));
    driver.set_entry(2, 12, 0);
    driver.device(|function| function.signal_queue(0));
    driver.device(|function| function.change_config(&[8]));
    driver.kick(0);
    assert_eq!(driver.effects(), []);
}

#[test]
fn the_device_must_present_a_0_in_queue_enable_and_queue_reset_on_reset() {
    let driver = Driver::running();
    driver.set(DEVICE_STATUS, Width::One, 0);
    driver.negotiate(VERSION_1 | RING_RESET);
    for queue in 0..3 {
        assert_eq!(driver.get_queue(queue, QUEUE_ENABLE, Width::Two), 0);
        assert_eq!(driver.get_queue(queue, QUEUE_RESET, Width::Two), 0);
    }
}
