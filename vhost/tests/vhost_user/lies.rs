//! Backends that lie, that say nothing, and that are not there.

use super::peer::{Answer, config, peer, raw, reply, state};
use super::{ONE_QUEUE, PATIENT, QUEUE, guest_memory, new_eventfd, region};
use core::mem::MaybeUninit;
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use xen_eventfd_core::DomId;
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::user::wire::{
    InflightArea, NEED_REPLY, Payload, REPLY, Request, VERSION, protocol,
};
use xen_eventfd_vhost::{Backend, Errno, Error, Lack, Memory, Region, Wrong};

/// Everything that a device asks of its backend, in one go, against a peer that answers `lie` with `bytes`.
fn error_of(lie: Request, bytes: Vec<u8>) -> Error {
    let (socket, answering) =
        peer(
            move |request| {
                if request == lie { Answer::Bytes(bytes.clone()) } else { Answer::Truth }
            },
        );
    let error = everything(socket, PATIENT).unwrap_err();
    answering.join().unwrap();
    error
}

fn everything(socket: UnixStream, limit: Duration) -> Result<(), Error> {
    let (file, eventfd) = (guest_memory(), new_eventfd());
    let mut frontend = Frontend::over(socket, ONE_QUEUE, limit)?;
    frontend.read_config(4, &mut [0; 8])?;
    frontend.accept(1 << 32)?;
    frontend.set_memory(&[region(file.as_fd())])?;
    frontend.start_queue(0, &QUEUE, eventfd.as_fd(), eventfd.as_fd())?;
    frontend.stop_queue(0).map(drop)
}

#[test]
fn a_backend_without_faults_passes() {
    let (socket, _) = peer(|_| Answer::Truth);
    everything(socket, PATIENT).unwrap();
}

#[test]
fn a_reply_must_be_one_to_the_request() {
    let request = Request::GetFeatures;
    let number = 1_u64.emit();
    for (bytes, wrong) in [
        (reply(Request::GetQueueNum, &number), Wrong::Request(17)),
        (raw(99, VERSION | REPLY, &number), Wrong::Request(99)),
        (raw(1, REPLY, &number), Wrong::Flags(4)),
        (raw(1, 2 | REPLY, &number), Wrong::Flags(6)),
        (raw(1, VERSION, &number), Wrong::Flags(1)),
        (raw(1, VERSION | REPLY | NEED_REPLY, &number), Wrong::Flags(13)),
        (raw(1, VERSION | REPLY | 1 << 31, &number), Wrong::Flags(0x8000_0005)),
        (reply(request, &[]), Wrong::Size(0)),
        (reply(request, &[0; 7]), Wrong::Size(7)),
        (reply(request, &[0; 9]), Wrong::Size(9)),
    ] {
        assert_eq!(error_of(request, bytes), Error::Reply { request, wrong });
    }
}

#[test]
fn a_size_is_no_reason_to_wait_or_to_allocate() {
    let header = [1_u32.emit(), (VERSION | REPLY).emit(), u32::MAX.emit()].concat();
    let wrong = Wrong::Size(u32::MAX);
    let request = Request::GetFeatures;
    assert_eq!(error_of(request, header), Error::Reply { request, wrong });
}

#[test]
fn an_acknowledgement_is_a_number_and_0_is_success() {
    let request = Request::SetMemTable;
    assert_eq!(error_of(request, reply(request, &1_u64.emit())), Error::Refused { request });
    let table_back = reply(request, &[0; 40]);
    assert_eq!(error_of(request, table_back), Error::Reply { request, wrong: Wrong::Size(40) });
}

/// As rust-vmm's backends do with a queue that is longer than their own.
#[test]
fn a_queue_that_is_too_long_for_its_backend_is_an_error_that_names_the_setting() {
    let request = Request::SetVringNum;
    let error = error_of(request, reply(request, &1_u64.emit()));
    assert_eq!(error, Error::Refused { request });
    assert!(error.to_string().ends_with("(queue-size=N)"), "{error}");
}

#[test]
fn after_a_refusal_the_connection_goes_on() {
    let mut refuses = true;
    let (socket, _) = peer(move |request| match request {
        Request::SetFeatures if core::mem::take(&mut refuses) => {
            Answer::Bytes(reply(request, &5_u64.emit()))
        }
        _ => Answer::Truth,
    });
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    let request = Request::SetFeatures;
    assert_eq!(frontend.accept(1 << 32), Err(Error::Refused { request }));
    frontend.accept(1 << 32).unwrap();
}

