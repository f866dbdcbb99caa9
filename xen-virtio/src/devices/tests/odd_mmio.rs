//! Drivers that do what none should to a device on virtio-mmio (`demo/driver/odd_mmio.rs`). After each, another one finds a
//! device that starts and works.

use super::mmio::Driver;
use super::odd_drivers::{answer, while_it_calls};
use super::*;
use crate::demo::driver::odd_mmio::{CASES, Odd, REGISTERS, SPI};
use crate::demo::driver::{Cpu, Random};
use crate::layout::MmioPlace;
use virtio_bindings::virtio_mmio;

/// What the device answers, a line for each case. The bare-metal test guest has the same answers on real Xen.
const ANSWERS: &str = include_str!("answers_mmio.txt");

/// The device where libxl puts a guest's first one.
fn driver() -> Driver {
    Driver::at(MmioPlace { base: REGISTERS, spi: SPI })
}

/// Another driver starts the device, it takes a kick, and its calls reach the guest.
fn works(driver: &Driver, odd: &mut Odd<'_>, after: &str) {
    odd.restore();
    driver.0.calls();
    driver.start();
    assert_eq!(driver.get(virtio_mmio::VIRTIO_MMIO_STATUS), 15, "{after}");
    assert_eq!(driver.0.calls(), [Call::Accept(VERSION_1), started()], "{after}");
    driver.set(virtio_mmio::VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    assert_eq!(driver.0.kicks(), 1, "{after}");
    let before = driver.edges();
    driver.0.call();
    driver.0.until("the call has come", || driver.edges() > before);
    assert_eq!(driver.interrupt() & 1, 1, "{after}");
}

/// A driver that runs.
fn started_on(cpu: &Cpu) -> Odd<'_> {
    let mut odd = Odd::new(cpu);
    odd.start();
    odd
}

#[test]
fn after_an_odd_driver_another_one_has_a_device_that_works() {
    let driver = driver();
    let cpu = Cpu::new(&driver.0.vcpu);
    answer(
        CASES,
        || started_on(&cpu),
        |odd, case| {
            case(odd);
            assert!(cpu.check().is_ok());
        },
        |odd| odd.answers.to_string(),
        |odd, after| works(&driver, odd, after),
        ANSWERS,
    );
}

#[test]
fn a_backend_that_calls_all_the_time_changes_no_answer_to_an_odd_driver() {
    let driver = driver();
    let cpu = Cpu::new(&driver.0.vcpu);
    answer(
        CASES,
        || started_on(&cpu),
        |odd, case| while_it_calls(&driver.0, || case(odd)),
        |odd| odd.answers.to_string(),
        |odd, after| works(&driver, odd, after),
        ANSWERS,
    );
}

#[test]
fn after_accesses_of_any_kind_a_device_works() {
    let driver = driver();
    let cpu = Cpu::new(&driver.0.vcpu);
    let mut odd = Odd::new(&cpu);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..20 {
        odd.accesses(&mut random, 200);
        assert!(cpu.check().is_ok(), "round {round}");
        works(&driver, &mut odd, &format!("round {round}"));
    }
}
