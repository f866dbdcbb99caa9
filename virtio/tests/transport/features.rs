//! 2.2 and 4.1.4.3.1: feature bits.

use crate::driver::{
    DEVICE_FEATURE, DEVICE_FEATURE_SELECT, DRIVER_FEATURE, DRIVER_FEATURE_SELECT, Driver,
    FEATURES_OK, RING_RESET, VERSION_1, description,
};
use xen_eventfd_core::Width;
use xen_eventfd_virtio::Effect;

#[test]
fn the_device_must_present_the_feature_bits_it_is_offering_for_any_device_feature_select() {
    let driver = Driver::awake(&description());
    let offered = |select| {
        driver.set(DEVICE_FEATURE_SELECT, Width::Four, select);
        assert_eq!(driver.get(DEVICE_FEATURE_SELECT, Width::Four), select);
        driver.get(DEVICE_FEATURE, Width::Four)
    };
    assert_eq!([0, 1, 2, 3, 0xFFFF_FFFF].map(offered), [0x21, 1 | 1 << 8, 0, 0, 0]);
}

#[test]
fn the_device_must_present_any_valid_feature_bits_the_driver_has_written() {
    let driver = Driver::awake(&description());
    for (select, bits) in [(0, 0x20), (1, 1), (2, 0xFF)] {
        driver.set(DRIVER_FEATURE_SELECT, Width::Four, select);
        driver.set(DRIVER_FEATURE, Width::Four, bits);
    }
    let accepted = |select| {
        driver.set(DRIVER_FEATURE_SELECT, Width::Four, select);
        driver.get(DRIVER_FEATURE, Width::Four)
    };
    assert_eq!([0, 1, 2].map(accepted), [0x20, 1, 0]);
}

#[test]
fn the_device_should_accept_any_valid_subset_of_features() {
    for features in [VERSION_1, VERSION_1 | 0x20, VERSION_1 | RING_RESET | 0x21] {
        let driver = Driver::awake(&description());
        driver.negotiate(features);
        assert_eq!(driver.status() & FEATURES_OK, FEATURES_OK);
        assert_eq!(driver.effects(), [Effect::Features(features)]);
    }
}

#[test]
fn otherwise_the_device_must_fail_to_set_features_ok() {
    for features in [VERSION_1 | 2, VERSION_1 | 1 << 63, 0, 0x21] {
        let driver = Driver::awake(&description());
        driver.negotiate(features);
        assert_eq!(driver.status() & FEATURES_OK, 0, "{features:#x}");
        assert_eq!(driver.effects(), []);
    }
}

#[test]
fn the_device_should_not_fail_renegotiation_of_the_same_features_after_a_reset() {
    let driver = Driver::running();
    driver.set(crate::driver::DEVICE_STATUS, Width::One, 0);
    driver.negotiate(VERSION_1 | RING_RESET);
    assert_eq!(driver.status() & FEATURES_OK, FEATURES_OK);
}

#[test]
fn features_do_not_change_after_features_ok() {
    let driver = Driver::negotiated(VERSION_1);
    driver.set(DRIVER_FEATURE_SELECT, Width::Four, 0);
    driver.set(DRIVER_FEATURE, Width::Four, 0x21);
    assert_eq!(driver.get(DRIVER_FEATURE, Width::Four), 0);
    driver.set_status(FEATURES_OK);
    assert_eq!(driver.effects(), []);
}
