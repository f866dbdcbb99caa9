//! 2.5 and 4.1.4.3.1: the device configuration and its generation.

use crate::driver::{Driver, GENERATION, VERSION_1, description};
use virtio_spec::pci::CapCfgType;
use xen_eventfd_core::{Space, Width};
use xen_eventfd_virtio::{Effect, Transport};

fn generation(driver: &Driver) -> u64 {
    driver.get(GENERATION, Width::One)
}

fn read(driver: &Driver, offset: u64, width: Width) -> u64 {
    driver.read(Space::Mmio, driver.structure(CapCfgType::Device) + offset, width)
}

#[test]
fn the_device_must_allow_reading_of_any_field_before_features_ok() {
    let driver = Driver::awake(&description());
    assert_eq!(read(&driver, 0, Width::Four), 0x0302_0100);
    assert_eq!(read(&driver, 8, Width::Eight), 0x0B0A_0908);
    assert_eq!(read(&driver, 11, Width::Two), 0x0B);
}

#[test]
fn the_device_must_present_a_changed_generation_after_the_driver_has_read_a_changed_value() {
    let driver = Driver::running();
    let before = generation(&driver);
    read(&driver, 0, Width::Four);
    assert_eq!(generation(&driver), before);
    driver.device(|function| function.change_config(&[0x77]));
    assert_eq!(read(&driver, 0, Width::One), 0x77);
    let after = generation(&driver);
    assert_ne!(after, before);
    read(&driver, 0, Width::One);
    assert_eq!(generation(&driver), after);
}

#[test]
fn a_generation_does_not_come_round_between_two_reads() {
    let driver = Driver::running();
    let before = generation(&driver);
    for value in 1..=256_u16 {
        driver.device(|function| function.change_config(&value.to_le_bytes()));
    }
    read(&driver, 0, Width::One);
    assert_ne!(generation(&driver), before);
}

#[test]
fn a_configuration_that_stays_the_same_keeps_its_generation() {
    let driver = Driver::running();
    let before = generation(&driver);
    driver.device(|function| function.change_config(&[0, 1, 2]));
    read(&driver, 0, Width::One);
    assert_eq!(generation(&driver), before);
}

#[test]
fn a_write_of_the_driver_is_the_caller_s_to_judge() {
    let driver = Driver::running();
    let at = driver.structure(CapCfgType::Device);
    driver.write(Space::Mmio, at + 2, Width::Two, 0x5566);
    let written = Effect::ConfigWritten { offset: 2, width: Width::Two, value: 0x5566 };
    assert_eq!(driver.effects(), [written]);
    assert_eq!(read(&driver, 2, Width::Two), 0x0302);
    driver.function.borrow_mut().set_config(&[0, 1, 0x66, 0x55]);
    assert_eq!((read(&driver, 2, Width::Two), read(&driver, 4, Width::One)), (0x5566, 4));
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_write_beyond_the_configuration_has_no_effect() {
    let driver = Driver::running();
    let at = driver.structure(CapCfgType::Device);
    for (offset, width) in
        [(12, Width::One), (11, Width::Two), (10, Width::Four), (8, Width::Eight)]
    {
        driver.write(Space::Mmio, at + offset, width, u64::MAX);
    }
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_configuration_that_is_longer_than_the_device_s_is_cut() {
    let driver = Driver::running();
    driver.function.borrow_mut().set_config(&[0xEE; 64]);
    assert_eq!(read(&driver, 8, Width::Eight), 0xEEEE_EEEE);
}

#[test]
fn a_change_before_driver_ok_notifies_of_nothing() {
    let driver = Driver::negotiated(VERSION_1);
    driver.device(|function| function.change_config(&[0x77]));
    assert_eq!((driver.effects(), driver.isr()), (vec![], 0));
    assert_eq!(read(&driver, 0, Width::One), 0x77);
}
