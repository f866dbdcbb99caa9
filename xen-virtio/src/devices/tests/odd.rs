//! Drivers that do what none should to a device on PCI (`demo/driver/odd.rs`). After each, another one finds a device that starts and works.

use super::odd_drivers::{answer, while_it_calls};
use super::*;
use crate::demo::driver::odd::{CASES, Odd};
use crate::demo::driver::{Cpu, Random};

/// What the device answers, a line for each case. The bare-metal test guest has the same answers on real Xen.
const ANSWERS: &str = include_str!("answers.txt");

/// Another driver starts the device, it takes a kick, and its calls reach the guest.
fn works(bench: &Bench, odd: &mut Odd<'_>, after: &str) {
    odd.restore();
    bench.calls();
    bench.start();
    assert_eq!(bench.status(), 15, "{after}");
    assert_eq!(bench.calls(), [Call::Accept(VERSION_1), started()], "{after}");
    bench.kick(DOORBELL);
    assert_eq!(bench.kicks(), 1, "{after}");
    bench.call();
    bench.wait(QUEUE);
}

/// A driver that runs.
fn started_on(cpu: &Cpu) -> Odd<'_> {
    let mut odd = Odd::new(cpu);
    odd.start();
    odd
}

#[test]
fn after_an_odd_driver_another_one_has_a_device_that_works() {
    let bench = Bench::running();
    let cpu = Cpu::new(&bench.vcpu);
    answer(
        CASES,
        || started_on(&cpu),
        |odd, case| case(odd),
        |odd| odd.answers.to_string(),
        |odd, after| works(&bench, odd, after),
        ANSWERS,
    );
}

#[test]
fn a_backend_that_calls_all_the_time_changes_no_answer_to_an_odd_driver() {
    let bench = Bench::running();
    let cpu = Cpu::new(&bench.vcpu);
    answer(
        CASES,
        || started_on(&cpu),
        |odd, case| while_it_calls(&bench, || case(odd)),
        |odd| odd.answers.to_string(),
        |odd, after| works(&bench, odd, after),
        ANSWERS,
    );
}

#[test]
fn after_accesses_of_any_kind_a_device_works() {
    let bench = Bench::running();
    let cpu = Cpu::new(&bench.vcpu);
    let mut odd = Odd::new(&cpu);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..20 {
        odd.accesses(&mut random, 200);
        works(&bench, &mut odd, &format!("round {round}"));
    }
}
