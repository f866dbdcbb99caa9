//! The end of guests and clients, and what they leave behind.

use crate::bench::{Bench, DOORBELL, Server, doorbell, errno, pending, readable};
use xen_eventfd_core::slot::State;
use xen_eventfd_core::{DomId, IoServerId, Space, VcpuId, Width};
use xen_eventfd_host::{Binding, Errno, Host};
use xen_eventfd_model::{Config, Stopped};

#[test]
fn a_killed_client_leaves_its_server_enabled_and_its_ports_unbound() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let write = bench.vcpu(0).run(|vcpu| vcpu.write(Space::Mmio, DOORBELL, Width::Four, 1));
    bench.vcpu(0).until_parked();
    let port = server.page.slots()[0].vp_eport();
    bench.host.kill();

    assert!(bench.vcpu(0).is_parked());
    assert!(bench.model.servers(bench.dom)[0].enabled);
    let left = bench.host.leftovers();
    assert_eq!(left.servers, [(bench.dom, IoServerId(0))]);
    assert_eq!((left.ports, left.pages, left.sets), (vec![], 0, 0));

    // The next engine adopts it.
    let successor = bench.model.client("successor");
    assert_eq!(successor.binding(bench.dom, port), Ok(Binding::Unbound { by: DomId(0) }));
    let page = successor.map_page(bench.dom, server.id).unwrap();
    let channels = successor.event_channels().unwrap();
    let local = channels.bind(bench.dom, port).unwrap();
    assert!(page.slots()[0].sweep().is_some());
    channels.notify(local).unwrap();
    write.join().unwrap();
}

#[test]
fn all_handles_of_a_killed_client_fail() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let mut releases = bench.host.releases().unwrap();
    let mut signaller = bench.host.signaller().unwrap();
    pending(&*server.channels);
    assert!(!readable(server.channels.fd()) && !readable(releases.fd()));
    let write = bench.vcpu(0).run(|vcpu| vcpu.write(Space::Mmio, DOORBELL, Width::Four, 1));
    bench.vcpu(0).until_parked();
    bench.host.kill();

    assert!(readable(server.channels.fd()), "a poller wakes up");
    assert!(readable(releases.fd()));
    let fd = server.channels.fd();
    assert_eq!(errno(server.channels.pending(&mut Vec::new())), Errno::SHUTDOWN);
    assert_eq!(errno(server.channels.notify(server.ports[0])), Errno::SHUTDOWN);
    assert_eq!(errno(server.channels.eoi(server.ports[0])), Errno::SHUTDOWN);
    assert_eq!(errno(server.channels.unbind(server.ports[0])), Errno::SHUTDOWN);
    assert_eq!(errno(releases.drain()), Errno::SHUTDOWN);
    assert_eq!(errno(signaller.signal(fd)), Errno::SHUTDOWN);
    assert_eq!(errno(bench.host.domains()), Errno::SHUTDOWN);
    assert_eq!(server.page.slots()[0].state(), State::None, "the client sees a private page");
    bench.model.destroy(bench.dom);
    assert_eq!(write.join(), Err(Stopped::Destroyed));
}

#[test]
fn a_dead_guest_is_a_zombie_while_its_page_is_mapped() {
    let bench = Bench::new();
    let (host, dom) = (&bench.host, bench.dom);
    let server = bench.server(doorbell());
    let port = server.page.slots()[0].vp_eport();
    let second = host.map_page(dom, server.id).unwrap();
    assert!(bench.model.destroy(dom));
    assert!(!bench.model.destroy(dom), "it is a zombie already");

    assert_eq!(bench.model.zombies(), [dom]);
    assert_eq!(host.vcpus(dom), Ok(2));
    assert_eq!(host.server_alive(dom, server.id), Ok(false));
    assert_eq!(errno(host.set_server_state(dom, server.id, false)), Errno::NOENT);
    assert_eq!(errno(host.unmap_range(dom, server.id, doorbell())), Errno::NOENT);
    assert_eq!(errno(host.destroy_server(dom, server.id)), Errno::NOENT);
    assert_eq!(errno(host.create_server(dom)), Errno::SRCH, "it gets no ports");
    assert_eq!(errno(host.domain(dom)), Errno::NOENT, "xenstore does not list it");
    assert_eq!(host.binding(dom, port), Ok(Binding::Other));
    assert_eq!(server.channels.notify(server.ports[0]), Ok(()), "lost, without an error");
    assert_eq!(server.channels.unbind(server.ports[0]), Ok(()));

    drop(second);
    assert_eq!(host.vcpus(dom), Ok(2));
    drop(server);
    assert_eq!(bench.model.zombies(), []);
    assert_eq!(errno(host.vcpus(dom)), Errno::SRCH);
    assert_eq!(errno(host.set_server_state(dom, IoServerId(0), false)), Errno::SRCH);
    assert_eq!(host.server_alive(dom, IoServerId(0)), Ok(false));
}

/// As observed on Xen 4.20: `evtchn_reset` leaves out the channels that Xen itself uses.
#[test]
fn a_soft_reset_closes_the_guests_channels_and_keeps_servers() {
    let bench = Bench::new();
    let (host, dom) = (&bench.host, bench.dom);
    let server = bench.server(doorbell());
    let vcpu = bench.model.vcpu(dom, VcpuId(0));
    let old = vcpu.alloc_unbound().unwrap();
    let local = server.channels.bind(dom, old).unwrap();
    let (servers, uuid) = (bench.model.servers(dom), host.domain(dom).unwrap().uuid);
    vcpu.soft_reset().unwrap();
    assert_eq!(bench.model.servers(dom), servers);
    assert_eq!(host.domain(dom).unwrap().uuid, uuid);
    assert_eq!(host.binding(dom, old), Ok(Binding::Other));
    assert_eq!(server.channels.notify(local), Ok(()), "lost, without an error");
    let ours = server.ports[0];
    let remote = server.page.slots()[0].vp_eport();
    assert!(matches!(host.binding(dom, remote), Ok(Binding::Bound { port, .. }) if port == ours));
    assert_eq!(vcpu.alloc_unbound(), Ok(old), "the number is free again");
}

