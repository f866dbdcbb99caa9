//! What a backend requests of the frontend, and what it may send instead.

use super::peer::{Answer, peer, peer_with_requests, raw, reply};
use super::{ONE_QUEUE, PATIENT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::user::wire::{
    CONFIG_CHANGE, NEED_REPLY, Payload, REPLY, Request, VERSION, protocol,
};
use xen_eventfd_vhost::{Backend, Error, Wrong};

const ALL: u64 = protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG | protocol::BACKEND_REQ;

/// A frontend, and its backend's end of the channel.
fn connected() -> (Frontend, UnixStream) {
    let (socket, channel) = peer_with_requests(ALL);
    let frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
    (frontend, channel.recv().unwrap())
}

fn change() -> Vec<u8> {
    raw(CONFIG_CHANGE, VERSION, &[])
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&Timespec::default())) == Ok(1)
}

#[test]
fn a_change_of_the_configuration_is_taken_once() {
    let (mut frontend, mut backend) = connected();
    assert!(!is_readable(frontend.requests().unwrap()));
    assert_eq!(frontend.take_requests(), Ok(false));
    for _ in 0..3 {
        backend.write_all(&[change(), change()].concat()).unwrap();
        assert!(is_readable(frontend.requests().unwrap()));
        assert_eq!(frontend.take_requests(), Ok(true));
        assert!(!is_readable(frontend.requests().unwrap()));
        assert_eq!(frontend.take_requests(), Ok(false));
    }
    // No reply was asked for.
    assert!(!is_readable(backend.as_fd()));
    frontend.read_config(0, &mut [0; 4]).unwrap();
}

#[test]
fn a_request_that_asks_for_a_reply_has_one_of_success_or_failure() {
    let (mut frontend, mut backend) = connected();
    for (request, payload, result) in [(CONFIG_CHANGE, 0, 0_u64), (3, 24, 1), (77, 256, 1)] {
        backend.write_all(&raw(request, VERSION | NEED_REPLY, &vec![7; payload])).unwrap();
        assert_eq!(frontend.take_requests(), Ok(request == CONFIG_CHANGE));
        let expected = raw(request, VERSION | REPLY, &result.emit());
        let mut found = vec![0; expected.len()];
        backend.read_exact(&mut found).unwrap();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_request_that_comes_byte_by_byte_is_waited_for_elsewhere() {
    let (mut frontend, mut backend) = connected();
    let bytes = [raw(9, VERSION, &[1; 40]), change()].concat();
    let (last, rest) = bytes.split_last().unwrap();
    for byte in rest {
        backend.write_all(&[*byte]).unwrap();
        assert_eq!(frontend.take_requests(), Ok(false));
    }
    backend.write_all(&[*last]).unwrap();
    assert_eq!(frontend.take_requests(), Ok(true));
}

#[test]
fn descriptors_that_come_with_a_request_are_closed() {
    let (mut frontend, backend) = connected();
    let (reader, writer) = UnixStream::pair().unwrap();
    let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = [writer.as_fd(), writer.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
    let bytes = raw(3, VERSION, &[0; 24]);
    sendmsg(&backend, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::empty()).unwrap();
    drop(writer);
    assert!(!is_readable(reader.as_fd()));
    assert_eq!(frontend.take_requests(), Ok(false));
    assert!(is_readable(reader.as_fd()));
}

#[test]
fn a_channel_that_is_closed_amid_a_request_is_an_error() {
    let request = raw(3, VERSION, &[0; 24]);
    for length in [1, 11, 12, 13, 35] {
        let (mut frontend, mut backend) = connected();
        backend.write_all(&request[..length]).unwrap();
        drop(backend);
        let cut = Error::Request { wrong: Wrong::Cut };
        assert_eq!(frontend.take_requests(), Err(cut), "{length}");
    }
}

#[test]
fn a_backend_may_close_the_channel_after_a_request() {
    let (mut frontend, mut backend) = connected();
    // The reply finds no reader.
    backend.write_all(&raw(CONFIG_CHANGE, VERSION | NEED_REPLY, &[])).unwrap();
    drop(backend);
    assert_eq!(frontend.take_requests(), Ok(true));
    assert!(frontend.requests().is_none());
    assert_eq!((frontend.take_requests(), frontend.check()), (Ok(false), Ok(())));
    frontend.read_config(0, &mut [0; 4]).unwrap();
}

#[test]
fn a_flood_of_requests_is_an_error() {
    let (mut frontend, mut backend) = connected();
    backend.set_nonblocking(true).unwrap();
    for _ in 0..200 {
        backend.write_all(&change()).unwrap();
    }
    let error = frontend.take_requests().unwrap_err();
    assert_eq!(error, Error::Flood);
    assert!(error.to_string().contains("over 64 at once"), "{error}");
}

#[test]
fn what_is_no_request_is_an_error() {
    for (bytes, wrong) in [
        (raw(CONFIG_CHANGE, VERSION | REPLY, &[]), Wrong::Flags(5)),
        (raw(CONFIG_CHANGE, 2, &[]), Wrong::Flags(2)),
        (raw(CONFIG_CHANGE, VERSION | 1 << 31, &[]), Wrong::Flags(0x8000_0001)),
        (raw(CONFIG_CHANGE, VERSION, &[0]), Wrong::Size(1)),
        (raw(3, VERSION, &[0; 257]), Wrong::Size(257)),
        ([3, VERSION, u32::MAX].map(u32::to_ne_bytes).concat(), Wrong::Size(u32::MAX)),
    ] {
        let (mut frontend, mut backend) = connected();
        backend.write_all(&bytes).unwrap();
        assert_eq!(frontend.take_requests(), Err(Error::Request { wrong }));
    }
}

#[test]
fn without_a_configuration_the_backend_has_nothing_to_request() {
    for protocol in [ALL & !protocol::CONFIG, ALL & !protocol::BACKEND_REQ] {
        let (socket, channel) = peer_with_requests(protocol);
        let mut frontend = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap();
        assert!(frontend.requests().is_none() && channel.try_recv().is_err());
        assert_eq!(frontend.take_requests(), Ok(false));
    }
}

#[test]
fn a_backend_that_refuses_the_channel_is_an_error() {
    let (socket, _) = peer(|request| match request {
        Request::GetProtocolFeatures => Answer::Bytes(reply(request, &ALL.emit())),
        Request::SetBackendReqFd => Answer::Bytes(reply(request, &1_u64.emit())),
        _ => Answer::Truth,
    });
    let error = Frontend::over(socket, ONE_QUEUE, PATIENT).unwrap_err();
    assert_eq!(error, Error::Refused { request: Request::SetBackendReqFd });
}
