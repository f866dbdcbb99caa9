//! A backend that answers with the bytes that a test gives it.

use core::mem::MaybeUninit;
use rustix::io::IoSliceMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use xen_eventfd_vhost::user::wire::{
    ConfigRange, Header, PROTOCOL_FEATURES, Payload, REPLY, Request, VERSION, VringState, protocol,
};

/// What the peer does about a request.
pub(crate) enum Answer {
    /// What a backend without faults says.
    Truth,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Anything with the socket; the peer says no more about this request.
    Act(fn(&mut UnixStream)),
}

/// A reply to a request.
pub(crate) fn reply(request: Request, payload: &[u8]) -> Vec<u8> {
    raw(request as u32, VERSION | REPLY, payload)
}

/// A message with any numbers in its header.
pub(crate) fn raw(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let mut bytes = Header { request, flags, size }.emit();
    bytes.extend_from_slice(payload);
    bytes
}

/// Answers requests until the frontend disconnects, with `answer` where it lies.
pub(crate) fn peer(
    mut answer: impl FnMut(Request) -> Answer + Send + 'static,
) -> (UnixStream, JoinHandle<()>) {
    peer_with(move |request, _| answer(request))
}

/// The same with the requests' payloads.
pub(crate) fn peer_with(
    mut answer: impl FnMut(Request, &[u8]) -> Answer + Send + 'static,
) -> (UnixStream, JoinHandle<()>) {
    listening(move |request, payload, _| answer(request, payload))
}

/// A peer that makes requests by itself, with these protocol features. Its end of the channel is received once it is
/// set.
pub(crate) fn peer_with_requests(protocol: u64) -> (UnixStream, Receiver<UnixStream>) {
    let (sender, receiver) = channel();
    let (socket, _) = listening(move |request, _, files| match request {
        Request::GetProtocolFeatures => Answer::Bytes(reply(request, &protocol.emit())),
        Request::SetBackendReqFd => {
            assert_eq!(files.len(), 1);
            files.into_iter().for_each(|file| sender.send(file.into()).unwrap());
            Answer::Truth
        }
        _ => Answer::Truth,
    });
    (socket, receiver)
}

/// Answers with the requests' payloads and descriptors.
fn listening(
    mut answer: impl FnMut(Request, &[u8], Vec<OwnedFd>) -> Answer + Send + 'static,
) -> (UnixStream, JoinHandle<()>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let answering = std::thread::spawn(move || {
        while let Some((header, payload, files)) = next(&mut theirs) {
            let known = Request::ALL.iter().find(|request| **request as u32 == header.request);
            let request = *known.unwrap();
            match answer(request, &payload, files) {
                Answer::Truth => _ = theirs.write_all(&truth(request, &header, &payload)),
                Answer::Bytes(bytes) => _ = theirs.write_all(&bytes),
                Answer::Act(act) => act(&mut theirs),
            }
        }
    });
    (ours, answering)
}

fn next(socket: &mut UnixStream) -> Option<(Header, Vec<u8>, Vec<OwnedFd>)> {
    let (mut bytes, mut files) = ([0; Header::SIZE], Vec::new());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    if recvmsg(&*socket, into, &mut ancillary, flags).ok()?.bytes < Header::SIZE {
        return None;
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    let header = Header::parse(&bytes).unwrap();
    let mut payload = vec![0; header.size as usize];
    socket.read_exact(&mut payload).ok()?;
    Some((header, payload, files))
}

/// A backend with two queues, a configuration of zeroes, and acknowledgements.
fn truth(request: Request, header: &Header, payload: &[u8]) -> Vec<u8> {
    let features = protocol::MQ | protocol::REPLY_ACK | protocol::CONFIG;
    let payload = match request {
        Request::GetFeatures => (1 << 32 | PROTOCOL_FEATURES).emit(),
        Request::GetProtocolFeatures => features.emit(),
        Request::GetQueueNum => 2_u64.emit(),
        Request::GetVringBase => payload.to_vec(),
        Request::GetConfig => payload.to_vec(),
        _ if header.flags == VERSION => return Vec::new(),
        _ => 0_u64.emit(),
    };
    reply(request, &payload)
}

/// The payload of a vring's state.
pub(crate) fn state(index: u32, num: u32) -> Vec<u8> {
    VringState { index, num }.emit()
}

/// The payload of a configuration.
pub(crate) fn config(offset: u32, size: u32, length: usize) -> Vec<u8> {
    let mut bytes = ConfigRange { offset, size, flags: 0 }.emit();
    bytes.resize(ConfigRange::SIZE + length, 7);
    bytes
}
