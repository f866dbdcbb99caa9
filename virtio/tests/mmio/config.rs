//! 2.5 and 4.2.2: the device configuration and its generation.

use crate::driver::{Driver, VERSION_1, description};
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Effect, Transport};

const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

fn generation(driver: &Driver) -> u32 {
    driver.get(VIRTIO_MMIO_CONFIG_GENERATION)
}

#[test]
fn the_device_must_allow_reading_of_any_field_before_features_ok() {
    let driver = Driver::new(&description());
    assert_eq!(driver.read(CONFIG, Width::Four), 0x0302_0100);
    assert_eq!(driver.read(CONFIG + 8, Width::Eight), 0x0B0A_0908);
    assert_eq!(driver.read(CONFIG + 11, Width::Two), 0x0B);
}

#[test]
fn the_device_must_change_config_generation_if_any_entry_has_changed() {
    let driver = Driver::running();
    let before = generation(&driver);
    driver.read(CONFIG, Width::Four);
    assert_eq!(generation(&driver), before);
    driver.device(|device| device.change_config(&[0x77]));
    assert_eq!(driver.effects(), [Effect::SetInterruptStatus(VIRTIO_MMIO_INT_CONFIG)]);
    assert_eq!(driver.read(CONFIG, Width::One), 0x77);
    let after = generation(&driver);
    assert_ne!(after, before);
    driver.read(CONFIG, Width::One);
    assert_eq!(generation(&driver), after);
}

#[test]
fn a_change_to_what_it_is_notifies_only_if_it_is_asked_to() {
    let driver = Driver::running();
    let before = generation(&driver);
    driver.device(|device| device.change_config_to(&[0, 1, 2]));
    assert_eq!(driver.effects(), []);
    driver.device(|device| device.change_config(&[0, 1, 2]));
    assert_eq!(driver.effects(), [Effect::SetInterruptStatus(VIRTIO_MMIO_INT_CONFIG)]);
    driver.read(CONFIG, Width::One);
    assert_eq!(generation(&driver), before);
}

#[test]
fn a_write_of_the_driver_is_the_caller_s_to_judge() {
    let driver = Driver::running();
    for (offset, width, value) in [(2, Width::Two, 0x5566), (4, Width::Eight, 1 << 63)] {
        driver.write(CONFIG + u64::from(offset), width, value);
        assert_eq!(driver.effects(), [Effect::ConfigWritten { offset, width, value }]);
    }
    assert_eq!(driver.read(CONFIG + 2, Width::Two), 0x0302);
    driver.device.borrow_mut().set_config(&[0, 1, 0x66, 0x55]);
    assert_eq!(driver.read(CONFIG + 2, Width::Two), 0x5566);
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_write_beyond_the_configuration_has_no_effect() {
    let driver = Driver::running();
    for (offset, width) in
        [(12, Width::One), (11, Width::Two), (10, Width::Four), (8, Width::Eight)]
    {
        driver.write(CONFIG + offset, width, u64::MAX);
    }
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_change_before_driver_ok_notifies_of_nothing() {
    let driver = Driver::negotiated(VERSION_1);
    driver.device(|device| device.change_config(&[0x77]));
    assert_eq!(driver.effects(), []);
    assert_eq!(driver.read(CONFIG, Width::One), 0x77);
}
