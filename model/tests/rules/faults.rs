//! Fault injection.

use crate::bench::{Bench, DOORBELL, doorbell, errno, pending};
use std::sync::{Arc, Mutex};
use xen_eventfd_core::{Space, Width};
use xen_eventfd_host::{Call, Errno, Host};
use xen_eventfd_model::{CallKind, Stopped, Verdict};

#[test]
fn the_nth_call_of_a_kind_fails_and_only_that_one() {
    let bench = Bench::new();
    bench.host.fail(CallKind::CreateServer, 2, Errno::NOMEM);
    bench.host.fail(CallKind::UnmapRange, 1, Errno::NOMEM);
    let id = bench.host.create_server(bench.dom).unwrap();
    assert_eq!(errno(bench.host.create_server(bench.dom)), Errno::NOMEM);
    assert!(bench.host.create_server(bench.dom).is_ok());
    assert_eq!(bench.model.servers(bench.dom).len(), 2, "the second call was not made");
    bench.host.map_range(bench.dom, id, doorbell()).unwrap();
    let refused = bench.host.unmap_range(bench.dom, id, doorbell()).unwrap_err();
    assert_eq!(refused.call, Call::UnmapRange(bench.dom, id, doorbell()));
    assert_eq!(bench.model.servers(bench.dom)[0].ranges, [doorbell()], "the range is still mapped");
    assert_eq!(bench.host.unmap_range(bench.dom, id, doorbell()), Ok(()));
}

#[test]
fn a_hook_sees_every_call_of_the_client_and_its_handles() {
    let bench = Bench::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    bench.host.on_call(Box::new(move |site| {
        log.lock().unwrap().push((site.index, site.kind));
        Verdict::Proceed
    }));
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    pending(&*channels);
    channels.eoi(local).unwrap();
    let kinds = [CallKind::EventChannels, CallKind::Bind, CallKind::Pending, CallKind::Eoi];
    assert_eq!(*seen.lock().unwrap(), (1..).zip(kinds).collect::<Vec<_>>());
    assert_eq!(bench.host.calls(), 4);
}

#[test]
fn a_client_can_be_killed_before_a_call_and_after_it() {
    for (verdict, made) in [(Verdict::KillBefore, 0), (Verdict::KillAfter, 1)] {
        let bench = Bench::new();
        bench.host.on_call(Box::new(move |_| verdict));
        assert_eq!(errno(bench.host.create_server(bench.dom)), Errno::SHUTDOWN);
        assert!(bench.host.is_killed());
        assert_eq!(bench.model.servers(bench.dom).len(), made);
    }
}

#[test]
fn the_result_of_a_call_is_released_when_the_client_is_killed_after_it() {
    let bench = Bench::new();
    let id = bench.servers(1)[0];
    bench.host.on_call(Box::new(|_| Verdict::KillAfter));
    assert_eq!(errno(bench.host.map_page(bench.dom, id)), Errno::SHUTDOWN);
    assert!(bench.model.servers(bench.dom)[0].has_page);
    bench.model.destroy(bench.dom);
    assert_eq!(bench.model.zombies(), []);
}

#[test]
fn a_hook_may_refuse_a_call() {
    let bench = Bench::new();
    bench.host.on_call(Box::new(|site| match site.call {
        Call::Vcpus(_) => Verdict::Fail(Errno::NOSYS),
        _ => Verdict::Proceed,
    }));
    assert_eq!(errno(bench.host.vcpus(bench.dom)), Errno::NOSYS);
    assert!(bench.host.create_server(bench.dom).is_ok());
}

#[test]
fn a_guest_can_be_destroyed_during_its_request() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let write = bench.vcpu(0).run(|vcpu| vcpu.write(Space::Mmio, DOORBELL, Width::Four, 1));
    bench.vcpu(0).until_parked();
    let (model, dom) = (bench.model.clone(), bench.dom);
    bench.host.on_call(Box::new(move |site| {
        if site.kind == CallKind::Notify {
            model.destroy(dom);
        }
        Verdict::Proceed
    }));
    assert!(server.answer(0, 0).is_some());
    assert_eq!(write.join(), Err(Stopped::Destroyed));
    assert_eq!(bench.model.zombies(), [dom]);
}

/// Found by LeakSanitizer: the hook held the model, which held the client.
#[test]
fn a_hook_is_dropped_with_its_client() {
    let bench = Bench::new();
    let client = bench.model.client("other");
    let marker = Arc::new(());
    let (model, holds) = (bench.model.clone(), marker.clone());
    client.on_call(Box::new(move |_| {
        let _ = (&model, &holds);
        Verdict::Proceed
    }));
    drop(client);
    assert_eq!(Arc::strong_count(&marker), 1);
}

#[test]
fn a_fault_of_one_client_does_not_affect_another() {
    let bench = Bench::new();
    bench.host.fail(CallKind::Domains, 1, Errno::IO);
    bench.host.kill();
    assert!(bench.model.client("other").domains().is_ok());
}
