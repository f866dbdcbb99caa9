//! An interrupt that changes, and one that is masked: what an MSI-X table needs.

use crate::bench::{Bench, Frost, count, event, signal, until, until_readable};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use xen_eventfd::{Error, Irq, Line, Port, Trigger};
use xen_eventfd_model::CallKind;

const fn msi(data: u32) -> Irq {
    Irq::Msi { addr: 0xFEE0_0000, data }
}

const LEVEL: Irq = Irq::Line(Line::Isa(5), Trigger::Level);

#[test]
fn an_interrupt_that_changes_is_the_new_one_from_then_on() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
    for data in 0x42..0x60 {
        irqfd.set_irq(msi(data)).unwrap();
        signal(&call);
        vcpu.wait_msi(u8::try_from(data).unwrap()).unwrap();
        assert_eq!(bench.model.msis(bench.dom, u8::try_from(data).unwrap()), 1);
    }
    until("all are counted", || irqfd.raised() == 0x1E);
    assert_eq!(bench.model.msis(bench.dom, 0x41), 0);
    // It is known by what it is, not by what it was.
    assert_eq!(guest.unregister_irqfd(&call, msi(0x41)).unwrap_err().errno(), Errno::NOENT);
    guest.unregister_irqfd(&call, msi(0x5F)).unwrap();
}

/// From a kind to each other, with what it holds: an event channel its port, a level its line.
#[test]
fn an_interrupt_that_changes_leaves_nothing_behind() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let ports = [vcpu.alloc_unbound().unwrap(), vcpu.alloc_unbound().unwrap()];
    let bound = |port| bench.backend.leftovers().ports.contains(&(bench.dom, port));
    let irqfd = guest.register_irqfd(&call, Irq::EventChannel(ports[0])).unwrap();
    irqfd.set_irq(Irq::EventChannel(ports[1])).unwrap();
    assert_eq!(ports.map(bound), [false, true]);
    irqfd.set_irq(Irq::EventChannel(ports[1])).unwrap();
    assert_eq!(ports.map(bound), [false, true], "to itself");
    signal(&call);
    vcpu.wait(ports[1]).unwrap();
    irqfd.set_irq(LEVEL).unwrap();
    assert_eq!(ports.map(bound), [false, false]);
    signal(&call);
    until("the line is up", || bench.model.is_up(bench.dom, Line::Isa(5)));
    irqfd.set_irq(LEVEL).unwrap();
    assert!(bench.model.is_up(bench.dom, Line::Isa(5)), "it is there to lower it");
    irqfd.set_irq(msi(0x41)).unwrap();
    assert!(!bench.model.is_up(bench.dom, Line::Isa(5)), "nothing is left to lower it");
    drop(irqfd);
    guest.close().unwrap();
    bench.assert_let_go();
}

#[test]
fn a_change_that_is_refused_changes_nothing() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let port = vcpu.alloc_unbound().unwrap();
    let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
    let refused = |irq| irqfd.set_irq(irq).unwrap_err();
    assert!(matches!(refused(Irq::EventChannel(Port(0))), Error::InvalidIrq(_)));
    assert!(matches!(refused(Irq::Msi { addr: 0, data: 0x41 }), Error::InvalidIrq(_)));
    assert!(matches!(refused(Irq::EventChannel(Port(port.0 + 9))), Error::Host(_)));
    bench.backend.fail(CallKind::Bind, 1, Errno::NOSPC);
    assert_eq!(refused(Irq::EventChannel(port)).errno(), Errno::NOSPC);
    signal(&call);
    vcpu.wait_msi(0x41).unwrap();
    guest.unregister_irqfd(&call, msi(0x41)).unwrap();
    // What stands for a registration that has ended changes nothing either.
    assert!(matches!(refused(msi(0x42)), Error::NotRegistered { .. }));
    assert!(matches!(refused(Irq::EventChannel(port)), Error::NotRegistered { .. }));
    assert!(!bench.backend.leftovers().ports.contains(&(bench.dom, port)));
}

#[test]
fn what_comes_while_it_is_masked_is_pending_and_raised_once() {
    for flags in [EventfdFlags::empty(), EventfdFlags::SEMAPHORE] {
        let bench = Bench::new();
        let (guest, call) = (bench.attach(), eventfd(0, EventfdFlags::CLOEXEC | flags).unwrap());
        let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
        irqfd.unmask().unwrap();
        irqfd.mask().unwrap();
        assert!(!irqfd.is_pending().unwrap());
        for _ in 0..3 {
            signal(&call);
            assert!(irqfd.is_pending().unwrap(), "the guest may ask right after the signal");
        }
        irqfd.mask().unwrap();
        assert!(irqfd.is_pending().unwrap(), "to mask it again forgets nothing");
        // As a guest does with a vector: mask, change, unmask.
        irqfd.set_irq(msi(0x42)).unwrap();
        assert_eq!(irqfd.raised(), 0);
        irqfd.unmask().unwrap();
        assert!(!irqfd.is_pending().unwrap());
        irqfd.unmask().unwrap();
        assert_eq!((irqfd.raised(), irqfd.failed()), (1, 0));
        let raised = [0x41, 0x42].map(|vector| bench.model.msis(bench.dom, vector));
        assert_eq!(raised, [0, 1]);
    }
}

