//! What an engine that was killed leaves, and what distinguishes one from another.

use crate::bench::{AT, Bench, Frost, config, count, event, kick, until};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tempfile::TempDir;
use xen_eventfd::{Arch, IoEventAddress::Mmio, Reaped, Xen};
use xen_eventfd_host::Host;
use xen_eventfd_model::{CallKind, Client, Running, Stopped, Verdict};

type Kick = Running<Result<(), Stopped>>;

/// A guest whose engine was killed with a kick of each vCPU unanswered.
fn orphan() -> (Bench, [Kick; 2], TempDir) {
    orphan_of(Bench::beside_a_vmm(), Client::kill)
}

/// The same, `kill` being how the engine ends.
fn orphan_of<T>(bench: Bench, kill: impl FnOnce(&Client) -> T) -> (Bench, [Kick; 2], TempDir) {
    let guest = bench.attach();
    guest.register_ioevent(&event(), &AT, 100_u32).unwrap().keep();
    let _frozen = Frost::new(&bench, &bench.backend, &guest);
    let kicks = [0, 1].map(|n| {
        let vcpu = bench.vcpu(n);
        let kicking = vcpu.run(move |vcpu| kick(vcpu, n.into()));
        vcpu.until_parked();
        kicking
    });
    let records = bench.inherit();
    std::mem::forget(kill(&bench.backend));
    (bench, kicks, records)
}

/// As a process does that takes over the lock of a dead engine, when a child of it has the descriptors.
fn mark_inherited(bench: &Bench, records: &TempDir) {
    let path = records.path().join(format!("{}.json", bench.dom.0));
    let record = std::fs::read_to_string(&path).unwrap();
    let marked = record.replace("\"inherited\":false", "\"inherited\":true");
    assert_ne!(marked, record);
    std::fs::write(&path, marked).unwrap();
}

fn join(kicks: [Kick; 2]) {
    kicks.into_iter().for_each(|kick| assert_eq!(kick.join(), Ok(())));
}

/// Takes the guest over and returns how often each queue was signalled at once.
fn inherit(bench: &Bench, records: &TempDir) -> [u64; 2] {
    let heir = bench.model.client("heir");
    let guest = bench.xen_of(&heir, records.path()).unwrap().guest(bench.dom).unwrap();
    let queues: [OwnedFd; 2] = [event(), event()];
    let _first = guest.register_ioevent(&queues[0], &AT, 0_u32).unwrap();
    let _second = guest.register_ioevent(&queues[1], &AT, 1_u32).unwrap();
    queues.each_ref().map(count)
}

#[test]
fn a_reaper_answers_and_the_next_engine_delivers() {
    let (bench, kicks, records) = orphan();
    assert!(matches!(bench.reap(records.path()), Some(Ok(Reaped::Swept { kicks: 2 }))));
    join(kicks);
    bench.assert_no_server();
    assert_eq!(inherit(&bench, &records), [1, 1]);
}

#[test]
fn the_next_engine_needs_no_reaper() {
    let (bench, kicks, records) = orphan();
    assert_eq!(inherit(&bench, &records), [1, 1]);
    join(kicks);
}

/// There a vCPU waits inside of Xen with pointers to the server, and a paused one takes no answer.
#[test]
fn on_arm_a_server_stays_until_each_vcpu_has_taken_its_answer() {
    let (bench, kicks, records) = orphan_of(Bench::beside_a_vmm_on(Arch::Arm), Client::kill);
    bench.model.pause(bench.dom, true);
    let refused = bench.reap(records.path()).unwrap().unwrap_err();
    assert_eq!(refused.errno(), Errno::BUSY);
    assert!(refused.to_string().contains("xl unpause"), "{refused}");
    bench.model.pause(bench.dom, false);
    join(kicks);
    assert!(matches!(bench.reap(records.path()), Some(Ok(Reaped::Swept { kicks: 0 }))));
    assert_eq!(bench.model.host_crashed(), None);
    bench.assert_no_server();
    // The kicks that the first reaper has answered.
    assert_eq!(inherit(&bench, &records), [1, 1]);
}

#[test]
fn a_living_engine_is_not_reaped() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    assert!(matches!(bench.reap(bench.run_dir.path()), Some(Ok(Reaped::InUse))));
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
}

