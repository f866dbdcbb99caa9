//! Event channels (`xen/common/event_channel.c`, `drivers/xen/evtchn.c`).

use crate::bench::{Bench, DOORBELL, doorbell, errno, pending, readable};
use xen_eventfd_core::{DomId, Port, Space, Width};
use xen_eventfd_host::{Binding, Errno, Host, LocalPort};
use xen_eventfd_model::Stopped;

const DOM0: DomId = DomId(0);

#[test]
fn a_newly_bound_port_is_pending() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    assert!(!readable(channels.fd()));
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    assert!(readable(channels.fd()));
    assert_eq!(pending(&*channels), [local]);
    assert!(!readable(channels.fd()));
    assert_eq!(bench.host.events(bench.dom, port), 1);
}

#[test]
fn a_port_is_masked_until_its_event_ends_and_the_next_event_stays_pending() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    bench.vcpu(0).send(port).unwrap();
    bench.vcpu(0).send(port).unwrap();
    assert_eq!(pending(&*channels), [local], "each port is queued once");
    assert!(!readable(channels.fd()));
    channels.eoi(local).unwrap();
    assert!(readable(channels.fd()));
    assert_eq!(pending(&*channels), [local], "later events are merged");
    channels.eoi(local).unwrap();
    channels.eoi(local).unwrap();
    assert_eq!(pending(&*channels), []);
    assert_eq!(bench.host.wakeups(), 2);
}

#[test]
fn a_wait_ends_on_an_event_or_on_wake() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let wait = || {
        let mut ports = Vec::new();
        channels.wait(&mut ports).map(|()| ports)
    };
    std::thread::scope(|scope| {
        let waits = scope.spawn(wait);
        let local = channels.bind(bench.dom, port).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), [local]);
        let waits = scope.spawn(wait);
        channels.wake().unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), []);
        channels.wake().unwrap();
        assert_eq!(wait().unwrap(), [], "a wake without a waiter ends the next wait");
        let waits = scope.spawn(wait);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waits.is_finished(), "one wake ends one wait");
        channels.eoi(local).unwrap();
        bench.vcpu(0).send(port).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), [local], "no other port is reported");
    });
}

#[test]
fn all_ports_with_an_event_are_reported_at_once() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let ports = [(); 3].map(|()| bench.vcpu(0).alloc_unbound().unwrap());
    let locals = ports.map(|port| channels.bind(bench.dom, port).unwrap());
    assert_eq!(pending(&*channels), locals);
    locals.iter().for_each(|local| channels.eoi(*local).unwrap());
    bench.vcpu(0).send(ports[2]).unwrap();
    bench.vcpu(0).send(ports[0]).unwrap();
    assert_eq!(pending(&*channels), [locals[0], locals[2]]);
}

#[test]
fn notify_reaches_the_guest_and_untaken_events_are_merged() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    assert_eq!(bench.vcpu(0).try_take(port), Ok(false));
    let wait = bench.vcpu(0).run(move |vcpu| vcpu.wait(port));
    channels.notify(local).unwrap();
    wait.join().unwrap();
    channels.notify(local).unwrap();
    channels.notify(local).unwrap();
    assert_eq!(bench.vcpu(1).try_take(port), Ok(true));
    assert_eq!(bench.vcpu(1).try_take(port), Ok(false));
}

#[test]
fn only_an_unbound_port_of_the_guest_can_be_bound() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    channels.bind(bench.dom, port).unwrap();
    assert_eq!(errno(channels.bind(bench.dom, port)), Errno::INVAL, "bound already");
    assert_eq!(errno(channels.bind(bench.dom, Port(1))), Errno::INVAL, "the toolstack's port");
    assert_eq!(errno(channels.bind(bench.dom, Port(0))), Errno::INVAL);
    assert_eq!(errno(channels.bind(bench.dom, Port(99))), Errno::INVAL);
    assert_eq!(errno(channels.bind(DomId(77), port)), Errno::SRCH);
}

#[test]
fn ports_of_another_set_are_not_connected() {
    let bench = Bench::new();
    let (mine, other) =
        (bench.host.event_channels().unwrap(), bench.host.event_channels().unwrap());
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = mine.bind(bench.dom, port).unwrap();
    assert_eq!(errno(other.notify(local)), Errno::NOTCONN);
    assert_eq!(errno(other.unbind(local)), Errno::NOTCONN);
    assert_eq!(errno(mine.notify(LocalPort(99))), Errno::NOTCONN);
    bench.vcpu(0).send(port).unwrap();
    other.eoi(local).unwrap();
    assert_eq!(pending(&*mine), [local]);
    assert_eq!(pending(&*mine), [], "only its own set can end it");
}

