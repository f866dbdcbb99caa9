//! Interrupts other than event channels (`xen/arch/x86/hvm/{irq,vmsi}.c`).

use crate::bench::{Bench, errno};
use xen_eventfd_core::VcpuId;
use xen_eventfd_core::irq::Line;
use xen_eventfd_host::{Errno, Host};
use xen_eventfd_model::{Config, Stopped};

const APIC: u64 = 0xFEE0_0000;
const ALL_APICS: u64 = 0xFEEF_F000;

#[test]
fn two_msis_before_the_first_is_taken_are_merged() {
    let bench = Bench::new();
    let wait = bench.vcpu(0).run(|vcpu| vcpu.wait_msi(0x41));
    bench.host.inject_msi(bench.dom, APIC, 0x41).unwrap();
    wait.join().unwrap();
    bench.host.inject_msi(bench.dom, APIC, 0x41).unwrap();
    bench.host.inject_msi(bench.dom, ALL_APICS, 0x41).unwrap();
    assert_eq!(bench.vcpu(0).try_take_msi(0x41), Ok(true));
    assert_eq!(bench.vcpu(0).try_take_msi(0x41), Ok(false));
    assert_eq!(bench.model.msis(bench.dom, 0x41), 3);
}

#[test]
fn an_msi_to_a_missing_apic_is_dropped_and_refused_with_lowest_priority() {
    let bench = Bench::new();
    let (second, third) = (APIC | 2 << 12, APIC | 4 << 12);
    bench.host.inject_msi(bench.dom, second, 0x41).unwrap();
    bench.host.inject_msi(bench.dom, third, 0x41).unwrap();
    assert_eq!(bench.model.msis(bench.dom, 0x41), 1);
    assert_eq!(errno(bench.host.inject_msi(bench.dom, third, 0x141)), Errno::SRCH);
    assert_eq!(errno(bench.host.inject_msi(bench.dom, APIC, 0x241)), Errno::INVAL);
    assert_eq!(errno(bench.host.inject_msi(bench.dom, APIC, 0)), Errno::RANGE);
}

#[test]
fn raising_a_line_that_is_up_does_nothing() {
    let bench = Bench::new();
    for line in [Line::Isa(5), Line::PciIntx { device: 3, pin: 0 }] {
        let set = |up| bench.host.set_line(bench.dom, line, up).unwrap();
        let wait = bench.vcpu(0).run(move |vcpu| vcpu.wait_edge(line, 0));
        [true, true].into_iter().for_each(set);
        assert_eq!(wait.join(), Ok(1));
        assert!(bench.model.is_up(bench.dom, line));
        [false, false, true].into_iter().for_each(set);
        assert_eq!(bench.model.edges(bench.dom, line), 2);
    }
}

#[test]
fn isa_lines_are_edge_triggered_and_pci_lines_level_triggered() {
    let bench = Bench::new();
    let (isa, pci) = (Line::Isa(5), Line::PciIntx { device: 3, pin: 0 });
    let take = |line| bench.vcpu(0).try_take_line(line).unwrap();
    let wait = bench.vcpu(0).run(move |vcpu| vcpu.wait_line(isa).and(vcpu.wait_line(pci)));
    [isa, pci].iter().for_each(|line| bench.host.set_line(bench.dom, *line, true).unwrap());
    wait.join().unwrap();
    assert!(!take(isa) && take(pci) && take(pci));
    [isa, pci].iter().for_each(|line| bench.host.set_line(bench.dom, *line, false).unwrap());
    // The interrupt that arrived before the line went down is still pending.
    assert!(!take(isa) && take(pci) && !take(pci));
    assert!(!take(Line::Isa(6)) && !take(Line::Spi(33)));
}

#[test]
fn setting_a_line_of_a_pvh_guest_crashes_the_host() {
    let bench = Bench::new();
    let pvh = bench.model.domain(Config::new("pvh"));
    assert_eq!(bench.host.has_lines(pvh), Ok(false));
    assert_eq!(bench.host.has_lines(bench.dom), Ok(true));
    assert!(bench.host.set_line(pvh, Line::Isa(5), false).is_err());
    assert!(bench.model.host_crashed().is_some());
}

#[test]
fn missing_lines_are_refused() {
    let bench = Bench::new();
    let set = |line| errno(bench.host.set_line(bench.dom, line, true));
    assert_eq!(set(Line::Isa(16)), Errno::INVAL);
    assert_eq!(set(Line::PciIntx { device: 32, pin: 0 }), Errno::INVAL);
    assert_eq!(set(Line::PciIntx { device: 0, pin: 4 }), Errno::INVAL);
    assert_eq!(set(Line::Spi(33)), Errno::OPNOTSUPP, "x86 has none");
}

#[test]
fn a_wait_for_an_interrupt_ends_with_the_guest() {
    let bench = Bench::new();
    let wait = bench.model.vcpu(bench.dom, VcpuId(1)).run(|vcpu| vcpu.wait_msi(0x41));
    bench.model.until("it waits", |model| model.describe().contains("MSI of vector 0x41"));
    bench.model.destroy(bench.dom);
    assert_eq!(wait.join(), Err(Stopped::Destroyed));
}
