//! Which ioreq server gets an access (`xen/common/ioreq.c`).

use crate::bench::{Bench, DOORBELL, Server, doorbell, errno, mmio, pio};
use xen_eventfd_core::ioreq::Odd;
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::slot::State;
use xen_eventfd_core::{DomId, IoServerId, Kick, Port, Request, Space, Width};
use xen_eventfd_host::{Errno, Host};
use xen_eventfd_model::{Config, Kind, MAX_SERVERS, Stopped};

const ALL: (u64, u64) = (0xFE00_0000, 0xFE00_01FF);

fn kick(width: Width, value: u64) -> Request {
    Request::Kick(Kick::new(Space::Mmio, DOORBELL, width, value))
}

#[test]
fn the_highest_enabled_id_gets_the_access() {
    let bench = Bench::new();
    let (low, high) = (bench.server(mmio(ALL.0, ALL.1)), bench.server(doorbell()));
    let write = |value| {
        let run = bench.vcpu(0).run(move |v| v.write(Space::Mmio, DOORBELL, Width::Four, value));
        bench.vcpu(0).until_parked();
        run
    };
    let first = write(7);
    assert_eq!(low.answer(0, 0), None);
    bench.vcpu(0).until_parked();
    assert_eq!(high.answer(0, 0), Some(kick(Width::Four, 7)));
    first.join().unwrap();

    bench.host.set_server_state(bench.dom, high.id, false).unwrap();
    let second = write(8);
    assert_eq!(low.answer(0, 0), Some(kick(Width::Four, 8)));
    second.join().unwrap();
}

#[test]
fn a_server_must_claim_the_whole_access() {
    let bench = Bench::new();
    let (low, _high) = (bench.server(mmio(ALL.0, ALL.1)), bench.server(doorbell()));
    let write = bench.vcpu(0).run(|v| v.write(Space::Mmio, DOORBELL, Width::Eight, 7));
    bench.vcpu(0).until_parked();
    assert_eq!(low.answer(0, 0), Some(kick(Width::Eight, 7)));
    write.join().unwrap();
}

#[test]
fn unclaimed_reads_return_all_ones_and_unclaimed_writes_are_dropped() {
    let bench = Bench::new();
    let _server = bench.server(doorbell());
    let vcpu = bench.vcpu(0);
    assert_eq!(vcpu.read(Space::Mmio, DOORBELL + 2, Width::Four), Ok(0xFFFF_FFFF));
    assert_eq!(vcpu.read(Space::Pio, DOORBELL & 0xFFFF, Width::One), Ok(0xFF));
    assert_eq!(vcpu.write(Space::Mmio, DOORBELL + 4, Width::Four, 1), Ok(()));
}

#[test]
fn on_arm_what_no_server_claims_is_a_data_abort_and_so_is_what_xen_does_not_send() {
    let bench = Bench::on(Arch::Arm);
    let server = bench.server(doorbell());
    let vcpu = bench.vcpu(0);
    assert_eq!(vcpu.read(Space::Mmio, DOORBELL + 2, Width::Four), Err(Stopped::Abort));
    assert_eq!(vcpu.write(Space::Mmio, DOORBELL + 4, Width::Four, 1), Err(Stopped::Abort));
    server.page.slots()[0].force(State::Answered);
    assert_eq!(vcpu.write(Space::Mmio, DOORBELL, Width::Four, 1), Err(Stopped::Abort));
}

#[test]
fn a_server_that_goes_while_a_vcpu_waits_there_crashes_the_host_on_arm() {
    for (arch, crashes) in [(Arch::X86, false), (Arch::Arm, true)] {
        let bench = Bench::on(arch);
        let server = bench.server(doorbell());
        let write = bench.vcpu(0).run(|v| v.write(Space::Mmio, DOORBELL, Width::Four, 7));
        bench.vcpu(0).until_parked();
        // Answered and woken, it still has to run to take the answer.
        bench.model.pause(bench.dom, true);
        assert!(server.answer(0, 0).is_some());
        bench.host.destroy_server(bench.dom, bench.model.servers(bench.dom)[0].id).unwrap();
        assert_eq!(bench.model.host_crashed().is_some(), crashes, "{arch}");
        bench.model.pause(bench.dom, false);
        assert_eq!(write.join().is_err(), crashes, "{arch}");
    }
}

