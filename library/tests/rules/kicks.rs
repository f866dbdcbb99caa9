//! Who is signalled for which kick, and what is counted.

use crate::bench::{AT, Bench, DOORBELL, balloon, config, count, event, kick, until_readable};
use rustix::event::{EventfdFlags, eventfd};
use xen_eventfd::IoEventAddress::Mmio;
use xen_eventfd::{AnyValue, NoDatamatch, Space, Width};
use xen_eventfd_model::{CallKind, Verdict};

const FOUR: AnyValue = AnyValue(Width::Four);

#[test]
fn the_owner_of_an_eventfd_may_close_his() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let ours = queue.try_clone().unwrap();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    drop(queue);
    bench.kick(0, 1);
    assert_eq!(count(&ours), 1);
    drop(ours);
    bench.kick(0, 1);
    assert_eq!(guest.counters().delivered, 2);
    assert_eq!(guest.counters().failed, 0);
}

#[test]
fn a_kick_is_signalled_before_the_guest_goes_on() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, FOUR).unwrap();
    for value in 0..100 {
        bench.kick(0, value);
        assert_eq!(count(&queue), 1);
    }
    assert_eq!(guest.registered()[0].kicks, 100);
}

#[test]
fn registrations_may_be_dropped_in_any_order() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        let bench = Bench::new();
        let guest = bench.attach();
        let queues = [event(), event(), event()];
        // One inside the other, and one beside them.
        let mut registered = [
            Some(guest.register_ioevent(&queues[0], &AT, NoDatamatch(8)).unwrap()),
            Some(guest.register_ioevent(&queues[1], &AT, 1_u32).unwrap()),
            Some(guest.register_ioevent(&queues[2], &Mmio(DOORBELL + 4), FOUR).unwrap()),
        ];
        let write = |addr, value| {
            bench.vcpu(0).write(Space::Mmio, addr, Width::Four, value).unwrap();
        };
        for (n, gone) in order.into_iter().enumerate() {
            registered[gone] = None;
            write(DOORBELL, 1);
            write(DOORBELL, 2);
            write(DOORBELL + 4, 1);
            let alive = |n: usize| u64::from(registered[n].is_some());
            let wide = if registered[1].is_some() { alive(0) } else { 2 * alive(0) };
            let counts = queues.each_ref().map(count);
            assert_eq!(counts, [wide, alive(1), alive(2)], "{order:?}, {n}");
        }
        assert_eq!(bench.model.servers(bench.dom)[0].ranges, []);
    }
}

#[test]
fn a_registration_outlives_the_handles_of_its_guest() {
    let bench = Bench::new();
    let guest = bench.attach();
    let (one, two) = (event(), event());
    let first = guest.register_ioevent(&one, &AT, 1_u32).unwrap();
    let twin = guest.clone();
    drop(guest);
    let second = twin.register_ioevent(&two, &AT, 2_u32).unwrap();
    drop(twin);
    bench.kick(0, 1);
    drop(first);
    bench.kick(0, 2);
    assert_eq!((count(&one), count(&two)), (1, 1));
    drop(second);
    bench.assert_let_go();
}

#[test]
fn what_is_kept_ends_with_the_guest() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    guest.register_ioevent(&queue, &AT, 1_u32).unwrap().keep();
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
    drop(guest);
    bench.assert_let_go();
    bench.kick(0, 1);
    assert_eq!(count(&queue), 0);
}

#[test]
fn close_with_registrations_outstanding() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    let missed = guest.register_fallback(&event(), &AT, 4).unwrap();
    guest.close().unwrap();
    bench.assert_let_go();
    // Another engine has the guest by the time that they are dropped.
    let again = bench.attach();
    let _queue = again.register_ioevent(&queue, &AT, 1_u32).unwrap();
    drop((registered, missed, guest));
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
}

#[test]
fn an_end_is_for_one_registration_and_not_for_the_next_one_like_it() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let first = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    guest.unregister_ioevent(&queue, &AT, 1_u32).unwrap();
    let _second = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    assert!(first.end().is_err());
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
}

#[test]
fn unmatched_kicks_are_held_for_the_eventfd_that_comes() {
    let bench = Bench::new();
    let guest = bench.attach();
    let _other = guest.register_ioevent(&event(), &AT, 0_u32).unwrap();
    (0..3).for_each(|_| bench.kick(0, 7));
    bench.kick(1, 8);
    assert_eq!(guest.counters().held, 4);
    let (seven, nine) = (event(), event());
    let _nine = guest.register_ioevent(&nine, &AT, 9_u32).unwrap();
    let _seven = guest.register_ioevent(&seven, &AT, 7_u32).unwrap();
    assert_eq!((count(&seven), count(&nine)), (1, 0));
    let held: Vec<u64> = guest.held().iter().map(|kick| kick.value).collect();
    assert_eq!(held, [8]);
}

#[test]
fn when_more_is_held_than_there_is_room_every_newcomer_is_signalled() {
    let bench = Bench::new();
    let guest = bench.attach();
    let first = guest.register_ioevent(&event(), &AT, 0_u32).unwrap();
    (1..=300).for_each(|value| bench.kick(0, value));
    assert_eq!(guest.held().len(), 256);
    let (lost, never) = (event(), event());
    let second = guest.register_ioevent(&lost, &AT, 299_u32).unwrap();
    let third = guest.register_ioevent(&never, &AT, 5_000_u32).unwrap();
    assert_eq!((count(&lost), count(&never)), (1, 1), "one signal too many is not lost");
    // When the last byte is given back, all of it is the VMM's.
    drop((first, second, third));
    assert_eq!(guest.held(), []);
    let _again = guest.register_ioevent(&never, &AT, 5_000_u32).unwrap();
    assert_eq!(count(&never), 0);
}