/// The rest of a write to a semaphore is no signal.
#[test]
fn a_semaphore_that_is_masked_is_pending_for_writes_alone() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), eventfd(9, EventfdFlags::SEMAPHORE).unwrap());
    let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
    irqfd.mask().unwrap();
    assert_eq!((irqfd.raised(), irqfd.is_pending().unwrap()), (1, false));
    signal(&call);
    assert!(irqfd.is_pending().unwrap());
}

#[test]
fn what_is_pending_at_the_end_goes_to_who_registers_next() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    for asked in [false, true] {
        let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
        irqfd.mask().unwrap();
        signal(&call);
        assert!(!asked || irqfd.is_pending().unwrap());
        drop(irqfd);
        let msis = bench.model.msis(bench.dom, 0x42);
        let irqfd = guest.register_irqfd(&call, msi(0x42)).unwrap();
        until("it is raised", || irqfd.raised() == 1);
        assert_eq!(bench.model.msis(bench.dom, 0x42), msis + 1);
    }
    assert_eq!((bench.model.msis(bench.dom, 0x41), count(&call)), (0, 0));
}

#[test]
fn what_the_host_refuses_at_unmask_is_counted() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
    irqfd.mask().unwrap();
    signal(&call);
    assert!(irqfd.is_pending().unwrap());
    bench.backend.fail(CallKind::InjectMsi, 1, Errno::SRCH);
    irqfd.unmask().unwrap();
    assert_eq!((irqfd.raised(), irqfd.failed()), (0, 1));
}

/// One thread signals, another moves the interrupt and masks it meanwhile.
#[test]
fn a_vector_that_moves_under_load_loses_nothing_and_raises_nothing_stale() {
    const SIGNALS: u64 = 2_000;
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
    let msis = |vector| bench.model.msis(bench.dom, vector);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 1..=SIGNALS {
                signal(&call);
                // Each is raised, by the one or the other, before the next one comes.
                until("it is raised", || irqfd.raised() == nth);
            }
            done.store(true, SeqCst);
        });
        let mut turns = [0x41_u8, 0x42];
        while !done.load(SeqCst) {
            let [old, new] = turns;
            irqfd.mask().unwrap();
            let raised = irqfd.raised();
            irqfd.set_irq(msi(new.into())).unwrap();
            let stale = msis(old);
            assert_eq!(irqfd.raised(), raised, "raised while it was masked");
            irqfd.unmask().unwrap();
            assert_eq!(msis(old), stale, "raised by what it was");
            turns = [new, old];
        }
    });
    assert_eq!(msis(0x41) + msis(0x42), SIGNALS);
    assert!(!irqfd.is_pending().unwrap());
}

/// The engine need not have come by: what was signalled before a mask is not lost by it.
#[test]
fn a_signal_just_before_a_mask_is_raised_or_pending() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let irqfd = guest.register_irqfd(&call, msi(0x41)).unwrap();
    for nth in 1..=100 {
        signal(&call);
        irqfd.mask().unwrap();
        let raised = irqfd.raised();
        assert_eq!(raised + u64::from(irqfd.is_pending().unwrap()), nth);
        irqfd.unmask().unwrap();
        assert_eq!(irqfd.raised(), nth);
    }
}

#[test]
fn a_channel_is_taken_back_by_what_it_was() {
    let bench = Bench::new();
    let (guest, vcpu, rung) = (bench.attach(), bench.vcpu(0), event());
    let port = vcpu.alloc_unbound().unwrap();
    let stale = guest.register_channel(&rung, port).unwrap();
    until_readable(&rung, "Xen rings a channel that is newly bound");
    let unregister = |fd, port| guest.unregister_channel(fd, port).unwrap_err();
    let other = event();
    for error in [unregister(&other, port), unregister(&rung, Port(port.0 + 1))] {
        assert_eq!(error.errno(), Errno::NOENT);
        assert!(!error.to_string().contains("0x0"), "{error}");
    }
    guest.unregister_channel(&rung.try_clone().unwrap(), port).unwrap();
    assert!(!bench.backend.leftovers().ports.contains(&(bench.dom, port)));
    count(&rung);
    let _again = guest.register_channel(&other, port).unwrap();
    drop(stale);
    // Where the thread for kicks stops, it is through with what came before.
    drop(Frost::new(&bench, &bench.backend, &guest));
    count(&other);
    vcpu.send(port).unwrap();
    until_readable(&other, "what is registered now is not ended by what was");
}

#[test]
fn an_error_names_an_address_only_where_there_is_one() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let error = guest.unregister_irqfd(&call, msi(0x41)).unwrap_err().to_string();
    assert!(error.contains("0xfee00000") && error.contains("0x41"), "{error}");
    let error = guest.unregister_all(&call, None).unwrap_err();
    assert!(!error.to_string().contains("0x"), "{error}");
    assert_eq!(error.errno(), Errno::NOENT);
}