#[test]
fn the_first_free_id_is_assigned_and_a_ninth_server_is_refused() {
    let bench = Bench::new();
    assert_eq!(bench.servers(MAX_SERVERS), (0..8).map(IoServerId).collect::<Vec<_>>());
    assert_eq!(errno(bench.host.create_server(bench.dom)), Errno::NOSPC);
    for id in [5, 2] {
        bench.host.destroy_server(bench.dom, IoServerId(id)).unwrap();
    }
    assert_eq!(bench.servers(2), [IoServerId(2), IoServerId(5)]);
}

#[test]
fn server_ids_can_be_forced() {
    let bench = Bench::new();
    bench.model.next_server_ids([6, 6, 0]);
    assert_eq!(bench.servers(4), [6, 0, 1, 2].map(IoServerId));
}

#[test]
fn each_server_allocates_a_port_for_each_vcpu_and_frees_them() {
    let bench = Bench::new();
    let ports = || bench.model.ports(bench.dom).len();
    let before = ports();
    let id = bench.servers(1)[0];
    assert_eq!(bench.model.servers(bench.dom)[0].ports, [Port(3), Port(4)]);
    bench.host.destroy_server(bench.dom, id).unwrap();
    assert_eq!(ports(), before);
}

#[test]
fn creating_a_server_fails_without_free_ports() {
    let bench = Bench::new();
    let dom = bench.model.domain(Config::new("few ports").vcpus(2).last_port(5));
    bench.host.create_server(dom).unwrap();
    assert_eq!(errno(bench.host.create_server(dom)), Errno::NOSPC);
    assert_eq!(bench.model.servers(dom).len(), 1);
    bench.host.destroy_server(dom, IoServerId(0)).unwrap();
    assert!(bench.host.create_server(dom).is_ok());
}

#[test]
fn ranges_of_one_server_do_not_overlap_and_adjacent_ranges_merge() {
    let bench = Bench::new();
    let (host, dom, id) = (&bench.host, bench.dom, bench.servers(1)[0]);
    host.map_range(dom, id, mmio(0x50, 0x53)).unwrap();
    assert_eq!(errno(host.map_range(dom, id, mmio(0x53, 0x54))), Errno::EXIST);
    host.map_range(dom, id, mmio(0x54, 0x57)).unwrap();
    host.map_range(dom, id, pio(0x50, 0x53)).unwrap();
    assert_eq!(bench.model.servers(dom)[0].ranges, [mmio(0x50, 0x57), pio(0x50, 0x53)]);
    assert_eq!(errno(host.unmap_range(dom, id, mmio(0x57, 0x58))), Errno::NOENT);
    host.unmap_range(dom, id, mmio(0x52, 0x55)).unwrap();
    let left = [mmio(0x50, 0x51), mmio(0x56, 0x57), pio(0x50, 0x53)];
    assert_eq!(bench.model.servers(dom)[0].ranges, left);
}

#[test]
fn a_server_has_256_ranges_of_each_type_and_a_split_needs_one() {
    let bench = Bench::new();
    let (host, dom, id) = (&bench.host, bench.dom, bench.servers(1)[0]);
    for n in 0..256 {
        host.map_range(dom, id, mmio(n * 0x100, n * 0x100 + 3)).unwrap();
    }
    assert_eq!(errno(host.map_range(dom, id, mmio(0x1_0000, 0x1_0003))), Errno::NOMEM);
    assert_eq!(errno(host.unmap_range(dom, id, mmio(1, 2))), Errno::NOMEM);
    // It grows upwards without a new range, not downwards.
    host.map_range(dom, id, mmio(4, 7)).unwrap();
    assert_eq!(errno(host.map_range(dom, id, mmio(0xFC, 0xFF))), Errno::NOMEM);
    host.map_range(dom, id, pio(0, 3)).unwrap();
}

#[test]
fn two_servers_may_claim_the_same_bytes() {
    let bench = Bench::new();
    let ids = bench.servers(2);
    ids.iter().for_each(|id| bench.host.map_range(bench.dom, *id, doorbell()).unwrap());
}