#[test]
fn an_unbound_port_can_be_bound_again_and_events_in_between_are_lost() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    let bound = Binding::Bound { by: DOM0, port: local };
    assert_eq!(bench.host.binding(bench.dom, port), Ok(bound));
    assert_eq!(pending(&*channels), [local]);
    channels.unbind(local).unwrap();
    assert_eq!(bench.host.binding(bench.dom, port), Ok(Binding::Unbound { by: DOM0 }));
    assert_eq!(bench.vcpu(0).send(port), Ok(()));
    assert_eq!(pending(&*channels), []);
    let again = channels.bind(bench.dom, port).unwrap();
    assert_eq!(pending(&*channels), [again]);
}

#[test]
fn an_event_that_was_queued_outlives_its_binding_and_is_not_reported() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    channels.unbind(local).unwrap();
    assert!(readable(channels.fd()));
    assert_eq!(pending(&*channels), []);
    assert!(!readable(channels.fd()));
    channels.unbind(channels.bind(bench.dom, port).unwrap()).unwrap();
    let again = channels.bind(bench.dom, port).unwrap();
    assert_eq!(pending(&*channels), [again], "once, although its number was queued twice");
}

#[test]
fn dropping_a_set_unbinds_all_of_it() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let port = server.page.slots()[1].vp_eport();
    drop(server.channels);
    assert_eq!(bench.host.binding(bench.dom, port), Ok(Binding::Unbound { by: DOM0 }));
    assert_eq!(bench.host.leftovers().ports, []);
}

#[test]
fn binding_reports_the_state_of_a_port() {
    let bench = Bench::new();
    let binding = |port| bench.host.binding(bench.dom, Port(port));
    assert!(matches!(binding(1), Ok(Binding::Bound { by: DOM0, .. })));
    assert_eq!(binding(0), Ok(Binding::Other));
    assert_eq!(binding(500), Ok(Binding::Other));
    assert_eq!(errno(bench.host.binding(DomId(77), Port(1))), Errno::SRCH);
}

#[test]
fn a_request_to_an_unbound_port_is_found_when_the_port_is_bound() {
    let bench = Bench::new();
    let (host, dom, id) = (&bench.host, bench.dom, bench.servers(1)[0]);
    let page = host.map_page(dom, id).unwrap();
    host.map_range(dom, id, doorbell()).unwrap();
    host.set_server_state(dom, id, true).unwrap();
    let write = bench.vcpu(0).run(|vcpu| vcpu.write(Space::Mmio, DOORBELL, Width::Four, 1));
    bench.vcpu(0).until_parked();
    let channels = host.event_channels().unwrap();
    let local = channels.bind(dom, page.slots()[0].vp_eport()).unwrap();
    assert_eq!(pending(&*channels), [local]);
    page.slots()[0].serve(|_| 0);
    channels.notify(local).unwrap();
    write.join().unwrap();
}

#[test]
fn the_guest_can_neither_notify_nor_close_xens_own_ports() {
    let bench = Bench::new();
    bench.servers(1);
    let refused = Err(Stopped::Refused(Errno::INVAL));
    assert_eq!(bench.vcpu(0).send(Port(3)), refused);
    assert_eq!(bench.vcpu(0).close(Port(3)), refused);
    assert_eq!(bench.vcpu(0).send(Port(99)), refused);
}

#[test]
fn a_port_that_the_guest_closes_leaves_the_local_end_unconnected() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    assert_eq!(pending(&*channels), [local]);
    channels.eoi(local).unwrap();
    bench.vcpu(0).close(port).unwrap();
    assert!(!readable(channels.fd()), "a close sends no event");
    assert_eq!(bench.host.binding(bench.dom, port), Ok(Binding::Other));
    assert_eq!(channels.notify(local), Ok(()));
    assert_eq!(bench.vcpu(0).alloc_unbound(), Ok(port), "the lowest free port");
    assert_eq!(channels.notify(local), Ok(()));
    assert_eq!(bench.vcpu(0).try_take(port), Ok(false), "this port belongs to another channel");
    channels.unbind(local).unwrap();
    assert_eq!(bench.host.binding(bench.dom, port), Ok(Binding::Unbound { by: DOM0 }));
}

/// `EVTCHNOP_send` is allowed to every process of the domain.
#[test]
fn any_process_of_the_domain_can_notify_a_port() {
    let bench = Bench::new();
    let channels = bench.host.event_channels().unwrap();
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    let other = bench.model.client("other");
    assert_eq!(other.notify_port(local), Ok(()));
    assert_eq!(bench.vcpu(0).wait(port), Ok(()));
    channels.unbind(local).unwrap();
    assert_eq!(errno(other.notify_port(local)), Errno::INVAL);
}

#[test]
fn ports_stay_bound_while_a_forked_child_has_the_descriptor_open() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let port = server.page.slots()[0].vp_eport();
    let bound = Binding::Bound { by: DOM0, port: server.ports[0] };
    let child = bench.host.kill_and_leave_child();
    let other = bench.model.client("other");
    assert_eq!(other.binding(bench.dom, port), Ok(bound));
    drop(child);
    assert_eq!(other.binding(bench.dom, port), Ok(Binding::Unbound { by: DOM0 }));
}
