//! 4.1.2.1, PCI Device Discovery.

use crate::driver::{Driver, STATUS, description, with};
use xen_eventfd_core::Width;
use xen_eventfd_virtio::FunctionDescription;

#[test]
fn devices_must_have_the_pci_vendor_id_0x1af4() {
    assert_eq!(Driver::new(&description()).config(0, Width::Two), 0x1AF4);
}

#[test]
fn devices_must_have_the_pci_device_id_calculated_by_adding_0x1040_to_the_virtio_device_id() {
    for (device_type, id) in [(1, 0x1041), (2, 0x1042), (4, 0x1044), (26, 0x105A), (63, 0x107F)] {
        let driver = Driver::new(&with(|device| device.device_type = device_type));
        assert_eq!(driver.config(2, Width::Two), id);
    }
}

#[test]
fn non_transitional_devices_should_have_a_pci_revision_id_of_1_or_higher() {
    assert!(Driver::new(&description()).config(8, Width::One) >= 1);
}

#[test]
fn non_transitional_devices_should_have_a_pci_subsystem_device_id_of_0x40_or_higher() {
    assert!(Driver::new(&description()).config(0x2E, Width::Two) >= 0x40);
}

#[test]
fn the_header_is_of_type_0_and_says_that_there_are_capabilities() {
    let driver = Driver::new(&description());
    assert_eq!(driver.config(0x0E, Width::One), 0);
    assert_eq!(driver.config(STATUS, Width::Two), 1 << 4);
    assert_eq!(driver.config(0x34, Width::One), 0x40);
}

#[test]
fn the_class_is_that_of_the_device_type() {
    for (device_type, class) in [(1, 0x0200), (2, 0x0180), (3, 0x0780), (8, 0x0100), (26, 0x0180)] {
        let driver = Driver::new(&with(|device| device.device_type = device_type));
        assert_eq!(driver.config(0x0A, Width::Two), class, "type {device_type}");
    }
    let rng = Driver::new(&with(|device| device.device_type = 4));
    assert_eq!(rng.config(0x0A, Width::Two), 0xFF00);
}

#[test]
fn a_function_has_a_pin_only_if_the_guest_has_a_line() {
    for has_line in [false, true] {
        let driver = Driver::new(&FunctionDescription { has_line, ..description() });
        assert_eq!(driver.config(0x3D, Width::One), u64::from(has_line));
        driver.set_config(0x3C, Width::One, 11);
        assert_eq!(driver.config(0x3C, Width::One), if has_line { 11 } else { 0 });
    }
}

#[test]
fn what_identifies_the_device_cannot_be_changed() {
    let driver = Driver::new(&description());
    let all =
        |driver: &Driver| (0..64).map(|at| driver.config(4 * at, Width::Four)).collect::<Vec<_>>();
    let before = all(&driver);
    for register in [0x00, 0x08, 0x0C, 0x28, 0x2C, 0x30, 0x34, 0x40, 0x44, 0x48, 0x4C, 0x5C] {
        driver.set_config(register, Width::Four, u64::MAX);
    }
    let after = all(&driver);
    let changed: Vec<usize> = (0..64).filter(|at| before[*at] != after[*at]).collect();
    // The two bits of MSI-X's message control.
    assert_eq!(changed, [0x10]);
    assert_eq!(before[0x10] ^ after[0x10], 0xC000_0000);
}
