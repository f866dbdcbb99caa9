//! How a server goes: by one rule, whether its guest is let go of, dies, or was left by an engine that
//! was killed.

use crate::bench::{AT, Bench, Frost, count, event, kick, until};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use xen_eventfd::Reaped;
use xen_eventfd_model::{CallKind, Client, Verdict};

/// Counts the events that a client sends.
fn rings(client: &Client) -> Arc<AtomicUsize> {
    let rings = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rings);
    client.on_call(Box::new(move |site| {
        counted.fetch_add(usize::from(site.kind == CallKind::Notify), SeqCst);
        Verdict::Proceed
    }));
    rings
}

#[test]
fn a_kick_that_waits_is_delivered_when_its_guest_is_let_go_of() {
    let bench = Bench::new();
    let (guest, queue) = (bench.attach(), event());
    guest.register_ioevent(&queue, &AT, 1_u32).unwrap().keep();
    let frozen = Frost::new(&bench, &bench.backend, &guest);
    let vcpu = bench.vcpu(0);
    let kicking = vcpu.run(|vcpu| kick(vcpu, 1));
    vcpu.until_parked();
    guest.close().unwrap();
    assert_eq!(count(&queue), 1);
    assert_eq!(kicking.join(), Ok(()));
    drop(frozen);
    bench.assert_let_go();
    assert_eq!(count(&queue), 0, "signalled after close returned");
}

#[test]
fn a_kick_that_waits_is_not_delivered_when_its_guest_dies() {
    for close in [false, true] {
        let bench = Bench::new();
        let (guest, queue) = (bench.attach(), event());
        guest.register_ioevent(&queue, &AT, 1_u32).unwrap().keep();
        let _frozen = Frost::new(&bench, &bench.backend, &guest);
        let vcpu = bench.vcpu(0);
        let kicking = vcpu.run(|vcpu| kick(vcpu, 1));
        vcpu.until_parked();
        bench.model.destroy(bench.dom);
        assert!(kicking.join().is_err());
        if close {
            // Perhaps before the engine has learnt of it.
            guest.close().unwrap();
        }
        until("the guest is not served", || !guest.is_served());
        assert_eq!(count(&queue), 0);
    }
}

#[test]
fn every_vcpu_is_rung_by_who_lets_go() {
    let bench = Bench::new();
    let guest = bench.attach();
    let rung = rings(&bench.backend);
    guest.close().unwrap();
    assert_eq!(rung.load(SeqCst), 2);
}

/// Also one whose port was not bound yet.
#[test]
fn every_vcpu_is_rung_by_who_could_not_take_a_guest() {
    let bench = Bench::new();
    let xen = bench.xen();
    let rung = rings(&bench.backend);
    bench.backend.fail(CallKind::Bind, 1, Errno::NOSPC);
    assert_eq!(xen.guest(bench.dom).unwrap_err().errno(), Errno::NOSPC);
    assert_eq!(rung.load(SeqCst), 2);
    bench.assert_let_go();
}

#[test]
fn every_vcpu_is_rung_by_who_reaps() {
    let bench = Bench::new();
    let _guest = bench.attach();
    let records = bench.inherit();
    bench.backend.kill();
    let reaper = bench.model.client("reaper");
    let rung = rings(&reaper);
    let reaped = xen_eventfd::Xen::builder().run_dir(records.path()).reap_on(&*reaper).unwrap();
    assert!(matches!(reaped[..], [(_, Ok(Reaped::Swept { kicks: 0 }))]), "{reaped:?}");
    assert_eq!(rung.load(SeqCst), 2);
    bench.assert_no_server();
}

/// A port that cannot be bound is no reason to leave a server of which no vCPU waits.
#[test]
fn a_vcpu_that_does_not_wait_need_not_be_rung() {
    let bench = Bench::new();
    let xen = bench.xen();
    for nth in 1..=3 {
        bench.backend.fail(CallKind::Bind, nth, Errno::NOSPC);
    }
    assert_eq!(xen.guest(bench.dom).unwrap_err().errno(), Errno::NOSPC);
    bench.assert_let_go();
}
