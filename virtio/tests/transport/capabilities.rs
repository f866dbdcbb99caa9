//! 4.1.4, Virtio Structure PCI Capabilities, and the layout of what they lead to.

use crate::driver::{BAR_0, Driver, NUM_QUEUES, QUEUE_NOTIFY_OFF, description, with};
use virtio_spec::pci::CapCfgType;
use xen_eventfd_core::Width;
use xen_eventfd_virtio::FunctionDescription;

#[test]
fn the_device_must_include_any_extra_data_in_cap_len() {
    let driver = Driver::new(&description());
    let lens: Vec<(u64, u64)> = driver
        .capabilities()
        .iter()
        .filter(|cap| cap.id == 9)
        .map(|cap| (cap.kind, cap.len))
        .collect();
    // common, notify with its multiplier, ISR, device, configuration access with its data
    assert_eq!(lens, [(1, 16), (2, 20), (3, 16), (4, 16), (5, 20)]);
}

#[test]
fn no_capability_overlaps_another_or_leaves_the_configuration_space() {
    let driver = Driver::new(&description());
    let mut ends: Vec<(u64, u64)> = driver
        .capabilities()
        .iter()
        .map(|cap| (cap.at.into(), u64::from(cap.at) + if cap.id == 9 { cap.len } else { 12 }))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends.len(), 6);
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ends:?}");
    assert!(ends[0].0 >= 0x40 && ends[5].1 <= 0x100);
    assert!(ends.iter().all(|(at, _)| at % 4 == 0));
}

#[test]
fn the_device_must_present_at_least_one_common_configuration_capability() {
    let cap = Driver::new(&description()).capability(CapCfgType::Common).unwrap();
    assert!(cap.length >= 56);
}

#[test]
fn offset_of_the_common_configuration_must_be_4_byte_aligned() {
    assert_eq!(Driver::new(&description()).capability(CapCfgType::Common).unwrap().offset % 4, 0);
}

#[test]
fn the_device_must_present_at_least_one_isr_capability() {
    let cap = Driver::new(&description()).capability(CapCfgType::Isr).unwrap();
    assert!(cap.length >= 1);
}

#[test]
fn the_device_must_present_at_least_one_configuration_access_capability() {
    assert!(Driver::new(&description()).capability(CapCfgType::Pci).is_some());
}

#[test]
fn the_offset_for_the_device_specific_configuration_must_be_4_byte_aligned() {
    let cap = Driver::new(&description()).capability(CapCfgType::Device).unwrap();
    assert_eq!((cap.offset % 4, cap.length), (0, 12));
    let none = Driver::new(&with(|device| device.config.clear()));
    assert!(none.capability(CapCfgType::Device).is_none());
}

#[test]
fn the_device_must_present_at_least_one_notification_capability_with_an_even_or_no_multiplier() {
    let driver = Driver::new(&description());
    let cap = driver.capability(CapCfgType::Notify).unwrap();
    assert_eq!(driver.config(cap.at + 16, Width::Four), 0);
    // It is in an I/O BAR.
    let bar = BAR_0 + 4 * u16::try_from(cap.bar).unwrap();
    assert_eq!(driver.config(bar, Width::Four) & 1, 1);
}

#[test]
fn cap_offset_of_the_notification_structure_must_be_2_byte_aligned() {
    assert_eq!(Driver::new(&description()).capability(CapCfgType::Notify).unwrap().offset % 2, 0);
}

#[test]
fn cap_length_must_be_at_least_queue_notify_off_times_notify_off_multiplier_plus_2_for_all_queues()
{
    let driver = Driver::awake(&description());
    let cap = driver.capability(CapCfgType::Notify).unwrap();
    let multiplier = driver.config(cap.at + 16, Width::Four);
    assert_eq!(driver.get(NUM_QUEUES, Width::Two), 3);
    for queue in 0..3 {
        let offset = driver.get_queue(queue, QUEUE_NOTIFY_OFF, Width::Two);
        assert!(cap.length >= offset * multiplier + 2);
    }
}

#[test]
fn every_structure_is_within_its_bar() {
    let driver = Driver::new(&with(|device| device.config = vec![0; 0xE00]));
    for cap in driver.capabilities().iter().filter(|cap| cap.id == 9 && cap.kind != 5) {
        let bar = BAR_0 + 4 * u16::try_from(cap.bar).unwrap();
        driver.set_config(bar, Width::Four, 0xFFFF_FFFF);
        let size = !(driver.config(bar, Width::Four) & !0xF & 0xFFFF_FFFF) & 0xFFFF_FFFF;
        assert!(cap.offset + cap.length <= size.max(3) + 1, "{cap:?} {size:#x}");
    }
}

#[test]
fn what_no_function_can_present_is_refused() {
    let refused = |change: fn(&mut FunctionDescription)| {
        let mut description = description();
        change(&mut description);
        description.check().expect_err("a function cannot present this").to_string()
    };
    let all = [
        refused(|of| of.device.device_type = 0),
        refused(|of| of.device.device_type = 64),
        refused(|of| of.device.features &= !(1 << 32)),
        refused(|of| of.device.features |= 1 << 38),
        refused(|of| of.device.features |= 1 << 39),
        refused(|of| of.device.features |= 1 << 41),
        refused(|of| of.device.queue_sizes.clear()),
        refused(|of| of.device.queue_sizes = vec![2; 128]),
        refused(|of| of.device.queue_sizes[1] = 0),
        refused(|of| of.device.queue_sizes[1] = 3),
        refused(|of| of.device.config = vec![0; 0xE01]),
        refused(|of| of.registers = 0x1000),
        refused(|of| of.doorbell = 2),
    ];
    let expected = [
        "device type 0",
        "device type 64",
        "VERSION_1",
        "0x4000000000",
        "0x8000000000",
        "0x20000000000",
        "0 queues",
        "128 queues",
        "of 0 entries",
        "of 3 entries",
        "3585 bytes",
        "0x2000 bytes at 0x1000",
        "0x4 bytes at 0x2",
    ];
    for (error, part) in all.iter().zip(expected) {
        assert!(error.contains(part), "{error}");
    }
    let most = with(|device| device.queue_sizes = vec![0x8000; 127]);
    assert_eq!(most.check(), Ok(()));
}
