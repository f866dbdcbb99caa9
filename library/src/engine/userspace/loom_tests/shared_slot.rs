//! One slot with two owners: what Linux's privcmd patch does with the
//! device model's own page (`ioeventfd_interrupt` in Linux's `drivers/xen/privcmd.c`), in a few
//! lines, and what comes of it.

use super::explore;
use super::xen::{DOORBELL, End, Xen, wait_for_io};
use loom::thread::spawn;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xen_eventfd_core::Request;
use xen_eventfd_core::ioreq::{COPY, Ioreq};
use xen_eventfd_core::slot::{Slot, State};

/// The kernel's handler. It takes a READY slot, even one that the device model works on, and gives back what
/// it does not know. Returns whether it rang the vCPU.
fn kernel(slot: &Slot, ours: bool, signals: &AtomicU64) -> bool {
    if slot.state() != State::Ready {
        return false;
    }
    slot.force(State::InProcess);
    if ours {
        signals.fetch_add(1, Ordering::Relaxed);
        slot.force(State::Answered);
    } else {
        slot.force(State::Ready);
    }
    ours
}

/// The device model. It trusts the kernel with the kicks, so it answers them and no more.
fn device_model(slot: &Slot) -> bool {
    if slot.state() != State::Ready {
        return false;
    }
    slot.force(State::InProcess);
    slot.force(State::Answered);
    true
}

/// What comes of one write, and how often the kernel's eventfd is signalled: both owners have
/// had its event.
fn outcomes(ours: bool) -> BTreeSet<(End, u64)> {
    explore(2, move || {
        let slot = Arc::new(Slot::default());
        slot.publish(&Ioreq { addr: DOORBELL, count: 1, size: 4, kind: COPY, ..Ioreq::default() });
        let signals = Arc::new(AtomicU64::new(0));
        let (theirs, counted) = (Arc::clone(&slot), Arc::clone(&signals));
        let handler = spawn(move || kernel(&theirs, ours, &counted));
        let theirs = Arc::clone(&slot);
        let vmm = spawn(move || device_model(&theirs));
        // Xen looks when it has sent the request, and again when it is rung.
        let mut owners = Some([handler, vmm]);
        let end = wait_for_io(&slot, || {
            let rung = owners.take().map(|owners| owners.map(|owner| owner.join().unwrap()));
            if rung.is_some_and(|rung| rung.contains(&true)) { Ok(()) } else { Err(End::Hung) }
        });
        (end, signals.load(Ordering::Relaxed))
    })
}

/// The device model was faster: it has answered a kick that it leaves to the kernel.
#[test]
fn the_lost_kick_is_found() {
    let seen = outcomes(true);
    assert!(seen.contains(&(End::Answered, 1)), "it works most of the time: {seen:?}");
    assert!(seen.contains(&(End::Answered, 0)), "{seen:?}");
}

/// The kernel gives back what is answered already: it is not looked at again.
#[test]
fn the_hung_vcpu_is_found() {
    let seen = outcomes(false);
    assert!(seen.contains(&(End::Answered, 0)), "it works most of the time: {seen:?}");
    assert!(seen.contains(&(End::Hung, 0)), "{seen:?}");
}

/// Xen has seen INPROCESS, and sees READY when the device model rings.
#[test]
fn the_crashed_domain_is_found() {
    let seen = outcomes(false);
    assert!(seen.contains(&(End::Crashed, 0)), "{seen:?}");
}

/// Even two owners of our own kind lose a kick without a lock between them: one answers what it
/// has not read. This is what the engine's dispatch is for.
#[test]
fn our_own_slot_wants_one_owner_at_a_time() {
    let seen = explore(1, || {
        let xen = Xen::new(1, 3);
        xen.share(2);
        xen.send(0, 1).unwrap();
        let signalled = Arc::new([const { AtomicBool::new(false) }; 3]);
        let owners = [0, 1].map(|owner| {
            let (xen, signalled) = (xen.clone(), Arc::clone(&signalled));
            spawn(move || {
                let act = |request: &Request| {
                    if let Request::Kick(kick) = request {
                        signalled[usize::try_from(kick.value).unwrap()]
                            .store(true, Ordering::Relaxed);
                    }
                    0
                };
                loop {
                    if xen.slot(0).serve(act).is_some() {
                        xen.notify_vcpu(0);
                    }
                    if !xen.take_event(owner) {
                        break;
                    }
                }
                xen.leave();
            })
        });
        let ends = [xen.wait_for_io(0), xen.write(0, 2)];
        xen.leave();
        owners.into_iter().for_each(|owner| owner.join().unwrap());
        (ends, signalled[2].load(Ordering::Relaxed))
    });
    assert!(seen.contains(&([End::Answered; 2], true)), "it works most of the time: {seen:?}");
    assert!(seen.contains(&([End::Answered; 2], false)), "{seen:?}");
}
