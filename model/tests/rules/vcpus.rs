//! What parks a vCPU, and what wakes it (`wait_for_io` in `xen/common/ioreq.c`).

use crate::bench::{Bench, DOORBELL, Server, doorbell, mmio, pending, pio};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xen_eventfd_core::slot::State;
use xen_eventfd_core::{Access, Request, Space, Width};
use xen_eventfd_host::Host;
use xen_eventfd_model::{Running, Stopped, Vcpu};

fn read(bench: &Bench) -> Running<Result<u64, Stopped>> {
    let run = bench.vcpu(0).run(|vcpu| vcpu.read(Space::Mmio, DOORBELL, Width::Four));
    bench.vcpu(0).until_parked();
    run
}

fn parked() -> (Bench, Server, Running<Result<u64, Stopped>>) {
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let run = read(&bench);
    (bench, server, run)
}

#[test]
fn a_read_gets_what_the_server_answers() {
    let (_bench, server, run) = parked();
    let access = Access { space: Space::Mmio, addr: DOORBELL, width: Width::Four };
    assert_eq!(server.answer(0, 0x55), Some(Request::Read(access)));
    assert_eq!(run.join(), Ok(0x55));
    assert_eq!(server.page.slots()[0].state(), State::None);
}

#[test]
fn an_answer_without_an_event_does_not_wake_the_vcpu() {
    let (bench, server, run) = parked();
    server.page.slots()[0].serve(|_| 1);
    assert!(bench.vcpu(0).is_parked() && bench.vcpu(0).wakes() == 0);
    server.notify(0);
    assert_eq!(run.join(), Ok(1));
}

#[test]
fn an_event_without_an_answer_parks_it_again() {
    let (bench, server, run) = parked();
    server.notify(0);
    bench.vcpu(0).until_parked();
    assert_eq!(bench.vcpu(0).wakes(), 1);
    assert_eq!(server.page.slots()[0].state(), State::Ready);
    server.answer(0, 2);
    assert_eq!(run.join(), Ok(2));
}

#[test]
fn an_event_wakes_only_its_own_vcpu() {
    let (bench, server, run) = parked();
    server.page.slots()[0].serve(|_| 3);
    server.notify(1);
    assert!(bench.vcpu(0).is_parked());
    server.notify(0);
    assert_eq!(run.join(), Ok(3));
}

#[test]
fn destroying_the_server_does_not_wake_it_but_another_servers_event_does() {
    let bench = Bench::new();
    let (other, server) = (bench.server(mmio(0, 3)), bench.server(doorbell()));
    let run = read(&bench);
    bench.host.destroy_server(bench.dom, server.id).unwrap();
    assert!(bench.vcpu(0).is_parked());
    // Its port was closed with it: this notification is lost.
    server.answer(0, 5);
    assert!(bench.vcpu(0).is_parked());
    other.notify(0);
    assert_eq!(run.join(), Ok(0), "a read whose server is gone is 0");
}

#[test]
fn disabling_the_server_does_not_wake_it_and_it_can_still_be_answered() {
    let (bench, server, run) = parked();
    bench.host.set_server_state(bench.dom, server.id, false).unwrap();
    assert!(bench.vcpu(0).is_parked());
    server.answer(0, 6);
    assert_eq!(run.join(), Ok(6));
}

#[test]
fn unmapping_the_range_does_not_cancel_a_request() {
    let (bench, server, run) = parked();
    bench.host.unmap_range(bench.dom, server.id, doorbell()).unwrap();
    server.answer(0, 7);
    assert_eq!(run.join(), Ok(7));
}

#[test]
fn a_state_that_goes_backwards_crashes_the_domain() {
    let (bench, server, run) = parked();
    let slot = &server.page.slots()[0];
    slot.force(State::InProcess);
    server.notify(0);
    bench.vcpu(0).until_parked();
    slot.force(State::Ready);
    server.notify(0);
    assert!(matches!(run.join(), Err(Stopped::Crashed(_))));
    assert!(bench.model.crashed(bench.dom).unwrap().contains("InProcess to Ready"));
    assert_eq!(bench.model.servers(bench.dom).len(), 1, "a crashed domain keeps its servers");
}

#[test]
fn an_unknown_state_crashes_the_domain() {
    let (_bench, server, run) = parked();
    server.page.slots()[0].force(State::Unknown(9));
    server.notify(0);
    assert!(matches!(run.join(), Err(Stopped::Crashed(_))));
}

