//! 2.6.1 and 4.1.4.3.1: the registers of queues, and their reset.

use crate::driver::{
    DRIVER_OK, Driver, NO_VECTOR, QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_ENABLE,
    QUEUE_RESET, QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR, RING_PACKED, RING_RESET, VERSION_1,
};
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Effect, Route};

#[test]
fn the_device_must_present_a_0_in_queue_size_if_the_virtqueue_is_unavailable() {
    let driver = Driver::negotiated(VERSION_1);
    let sizes = [0, 1, 2, 3, 0xFFFF].map(|queue| driver.get_queue(queue, QUEUE_SIZE, Width::Two));
    assert_eq!(sizes, [256, 128, 64, 0, 0]);
    for (register, width) in
        [(QUEUE_SIZE, Width::Two), (QUEUE_ENABLE, Width::Two), (QUEUE_DESC, Width::Four)]
    {
        driver.set(register, width, 1);
        assert_eq!(driver.get(register, width), 0);
    }
    assert_eq!(driver.get(QUEUE_VECTOR, Width::Two), NO_VECTOR);
}

#[test]
fn without_ring_packed_the_device_must_present_a_power_of_2_in_queue_size() {
    let split = Driver::negotiated(VERSION_1);
    let packed = Driver::negotiated(VERSION_1 | RING_PACKED);
    let size = |driver: &Driver, size| {
        driver.set(QUEUE_SIZE, Width::Two, 128);
        driver.set(QUEUE_SIZE, Width::Two, size);
        driver.get(QUEUE_SIZE, Width::Two)
    };
    for (asked, of_split, of_packed) in [(0, 128, 128), (3, 128, 3), (64, 64, 64), (257, 128, 128)]
    {
        assert_eq!((size(&split, asked), size(&packed, asked)), (of_split, of_packed), "{asked}");
    }
}

#[test]
fn for_64_bit_fields_the_device_must_allow_independent_access_to_high_and_low_32_bit_parts() {
    let driver = Driver::negotiated(VERSION_1);
    for register in [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE] {
        driver.set(register + 4, Width::Four, 0x1234);
        driver.set(register, Width::Four, 0x8765_4000);
        assert_eq!(driver.get(register, Width::Four), 0x8765_4000);
        assert_eq!(driver.get(register + 4, Width::Four), 0x1234);
        assert_eq!(driver.get(register, Width::Eight), 0x1234_8765_4000);
        driver.set(register, Width::Eight, 0xAB_0000_C000);
        assert_eq!(driver.get(register + 4, Width::Four), 0xAB);
    }
}

#[test]
fn a_queue_that_is_enabled_keeps_its_addresses_and_its_size() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 1);
    driver.set(QUEUE_SIZE, Width::Two, 8);
    driver.set(QUEUE_DESC, Width::Four, 0);
    driver.set(QUEUE_ENABLE, Width::Two, 0);
    let registers = [QUEUE_SIZE, QUEUE_ENABLE].map(|at| driver.get(at, Width::Two));
    assert_eq!((registers, driver.get(QUEUE_DESC, Width::Four)), ([16, 1], 0x1_1000));
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_queue_is_enabled_by_1_and_by_nothing_else() {
    let driver = Driver::negotiated(VERSION_1);
    for (value, enabled) in [(0, 0), (2, 0), (0xFFFF, 0), (1, 1)] {
        driver.set(QUEUE_ENABLE, Width::Two, value);
        assert_eq!(driver.get(QUEUE_ENABLE, Width::Two), enabled, "{value}");
    }
}

#[test]
fn a_queue_that_is_enabled_while_the_driver_runs_starts_at_once() {
    let driver = Driver::running();
    driver.set_up(2, NO_VECTOR);
    assert_eq!(driver.effects(), [Effect::QueueStarted(Driver::setup(2, Route::Nowhere))]);
}

#[test]
fn after_a_queue_has_been_reset_the_device_must_not_execute_its_requests_or_notify_the_driver() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 1);
    driver.set(QUEUE_RESET, Width::Two, 1);
    assert_eq!(driver.effects(), [Effect::QueueStopped(1)]);
    driver.kick(1);
    driver.device(|function| function.signal_queue(1));
    assert_eq!(driver.effects(), []);
    // The other goes on.
    driver.kick(0);
    assert_eq!(driver.effects(), [Effect::Kick(0)]);
}

#[test]
fn the_device_must_present_0_in_queue_reset_and_queue_enable_when_queue_reset_has_completed() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 1);
    driver.set(QUEUE_RESET, Width::Two, 1);
    assert_eq!([QUEUE_RESET, QUEUE_ENABLE].map(|at| driver.get(at, Width::Two)), [0, 0]);
}

#[test]
fn the_device_must_reset_any_state_of_a_virtqueue_to_the_default_state() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 1);
    driver.set(QUEUE_RESET, Width::Two, 1);
    let registers = [QUEUE_SIZE, QUEUE_VECTOR].map(|at| driver.get(at, Width::Two));
    assert_eq!(registers, [128, NO_VECTOR]);
    let addresses = [QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE].map(|at| driver.get(at, Width::Eight));
    assert_eq!(addresses, [0; 3]);
}

#[test]
fn the_device_must_observe_any_queue_configuration_that_may_have_been_changed() {
    let driver = Driver::running();
    driver.set(QUEUE_SELECT, Width::Two, 1);
    driver.set(QUEUE_RESET, Width::Two, 1);
    driver.effects();
    driver.set(QUEUE_SIZE, Width::Two, 32);
    driver.set(QUEUE_DESC, Width::Four, 0x7000);
    driver.set(QUEUE_ENABLE, Width::Two, 1);
    let effects = driver.effects();
    let [Effect::QueueStarted(setup)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!((setup.size, setup.descriptors, setup.driver), (32, 0x7000, 0));
    // queue_reset is 0 after the virtqueue is enabled.
    assert_eq!(driver.get(QUEUE_RESET, Width::Two), 0);
}

#[test]
fn without_ring_reset_no_queue_is_reset() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set_up(0, 1);
    driver.set_status(DRIVER_OK);
    driver.effects();
    driver.set(QUEUE_RESET, Width::Two, 1);
    assert_eq!((driver.effects(), driver.get(QUEUE_ENABLE, Width::Two)), (vec![], 1));
}

#[test]
fn a_queue_that_has_not_started_is_reset_without_effect() {
    let driver = Driver::negotiated(VERSION_1 | RING_RESET);
    driver.set_up(0, 1);
    driver.set(QUEUE_RESET, Width::Two, 1);
    assert_eq!((driver.effects(), driver.get(QUEUE_ENABLE, Width::Two)), (vec![], 0));
}
