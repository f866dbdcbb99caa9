//! Drivers that do what none should to a device on PCI (`demo/driver/odd.rs`). After each, another one finds a device that starts and works.

use super::*;
use crate::demo::driver::odd::{CASES, Odd};
use crate::demo::driver::{Cpu, Random};
use std::fmt::Write;

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

#[test]
fn after_an_odd_driver_another_one_has_a_device_that_works() {
    let bench = Bench::running();
    let cpu = Cpu::new(&bench.vcpu);
    let mut answers = String::new();
    for (name, case) in CASES {
        let mut odd = Odd::new(&cpu);
        odd.start();
        case(&mut odd);
        writeln!(answers, "{name}: {}", odd.answers).unwrap();
        works(&bench, &mut odd, name);
    }
    for (answer, expected) in answers.lines().zip(ANSWERS.lines()) {
        assert_eq!(answer, expected);
    }
    assert_eq!(answers, ANSWERS);
}

#[test]
fn a_backend_that_calls_all_the_time_changes_no_answer_to_an_odd_driver() {
    let bench = Bench::running();
    let cpu = Cpu::new(&bench.vcpu);
    for ((name, case), expected) in CASES.into_iter().zip(ANSWERS.lines()) {
        let mut odd = Odd::new(&cpu);
        odd.start();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    bench.call();
                    std::thread::yield_now();
                }
            });
            case(&mut odd);
            stop.store(true, Ordering::Release);
        });
        assert_eq!(format!("{name}: {}", odd.answers), expected);
        works(&bench, &mut odd, name);
    }
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