/// Then a request with a reply says that those before it are done. rust-vmm's side always acknowledges.
#[test]
fn without_acknowledgements_features_are_asked_for_before_the_kick() {
    let (sender, requests) = std::sync::mpsc::channel();
    let (socket, answering) = peer(move |request| {
        sender.send(request).unwrap();
        match request {
            Request::GetProtocolFeatures => Answer::Bytes(reply(request, &protocol::CONFIG.emit())),
            _ => Answer::Truth,
        }
    });
    let (file, eventfd) = (guest_memory(), new_eventfd());
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    let asked = |last: Request| {
        let all: Vec<Request> = requests.try_iter().collect();
        assert!(all.ends_with(&[last, Request::GetFeatures]), "{all:?}");
    };
    asked(Request::SetOwner);
    frontend.accept(1 << 32).unwrap();
    asked(Request::SetFeatures);
    frontend.set_memory(&[region(file.as_fd())]).unwrap();
    asked(Request::SetMemTable);
    frontend.start_queue(0, &QUEUE, eventfd.as_fd(), eventfd.as_fd()).unwrap();
    asked(Request::SetVringEnable);
    frontend.set_kick(0, eventfd.as_fd()).unwrap();
    asked(Request::SetVringEnable);
    frontend.set_call(0, eventfd.as_fd()).unwrap();
    asked(Request::SetVringCall);
    frontend.write_config(0, &[1]).unwrap();
    asked(Request::SetConfig);
    frontend.reset().unwrap();
    asked(Request::SetVringBase);
    drop(frontend);
    answering.join().unwrap();
}

#[test]
fn a_number_of_queues_is_within_reason() {
    let request = Request::GetQueueNum;
    for number in [0, 0x8001, u64::MAX] {
        let wrong = Wrong::Number(number);
        assert_eq!(
            error_of(request, reply(request, &number.emit())),
            Error::Reply { request, wrong }
        );
    }
}

#[test]
fn a_backend_may_say_more_queues_than_have_eventfds() {
    let (socket, _) = peer(|request| match request {
        Request::GetQueueNum => Answer::Bytes(reply(request, &0x8000_u64.emit())),
        _ => Answer::Truth,
    });
    assert_eq!(Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap().queues(), 256);
}

#[test]
fn a_base_is_that_of_the_queue_and_an_index() {
    let request = Request::GetVringBase;
    for (payload, wrong) in
        [(state(1, 0), Wrong::Queue(1)), (state(0, 0x1_0000), Wrong::Number(0x1_0000))]
    {
        assert_eq!(error_of(request, reply(request, &payload)), Error::Reply { request, wrong });
    }
}

#[test]
fn a_configuration_is_what_was_asked_for() {
    let request = Request::GetConfig;
    for (payload, wrong) in [
        (config(4, 9, 9), Wrong::Size(21)),
        (config(4, 8, 9), Wrong::Size(21)),
        (config(4, u32::MAX, 8), Wrong::Configuration { offset: 4, size: u32::MAX }),
        (config(4, 7, 7), Wrong::Configuration { offset: 4, size: 7 }),
        (config(4, 8, 7), Wrong::Configuration { offset: 4, size: 8 }),
        (config(0, 8, 8), Wrong::Configuration { offset: 0, size: 8 }),
    ] {
        assert_eq!(error_of(request, reply(request, &payload)), Error::Reply { request, wrong });
    }
    for refusal in [vec![], config(4, 0, 0), vec![0; 11]] {
        assert_eq!(error_of(request, reply(request, &refusal)), Error::Refused { request });
    }
}

#[test]
fn a_backend_that_lacks_what_every_device_needs_is_refused() {
    for (features, lack) in
        [(1_u64 << 30, Lack::Version1), (1 << 32, Lack::ProtocolFeatures), (0, Lack::Version1)]
    {
        let request = Request::GetFeatures;
        assert_eq!(error_of(request, reply(request, &features.emit())), Error::Lacks { lack });
    }
}

#[test]
fn features_that_were_accepted_stay() {
    let mut times = 0;
    let (socket, _) = peer(move |request| match request {
        // No acknowledgements, so that features are asked for again.
        Request::GetProtocolFeatures => Answer::Bytes(reply(request, &0_u64.emit())),
        Request::GetFeatures => {
            times += 1;
            let features: u64 = if times < 3 { 1 << 32 | 1 << 30 } else { 1 << 30 };
            Answer::Bytes(reply(request, &features.emit()))
        }
        _ => Answer::Truth,
    });
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    let (request, wrong) = (Request::GetFeatures, Wrong::Features(1 << 32));
    assert_eq!(frontend.accept(1 << 32), Err(Error::Reply { request, wrong }));
}

