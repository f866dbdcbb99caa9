//! A backend that tries another guest with what it was given, and its own guest's memory as a backend may.
//!
//! It needs two guests of real Xen and a frontend, so it runs in dom0 of the lab: `cargo xtask devices rights`. The
//! environment names the guests: `GUEST`, whose device it serves, and `OTHER`.

use rustix::fs::{Mode, OFlags, open};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use vm_memory::{FileOffset, MmapRegion};
use xen_eventfd_core::{DomId, IoServerId, Port};
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_host::memory::ForeignMemory;
use xen_eventfd_host::{Errno, Host, HostError};
use xen_eventfd_vhost::user::wire::{
    Header, MemoryRegion, NEED_REPLY, PROTOCOL_FEATURES, Payload, REPLY, Request, VERSION, protocol,
};

/// The user and the group without rights.
const UNPRIVILEGED: u32 = 65534;

fn domain(variable: &str) -> DomId {
    DomId(std::env::var(variable).expect(variable).parse().expect("a domain's number"))
}

/// Serves a frontend at a socket of this name, as any backend does, until it disconnects. `attempt` has the descriptors
/// of the memory table, and its first region.
fn serve(name: &str, features: u64, attempt: impl Fn(Vec<OwnedFd>, MemoryRegion)) {
    let listener = UnixListener::bind(format!("/tmp/{name}.sock")).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    // Nothing was sent yet.
    is_confined(socket_peercred(&socket).unwrap().pid.as_raw_nonzero().get());
    let (user, group) = (Uid::from_raw(UNPRIVILEGED), Gid::from_raw(UNPRIVILEGED));
    set_thread_groups(&[]).unwrap();
    set_thread_res_gid(group, group, group).unwrap();
    set_thread_res_uid(user, user, user).unwrap();
    let mut attempted = false;
    while let Some((header, payload, descriptors)) = next(&mut socket) {
        if header.request == Request::SetMemTable as u32 {
            let region = payload.get(8..8 + MemoryRegion::SIZE).and_then(MemoryRegion::parse);
            attempt(descriptors, region.unwrap());
            attempted = true;
        }
        let answer = match Request::ALL.iter().find(|known| **known as u32 == header.request) {
            Some(Request::GetFeatures) => (1 << 32 | PROTOCOL_FEATURES).emit(),
            Some(Request::GetProtocolFeatures) => (protocol::REPLY_ACK | features).emit(),
            Some(Request::GetVringBase) => payload,
            _ if header.flags & NEED_REPLY == 0 => continue,
            _ => 0_u64.emit(),
        };
        let size = u32::try_from(answer.len()).unwrap();
        let header = Header { request: header.request, flags: VERSION | REPLY, size };
        socket.write_all(&[header.emit(), answer].concat()).unwrap();
    }
    assert!(attempted, "the frontend gave no memory");
}

/// Each thread of the process that has connected is confined already, and root's by name only.
fn is_confined(process: i32) {
    /// `CAP_DAC_OVERRIDE`, by which it connects.
    const MOST: u64 = 1 << 1;
    for task in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim();
        assert_eq!((of("NoNewPrivs:"), of("Seccomp:")), ("1", "2"), "{status}");
        for key in ["CapPrm:", "CapEff:"] {
            assert_eq!(u64::from_str_radix(of(key), 16).unwrap() & !MOST, 0, "{status}");
        }
    }
}

fn next(socket: &mut UnixStream) -> Option<(Header, Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = [0; Header::SIZE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(&*socket, &mut into, &mut ancillary, RecvFlags::WAITALL).unwrap();
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    let header = (received.bytes == Header::SIZE).then(|| Header::parse(&bytes)).flatten()?;
    let mut payload = vec![0; header.size as usize];
    socket.read_exact(&mut payload).unwrap();
    Some((header, payload, descriptors))
}

/// The error by which something was refused.
fn errno(refused: Option<HostError>) -> Option<Errno> {
    refused.map(|error| error.errno)
}

/// What a descriptor that refers to a file cannot be made to: the same file opened once more, without limits.
fn cannot_be_opened_again(descriptor: &OwnedFd) {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let again = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    assert_eq!(again.err(), Some(Errno::ACCESS));
}

#[test]
#[ignore = "needs a guest of real Xen with this backend"]
fn privcmd_reaches_one_guest() {
    let (guest, other) = (domain("GUEST"), domain("OTHER"));
    serve("privcmd", protocol::XEN_MMAP, |mut descriptors, region| {
        let privcmd = descriptors.pop().unwrap();
        cannot_be_opened_again(&privcmd);
        let evtchn = privcmd.try_clone().unwrap();
        let host = LinuxHost::handed(privcmd, [evtchn], []);
        let frame = region.guest_address >> 12;
        host.map(guest, &[frame]).expect("the guest's own memory is there");
        for dom in [other, DomId(0)] {
            let refused = Some(Errno::PERM);
            assert_eq!(errno(host.map(dom, &[frame]).err()), refused, "{dom}: memory");
            assert_eq!(errno(host.vcpus(dom).err()), refused, "{dom}: a look at it");
            assert_eq!(errno(host.create_server(dom).err()), refused, "{dom}: a server");
            for id in 0..8 {
                let destroyed = host.destroy_server(dom, IoServerId(id));
                assert_eq!(errno(destroyed.err()), refused, "{dom}: server {id}");
            }
            let injected = host.inject_msi(dom, 0xFEE0_0000, 0x41);
            assert_eq!(errno(injected.err()), refused, "{dom}: an interrupt");
        }
        // Hypercalls that name no domain would reach any.
        assert_eq!(errno(host.binding(other, Port(1)).err()), Some(Errno::PERM));
    });
}

#[test]
#[ignore = "needs a guest of real Xen with this backend"]
fn a_memory_file_is_one_guests() {
    let (guest, other) = (domain("GUEST"), domain("OTHER"));
    serve("memory", 0, |mut descriptors, region| {
        let memory = descriptors.pop().unwrap();
        cannot_be_opened_again(&memory);
        let file = std::fs::File::from(memory.try_clone().unwrap());
        let bytes = usize::try_from(region.size).unwrap();
        let mapped = MmapRegion::<()>::from_file(FileOffset::new(file, region.offset), bytes);
        assert_eq!(mapped.unwrap().size(), bytes);
        // It is no device by which Xen is asked for anything, of any guest.
        let evtchn = memory.try_clone().unwrap();
        let host = LinuxHost::handed(memory, [evtchn], []);
        for dom in [guest, other, DomId(0)] {
            assert_eq!(errno(host.map(dom, &[0]).err()), Some(Errno::NOTTY));
            assert_eq!(errno(host.inject_msi(dom, 0xFEE0_0000, 0x41).err()), Some(Errno::NOTTY));
            assert_eq!(errno(host.create_server(dom).err()), Some(Errno::NOTTY));
        }
    });
}
