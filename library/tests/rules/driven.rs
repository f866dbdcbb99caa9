//! An engine on its caller's event loop, and what an engine's own threads do first.

use crate::bench::{AT, Bench, count, event, is_readable, kick, signal, until, until_readable};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use xen_eventfd::{Driver, Error, Guest, Irq, Result, Xen};
use xen_eventfd_model::{CallKind, Verdict};

const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };

/// An engine that has turns when the test gives it some.
fn driven(bench: &Bench) -> (Xen, Driver, Guest) {
    let builder = Xen::builder().without_threads().run_dir(bench.run_dir.path());
    let xen = builder.open_on(Arc::clone(&bench.backend) as Arc<_>).unwrap();
    let (driver, guest) = (xen.driver().unwrap(), xen.guest(bench.dom).unwrap());
    (xen, driver, guest)
}

/// Gives a turn as soon as there is something to do.
fn turn(driver: &mut Driver) -> Result<xen_eventfd::Turn> {
    until_readable(&*driver, "there is something to do");
    driver.process()
}

/// Gives turns until nothing is to be done.
fn settle(driver: &mut Driver) {
    while is_readable(&*driver) {
        driver.process().unwrap();
    }
}

#[test]
fn the_callers_turns_deliver_kicks_interrupts_and_channels_and_no_thread_does() {
    let bench = Bench::new();
    let threads = Arc::new(Mutex::new(HashSet::new()));
    bench.backend.on_call(Box::new({
        let threads = Arc::clone(&threads);
        move |_| {
            threads.lock().unwrap().insert(std::thread::current().id());
            Verdict::Proceed
        }
    }));
    let (_xen, mut driver, guest) = driven(&bench);
    let (queue, call, rung) = (event(), event(), event());
    let _queue = guest.register_ioevent(&queue, &AT, 3_u32).unwrap();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let _channel = guest.register_channel(&rung, port).unwrap();
    settle(&mut driver);
    count(&rung);
    for _ in 0..10 {
        let kicks = bench.vcpu(0).run(|vcpu| kick(vcpu, 3));
        assert_eq!(turn(&mut driver).unwrap().events, 1);
        assert_eq!((kicks.join(), count(&queue)), (Ok(()), 1));
        signal(&call);
        assert_eq!(turn(&mut driver).unwrap().interrupts, 1);
        bench.vcpu(0).wait_msi(0x41).unwrap();
        bench.vcpu(0).send(port).unwrap();
        turn(&mut driver).unwrap();
        assert_eq!(count(&rung), 1);
    }
    assert_eq!((guest.counters().delivered, irqfd.raised()), (10, 10));
    let ours = HashSet::from([std::thread::current().id()]);
    assert_eq!(*threads.lock().unwrap(), ours, "nothing but this thread asked the host");
}

#[test]
fn a_turn_waits_for_nothing() {
    let bench = Bench::new();
    let (_xen, mut driver, guest) = driven(&bench);
    settle(&mut driver);
    let idle = driver.process().unwrap();
    assert_eq!((idle.events, idle.interrupts), (0, 0));
    // A blocking eventfd that its backend leaves full, and one that another reader empties first.
    let full = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let _queue = guest.register_ioevent(&full, &AT, 3_u32).unwrap();
    let kicks = bench.vcpu(0).run(|vcpu| kick(vcpu, 3));
    turn(&mut driver).unwrap();
    assert_eq!(kicks.join(), Ok(()));
}

#[test]
fn a_vcpu_has_one_request_in_a_turn() {
    let bench = Bench::new();
    let (_xen, mut driver, guest) = driven(&bench);
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 3_u32).unwrap();
    settle(&mut driver);
    let floods =
        [0, 1].map(|id| bench.vcpu(id).run(|vcpu| (0..50).try_for_each(|_| kick(vcpu, 3))));
    let mut turns = 0;
    while guest.counters().delivered < 100 {
        assert!(turn(&mut driver).unwrap().events <= 2, "one of each vCPU");
        turns += 1;
    }
    assert!(turns >= 50, "{turns}");
    floods.into_iter().for_each(|flood| assert_eq!(flood.join(), Ok(())));
    assert_eq!(count(&queue), 100);
}