#[test]
fn a_state_of_none_ends_the_wait_with_all_ones() {
    let (_bench, server, run) = parked();
    server.page.slots()[0].force(State::None);
    server.notify(0);
    assert_eq!(run.join(), Ok(0xFFFF_FFFF));
}

#[test]
fn a_slot_that_is_not_empty_faults_a_memory_access_and_crashes_a_port_access() {
    let bench = Bench::new();
    let server = Server::new(&bench.host, bench.dom, &[doorbell(), pio(0xC050, 0xC053)]);
    server.page.slots()[0].force(State::Answered);
    let vcpu = bench.vcpu(0);
    assert_eq!(vcpu.read(Space::Mmio, DOORBELL, Width::Four), Err(Stopped::Fault));
    let crashed = vcpu.write(Space::Pio, 0xC050, Width::Two, 1);
    assert!(matches!(crashed, Err(Stopped::Crashed(_))));
}

#[test]
fn the_end_of_its_domain_stops_a_parked_vcpu() {
    let (bench, _server, run) = parked();
    bench.model.destroy(bench.dom);
    assert_eq!(run.join(), Err(Stopped::Destroyed));
}

#[test]
fn vcpus_have_slots_of_their_own() {
    let (bench, server, run) = parked();
    let other = bench.vcpu(1).run(|vcpu| vcpu.write(Space::Mmio, DOORBELL, Width::Four, 9));
    bench.vcpu(1).until_parked();
    assert!(server.answer(1, 0).is_some());
    other.join().unwrap();
    assert!(bench.vcpu(0).is_parked());
    server.answer(0, 1);
    assert_eq!(run.join(), Ok(1));
}

#[test]
fn instructions_of_one_vcpu_wait_for_each_other() {
    let (bench, server, run) = parked();
    let second = bench.vcpu(0).run(|vcpu| vcpu.read(Space::Mmio, 0, Width::One));
    server.answer(0, 4);
    assert_eq!((run.join(), second.join()), (Ok(4), Ok(0xFF)));
}

#[test]
fn the_description_says_what_a_vcpu_waits_for() {
    let (bench, server, run) = parked();
    let port = bench.vcpu(1).alloc_unbound().unwrap();
    let wait = bench.vcpu(1).run(move |vcpu| vcpu.wait(port));
    bench.model.until("it waits", |model| model.describe().contains("waits for an event"));
    let words = bench.model.describe();
    for part in
        ["vCPU 0: parked", "waits for ioreq server 0", "slot 0 (port 3): Ready", "0xfe000050"]
    {
        assert!(words.contains(part), "{part:?} is not in\n{words}");
    }
    server.answer(0, 0);
    run.join().unwrap();
    bench.model.destroy(bench.dom);
    assert_eq!(wait.join(), Err(Stopped::Destroyed));
}

#[test]
fn many_vcpus_at_once_and_each_kick_is_answered_once() {
    const KICKS: u64 = 500;
    let bench = Bench::new();
    let server = bench.server(doorbell());
    let guests = [0, 1].map(|id| {
        bench.vcpu(id).run(|vcpu| {
            (0..KICKS).try_for_each(|n| vcpu.write(Space::Mmio, DOORBELL, Width::Four, n))
        })
    });
    let mut served = 0;
    while served < 2 * KICKS {
        let patience = Timespec::try_from(Vcpu::PATIENCE).unwrap();
        let mut events = [PollFd::from_borrowed_fd(server.channels.fd(), PollFlags::IN)];
        let ready = poll(&mut events, Some(&patience)).unwrap();
        assert_eq!(ready, 1, "after {served} kicks\n{}", bench.model.describe());
        for port in pending(&*server.channels) {
            let vcpu = server.ports.iter().position(|bound| *bound == port).unwrap();
            let answered = server.page.slots()[vcpu].serve(|_| 0).is_some();
            served += u64::from(answered);
            server.channels.eoi(port).unwrap();
            if answered {
                server.notify(vcpu);
            }
        }
    }
    guests.into_iter().for_each(|guest| guest.join().unwrap());
    let events = bench.host.wakeups();
    assert!(
        (2 * KICKS..=2 * KICKS + 2).contains(&events),
        "{events} events, two of them at binding"
    );
}