/// `ioreq_server_get_info` looks for the server, and not at its state.
#[test]
fn a_server_is_alive_enabled_or_not_until_it_is_destroyed() {
    let bench = Bench::new();
    let (host, dom) = (&bench.host, bench.dom);
    let id = bench.servers(1)[0];
    assert_eq!(host.server_alive(dom, id), Ok(true), "created");
    let _page = host.map_page(dom, id).unwrap();
    for enabled in [true, false] {
        host.set_server_state(dom, id, enabled).unwrap();
        assert_eq!(host.server_alive(dom, id), Ok(true), "enabled: {enabled}");
    }
    host.destroy_server(dom, id).unwrap();
    assert_eq!(host.server_alive(dom, id), Ok(false), "destroyed");
    assert_eq!(host.server_alive(dom, IoServerId(8)), Ok(false), "an id beyond the limit");
}

#[test]
fn a_page_stays_readable_after_its_guest_is_destroyed() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let port = server.page.slots()[0].vp_eport();
    bench.model.destroy(bench.dom);
    assert_eq!(server.page.slots()[0].vp_eport(), port);
    bench.host.kill();
    assert_eq!(bench.model.zombies(), [], "a killed client maps nothing");
    drop(server);
}

#[test]
fn a_guest_without_mapped_pages_is_gone_at_once() {
    let bench = Bench::new();
    bench.servers(3);
    bench.model.destroy(bench.dom);
    assert_eq!(bench.model.zombies(), []);
    assert_eq!(errno(bench.host.vcpus(bench.dom)), Errno::SRCH);
    assert!(bench.host.leftovers().is_empty());
}

#[test]
fn a_watch_reports_a_destroyed_guest() {
    let bench = Bench::new();
    let other = bench.model.domain(Config::new("other"));
    let mut watches = [bench.host.releases().unwrap(), bench.host.releases().unwrap()];
    for watch in &mut watches {
        assert!(!readable(watch.fd()));
        assert_eq!(watch.drain(), Ok(false));
    }
    bench.model.destroy(bench.dom);
    bench.model.destroy(other);
    for watch in &mut watches {
        assert!(readable(watch.fd()));
        assert_eq!(watch.drain(), Ok(true));
        assert_eq!(watch.drain(), Ok(false));
        assert!(!readable(watch.fd()));
    }
}

#[test]
fn a_watch_reports_a_crash_and_the_guest_stays_until_it_is_destroyed() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let mut watch = bench.host.releases().unwrap();
    bench.model.crash(bench.dom, "on purpose");
    assert_eq!(watch.drain(), Ok(true));
    assert!(matches!(bench.vcpu(0).balloon(1), Err(Stopped::Crashed(_))));
    assert!(bench.host.domain(bench.dom).is_ok());
    assert_eq!(bench.host.set_server_state(bench.dom, server.id, false), Ok(()));
    bench.model.destroy(bench.dom);
    assert_eq!(watch.drain(), Ok(true));
}

#[test]
fn domains_are_listed_as_xenstore_shows_them() {
    let bench = Bench::new();
    let second = bench.model.domain(Config::new("second").uuid("of its own"));
    let all = bench.host.domains().unwrap();
    let names: Vec<_> = all.iter().map(|d| (d.id.0, d.name.as_deref().unwrap())).collect();
    assert_eq!(names, [(0, "Domain-0"), (1, "guest"), (2, "second")]);
    assert_eq!(bench.host.domain(second).unwrap().uuid.as_deref(), Some("of its own"));
    let nameless = bench.model.domain(Config::new(""));
    assert_eq!(bench.host.domains().unwrap().last(), bench.host.domain(nameless).ok().as_ref());
    assert_eq!(bench.host.domain(nameless).unwrap().name, None);
    bench.model.destroy(nameless);
    bench.model.destroy(bench.dom);
    assert_eq!(bench.host.domains().unwrap().len(), 2);
    assert_eq!(bench.model.domain(Config::new("fourth")), DomId(4), "ids are not reused");
}

#[test]
fn a_domain_id_can_be_reused_and_old_handles_do_not_refer_to_the_new_guest() {
    let bench = Bench::new();
    let (old, before) = (bench.vcpu(0), bench.host.domain(bench.dom).unwrap());
    bench.model.destroy(bench.dom);
    let dom = bench.model.domain(Config::new("guest").id(bench.dom));
    let after = bench.host.domain(dom).unwrap();
    assert_eq!((after.id, &after.name), (before.id, &before.name));
    assert_ne!(after.uuid, before.uuid);
    assert_eq!(old.alloc_unbound(), Err(Stopped::Destroyed));
}

#[test]
#[should_panic(expected = "domain 1 is in use")]
fn a_zombies_id_is_in_use() {
    let bench = Bench::new();
    let _server: Server = bench.server(doorbell());
    bench.model.destroy(bench.dom);
    bench.model.domain(Config::new("too early").id(bench.dom));
}

#[test]
fn dropping_all_handles_of_a_client_leaves_only_its_servers() {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let watch = bench.host.releases().unwrap();
    let left = bench.host.leftovers();
    assert_eq!((left.ports.len(), left.pages, left.sets, left.watches), (2, 1, 1, 1));
    bench.host.destroy_server(bench.dom, server.id).unwrap();
    drop((server, watch));
    assert!(bench.host.leftovers().is_empty());
}
