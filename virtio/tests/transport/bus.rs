//! The bus: which function an access is for.

use crate::driver::{COMMAND, DOORBELL, MASTER, MEMORY, PORTS, REGISTERS, description, with};
use xen_eventfd_core::{PciFunction, Space, Width};
use xen_eventfd_virtio::{Bar, Bus, Effect, Function, FunctionDescription, Target};

const BRIDGE: PciFunction = PciFunction::from_sbdf(0);
const FIRST: PciFunction = PciFunction::from_sbdf(0x08);
const SECOND: PciFunction = PciFunction::from_sbdf(0x10);
/// Where nothing is.
const NONE: PciFunction = PciFunction::from_sbdf(0x18);

fn config(function: PciFunction, register: u16) -> Target {
    Target::Config { function, register }
}

fn bus() -> Bus {
    let mut bus = Bus::with_host_bridge();
    let second = FunctionDescription {
        registers: REGISTERS + 0x2000,
        doorbell: DOORBELL + 4,
        ..with(|device| device.device_type = 2)
    };
    assert!(bus.insert(FIRST, Function::new(&description()).unwrap()).is_none());
    assert!(bus.insert(SECOND, Function::new(&second).unwrap()).is_none());
    for at in [FIRST, SECOND] {
        bus.write(config(at, COMMAND), Width::Two, PORTS | MEMORY | MASTER);
    }
    bus
}

fn read(bus: &mut Bus, target: Target, width: Width) -> (u64, Option<PciFunction>) {
    let answer = bus.read(target, width, |_, _| false);
    assert_eq!(answer.effects, []);
    (answer.value, answer.function)
}

#[test]
fn the_host_bridge_is_00_00_0_and_of_class_0600() {
    let mut bus = bus();
    assert_eq!(read(&mut bus, config(BRIDGE, 0x0A), Width::Two), (0x0600, None));
    assert_eq!(read(&mut bus, config(BRIDGE, 0x0E), Width::One), (0, None));
    bus.write(config(BRIDGE, 0), Width::Four, 0);
    assert_eq!(read(&mut bus, config(BRIDGE, 0), Width::Four), (0x0008_1B36, None));
    let mut without = Bus::default();
    assert_eq!(read(&mut without, config(BRIDGE, 0), Width::Four), (0xFFFF_FFFF, None));
}

#[test]
fn a_config_access_goes_to_the_function_that_it_names() {
    let mut bus = bus();
    assert_eq!(read(&mut bus, config(FIRST, 2), Width::Two), (0x1041, Some(FIRST)));
    assert_eq!(read(&mut bus, config(SECOND, 0), Width::Four), (0x1042_1AF4, Some(SECOND)));
}

#[test]
fn what_is_on_no_bus_reads_as_all_ones() {
    let mut bus = bus();
    for (target, width) in [
        (config(NONE, 0), Width::Two),
        (config(PciFunction::from_sbdf(0x09), 0), Width::Four),
        (config(PciFunction::from_sbdf(0x1_0008), 0), Width::Four),
        (Target::Address(Space::Mmio, 0x1000), Width::Eight),
        (Target::Address(Space::Pio, 0x80), Width::One),
    ] {
        assert_eq!(read(&mut bus, target, width), (width.mask(), None));
        assert_eq!(bus.write(target, width, 0).function, None);
    }
    // And so do registers that only PCI Express has.
    for register in [0x100, 0xFFF, u16::MAX] {
        assert_eq!(
            read(&mut bus, config(FIRST, register), Width::Four),
            (0xFFFF_FFFF, Some(FIRST))
        );
    }
    assert_eq!(read(&mut bus, config(FIRST, 0xFE), Width::Four), (0xFFFF_0000, Some(FIRST)));
}

