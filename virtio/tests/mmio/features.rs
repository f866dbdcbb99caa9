//! 2.2 and 4.2.2: feature bits.

use crate::driver::{Driver, FEATURES_OK, RING_RESET, VERSION_1, description};
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_virtio::Effect;

#[test]
fn device_features_are_those_that_device_features_sel_selects() {
    let driver = Driver::new(&description());
    let offered = |select| {
        driver.set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        driver.get(VIRTIO_MMIO_DEVICE_FEATURES)
    };
    assert_eq!([0, 1, 2, 0x1_0000, u32::MAX].map(offered), [0x21, 1 | 1 << 8, 0, 0, 0]);
}

#[test]
fn the_device_should_accept_any_valid_subset_of_features() {
    for features in [VERSION_1, VERSION_1 | 0x20, VERSION_1 | RING_RESET | 0x21] {
        let driver = Driver::new(&description());
        driver.negotiate(features);
        assert_eq!(driver.device_status() & FEATURES_OK, FEATURES_OK);
        assert_eq!(driver.effects(), [Effect::Features(features)]);
    }
}

#[test]
fn otherwise_the_device_must_fail_to_set_features_ok() {
    for features in [VERSION_1 | 2, VERSION_1 | 1 << 63, 0, 0x21] {
        let driver = Driver::new(&description());
        driver.negotiate(features);
        assert_eq!(driver.device_status() & FEATURES_OK, 0, "{features:#x}");
        assert_eq!(driver.effects(), []);
    }
}

#[test]
fn the_device_should_not_fail_renegotiation_of_the_same_features_after_a_reset() {
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_STATUS, 0);
    driver.negotiate(VERSION_1 | RING_RESET);
    assert_eq!(driver.device_status() & FEATURES_OK, FEATURES_OK);
}
