//! Each message, as rust-vmm's side of a backend understands it.

use super::recorder::{CONFIG, FEATURES, Recorder, serve, signal};
use super::{ONE_QUEUE, PATIENT, QUEUE, SIZE, guest_memory, new_eventfd, region};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use vhost::vhost_user::message::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures};
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::user::wire::Request;
use xen_eventfd_vhost::{Backend, Error, Lack, Needs, Queue};

const ALL: Protocol =
    Protocol::MQ.union(Protocol::REPLY_ACK).union(Protocol::CONFIG).union(Protocol::RESET_DEVICE);

/// A backend with these protocol features and a frontend that has negotiated with it.
fn negotiated(protocol: Protocol) -> (Arc<Mutex<Recorder>>, Frontend) {
    let recorder = Recorder::new(protocol);
    let (socket, _) = serve(&recorder);
    let frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    (recorder, frontend)
}

/// The same, ready to start a queue: with features and memory.
fn ready(protocol: Protocol) -> (Arc<Mutex<Recorder>>, Frontend) {
    let (recorder, mut frontend) = negotiated(protocol);
    frontend.accept(1 << 32).unwrap();
    frontend.set_memory(&[region(guest_memory().as_fd())]).unwrap();
    asked(&recorder);
    (recorder, frontend)
}

/// What the backend was asked since the last look.
fn asked(recorder: &Mutex<Recorder>) -> Vec<String> {
    core::mem::take(&mut recorder.lock().unwrap().asked)
}

fn count(eventfd: &OwnedFd) -> Option<u64> {
    let mut counter = [0; 8];
    rustix::io::read(eventfd, &mut counter).ok()?;
    Some(u64::from_ne_bytes(counter))
}

#[test]
fn negotiation_takes_what_both_know() {
    let (recorder, frontend) = negotiated(ALL | Protocol::SHMEM | Protocol::PAGEFAULT);
    let agreed = format!("protocol {:#x}", ALL.bits());
    assert_eq!(asked(&recorder), ["features?", "protocol?", &agreed, "queues?", "owner"]);
    assert_eq!(frontend.features(), FEATURES & !VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits());
    assert_eq!((frontend.queues(), frontend.maps_guests()), (2, false));
}

#[test]
fn without_mq_the_device_type_says_how_many_queues_there_are() {
    let (recorder, frontend) = negotiated(Protocol::REPLY_ACK);
    assert_eq!(frontend.queues(), 1);
    assert!(!asked(&recorder).contains(&"queues?".to_owned()));
    let (socket, _) = serve(&recorder);
    let chosen = Needs { queues: 2, fixed: false };
    let error = Frontend::over(socket, chosen, PATIENT).unwrap_err();
    assert_eq!(error, Error::Lacks { lack: Lack::Queues { needed: 2, found: None } });
}

#[test]
fn a_backend_with_too_few_queues_is_refused() {
    let (socket, _) = serve(&Recorder::new(ALL));
    let many = Needs { queues: 3, fixed: true };
    let error = Frontend::over(socket, many, PATIENT).unwrap_err();
    assert_eq!(error, Error::Lacks { lack: Lack::Queues { needed: 3, found: Some(2) } });
    assert!(error.to_string().contains("num-queues=3"), "{error}");
}

#[test]
fn accepted_features_are_sent_with_bit_30() {
    let (recorder, mut frontend) = negotiated(ALL);
    asked(&recorder);
    frontend.accept(1 << 32).unwrap();
    assert_eq!(asked(&recorder), ["features 0x140000000"]);
    let error = frontend.accept(1 << 32 | 1 << 5 | 1 << 30).unwrap_err();
    assert_eq!(error, Error::NotOffered { features: 1 << 5 | 1 << 30 });
    assert!(error.is_callers() && asked(&recorder).is_empty());
}

