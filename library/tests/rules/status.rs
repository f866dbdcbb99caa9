//! InterruptStatus and InterruptACK of a virtio-mmio device.

use crate::bench::{AT, Bench, event, signal, until};
use rustix::io::Errno;
use xen_eventfd::IoEventAddress::Mmio;
use xen_eventfd::{InterruptStatus, Irq, Line, Space, Trigger, Width};
use xen_eventfd_model::{CallKind, Vcpu};

const STATUS: u64 = 0xFE00_0060;
const ACK: u64 = STATUS + 4;
const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
const LINE: Line = Line::Isa(5);
const LEVEL: Irq = Irq::Line(LINE, Trigger::Level);
const USED: u32 = InterruptStatus::USED_BUFFER;
const CONFIG: u32 = InterruptStatus::CONFIG_CHANGE;

fn read(vcpu: &Vcpu) -> u64 {
    vcpu.read(Space::Mmio, STATUS, Width::Four).unwrap()
}

fn acknowledge(vcpu: &Vcpu, bits: u64) {
    vcpu.write(Space::Mmio, ACK, Width::Four, bits).unwrap();
}

#[test]
fn the_bit_is_set_before_the_interrupt_comes_and_goes_with_the_acknowledgement() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    let irqfd = guest.register_irqfd(&call, status.irq(USED)).unwrap();
    for nth in 1..=1_000 {
        signal(&call);
        vcpu.wait_msi(0x41).unwrap();
        assert_eq!(read(&vcpu), 1);
        acknowledge(&vcpu, 1);
        assert_eq!(read(&vcpu), 0);
        until("it is counted", || irqfd.raised() == nth);
    }
    let shown = status.status().unwrap();
    assert_eq!((shown.reads, shown.acks, shown.raised, shown.failed), (2_000, 1_000, 1_000, 0));
    assert_eq!((shown.registers.addr(), shown.irq, shown.odd), (STATUS, MSI, 0));
    let counters = guest.counters();
    assert_eq!((counters.reads, counters.held, counters.odd), (0, 0, 0));
}

#[test]
fn a_change_of_the_configuration_has_its_own_bit() {
    let bench = Bench::new();
    let (guest, vcpu, used, changed) = (bench.attach(), bench.vcpu(0), event(), event());
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    let _used = guest.register_irqfd(&used, status.irq(USED)).unwrap();
    let _changed = guest.register_irqfd(&changed, status.irq(CONFIG)).unwrap();
    signal(&used);
    vcpu.wait_msi(0x41).unwrap();
    // By a call, and by an eventfd. Each is an interrupt of its own, though the driver is in its handler.
    status.set(CONFIG).unwrap();
    vcpu.wait_msi(0x41).unwrap();
    assert_eq!(read(&vcpu), 3);
    acknowledge(&vcpu, 2);
    assert_eq!(read(&vcpu), 1);
    signal(&changed);
    vcpu.wait_msi(0x41).unwrap();
    assert_eq!(read(&vcpu), 3);
    // What is not acknowledged yet is no further interrupt.
    status.set(3).unwrap();
    assert_eq!(status.status().unwrap().raised, 3);
    // The driver resets the device.
    status.clear(u32::MAX).unwrap();
    assert_eq!(read(&vcpu), 0);
}

#[test]
fn a_level_falls_once_no_bit_is_set() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let status = guest.register_interrupt_status(STATUS, LEVEL).unwrap();
    let _call = guest.register_irqfd(&call, status.irq(USED)).unwrap();
    for seen in 0..100 {
        signal(&call);
        assert_eq!(vcpu.wait_edge(LINE, seen).unwrap(), seen + 1);
        status.set(CONFIG).unwrap();
        acknowledge(&vcpu, 1);
        assert!(bench.model.is_up(bench.dom, LINE), "a bit is set");
        acknowledge(&vcpu, 2);
        assert!(!bench.model.is_up(bench.dom, LINE));
    }
    status.set(USED).unwrap();
    assert!(bench.model.is_up(bench.dom, LINE));
    status.clear(USED).unwrap();
    assert!(!bench.model.is_up(bench.dom, LINE));
}

#[test]
fn a_line_does_not_stay_up_behind_its_device() {
    let bench = Bench::new();
    let guest = bench.attach();
    let status = guest.register_interrupt_status(STATUS, LEVEL).unwrap();
    status.set(USED).unwrap();
    drop(status);
    assert!(!bench.model.is_up(bench.dom, LINE));
    let status = guest.register_interrupt_status(STATUS, LEVEL).unwrap();
    assert_eq!(status.status().unwrap().bits, 0, "a new device has no bit set");
    status.set(USED).unwrap();
    guest.close().unwrap();
    assert!(!bench.model.is_up(bench.dom, LINE));
    assert!(status.set(USED).is_err());
    drop((guest, status));
    bench.assert_let_go();
}

