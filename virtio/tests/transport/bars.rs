//! BARs as PCI has them: sized, moved, disabled.

use crate::driver::{
    BAR_0, BAR_1, COMMAND, DOORBELL, Driver, MEMORY, PORTS, REGISTERS, description,
};
use virtio_spec::pci::CapCfgType;
use xen_eventfd_core::{Access, Kick, Space, Width};
use xen_eventfd_virtio::{Bar, FunctionDescription};

const PRESET: Option<u64> = Some(REGISTERS as u64);
const PRESET_PORT: Option<u64> = Some(DOORBELL as u64);

#[test]
fn a_bar_tells_its_size_and_kind() {
    let driver = Driver::new(&description());
    for (bar, preset, sized) in [
        (BAR_0, u64::from(REGISTERS), 0xFFFF_E000),
        (BAR_1, u64::from(DOORBELL) | 1, 0xFFFF_FFFD),
        (0x18, 0, 0),
        (0x24, 0, 0),
        (0x30, 0, 0),
    ] {
        assert_eq!(driver.config(bar, Width::Four), preset);
        driver.set_config(bar, Width::Four, 0xFFFF_FFFF);
        assert_eq!(driver.config(bar, Width::Four), sized);
    }
}

#[test]
fn nothing_is_decoded_before_the_command_register_says_so() {
    let driver = Driver::new(&description());
    assert_eq!(driver.function.borrow().address(Bar::Registers), None);
    driver.set_config(COMMAND, Width::Two, MEMORY);
    driver.set_config(COMMAND, Width::Two, PORTS);
    let expected = [
        Driver::moved(Bar::Registers, None, PRESET),
        Driver::moved(Bar::Registers, PRESET, None),
        Driver::moved(Bar::Doorbell, None, PRESET_PORT),
    ];
    assert_eq!(driver.effects(), expected);
    let access = Access { space: Space::Mmio, addr: REGISTERS.into(), width: Width::Four };
    assert_eq!(driver.function.borrow_mut().read(access, |_| false), None);
}

#[test]
fn a_bar_moves_and_what_it_leads_to_moves_along() {
    let driver = Driver::awake(&description());
    driver.set_config(BAR_0, Width::Four, 0xF100_1FFF);
    driver.set_config(BAR_1, Width::Four, 0xD007);
    let expected = [
        Driver::moved(Bar::Registers, PRESET, Some(0xF100_0000)),
        Driver::moved(Bar::Doorbell, PRESET_PORT, Some(0xD004)),
    ];
    assert_eq!(driver.effects(), expected);
    assert_eq!(driver.structure(CapCfgType::Common), 0xF100_0000);
    driver.set_status(1);
    assert_eq!(driver.status(), 1);
}

#[test]
fn a_bar_at_no_address_is_not_decoded() {
    let driver = Driver::awake(&description());
    driver.set_config(BAR_0, Width::Four, 0xFFFF_FFFF);
    driver.set_config(BAR_0, Width::Four, 0);
    driver.set_config(BAR_0, Width::Four, REGISTERS.into());
    driver.set_config(BAR_1, Width::Four, 0x1_0000);
    driver.set_config(BAR_1, Width::Four, 0xFFFC);
    driver.set_config(BAR_1, Width::Four, 0xFFF8);
    let expected = [
        Driver::moved(Bar::Registers, PRESET, None),
        Driver::moved(Bar::Registers, None, PRESET),
        Driver::moved(Bar::Doorbell, PRESET_PORT, None),
        Driver::moved(Bar::Doorbell, None, Some(0xFFF8)),
    ];
    assert_eq!(driver.effects(), expected);
}

#[test]
fn a_device_without_addresses_waits_for_the_guest_s() {
    let driver = Driver::awake(&FunctionDescription { registers: 0, doorbell: 0, ..description() });
    driver.set_config(BAR_0, Width::Four, 0xE000_2000);
    assert_eq!(driver.effects(), [Driver::moved(Bar::Registers, None, Some(0xE000_2000))]);
}

#[test]
fn a_bar_is_written_in_parts() {
    let driver = Driver::awake(&description());
    driver.set_config(BAR_0 + 3, Width::One, 0xE1);
    driver.set_config(BAR_0 + 1, Width::Two, 0x0143);
    let expected = [
        Driver::moved(Bar::Registers, PRESET, Some(0xE100_0000)),
        Driver::moved(Bar::Registers, Some(0xE100_0000), Some(0xE101_4000)),
    ];
    assert_eq!(driver.effects(), expected);
}

#[test]
fn an_access_that_is_not_all_within_a_bar_is_not_the_function_s() {
    let driver = Driver::awake(&description());
    for (space, addr, width) in [
        (Space::Mmio, u64::from(REGISTERS) - 1, Width::Two),
        (Space::Mmio, u64::from(REGISTERS) + 0x1FFD, Width::Four),
        (Space::Mmio, u64::MAX, Width::One),
        (Space::Mmio, u64::from(REGISTERS) + (1 << 32), Width::Four),
        (Space::Pio, u64::from(DOORBELL) + 3, Width::Two),
        (Space::Pio, u64::from(REGISTERS), Width::Four),
        (Space::Mmio, DOORBELL.into(), Width::Four),
    ] {
        let mut function = driver.function.borrow_mut();
        assert_eq!(function.read(Access { space, addr, width }, |_| false), None);
        assert_eq!(function.write(Kick::new(space, addr, width, 0)), None);
    }
}

#[test]
fn odd_accesses_to_registers_are_answered_without_harm() {
    let driver = Driver::running();
    let base = driver.structure(CapCfgType::Common);
    let status = driver.status();
    for (offset, width) in [
        (0x14, Width::Two),
        (0x14, Width::Four),
        (0x15, Width::One),
        (0x1B, Width::Two),
        (0x3C, Width::Four),
        (0x38, Width::Eight),
        (0x39, Width::Eight),
        (0x100, Width::One),
        (0xFC, Width::Eight),
        (0x1800, Width::Four),
        (0x1FF8, Width::Eight),
    ] {
        driver.write(Space::Mmio, base + offset, width, 0);
    }
    assert_eq!((driver.effects(), driver.status()), (vec![], status));
    // Fields are read across.
    assert_eq!(driver.read(Space::Mmio, base + 0x12, Width::Four), status << 16 | 3);
    assert_eq!(driver.read(Space::Mmio, base + 0x1F00, Width::Eight), 0);
}