#[test]
fn server_calls_for_pv_guests_own_domain_and_missing_domains_are_refused() {
    let bench = Bench::new();
    let pv = bench.model.domain(Config::new("pv").kind(Kind::Pv));
    let refusals = |dom| {
        let host = &bench.host;
        let id = IoServerId(0);
        [
            errno(host.vcpus(dom)),
            errno(host.create_server(dom)),
            errno(host.map_page(dom, id)),
            errno(host.set_server_state(dom, id, true)),
            errno(host.map_range(dom, id, doorbell())),
            errno(host.unmap_range(dom, id, doorbell())),
            errno(host.destroy_server(dom, id)),
            errno(host.inject_msi(dom, 0xFEE0_0000, 0x41)),
        ]
    };
    assert_eq!(refusals(pv), [Errno::INVAL; 8]);
    assert_eq!(refusals(DomId(0)), [Errno::PERM; 8]);
    assert_eq!(refusals(DomId(77)), [Errno::SRCH; 8]);
}

#[test]
fn calls_on_a_missing_server_return_enoent() {
    let bench = Bench::new();
    for id in [0, 7, 8, 0xFFFF].map(IoServerId) {
        assert_eq!(errno(bench.host.set_server_state(bench.dom, id, true)), Errno::NOENT);
        assert_eq!(errno(bench.host.map_page(bench.dom, id)), Errno::NOENT);
        assert_eq!(errno(bench.host.destroy_server(bench.dom, id)), Errno::NOENT);
    }
}

#[test]
fn any_client_may_destroy_any_server() {
    let bench = Bench::new();
    let id = bench.servers(1)[0];
    bench.model.client("other").destroy_server(bench.dom, id).unwrap();
    assert!(bench.host.leftovers().is_empty());
}

#[test]
fn enabling_a_server_writes_its_ports_to_the_page() {
    let bench = Bench::new();
    let (host, dom, id) = (&bench.host, bench.dom, bench.servers(1)[0]);
    let page = host.map_page(dom, id).unwrap();
    assert_eq!(page.slots()[0].vp_eport(), Port(0));
    host.set_server_state(dom, id, true).unwrap();
    assert_eq!(page.slots()[0].vp_eport(), Port(3));
    assert_eq!(page.slots()[1].vp_eport(), Port(4));
    assert_eq!(page.slots()[2].vp_eport(), Port(0));
}

#[test]
fn a_page_acquired_after_enabling_has_no_ports_until_enabled_again() {
    let bench = Bench::new();
    let (host, dom, id) = (&bench.host, bench.dom, bench.servers(1)[0]);
    host.map_range(dom, id, doorbell()).unwrap();
    host.set_server_state(dom, id, true).unwrap();
    let page = host.map_page(dom, id).unwrap();
    host.set_server_state(dom, id, true).unwrap();
    assert_eq!(page.slots()[0].vp_eport(), Port(0), "it was enabled already");
    let vcpu = bench.vcpu(0);
    assert_eq!(vcpu.write(Space::Mmio, DOORBELL, Width::Four, 1), Err(Stopped::Fault));
    host.set_server_state(dom, id, false).unwrap();
    host.set_server_state(dom, id, true).unwrap();
    assert_eq!(page.slots()[0].vp_eport(), Port(3));
}

#[test]
fn an_access_to_an_enabled_server_without_a_page_crashes_the_host() {
    let bench = Bench::new();
    let (host, dom, id) = (&bench.host, bench.dom, bench.servers(1)[0]);
    host.map_range(dom, id, doorbell()).unwrap();
    host.set_server_state(dom, id, true).unwrap();
    assert_eq!(bench.model.host_crashed(), None, "no access yet");
    let stopped = bench.vcpu(0).write(Space::Mmio, DOORBELL, Width::Four, 1).unwrap_err();
    let why = bench.model.host_crashed().unwrap();
    assert_eq!(stopped, Stopped::HostCrashed(why));
    assert_eq!(errno(host.domains()), Errno::HOSTDOWN);
    assert!(matches!(bench.vcpu(1).alloc_unbound(), Err(Stopped::HostCrashed(_))));
}

