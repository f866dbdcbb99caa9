//! What a vhost-user backend may send: the payloads, both ways, and a whole conversation, which ends without
//! a panic, whatever bytes are the replies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::user::wire::{
    ConfigRange, Header, MemoryRegion, NEED_REPLY, Payload, Request, VringAddr, VringState,
    XenRegion,
};
use xen_eventfd_vhost::{Backend, Memory, Needs, Queue, Region, Result};

fn payload<P: Payload>(bytes: &[u8]) {
    let parsed = bytes.get(..P::SIZE).and_then(P::parse);
    assert_eq!(parsed.map(|parsed| parsed.emit()).as_deref(), bytes.get(..P::SIZE));
    assert!(bytes.len() == P::SIZE || P::parse(bytes).is_none());
}

/// Longer than any reply takes.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether a request is one that a frontend waits for.
fn is_question(header: &Header) -> bool {
    let questions = [
        Request::GetFeatures,
        Request::GetProtocolFeatures,
        Request::GetQueueNum,
        Request::GetVringBase,
        Request::GetConfig,
    ];
    header.flags & NEED_REPLY != 0
        || questions.iter().any(|question| *question as u32 == header.request)
}

fn is_whole(reply: &[u8]) -> bool {
    let (header, payload) = reply.split_at(reply.len().min(Header::SIZE));
    Header::parse(header).is_some_and(|header| payload.len() as u64 >= header.size.into())
}

/// Answers each request with the next of the bytes: first their number, then they. Ends where a frontend would
/// have to wait.
fn answer(mut socket: UnixStream, mut bytes: &[u8]) {
    while let Some((length, rest)) = bytes.split_first() {
        let mut header = [0; Header::SIZE];
        if socket.read_exact(&mut header).is_err() {
            return;
        }
        let Some(header) = Header::parse(&header) else { return };
        let mut payload = vec![0; header.size as usize];
        let (reply, rest) = rest.split_at(rest.len().min((*length).into()));
        if socket.read_exact(&mut payload).and_then(|()| socket.write_all(reply)).is_err() {
            return;
        }
        if is_question(&header) && !is_whole(reply) {
            return;
        }
        bytes = rest;
    }
}

/// All that a device asks for.
fn conversation(socket: UnixStream) -> Result<()> {
    let needs = Needs { queues: 1, fixed: true };
    let mut frontend = Frontend::over(socket, needs, LIMIT)?;
    assert!((1..=256).contains(&frontend.queues()));
    let (file, mut bytes) = (std::fs::File::open("/dev/null").unwrap(), [0; 8]);
    frontend.read_config(0, &mut bytes)?;
    frontend.accept(frontend.features())?;
    let memory = Memory::File { file: file.as_fd(), offset: 0 };
    frontend.set_memory(&[Region { guest_address: 0, size: 1 << 20, memory }])?;
    let queue = Queue { size: 8, descriptors: 0, available: 0x1000, used: 0x2000, base: 0 };
    // It is no eventfd, so at least the kick fails.
    frontend.start_queue(0, &queue, file.as_fd(), file.as_fd()).unwrap_err();
    frontend.stop_queue(0)?;
    frontend.reset()
}

fuzz_target!(|bytes: &[u8]| {
    payload::<Header>(bytes);
    payload::<VringState>(bytes);
    payload::<VringAddr>(bytes);
    payload::<MemoryRegion>(bytes);
    payload::<XenRegion>(bytes);
    payload::<ConfigRange>(bytes);
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| answer(theirs, bytes));
        let _ = conversation(ours);
    });
});