#[test]
fn an_address_is_the_function_s_whose_bar_has_it() {
    let mut bus = bus();
    for (at, base) in [(FIRST, REGISTERS), (SECOND, REGISTERS + 0x2000)] {
        let queues = Target::Address(Space::Mmio, u64::from(base) + 0x12);
        assert_eq!(read(&mut bus, queues, Width::Two), (3, Some(at)));
    }
    let answer = bus.write(config(SECOND, COMMAND), Width::Two, PORTS);
    let from = Some(u64::from(REGISTERS) + 0x2000);
    assert_eq!(answer.function, Some(SECOND));
    assert_eq!(answer.effects, [Effect::Moved { bar: Bar::Registers, from, to: None }]);
    let status = Target::Address(Space::Mmio, u64::from(REGISTERS) + 0x14);
    let answer = bus.write(status, Width::One, 1);
    assert_eq!((answer.function, answer.effects), (Some(FIRST), vec![]));
    assert_eq!(read(&mut bus, status, Width::One), (1, Some(FIRST)));
    assert_eq!(bus.write(status, Width::One, 0).effects, [Effect::Reset]);
}

#[test]
fn port_cf8_gives_back_what_was_written_as_linux_checks() {
    let mut bus = bus();
    let port = |port| Target::Address(Space::Pio, port);
    // Linux's check of configuration mechanism 1: a byte to 0xCFB is none of the address.
    bus.write(port(0xCF8), Width::Four, 0x1234_5678);
    bus.write(port(0xCFB), Width::One, 1);
    assert_eq!(read(&mut bus, port(0xCF8), Width::Four), (0x1234_5678, None));
    bus.write(port(0xCF8), Width::Four, 0x8000_0000);
    assert_eq!(read(&mut bus, port(0xCF8), Width::Four), (0x8000_0000, None));
    bus.write(port(0xCF8), Width::Four, 0x8765_4321);
    assert_eq!(read(&mut bus, port(0xCF9), Width::Two), (0x6543, None));
    assert_eq!(read(&mut bus, port(0xCFB), Width::One), (0x87, None));
    // The data ports are Xen's.
    assert_eq!(read(&mut bus, port(0xCFC), Width::Four), (0xFFFF_FFFF, None));
    assert_eq!(read(&mut bus, port(0xCFA), Width::Four), (0xFFFF_FFFF, None));
}

#[test]
fn without_a_host_bridge_port_cf8_is_another_s() {
    let mut bus = Bus::default();
    let port = Target::Address(Space::Pio, 0xCF8);
    bus.write(port, Width::Four, 0x8000_0000);
    assert_eq!(read(&mut bus, port, Width::Four), (0xFFFF_FFFF, None));
}

#[test]
fn what_is_held_is_asked_of_the_function_that_is_read() {
    let mut bus = bus();
    let base = |at: PciFunction| u64::from(REGISTERS) + u64::from(at.sbdf() - FIRST.sbdf()) * 0x400;
    for at in [FIRST, SECOND] {
        let set = |bus: &mut Bus, offset, width, value| {
            bus.write(Target::Address(Space::Mmio, base(at) + offset), width, value);
        };
        bus.write(config(at, 0x42), Width::Two, 0x8000);
        for (offset, width, value) in
            [(8, Width::Four, 1), (0xC, Width::Four, 1), (0x14, Width::One, 11)]
        {
            set(&mut bus, offset, width, value);
        }
        // Queue 0 on the masked vector 3.
        set(&mut bus, 0x1A, Width::Two, 3);
        set(&mut bus, 0x1C, Width::Two, 1);
        set(&mut bus, 0x14, Width::One, 15);
    }
    for held in [FIRST, SECOND] {
        let pending = [FIRST, SECOND].map(|at| {
            let target = Target::Address(Space::Mmio, base(at) + 0x1800);
            bus.read(target, Width::One, |at, queue| (at, queue) == (held, 0)).value
        });
        assert_eq!(pending, [FIRST, SECOND].map(|at| if at == held { 8 } else { 0 }));
    }
    assert_eq!(bus.functions().collect::<Vec<_>>(), [BRIDGE, FIRST, SECOND]);
    assert!(bus.function(FIRST).is_some() && bus.function(NONE).is_none());
}