#[test]
fn accesses_that_the_specification_does_not_have_change_nothing() {
    let bench = Bench::new();
    let (guest, vcpu) = (bench.attach(), bench.vcpu(0));
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    status.set(0x0201).unwrap();
    for (addr, width, value) in [
        (STATUS, Width::Four, 0x201),
        (STATUS, Width::Eight, 0x201),
        (STATUS + 1, Width::One, 2),
        (STATUS + 2, Width::Two, 0),
        (ACK, Width::Four, 0),
        (ACK + 3, Width::One, 0),
    ] {
        assert_eq!(vcpu.read(Space::Mmio, addr, width).unwrap(), value, "{addr:#x}");
    }
    for (addr, width) in [(STATUS, Width::Four), (ACK, Width::One), (STATUS, Width::Eight)] {
        vcpu.write(Space::Mmio, addr, width, u64::MAX).unwrap();
    }
    let shown = status.status().unwrap();
    assert_eq!((shown.bits, shown.reads, shown.acks, shown.odd), (0x201, 6, 0, 3));
    assert!(guest.held().is_empty(), "a write to registers is no kick");
}

#[test]
fn no_byte_has_two_owners() {
    let bench = Bench::new();
    let (guest, kick) = (bench.attach(), event());
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    let refused = guest.register_ioevent(&kick, &Mmio(ACK), 1_u32).unwrap_err();
    assert_eq!(refused.errno(), Errno::EXIST);
    assert!(
        refused.to_string().contains("InterruptStatus is registered at 0xfe000060"),
        "{refused}"
    );
    for addr in [STATUS, ACK] {
        let refused = guest.register_interrupt_status(addr, MSI).unwrap_err();
        assert_eq!(refused.errno(), Errno::EXIST);
        assert!(refused.to_string().contains("unregister that first"), "{refused}");
    }
    let _second = guest.register_interrupt_status(STATUS + 8, MSI).unwrap();
    let _queue = guest.register_ioevent(&kick, &AT, 1_u32).unwrap();
    let over_it = guest.register_interrupt_status(STATUS - 0x10, MSI).unwrap_err();
    assert!(over_it.to_string().contains("mmio 0xfe000050-0xfe000053"), "{over_it}");
    drop(status);
    let _kick = guest.register_ioevent(&kick, &Mmio(ACK), 1_u32).unwrap();
}

#[test]
fn what_cannot_be_is_refused_with_advice() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let unaligned = guest.register_interrupt_status(STATUS + 2, MSI).unwrap_err();
    assert_eq!(unaligned.errno(), Errno::INVAL);
    assert!(unaligned.to_string().contains("a multiple of 4"), "{unaligned}");
    let of_a_device = Irq::Status { addr: STATUS, bits: 1 };
    let nested = guest.register_interrupt_status(STATUS, of_a_device).unwrap_err();
    assert!(nested.to_string().contains("an event channel, a message or a line"), "{nested}");
    let absent = guest.register_irqfd(&call, of_a_device).unwrap_err();
    assert!(
        absent.to_string().contains("InterruptStatus at 0xfe000060 is not registered"),
        "{absent}"
    );
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    assert_eq!(guest.register_irqfd(&call, status.irq(0)).unwrap_err().errno(), Errno::INVAL);
    assert!(guest.unregister_interrupt_status(STATUS, LEVEL).is_err(), "another interrupt");
    let spi = Irq::Line(Line::Spi(33), Trigger::Level);
    assert_eq!(
        guest.register_interrupt_status(STATUS + 0x100, spi).unwrap_err().errno(),
        Errno::OPNOTSUPP
    );
}

#[test]
fn a_level_triggered_line_has_one_device() {
    let bench = Bench::new();
    let (guest, call, other) = (bench.attach(), event(), event());
    let pulse = Irq::Line(LINE, Trigger::Pulse);
    let status = guest.register_interrupt_status(STATUS, LEVEL).unwrap();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    for line in [LEVEL, pulse] {
        for refused in [
            guest.register_interrupt_status(STATUS + 0x1000, line).map(drop).unwrap_err(),
            guest.register_irqfd(&other, line).map(drop).unwrap_err(),
            irqfd.set_irq(line).unwrap_err(),
        ] {
            assert_eq!(refused.errno(), Errno::BUSY);
            assert!(refused.to_string().contains("a line of its own"), "{refused}");
        }
    }
    drop(status);
    irqfd.set_irq(LEVEL).unwrap();
    let refused = guest.register_interrupt_status(STATUS, pulse).unwrap_err();
    assert_eq!(refused.errno(), Errno::BUSY);
    irqfd.set_irq(pulse).unwrap();
    let _status = guest.register_interrupt_status(STATUS, pulse).unwrap();
    let _shared = guest.register_interrupt_status(STATUS + 0x1000, pulse).unwrap();
    assert!(guest.register_irqfd(&other, LEVEL).is_err());
}