#[test]
fn a_broadcast_to_an_enabled_server_without_a_page_crashes_the_host() {
    let bench = Bench::new();
    bench.host.set_server_state(bench.dom, bench.servers(1)[0], true).unwrap();
    assert!(matches!(bench.vcpu(0).balloon(1), Err(Stopped::HostCrashed(_))));
}

#[test]
fn invalidate_goes_to_every_enabled_server_once_for_each_call() {
    let bench = Bench::new();
    let servers = [bench.server(doorbell()), bench.server(mmio(0, 3))];
    bench.servers(1);
    let balloon = bench.vcpu(1).run(|vcpu| vcpu.balloon(512));
    for server in &servers {
        bench.vcpu(1).until_parked();
        assert_eq!(server.answer(1, 0), Some(Request::Broadcast));
    }
    balloon.join().unwrap();
    assert_eq!(bench.vcpu(0).balloon(0), Ok(()));
}

fn odd(why: Odd, space: Space, addr: u64) -> Request {
    Request::Odd { why, space: Some(space), addr }
}

#[test]
fn rep_stos_is_one_request_for_each_page_with_the_value_in_it() {
    let bench = Bench::new();
    let server = bench.server(mmio(0xFE00_0000, 0xFE00_1FFF));
    let stos = bench.vcpu(0).run(|v| v.rep_stos(0xFE00_0FF8, Width::Four, 9, 3));
    bench.vcpu(0).until_parked();
    let first = odd(Odd::Count, Space::Mmio, 0xFE00_0FF8);
    assert_eq!(server.answer(0, 0), Some(first), "two repetitions on the first page");
    bench.vcpu(0).until_parked();
    let last = Request::Kick(Kick::new(Space::Mmio, 0xFE00_1000, Width::Four, 9));
    assert_eq!(server.answer(0, 0), Some(last), "one repetition on the next");
    stos.join().unwrap();
}

#[test]
fn a_string_instruction_that_exceeds_a_range_is_not_sent_to_the_server() {
    let bench = Bench::new();
    let _server = bench.server(doorbell());
    assert_eq!(bench.vcpu(0).rep_stos(DOORBELL, Width::Four, 9, 2), Ok(()));
}

#[test]
fn rep_outs_carries_the_address_of_its_buffer() {
    let bench = Bench::new();
    let server = bench.server(pio(0xC050, 0xC053));
    let outs = bench.vcpu(0).run(|v| v.rep_outs(0xC050, Width::Four, 0x8000, 7, 16));
    bench.vcpu(0).until_parked();
    assert_eq!(server.answer(0, 0), Some(odd(Odd::Pointer, Space::Pio, 0xC050)));
    outs.join().unwrap();
}

#[test]
fn a_single_repetition_of_outs_is_a_plain_write() {
    let bench = Bench::new();
    let server = bench.server(pio(0xC050, 0xC053));
    let outs = bench.vcpu(0).run(|v| v.rep_outs(0xC050, Width::Four, 0x8000, 7, 1));
    bench.vcpu(0).until_parked();
    let kick = Kick::new(Space::Pio, 0xC050, Width::Four, 7);
    assert_eq!(server.answer(0, 0), Some(Request::Kick(kick)));
    outs.join().unwrap();
}

#[test]
fn an_access_across_pages_is_split_at_the_page_end() {
    let bench = Bench::new();
    let server = bench.server(mmio(0xFE00_0000, 0xFE00_1FFF));
    let read = bench.vcpu(0).run(|v| v.read(Space::Mmio, 0xFE00_0FFD, Width::Four));
    for (addr, width, answer) in [
        (0xFE00_0FFD, Width::Two, 0x2211),
        (0xFE00_0FFF, Width::One, 0x33),
        (0xFE00_1000, Width::One, 0x44),
    ] {
        bench.vcpu(0).until_parked();
        let access = xen_eventfd_core::Access { space: Space::Mmio, addr, width };
        assert_eq!(server.answer(0, answer), Some(Request::Read(access)));
    }
    assert_eq!(read.join(), Ok(0x4433_2211));
}

#[test]
fn all_clients_map_the_same_page() {
    let bench = Bench::new();
    let server: Server = bench.server(doorbell());
    let second = bench.model.client("adopter").map_page(bench.dom, server.id).unwrap();
    assert_eq!(second.slots()[0].vp_eport(), server.page.slots()[0].vp_eport());
}
