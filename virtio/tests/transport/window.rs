//! 4.1.4.9.1: the PCI configuration access capability.

use crate::driver::{DEVICE_STATUS, Driver, VERSION_1, description};
use virtio_spec::pci::CapCfgType;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Effect, Transport};

/// Selects bytes of a BAR. Returns the register of `pci_cfg_data`.
fn select(driver: &Driver, bar: u64, offset: u64, length: u64) -> u16 {
    let cap = driver.capability(CapCfgType::Pci).unwrap();
    driver.set_config(cap.at + 4, Width::One, bar);
    driver.set_config(cap.at + 8, Width::Four, offset);
    driver.set_config(cap.at + 12, Width::Four, length);
    cap.at + 16
}

fn offset_of(driver: &Driver, kind: CapCfgType) -> (u64, u64) {
    let cap = driver.capability(kind).unwrap();
    (cap.bar, cap.offset)
}

#[test]
fn upon_write_access_to_pci_cfg_data_the_device_must_execute_a_write_access() {
    let driver = Driver::awake(&description());
    let (bar, offset) = offset_of(&driver, CapCfgType::Common);
    let data = select(&driver, bar, offset + DEVICE_STATUS, 1);
    driver.set_config(data, Width::Four, 0xFFFF_FF03);
    assert_eq!(driver.status(), 3);
}

#[test]
fn upon_read_access_to_pci_cfg_data_the_device_must_execute_a_read_access() {
    let driver = Driver::awake(&description());
    let (bar, offset) = offset_of(&driver, CapCfgType::Device);
    let data = select(&driver, bar, offset, 4);
    assert_eq!(driver.config(data, Width::Four), 0x0302_0100);
    let data = select(&driver, bar, offset + 4, 2);
    assert_eq!(driver.config(data, Width::Two), 0x0504);
    let data = select(&driver, bar, offset + 9, 1);
    assert_eq!(driver.config(data, Width::One), 9);
}

#[test]
fn a_kick_goes_through_the_window_too() {
    let driver = Driver::running();
    let (bar, offset) = offset_of(&driver, CapCfgType::Notify);
    let data = select(&driver, bar, offset, 2);
    driver.set_config(data, Width::Two, 1);
    assert_eq!(driver.effects(), [Effect::Kick(1)]);
    assert_eq!(driver.config(data, Width::Two), 0);
}

#[test]
fn the_isr_status_read_through_the_window_is_reset() {
    let driver = Driver::running();
    driver.device(|function| function.change_config(&[7]));
    let (bar, offset) = offset_of(&driver, CapCfgType::Isr);
    let data = select(&driver, bar, offset, 1);
    assert_eq!(driver.config(data, Width::One), 2);
    assert_eq!((driver.config(data, Width::One), driver.isr()), (0, 0));
}

#[test]
fn a_window_to_what_is_not_there_has_no_effect() {
    let driver = Driver::negotiated(VERSION_1);
    let status = driver.status();
    let (bar, offset) = offset_of(&driver, CapCfgType::Common);
    for (bar, offset, length) in [
        (2, offset + DEVICE_STATUS, 1),
        (bar, offset + DEVICE_STATUS, 0),
        (bar, offset + DEVICE_STATUS, 3),
        (bar, offset + DEVICE_STATUS, 8),
        (bar, offset + DEVICE_STATUS - 2, 4),
        (bar, 0x2000, 1),
        (bar, 0xFFFF_FFFF, 1),
        (bar, 0xFFFF_FFFC, 4),
        (1, 4, 1),
        (bar, offset + DEVICE_STATUS - 4, 8),
    ] {
        let data = select(&driver, bar, offset, length);
        driver.set_config(data, Width::Four, 0);
        driver.set_config(data, Width::Four, 0x5A5A_5A5A);
        assert_eq!(driver.config(data, Width::Four), 0x5A5A_5A5A, "{bar} {offset:#x} {length}");
        assert_eq!(driver.status(), status, "{bar} {offset:#x} {length}");
    }
    assert_eq!(driver.effects(), []);
}

#[test]
fn a_register_beside_pci_cfg_data_does_not_make_an_access() {
    let driver = Driver::running();
    driver.device(|function| function.change_config(&[7]));
    let (bar, offset) = offset_of(&driver, CapCfgType::Isr);
    let data = select(&driver, bar, offset, 1);
    driver.config(data - 4, Width::Four);
    driver.config(data + 4, Width::Four);
    assert_eq!(driver.isr(), 2);
}