/// Sends a reply to GET_FEATURES with as many descriptors.
fn with_descriptors<const N: usize>(socket: &mut UnixStream) {
    let eventfd = new_eventfd();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [eventfd.as_fd(); N];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let bytes = reply(Request::GetFeatures, &(1_u64 << 32 | 1 << 30).emit());
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::empty()).unwrap();
}

#[test]
fn a_reply_brings_no_descriptors_and_those_that_come_are_closed() {
    for act in [with_descriptors::<1>, with_descriptors::<2>, with_descriptors::<64>] {
        let (socket, answering) = peer(move |_| Answer::Act(act));
        let (request, wrong) = (Request::GetFeatures, Wrong::Descriptors);
        let error = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap_err();
        assert_eq!(error, Error::Reply { request, wrong });
        answering.join().unwrap();
    }
}

/// The reply to a request for notes, with as many descriptors and this size.
fn notes<const N: usize>(socket: &mut UnixStream, size: u64) {
    let file = guest_memory();
    let files = [file.as_fd(); N];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(N == 0 || ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let area = InflightArea { size, queues: 1, queue_size: 8, ..InflightArea::default() };
    let bytes = reply(Request::GetInflightFd, &area.emit());
    let flags = SendFlags::empty();
    sendmsg(&*socket, &[IoSlice::new(&bytes)], &mut ancillary, flags).unwrap();
}

#[test]
fn notes_of_requests_are_in_one_file_and_of_a_size_within_reason() {
    let features = protocol::MQ | protocol::REPLY_ACK | protocol::INFLIGHT_SHMFD;
    let asked = |act: fn(&mut UnixStream)| {
        let (socket, _) = peer(move |request| match request {
            Request::GetProtocolFeatures => Answer::Bytes(reply(request, &features.emit())),
            Request::GetInflightFd => Answer::Act(act),
            _ => Answer::Truth,
        });
        let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
        frontend.new_inflight(1, 8).map(|notes| notes.size)
    };
    let request = Request::GetInflightFd;
    let refused = |wrong| Err(Error::Reply { request, wrong });
    assert_eq!(asked(|socket| notes::<1>(socket, 4096)), Ok(4096));
    assert_eq!(asked(|socket| notes::<0>(socket, 4096)), refused(Wrong::Descriptors));
    assert_eq!(asked(|socket| notes::<2>(socket, 4096)), refused(Wrong::Descriptors));
    assert_eq!(asked(|socket| notes::<1>(socket, 0)), refused(Wrong::Number(0)));
    assert_eq!(asked(|socket| notes::<1>(socket, 1 << 40)), refused(Wrong::Number(1 << 40)));
}

#[test]
fn after_a_wrong_reply_the_connection_is_not_used_again() {
    let (socket, answering) = peer(|request| match request {
        Request::GetConfig => Answer::Bytes(reply(Request::GetQueueNum, &2_u64.emit())),
        _ => Answer::Truth,
    });
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    assert!(matches!(frontend.read_config(0, &mut [0]), Err(Error::Reply { .. })));
    let request = Some(Request::SetFeatures);
    assert_eq!(frontend.accept(1 << 32), Err(Error::Ended { request }));
    // The backend sees it too.
    answering.join().unwrap();
}

#[test]
fn a_message_without_a_request_is_an_error() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&reply(Request::GetFeatures, &0_u64.emit())).unwrap();
    assert_eq!(Frontend::over(ours, ONE_QUEUE, PATIENT).unwrap_err(), Error::Unsolicited);
}

/// Only that it ends: the limit is short, and the test has no other.
#[test]
fn a_silent_backend_is_an_error() {
    let limit = Duration::from_millis(20);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let request = Request::GetFeatures;
    let error = Frontend::over(ours, ONE_QUEUE, limit).unwrap_err();
    assert_eq!(error, Error::Silent { request, limit });

    let (socket, answering) = peer(|request| match request {
        Request::GetVringBase => Answer::Bytes(Vec::new()),
        _ => Answer::Truth,
    });
    let (request, limit) = (Request::GetVringBase, Duration::from_secs(1));
    assert_eq!(everything(socket, limit), Err(Error::Silent { request, limit }));
    answering.join().unwrap();
}