#[test]
fn memory_goes_with_its_files_and_guest_addresses() {
    let (recorder, mut frontend) = negotiated(ALL);
    asked(&recorder);
    let file = guest_memory();
    let mut second = region(file.as_fd());
    second.guest_address = 1 << 32;
    frontend.set_memory(&[region(file.as_fd()), second]).unwrap();
    let text = "memory 0x0 0x100000 0x0 0x0, 0x100000000 0x100000 0x100000000 0x0";
    assert_eq!(asked(&recorder), [text]);
    let ours = rustix::fs::fstat(&file).unwrap().st_ino;
    let theirs: Vec<u64> = recorder.lock().unwrap().memory.iter().map(inode).collect();
    assert_eq!(theirs, [ours; 2]);

    assert!(matches!(frontend.set_memory(&[]), Err(Error::Memory { .. })));
    assert!(matches!(frontend.set_memory(&[second; 9]), Err(Error::Memory { .. })));
    assert!(asked(&recorder).is_empty());
}

fn inode(file: &std::fs::File) -> u64 {
    file.metadata().unwrap().ino()
}

#[test]
fn a_queue_is_started_when_all_is_acknowledged_and_then_kicked_once() {
    let (recorder, mut frontend) = ready(ALL);
    let (kick, call) = (new_eventfd(), new_eventfd());
    frontend.start_queue(1, &QUEUE, kick.as_fd(), call.as_fd()).unwrap();
    let began = [
        "size of 1: 64",
        "base of 1: 5",
        "place of 1: 0x1000 0x2000 0x3000",
        "errors of 1",
        "call of 1",
        "kick of 1",
        "1 on",
    ];
    assert_eq!(asked(&recorder), began);

    let eventfds = core::mem::take(&mut recorder.lock().unwrap().eventfds);
    let mut kicks = [0; 8];
    eventfds[0].as_ref().unwrap().read_exact(&mut kicks).unwrap();
    assert_eq!(u64::from_ne_bytes(kicks), 1);
    signal(&eventfds[1]);
    assert_eq!(count(&call), Some(1));
    let errors = [PollFd::from_borrowed_fd(frontend.errors(), PollFlags::IN)];
    assert_eq!(poll(&mut errors.clone(), Some(&Timespec::default())), Ok(0));
    signal(&eventfds[2]);
    assert_eq!(poll(&mut errors.clone(), Some(&Timespec::default())), Ok(1));

    let error = frontend.start_queue(2, &QUEUE, kick.as_fd(), call.as_fd()).unwrap_err();
    assert_eq!(error, Error::NoQueue { index: 2, queues: 2 });
}

#[test]
fn a_queue_that_is_not_in_the_guests_memory_is_refused_before_the_backend_gets_to_know() {
    let (recorder, mut frontend) = ready(ALL);
    let eventfd = new_eventfd();
    let last = SIZE - 16 * u64::from(QUEUE.size);
    let places = [SIZE, last + 16, 0x1008, u64::MAX - 0xF, u64::MAX];
    let of_table = places.map(|descriptors| Queue { descriptors, ..QUEUE });
    let of_rings = [SIZE - 2, 0x2001, u64::MAX - 1].map(|available| Queue { available, ..QUEUE });
    let used = [SIZE - 4, 0x3002, u64::MAX - 3].map(|used| Queue { used, ..QUEUE });
    for queue in of_table.iter().chain(&of_rings).chain(&used) {
        let error = frontend.start_queue(0, queue, eventfd.as_fd(), eventfd.as_fd()).unwrap_err();
        assert!(matches!(error, Error::Ring { .. }) && error.is_callers(), "{queue:?}: {error}");
    }
    assert!(asked(&recorder).is_empty());
    let whole = Queue { descriptors: last, ..QUEUE };
    frontend.start_queue(0, &whole, eventfd.as_fd(), eventfd.as_fd()).unwrap();
}

#[test]
fn a_running_queue_gets_other_eventfds() {
    let (recorder, mut frontend) = ready(ALL);
    let old = new_eventfd();
    frontend.start_queue(0, &QUEUE, old.as_fd(), old.as_fd()).unwrap();
    asked(&recorder);
    let (kick, call) = (new_eventfd(), new_eventfd());
    frontend.set_kick(0, kick.as_fd()).unwrap();
    frontend.set_call(0, call.as_fd()).unwrap();
    assert_eq!(asked(&recorder), ["0 off", "kick of 0", "0 on", "call of 0"]);
    assert_eq!((count(&old), count(&kick)), (Some(1), Some(1)));
    signal(&recorder.lock().unwrap().eventfds[1]);
    assert_eq!((count(&old), count(&call)), (None, Some(1)));
}