/// The reaper's call fails, or the reaper is killed: the next one does the rest and loses nothing.
fn a_reaper_fails(verdict: Verdict) {
    for at in 1.. {
        let (bench, kicks, records) = orphan();
        let first = bench.model.client("first reaper");
        let left = Arc::new(std::sync::Mutex::new(None));
        first.on_call(Box::new({
            let (left, path) = (Arc::clone(&left), records.path().to_owned());
            move |site| {
                if site.index != at {
                    return Verdict::Proceed;
                }
                *left.lock().unwrap() = Some(crate::bench::inherit(&path));
                verdict
            }
        }));
        let reaped = Xen::builder().run_dir(records.path()).reap_on(&*first).unwrap();
        let Some(left) = left.lock().unwrap().take() else {
            assert!(at > 10, "{at} calls");
            return join(kicks);
        };
        let records = match verdict {
            Verdict::Fail(errno) => {
                if let Err(error) = &reaped[0].1 {
                    assert_eq!(error.errno(), errno);
                }
                assert!(first.leftovers().ports.is_empty() && first.leftovers().pages == 0);
                records
            }
            _ => left,
        };
        let again = bench.reap(records.path());
        assert!(!matches!(again, Some(Err(_) | Ok(Reaped::InUse))), "call {at}: {again:?}");
        join(kicks);
        bench.assert_no_server();
        assert_eq!(inherit(&bench, &records), [1, 1], "{verdict:?} at call {at}");
    }
}

#[test]
fn any_call_of_a_reaper_fails() {
    a_reaper_fails(Verdict::Fail(Errno::IO));
}

#[test]
fn a_reaper_is_killed_before_any_call() {
    a_reaper_fails(Verdict::KillBefore);
}

#[test]
fn a_reaper_is_killed_after_any_call() {
    a_reaper_fails(Verdict::KillAfter);
}

/// What was answered for a dead engine waits until it is registered for, whatever comes in between.
#[test]
fn a_kick_of_a_dead_engine_waits_for_its_eventfd() {
    let (bench, kicks, records) = orphan();
    assert!(bench.reap(records.path()).is_some());
    join(kicks);
    let client = bench.model.client("no heir");
    let xen = bench.xen_of(&client, records.path()).unwrap();
    // An engine that does not get as far as that …
    client.fail(CallKind::MapPage, 1, Errno::NOMEM);
    assert!(xen.guest(bench.dom).is_err());
    client.fail(CallKind::CreateServer, 1, Errno::NOSPC);
    assert!(xen.guest(bench.dom).is_err());
    // … one that serves other doorbells …
    let guest = xen.guest(bench.dom).unwrap();
    let elsewhere = guest.register_ioevent(&event(), &Mmio(0xFD00_0000), 0_u32).unwrap();
    elsewhere.end().unwrap();
    // … and the one that was meant.
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    assert_eq!(count(&queue), 1);
    drop(registered);
    guest.close().unwrap();
    assert_eq!(inherit(&bench, &records), [0, 0], "what is given back is the VMM's to look at");
}

#[test]
fn a_kick_of_a_dead_engine_outlives_one_that_does_not_ask_for_it() {
    let (bench, kicks, records) = orphan();
    let client = bench.model.client("no heir");
    bench.xen_of(&client, records.path()).unwrap().guest(bench.dom).unwrap().close().unwrap();
    join(kicks);
    assert_eq!(inherit(&bench, &records), [1, 1]);
}

/// Deaths in a row do not make the record grow.
#[test]
fn a_kick_is_recorded_once() {
    let (bench, kicks, records) = orphan();
    assert!(bench.reap(records.path()).is_some());
    join(kicks);
    let path = records.path().join(format!("{}.json", bench.dom.0));
    let before = std::fs::read(&path).unwrap();
    for _ in 0..3 {
        let client = bench.model.client("short-lived");
        let records = crate::bench::inherit(records.path());
        let guest = bench.xen_of(&client, records.path()).unwrap().guest(bench.dom).unwrap();
        guest.register_ioevent(&event(), &AT, 100_u32).unwrap().keep();
        let _frozen = Frost::new(&bench, &client, &guest);
        let kicking = bench.vcpu(0).run(|vcpu| kick(vcpu, 0));
        bench.vcpu(0).until_parked();
        let left = crate::bench::inherit(records.path());
        client.kill();
        assert!(bench.reap(left.path()).is_some());
        assert_eq!(kicking.join(), Ok(()));
        assert_eq!(std::fs::read(left.path().join(path.file_name().unwrap())).unwrap(), before);
    }
}