#[test]
fn a_guest_that_dies_is_noticed_in_a_turn() {
    for breaks in [false, true] {
        let bench = Bench::new();
        let (_xen, mut driver, guest) = driven(&bench);
        settle(&mut driver);
        if breaks {
            // Without a watch, Xen is asked now and then.
            bench.backend.fail(CallKind::Drain, 1, Errno::CONNRESET);
            let other = bench.model.domain(crate::bench::config());
            bench.model.destroy(other);
            turn(&mut driver).unwrap();
        }
        bench.model.destroy(bench.dom);
        until("its death is noticed", || {
            settle(&mut driver);
            !guest.is_served()
        });
        until_readable(guest.gone(), "the end is reported");
        bench.assert_let_go();
    }
}

#[test]
fn a_guest_that_lost_its_server_is_gone() {
    let bench = Bench::new();
    let (_xen, mut driver, guest) = driven(&bench);
    settle(&mut driver);
    bench.destroy_server();
    until("its loss is noticed", || {
        settle(&mut driver);
        !guest.is_served()
    });
    until_readable(guest.gone(), "the end is reported");
}

#[test]
fn a_host_that_fails_is_an_error_of_the_turn_and_lets_go_of_the_guests() {
    let bench = Bench::new();
    let (xen, mut driver, guest) = driven(&bench);
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 3_u32).unwrap();
    bench.backend.fail(CallKind::Pending, 1, Errno::IO);
    let kicks = bench.vcpu(0).run(|vcpu| kick(vcpu, 3));
    for _ in 0..2 {
        assert!(matches!(driver.process(), Err(Error::EngineStopped(_))));
    }
    assert_eq!(kicks.join(), Ok(()), "no vCPU waits for an engine that has stopped");
    assert!(!guest.is_served());
    assert!(matches!(xen.guest(bench.dom), Err(Error::EngineStopped(_))));
    bench.assert_let_go();
}

#[test]
fn a_driver_that_is_dropped_lets_go_of_the_guests() {
    let bench = Bench::new();
    let (xen, driver, guest) = driven(&bench);
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 3_u32).unwrap();
    let kicks = bench.vcpu(0).run(|vcpu| kick(vcpu, 3));
    until("it waits for a turn", || bench.vcpu(0).is_parked());
    drop(driver);
    assert_eq!(kicks.join(), Ok(()));
    until_readable(guest.gone(), "the end is reported");
    drop((registered, guest, xen));
    bench.assert_usable();
}

#[test]
fn an_engine_that_is_dropped_leaves_a_driver_with_nothing_to_do() {
    let bench = Bench::new();
    let (xen, mut driver, guest) = driven(&bench);
    drop((guest, xen));
    settle(&mut driver);
    drop(driver);
    bench.assert_usable();
}

#[test]
fn each_thread_does_what_it_is_to_do_first_and_has_a_name() {
    let bench = Bench::new();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let builder = Xen::builder().run_dir(bench.run_dir.path()).on_thread_start({
        let seen = Arc::clone(&seen);
        move |name| {
            assert_eq!(std::thread::current().name(), Some(name));
            seen.lock().unwrap().insert(name.to_owned());
            Ok(())
        }
    });
    let _xen = builder.open_on(Arc::clone(&bench.backend) as Arc<_>).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.contains("xen-ioeventfd") && seen.contains("xen-irqfd"), "{seen:?}");
}

#[test]
fn a_thread_that_cannot_begin_is_an_error_and_nothing_is_left() {
    for panics in [false, true] {
        for fails_in in ["xen-ioeventfd", "xen-irqfd"] {
            let bench = Bench::new();
            let builder = Xen::builder().run_dir(bench.run_dir.path()).on_thread_start(
                move |name| match name == fails_in {
                    true if panics => panic!("no filter"),
                    true => Err(Errno::ACCESS.into()),
                    false => Ok(()),
                },
            );
            let refused = builder.open_on(Arc::clone(&bench.backend) as Arc<_>).unwrap_err();
            assert!(
                matches!(&refused, Error::NoEngine(why) if why.contains(fails_in)),
                "{refused}"
            );
            bench.assert_usable();
        }
    }
}