#[test]
fn a_stopped_queue_says_where_it_is() {
    let (recorder, mut frontend) = negotiated(ALL);
    frontend.accept(1 << 32).unwrap();
    asked(&recorder);
    assert_eq!(frontend.stop_queue(1), Ok(9));
    assert_eq!(asked(&recorder), ["1 off", "base of 1?", "base of 1: 0"]);
}

#[test]
fn reset_stops_running_queues_and_resets_the_device_where_the_backend_can() {
    for (protocol, last) in [(ALL, Some("reset")), (Protocol::MQ, None)] {
        let (recorder, mut frontend) = ready(protocol);
        let eventfd = new_eventfd();
        frontend.start_queue(0, &QUEUE, eventfd.as_fd(), eventfd.as_fd()).unwrap();
        asked(&recorder);
        frontend.reset().unwrap();
        let stopped = ["0 off", "base of 0?", "base of 0: 0"].into_iter();
        assert_eq!(asked(&recorder), stopped.chain(last).collect::<Vec<_>>());
        frontend.reset().unwrap();
        assert_eq!(asked(&recorder), last.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_configuration_is_read_and_written() {
    let (recorder, mut frontend) = negotiated(ALL);
    asked(&recorder);
    let mut bytes = [0; 4];
    frontend.read_config(2, &mut bytes).unwrap();
    assert_eq!(bytes, CONFIG[2..6]);
    frontend.write_config(6, &[7, 8]).unwrap();
    assert_eq!(asked(&recorder), ["configuration 2 4?", "configuration 6 [7, 8]"]);

    let error = frontend.read_config(6, &mut bytes).unwrap_err();
    assert_eq!(error, Error::Refused { request: Request::GetConfig });
    let error = frontend.read_config(253, &mut bytes).unwrap_err();
    assert_eq!(error, Error::BeyondConfiguration { offset: 253, length: 4 });
    frontend.read_config(0, &mut bytes).unwrap();
}

#[test]
fn a_backend_without_configuration_has_none() {
    let (recorder, mut frontend) = negotiated(Protocol::REPLY_ACK);
    asked(&recorder);
    assert_eq!(frontend.read_config(0, &mut [0]), Err(Error::NoConfiguration));
    assert_eq!(frontend.write_config(0, &[0]), Err(Error::NoConfiguration));
    assert!(asked(&recorder).is_empty());
}

#[test]
fn what_a_backend_refuses_is_an_error() {
    let (recorder, mut frontend) = negotiated(ALL);
    recorder.lock().unwrap().refuse = Some("features 0x");
    let error = frontend.accept(1 << 32).unwrap_err();
    assert_eq!(error, Error::Refused { request: Request::SetFeatures });
}

#[test]
fn the_end_of_a_backend_is_seen_without_a_request() {
    let recorder = Recorder::new(ALL);
    let (socket, served) = serve(&recorder);
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    frontend.accept(1 << 32).unwrap();
    frontend.check().unwrap();
    // rust-vmm's side ends at an error of a request with a reply of its own.
    recorder.lock().unwrap().refuse = Some("base of 0?");
    let request = Some(Request::GetVringBase);
    assert_eq!(frontend.stop_queue(0), Err(Error::Ended { request }));
    served.join().unwrap();
    let ended = frontend.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    assert_eq!(poll(&mut [ended.unwrap()], None), Ok(1));
    assert_eq!(frontend.check(), Err(Error::Ended { request: None }));
}

#[test]
fn a_backend_makes_and_gets_the_notes_of_what_it_has_begun() {
    let (recorder, mut frontend) = negotiated(ALL | Protocol::INFLIGHT_SHMFD);
    asked(&recorder);
    assert!(frontend.notes_requests());
    let notes = frontend.new_inflight(2, 256).unwrap();
    assert_eq!((notes.size, notes.offset, notes.queues, notes.queue_size), (5, 64, 2, 256));
    frontend.set_inflight(&notes).unwrap();
    assert_eq!(asked(&recorder), ["notes? 2 of 256", "notes \"notes\" 2 of 256"]);

    let (_, mut without) = negotiated(ALL);
    assert!(!without.notes_requests());
    assert_eq!(without.new_inflight(2, 256).unwrap_err(), Error::NoInflight);
    assert_eq!(without.set_inflight(&notes), Err(Error::NoInflight));
}