/// A child that was forked without `exec` has the dead engine's event channels, so they are bound.
#[test]
fn an_orphan_whose_ports_a_forked_child_keeps_bound_is_swept() {
    let (bench, kicks, records) = orphan_of(Bench::beside_a_vmm(), Client::kill_and_leave_child);
    mark_inherited(&bench, &records);
    assert!(matches!(bench.reap(records.path()), Some(Ok(Reaped::Swept { kicks: 2 }))));
    join(kicks);
    bench.assert_no_server();
    assert_eq!(inherit(&bench, &records), [1, 1]);
}

/// The child ends while the orphan is swept.
#[test]
fn an_orphan_whose_forked_child_has_ended_is_swept() {
    let (bench, kicks, records) = orphan();
    mark_inherited(&bench, &records);
    assert!(matches!(bench.reap(records.path()), Some(Ok(Reaped::Swept { kicks: 2 }))));
    join(kicks);
    bench.assert_no_server();
}

/// The number is used again, by a guest with servers of its own.
#[test]
fn a_record_of_a_guest_that_is_no_more_means_nobody() {
    let (bench, kicks, records) = orphan();
    bench.model.destroy(bench.dom);
    kicks.into_iter().for_each(|kick| assert_eq!(kick.join(), Err(Stopped::Destroyed)));
    assert_eq!(bench.model.domain(config().id(bench.dom)), bench.dom);
    let vmm = bench.model.client("vmm");
    let page = (0..8).map(|_| vmm.create_server(bench.dom).unwrap()).map(|id| {
        let page = vmm.map_page(bench.dom, id).unwrap();
        vmm.set_server_state(bench.dom, id, true).unwrap();
        page
    });
    let _pages: Vec<_> = page.collect();
    let before = bench.model.servers(bench.dom);
    assert!(matches!(bench.reap(records.path()), Some(Ok(Reaped::GuestGone))));
    assert_eq!(bench.model.servers(bench.dom), before);
    assert!(bench.reap(records.path()).is_none(), "the record is gone");
}

#[test]
fn a_kick_of_a_guest_that_is_no_more_is_not_delivered_to_the_next() {
    let (bench, kicks, records) = orphan();
    assert!(bench.reap(records.path()).is_some());
    join(kicks);
    bench.model.destroy(bench.dom);
    bench.model.domain(config().id(bench.dom));
    assert_eq!(inherit(&bench, &records), [0, 0]);
}

/// Another process destroyed the orphan, and a VMM has its id now.
#[test]
fn a_server_that_is_another_by_now_is_left_alone() {
    let (bench, kicks, records) = orphan();
    let other = bench.model.client("other");
    let orphan = bench.model.servers(bench.dom).last().unwrap().clone();
    let id = orphan.id;
    other.destroy_server(bench.dom, id).unwrap();
    bench.model.next_server_ids([id.0]);
    // The orphan's ports are there and unbound as they should be, but they are the guest's now.
    while bench.vcpu(0).alloc_unbound().unwrap() < orphan.ports[1] {}
    assert_eq!(other.create_server(bench.dom), Ok(id));
    let page = other.map_page(bench.dom, id).unwrap();
    other.set_server_state(bench.dom, id, true).unwrap();
    let before = bench.model.servers(bench.dom);
    assert!(matches!(bench.reap(records.path()), Some(Ok(Reaped::NotOurs))));
    assert_eq!(bench.model.servers(bench.dom), before);
    assert!(!orphan.ports.contains(&page.slots()[0].vp_eport()));
    bench.model.destroy(bench.dom);
    kicks.into_iter().for_each(|kick| assert_eq!(kick.join(), Err(Stopped::Destroyed)));
}

/// The same, with the very ports of the orphan: but they are bound.
#[test]
fn a_server_whose_ports_are_bound_is_left_alone() {
    for inherited in [false, true] {
        a_bound_server_is_left_alone(inherited);
    }
}

