//! 4.2.2: which registers there are, how they are read and written, and what is at all other offsets.

use crate::driver::{
    ACKNOWLEDGE, DRIVER_OK, Driver, QUEUE_RESET, RING_RESET, VERSION_1, description,
};
use virtio_bindings::virtio_mmio::*;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::{Description, INTERRUPT_STATUS, MMIO_SIZE, Mmio, QUEUE_NOTIFY};

const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];

#[test]
fn the_device_must_return_0x74726976_in_magic_value() {
    assert_eq!(Driver::new(&description()).get(VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
}

#[test]
fn the_device_must_return_value_0x2_in_version() {
    assert_eq!(Driver::new(&description()).get(VIRTIO_MMIO_VERSION), 2);
}

#[test]
fn device_and_vendor_are_named() {
    let driver = Driver::new(&Description { device_type: 26, ..description() });
    assert_eq!(driver.get(VIRTIO_MMIO_DEVICE_ID), 26);
    assert_ne!(driver.get(VIRTIO_MMIO_VENDOR_ID), 0);
}

#[test]
fn what_others_answer_for_is_where_the_header_has_it() {
    assert_eq!(QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NOTIFY);
    assert_eq!(INTERRUPT_STATUS, VIRTIO_MMIO_INTERRUPT_STATUS);
    assert_eq!(INTERRUPT_STATUS + 4, VIRTIO_MMIO_INTERRUPT_ACK);
}

/// The device has no shared memory, and a driver recognises that by a length of -1.
#[test]
fn the_length_of_a_shared_memory_region_that_does_not_exist_reads_as_minus_1() {
    let driver = Driver::running();
    for region in [0, 1, u32::MAX] {
        driver.set(VIRTIO_MMIO_SHM_SEL, region);
        for register in [VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_SHM_BASE_LOW] {
            assert_eq!((driver.get(register), driver.get(register + 4)), (u32::MAX, u32::MAX));
        }
    }
}

/// All that a running device answers, at every offset: what reads as something else than 0.
#[test]
fn what_is_no_register_or_only_written_reads_as_0() {
    let driver = Driver::running();
    driver.status.set(3);
    driver.set(VIRTIO_MMIO_QUEUE_SEL, 1);
    let read: Vec<u32> = (0..0x100).step_by(4).filter(|at| driver.get(*at) != 0).collect();
    let expected = [
        VIRTIO_MMIO_MAGIC_VALUE,
        VIRTIO_MMIO_VERSION,
        VIRTIO_MMIO_DEVICE_ID,
        VIRTIO_MMIO_VENDOR_ID,
        VIRTIO_MMIO_DEVICE_FEATURES,
        VIRTIO_MMIO_QUEUE_NUM_MAX,
        VIRTIO_MMIO_QUEUE_READY,
        VIRTIO_MMIO_INTERRUPT_STATUS,
        VIRTIO_MMIO_STATUS,
        VIRTIO_MMIO_SHM_LEN_LOW,
        VIRTIO_MMIO_SHM_LEN_HIGH,
        VIRTIO_MMIO_SHM_BASE_LOW,
        VIRTIO_MMIO_SHM_BASE_HIGH,
    ];
    assert_eq!(read, expected);
}

/// Of each register, what reading some of its bytes returns.
#[test]
fn a_read_gets_the_bytes_that_it_asks_for() {
    let driver = Driver::running();
    driver.status.set(0x0403_0201);
    let whole: Vec<u8> =
        (0..MMIO_SIZE / 4).flat_map(|at| driver.get(4 * at).to_le_bytes()).collect();
    for width in WIDTHS {
        let bytes = usize::from(width.bytes());
        for offset in 0..=whole.len() - bytes {
            let mut expected = [0; 8];
            expected[..bytes].copy_from_slice(&whole[offset..offset + bytes]);
            let read = driver.read(offset as u64, width);
            assert_eq!(read, u64::from_le_bytes(expected), "{offset:#x} {width:?}");
        }
    }
}

/// Of each offset and width, only the whole write of a register changes something.
#[test]
fn a_register_is_written_whole_and_at_its_own_address() {
    let begun = || {
        let driver = Driver::negotiated(VERSION_1 | RING_RESET);
        driver.set(VIRTIO_MMIO_QUEUE_SEL, 1);
        driver
    };
    let mut written = Vec::new();
    for width in WIDTHS {
        for offset in 0..0x100 {
            let driver = begun();
            let before = driver.device.borrow().state();
            driver.write(offset, width, 1);
            if driver.device.borrow().state() != before || !driver.effects().is_empty() {
                assert_eq!(width, Width::Four, "{offset:#x}");
                written.push(u32::try_from(offset).unwrap());
            }
        }
    }
    // The driver's features are agreed on, QueueSel has the value 1 already, no bit is added to the status, nothing is
    // to be reset, and a queue that has not started is not kicked.
    let expected = [
        VIRTIO_MMIO_DEVICE_FEATURES_SEL,
        VIRTIO_MMIO_QUEUE_NUM,
        VIRTIO_MMIO_QUEUE_READY,
        VIRTIO_MMIO_INTERRUPT_ACK,
        VIRTIO_MMIO_QUEUE_DESC_LOW,
        VIRTIO_MMIO_QUEUE_DESC_HIGH,
        VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
        VIRTIO_MMIO_QUEUE_USED_LOW,
        VIRTIO_MMIO_QUEUE_USED_HIGH,
    ];
    assert_eq!(written, expected);
}

#[test]
fn what_those_registers_are_is_changed_by_other_values() {
    let driver = Driver::new(&description());
    let mut last = driver.device.borrow().state();
    for (register, value) in [
        (VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
        (VIRTIO_MMIO_DRIVER_FEATURES, 1),
        (VIRTIO_MMIO_QUEUE_SEL, 2),
        (VIRTIO_MMIO_STATUS, ACKNOWLEDGE),
    ] {
        driver.set(register, value);
        let now = driver.device.borrow().state();
        assert_ne!(now, last, "{register:#x}");
        last = now;
    }
    let driver = Driver::running();
    driver.set(VIRTIO_MMIO_QUEUE_SEL, 0);
    for (register, value) in [(VIRTIO_MMIO_QUEUE_NOTIFY, 1), (QUEUE_RESET, 1)] {
        driver.set(register, value);
        assert_eq!(driver.effects().len(), 1, "{register:#x}");
    }
}

#[test]
fn what_is_beyond_the_registers_is_not_the_device_s() {
    let mut device = Mmio::new(&description()).unwrap();
    let size = u64::from(MMIO_SIZE);
    for (offset, width) in [
        (size, Width::One),
        (size - 1, Width::Two),
        (size - 4, Width::Eight),
        (u64::MAX, Width::One),
        (u64::MAX - 3, Width::Eight),
        (1 << 32, Width::Four),
    ] {
        assert_eq!(device.read(offset, width, || 0), None, "{offset:#x}");
        assert_eq!(device.write(offset, width, 1), None, "{offset:#x}");
    }
    assert_eq!(device.read(size - 8, Width::Eight, || 0), Some(0));
}

#[test]
fn a_register_has_no_bits_beyond_those_of_its_field() {
    let driver = Driver::negotiated(VERSION_1 | RING_RESET);
    assert_eq!(driver.get_queue(0x1_0000, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
    driver.set_up(1);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 0);
    let size = |driver: &Driver| driver.device.borrow().state().common.queues[1].size;
    driver.set(VIRTIO_MMIO_QUEUE_NUM, 0x1_0020);
    assert_eq!(size(&driver), 16);
    driver.set(VIRTIO_MMIO_QUEUE_READY, 0x1_0001);
    assert_eq!(driver.get(VIRTIO_MMIO_QUEUE_READY), 0);
    driver.set_up(1);
    driver.set_status(DRIVER_OK);
    driver.effects();
    driver.set(QUEUE_RESET, 0x1_0001);
    driver.set(VIRTIO_MMIO_QUEUE_NOTIFY, 0x1_0001);
    driver.set(VIRTIO_MMIO_STATUS, 0x100);
    assert_eq!(driver.effects(), []);
    assert_ne!(driver.device_status(), 0);
}

#[test]
fn what_no_device_can_present_is_refused() {
    let refused = |change: fn(&mut Description)| {
        let mut description = description();
        change(&mut description);
        Mmio::new(&description).expect_err("no device can present this").to_string()
    };
    for (error, part) in [
        (refused(|of| of.device_type = 0), "device type 0"),
        (refused(|of| of.features &= !VERSION_1), "VERSION_1"),
        (refused(|of| of.features |= 1 << 38), "0x4000000000"),
        (refused(|of| of.queue_sizes.clear()), "0 queues"),
        (refused(|of| of.config = vec![0; 257]), "257 bytes"),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let most = Description { config: vec![7; 256], ..description() };
    assert_eq!(Driver::new(&most).read(0x1F8, Width::Eight), 0x0707_0707_0707_0707);
}