#[test]
fn a_line_that_xen_does_not_lower_falls_at_the_drivers_next_access() {
    let bench = Bench::new();
    let (guest, vcpu) = (bench.attach(), bench.vcpu(0));
    let status = guest.register_interrupt_status(STATUS, LEVEL).unwrap();
    status.set(USED).unwrap();
    bench.backend.fail(CallKind::SetLine, 1, Errno::IO);
    acknowledge(&vcpu, 1);
    assert!(bench.model.is_up(bench.dom, LINE));
    assert_eq!(read(&vcpu), 0);
    assert!(!bench.model.is_up(bench.dom, LINE));
}

#[test]
fn an_interrupt_that_xen_refuses_is_tried_again_and_its_bit_stays() {
    let bench = Bench::new();
    let (guest, vcpu) = (bench.attach(), bench.vcpu(0));
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    bench.backend.fail(CallKind::InjectMsi, 1, Errno::IO);
    assert_eq!(status.set(USED).unwrap_err().errno(), Errno::IO);
    assert_eq!(read(&vcpu), 1);
    status.set(USED).unwrap();
    vcpu.wait_msi(0x41).unwrap();
    let shown = status.status().unwrap();
    assert_eq!((shown.raised, shown.failed), (1, 1));
}

#[test]
fn the_end_of_the_registers_ends_the_irqfds_and_returns_the_bits() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    for signals in 0..50_u64 {
        let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
        let irqfd = guest.register_irqfd(&call, status.irq(USED)).unwrap();
        status.keep();
        (0..signals % 2).for_each(|_| signal(&call));
        // What was signalled before is raised, though the thread may not have come by.
        let bits = guest.unregister_interrupt_status(STATUS, MSI).unwrap();
        assert_eq!(u64::from(bits), signals % 2);
        (0..signals % 2).for_each(|_| vcpu.wait_msi(0x41).unwrap());
        let raised = irqfd.raised();
        assert!(irqfd.mask().is_err(), "the irqfd has ended");
        signal(&call);
        assert_eq!(irqfd.raised(), raised, "raised after the end");
        crate::bench::count(&call);
    }
    assert!(guest.registered().is_empty());
}

#[test]
fn an_irqfd_moves_to_a_device_and_back() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let other = Irq::Msi { addr: 0xFEE0_0000, data: 0x42 };
    let irqfd = guest.register_irqfd(&call, other).unwrap();
    let status = guest.register_interrupt_status(STATUS, MSI).unwrap();
    irqfd.set_irq(status.irq(USED)).unwrap();
    signal(&call);
    vcpu.wait_msi(0x41).unwrap();
    assert_eq!(read(&vcpu), 1);
    irqfd.mask().unwrap();
    signal(&call);
    acknowledge(&vcpu, 1);
    assert!(irqfd.is_pending().unwrap());
    assert_eq!(read(&vcpu), 0, "no bit is set while it is masked");
    irqfd.unmask().unwrap();
    vcpu.wait_msi(0x41).unwrap();
    assert_eq!(read(&vcpu), 1);
    irqfd.set_irq(other).unwrap();
    drop(status);
    signal(&call);
    vcpu.wait_msi(0x42).unwrap();
}

#[test]
fn two_devices_have_their_own_status() {
    let bench = Bench::new();
    let (guest, vcpu) = (bench.attach(), bench.vcpu(0));
    let far = STATUS + 0x1000;
    let one = guest.register_interrupt_status(STATUS, MSI).unwrap();
    let two = guest.register_interrupt_status(far, MSI).unwrap();
    one.set(USED).unwrap();
    vcpu.wait_msi(0x41).unwrap();
    two.set(CONFIG).unwrap();
    vcpu.wait_msi(0x41).unwrap();
    assert_eq!((read(&vcpu), vcpu.read(Space::Mmio, far, Width::Four).unwrap()), (1, 2));
    vcpu.write(Space::Mmio, far + 4, Width::Four, 3).unwrap();
    assert_eq!((one.status().unwrap().bits, two.status().unwrap().bits), (1, 0));
}