/// `inherited`: while a forked child of the engine keeps the ends that the engine had.
fn a_bound_server_is_left_alone(inherited: bool) {
    let (bench, kicks, records) = match inherited {
        true => orphan_of(Bench::beside_a_vmm(), Client::kill_and_leave_child),
        false => orphan(),
    };
    if inherited {
        mark_inherited(&bench, &records);
    }
    let other = bench.model.client("other");
    let orphan = bench.model.servers(bench.dom).last().unwrap().clone();
    // Xen hands out the lowest that are free: there are to be no others.
    while bench.vcpu(0).alloc_unbound().unwrap() < orphan.ports[1] {}
    other.destroy_server(bench.dom, orphan.id).unwrap();
    bench.model.next_server_ids([orphan.id.0]);
    assert_eq!(other.create_server(bench.dom), Ok(orphan.id));
    let page = other.map_page(bench.dom, orphan.id).unwrap();
    other.set_server_state(bench.dom, orphan.id, true).unwrap();
    let channels = other.event_channels().unwrap();
    for slot in &page.slots()[..2] {
        channels.bind(bench.dom, slot.vp_eport()).unwrap();
    }
    let before = bench.model.servers(bench.dom);
    assert_eq!(before.last().unwrap().ports, orphan.ports);
    let reaped = bench.reap(records.path());
    assert!(matches!(reaped, Some(Ok(Reaped::NotOurs))), "{inherited}: {reaped:?}");
    assert_eq!(bench.model.servers(bench.dom), before);
    bench.model.destroy(bench.dom);
    kicks.into_iter().for_each(|kick| assert_eq!(kick.join(), Err(Stopped::Destroyed)));
}

/// What a record says was created and is no more, is not destroyed.
#[test]
fn a_server_that_is_not_there_is_not_destroyed() {
    let bench = Bench::beside_a_vmm();
    let uuid = bench.backend.domain(bench.dom).unwrap().uuid.unwrap();
    let record = format!(
        r#"{{"domid":{},"uuid":"{uuid}","created":[5],"server":{{"id":6,"ports":[9,10]}}}}"#,
        bench.dom.0
    );
    let path = bench.run_dir.path().join(format!("{}.json", bench.dom.0));
    std::fs::write(path, record).unwrap();
    let reaper = bench.model.client("reaper");
    reaper.on_call(Box::new(|site| {
        assert!(!matches!(site.kind, CallKind::DestroyServer | CallKind::SetServerState));
        Verdict::Proceed
    }));
    let reaped = Xen::builder().run_dir(bench.run_dir.path()).reap_on(&*reaper).unwrap();
    assert!(matches!(reaped[..], [(_, Ok(Reaped::NotOurs))]), "{reaped:?}");
    bench.assert_let_go();
}

/// Killed between a server's creation and its end, never enabled.
#[test]
fn a_server_that_was_never_enabled_is_given_back() {
    let bench = Bench::beside_a_vmm();
    let uuid = bench.backend.domain(bench.dom).unwrap().uuid.unwrap();
    let id = bench.backend.create_server(bench.dom).unwrap().0;
    let record =
        format!(r#"{{"domid":{},"uuid":"{uuid}","created":[{id}],"server":null}}"#, bench.dom.0);
    std::fs::write(bench.run_dir.path().join(format!("{}.json", bench.dom.0)), record).unwrap();
    let reaped = bench.reap(bench.run_dir.path());
    assert!(matches!(reaped, Some(Ok(Reaped::Swept { kicks: 0 }))), "{reaped:?}");
    bench.assert_let_go();
}

#[test]
fn a_damaged_record_means_nobody_and_is_no_obstacle() {
    for text in ["", "{", "{\"domid\": 1}", "[]", "\u{0}"] {
        let bench = Bench::beside_a_vmm();
        let path = bench.run_dir.path().join(format!("{}.json", bench.dom.0));
        std::fs::write(&path, text).unwrap();
        let reaped = bench.reap(bench.run_dir.path());
        assert!(matches!(reaped, None | Some(Ok(Reaped::NotOurs | Reaped::GuestGone))), "{text:?}");
        bench.assert_no_server();
        bench.assert_usable();
    }
}

#[test]
fn what_lies_about_in_the_run_dir_is_no_record() {
    let bench = Bench::new();
    for name in ["x.json", "70000.json", "-1.json", "1.lock.json", ".json"] {
        std::fs::write(bench.run_dir.path().join(name), "{}").unwrap();
    }
    assert!(bench.reap(bench.run_dir.path()).is_none());
}

#[test]
fn a_record_is_gone_with_its_guest() {
    let bench = Bench::new();
    let guest = bench.attach();
    bench.model.destroy(bench.dom);
    until("the death is noticed", || !guest.is_served());
    bench.assert_let_go();
}