/// A byte now and then does not prolong the exchange.
#[test]
fn a_slow_backend_has_the_same_limit() {
    let limit = Duration::from_millis(50);
    let (socket, answering) = peer(|_| {
        Answer::Act(|socket| {
            let bytes = reply(Request::GetFeatures, &[0; 8]);
            for byte in bytes.chunks(1).cycle() {
                std::thread::sleep(Duration::from_millis(10));
                if socket.write_all(byte).is_err() {
                    return;
                }
            }
        })
    });
    let request = Request::GetFeatures;
    let error = Frontend::over(socket, ONE_QUEUE, limit).unwrap_err();
    assert_eq!(error, Error::Silent { request, limit });
    answering.join().unwrap();
}

#[test]
fn a_backend_that_ends_in_the_middle_of_a_reply_has_ended() {
    let (socket, _) = peer(|_| {
        Answer::Act(|socket| {
            let bytes = reply(Request::GetFeatures, &[0; 8]);
            socket.write_all(&bytes[..15]).unwrap();
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        })
    });
    let request = Some(Request::GetFeatures);
    let error = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap_err();
    assert_eq!(error, Error::Ended { request });
}

#[test]
fn a_socket_that_is_not_there_is_an_error_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let error = Frontend::connect(&path, ONE_QUEUE, PATIENT).unwrap_err();
    assert_eq!(error, Error::Connect { path: path.clone(), errno: Errno::NOENT });
    assert!(error.to_string().contains("start the backend first"), "{error}");

    drop(UnixListener::bind(&path).unwrap());
    let error = Frontend::connect(&path, ONE_QUEUE, PATIENT).unwrap_err();
    assert_eq!(error, Error::Connect { path, errno: Errno::CONNREFUSED });
}

#[test]
fn a_socket_that_no_process_accepts_from_is_an_error() {
    let limit = Duration::from_millis(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let request = Request::GetFeatures;
    // The first waits to be accepted, the next has no place to wait.
    let _waits = UnixStream::connect(&path).unwrap();
    let error = Frontend::connect(&path, ONE_QUEUE, limit).unwrap_err();
    assert_eq!(error, Error::Connect { path: path.clone(), errno: Errno::TIMEDOUT });
    rustix::net::listen(&listener, 9).unwrap();
    let error = Frontend::connect(&path, ONE_QUEUE, limit).unwrap_err();
    assert_eq!(error, Error::Silent { request, limit });
}

/// rust-vmm's side has either layout of the memory table, when it is compiled, so this is read here.
#[test]
fn with_xen_mmap_a_region_names_its_guest() {
    let (sender, tables) = std::sync::mpsc::channel();
    let (socket, _) = xen_peer(sender);
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    assert!(frontend.maps_guests());
    let file = guest_memory();
    let foreign = Memory::Foreign { privcmd: file.as_fd(), domain: DomId(7) };
    let foreign = Region { memory: foreign, ..region(file.as_fd()) };
    frontend.set_memory(&[foreign, region(file.as_fd())]).unwrap();
    let words: Vec<u64> =
        tables.recv().unwrap().chunks(8).map(|word| u64::parse(word).unwrap()).collect();
    let of = |xen| [0, 1 << 20, 0, 0, xen];
    assert_eq!(words, [&[2], &of(7 << 32 | 1)[..], &of(0)].concat());
}

/// A backend with XEN_MMAP that shows the memory tables it gets.
fn xen_peer(tables: std::sync::mpsc::Sender<Vec<u8>>) -> (UnixStream, std::thread::JoinHandle<()>) {
    super::peer::peer_with(move |request, payload| match request {
        Request::GetProtocolFeatures => {
            let features = protocol::XEN_MMAP | protocol::REPLY_ACK;
            Answer::Bytes(reply(request, &features.emit()))
        }
        Request::SetMemTable => {
            tables.send(payload.to_vec()).unwrap();
            Answer::Truth
        }
        _ => Answer::Truth,
    })
}

#[test]
fn without_xen_mmap_a_guest_is_no_memory() {
    let (socket, _) = peer(|_| Answer::Truth);
    let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    let file = guest_memory();
    let foreign = Memory::Foreign { privcmd: file.as_fd(), domain: DomId(7) };
    let foreign = Region { memory: foreign, ..region(file.as_fd()) };
    let error = frontend.set_memory(&[foreign]).unwrap_err();
    assert!(error.to_string().contains("XEN_MMAP") && error.is_callers(), "{error}");
}