#[test]
fn a_fallback_tells_what_was_held_before_it_came() {
    let bench = Bench::new();
    let guest = bench.attach();
    let _other = guest.register_ioevent(&event(), &AT, 0_u32).unwrap();
    bench.kick(0, 7);
    let rest = event();
    let fallback = guest.register_fallback(&rest, &AT, 4).unwrap();
    assert_eq!(count(&rest), 1);
    let missed = fallback.take();
    let values: Vec<u64> = missed.kicks.iter().map(|(kick, _)| kick.value).collect();
    assert_eq!((values, missed.overflowed), (vec![7], 0));
    assert_eq!(guest.held(), []);
}

#[test]
fn a_fallback_keeps_so_many_kicks_and_counts_the_others() {
    let bench = Bench::new();
    let guest = bench.attach();
    let rest = event();
    let fallback = guest.register_fallback(&rest, &AT, 4).unwrap();
    (0..300).for_each(|value| bench.kick(0, value));
    bench.kick(0, 3);
    let missed = fallback.take();
    assert_eq!(missed.kicks.len(), xen_eventfd::MAX_UNMATCHED);
    assert_eq!((missed.kicks[3].1, missed.overflowed), (2, 300 - 256));
    assert_eq!(count(&rest), 301);
    bench.kick(0, 3);
    assert_eq!(fallback.take().kicks.len(), 1);
    assert_eq!(fallback.take(), xen_eventfd::UnmatchedKicks::default());
}

#[test]
fn a_kick_that_comes_late_is_answered_and_counted() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.backend.on_call(Box::new({
        let vcpu = bench.vcpu(0);
        move |site| {
            // Removed from the table, not yet given back.
            if site.kind == CallKind::UnmapRange {
                kick(&vcpu, 1).unwrap();
            }
            Verdict::Proceed
        }
    }));
    registered.end().unwrap();
    assert_eq!((guest.counters().late, guest.counters().delivered), (1, 0));
    assert_eq!(count(&queue), 0);
}

#[test]
fn broadcasts_are_answered_and_no_kicks() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, NoDatamatch(8)).unwrap();
    for _ in 0..10 {
        balloon(&bench.vcpu(0)).join().unwrap();
        balloon(&bench.vcpu(1)).join().unwrap();
    }
    let counters = guest.counters();
    assert_eq!((counters.broadcasts, counters.delivered, counters.held), (20, 0, 0));
    assert_eq!(count(&queue), 0);
}

#[test]
fn whatever_a_guest_does_to_a_doorbell_is_answered() {
    let bench = Bench::new();
    let (guest, vcpu) = (bench.attach(), bench.vcpu(0));
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, NoDatamatch(8)).unwrap();
    let port = xen_eventfd::IoEventAddress::Pio(0xC050);
    let _port = guest.register_ioevent(&queue, &port, NoDatamatch(4)).unwrap();
    for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
        vcpu.write(Space::Mmio, DOORBELL, width, u64::MAX).unwrap();
        assert_eq!(vcpu.read(Space::Mmio, DOORBELL, width), Ok(0));
    }
    vcpu.rep_stos(DOORBELL, Width::Two, 3, 4).unwrap();
    vcpu.rep_outs(0xC050, Width::Two, 0x1000, 3, 5).unwrap();
    vcpu.write(Space::Mmio, DOORBELL + 3, Width::Four, 1).unwrap();
    let counters = guest.counters();
    assert_eq!((count(&queue), counters.delivered), (4, 4));
    assert_eq!((counters.reads, counters.odd, counters.held), (4, 2, 1));
}

#[test]
fn a_backend_that_leaves_its_eventfd_full_stops_nobody() {
    let bench = Bench::new();
    let guest = bench.attach();
    // Blocking, and as full as a writer can make it.
    let hostile = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&hostile, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let queue = event();
    let _hostile = guest.register_ioevent(&hostile, &AT, 0_u32).unwrap();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    for _ in 0..10 {
        bench.kick(0, 0);
        bench.kick(1, 1);
    }
    assert_eq!((count(&queue), guest.counters().failed), (10, 0));
}

#[test]
fn an_eventfd_that_cannot_be_signalled_is_counted_and_the_guest_goes_on() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.backend.fail(CallKind::Signal, 1, rustix::io::Errno::NOMEM);
    bench.kick(0, 1);
    bench.kick(0, 1);
    assert_eq!((count(&queue), guest.counters().failed, guest.counters().delivered), (1, 1, 1));
}

#[test]
fn two_guests_on_one_engine_and_one_dies() {
    let bench = Bench::new();
    let xen = bench.xen();
    let other = bench.model.domain(config());
    let (ours, theirs) = (xen.guest(bench.dom).unwrap(), xen.guest(other).unwrap());
    let (queue, their_queue) = (event(), event());
    let _queue = ours.register_ioevent(&queue, &AT, 1_u32).unwrap();
    let _theirs = theirs.register_ioevent(&their_queue, &AT, 1_u32).unwrap();
    bench.kick(0, 1);
    assert_eq!((count(&queue), count(&their_queue)), (1, 0));
    bench.model.destroy(other);
    until_readable(theirs.gone(), "the death is noticed");
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
    assert!(ours.is_served() && !theirs.is_served());
    assert!(bench.model.zombies().is_empty(), "while all the values are still there");
}
