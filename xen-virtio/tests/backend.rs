//! The demonstration's backend as a process, with a frontend of our own and a driver of a few lines.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::{Backend, Memory, Needs, Queue, Region};

const PATIENT: Duration = Duration::from_secs(60);
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
/// A guest's memory in bytes, and where things are in it.
const MEMORY: u64 = 1 << 20;
const QUEUE: Queue =
    Queue { size: 8, descriptors: 0x1000, available: 0x2000, used: 0x3000, base: 0 };
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x5000;
const DATA: u64 = 0x8000;
/// The status of a request that was not completed.
const NONE: u8 = 0xEE;

/// The backend's process; it ends when its frontend does, and at the latest with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(socket: &Path, options: &[&str]) -> Process {
    let program = env!("CARGO_BIN_EXE_xen-virtio");
    let mut command = Command::new(program);
    command.arg("demo-backend").arg("--socket").arg(socket).args(options);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening at "), "{line}");
    Process(child)
}

/// One request queue of a guest, and its backend.
struct Driver {
    backend: Frontend,
    index: u16,
    memory: File,
    kick: OwnedFd,
    call: OwnedFd,
    requests: u16,
}

impl Driver {
    fn new(mut backend: Frontend, index: u16) -> Self {
        let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(MEMORY).unwrap();
        let file = Memory::File { file: memory.as_fd(), offset: 0 };
        backend.set_memory(&[Region { guest_address: 0, size: MEMORY, memory: file }]).unwrap();
        let [kick, call] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        backend.start_queue(index, &QUEUE, kick.as_fd(), call.as_fd()).unwrap();
        Self { backend, index, memory, kick, call, requests: 0 }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, at).unwrap();
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn descriptor(&self, index: u16, address: u64, length: u32, flags: u32) {
        let flags = u16::try_from(flags).unwrap();
        let bytes = [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &(index + 1).to_le_bytes(),
        ]
        .concat();
        self.put(QUEUE.descriptors + 16 * u64::from(index), &bytes);
    }

    /// Makes a request with data of this length at [`DATA`], waits for the call, and returns its status and as
    /// many bytes as were written.
    fn request(&mut self, kind: u32, sector: u64, length: u32) -> (u32, u32) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.put(HEADER, &header);
        self.put(STATUS, &[NONE]);
        let written = if kind == VIRTIO_BLK_T_OUT { 0 } else { VRING_DESC_F_WRITE };
        self.descriptor(0, HEADER, 16, VRING_DESC_F_NEXT);
        self.descriptor(1, DATA, length, VRING_DESC_F_NEXT | written);
        self.descriptor(2, STATUS, 1, VRING_DESC_F_WRITE);
        let slot = u64::from(self.requests % QUEUE.size);
        // With event indices, the call is wanted after this very request.
        self.put(QUEUE.available + 4 + 2 * u64::from(QUEUE.size), &self.requests.to_le_bytes());
        self.put(QUEUE.available + 4 + 2 * slot, &0_u16.to_le_bytes());
        self.requests += 1;
        self.put(QUEUE.available + 2, &self.requests.to_le_bytes());
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).unwrap();
        poll(&mut [PollFd::new(&self.call, PollFlags::IN)], None).unwrap();
        rustix::io::read(&self.call, &mut [0; 8]).unwrap();
        assert_eq!(self.get(QUEUE.used + 2), self.requests.to_le_bytes());
        let [status] = self.get(STATUS);
        let written = u32::from_le_bytes(self.get(QUEUE.used + 8 + 8 * slot));
        (status.into(), written)
    }
}

fn connect(socket: &Path, queues: u16) -> Frontend {
    Frontend::connect(socket, Needs { queues, fixed: false }, PATIENT).unwrap()
}

#[test]
fn what_is_written_is_read_on_every_queue_with_and_without_event_indices() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    for (options, features) in [
        (&["--queues", "2"][..], VERSION_1 | EVENT_IDX),
        (&["--queues=2", "--no-event-idx"], VERSION_1),
    ] {
        let _process = start(&socket, options);
        let mut backend = connect(&socket, 2);
        assert_eq!(backend.features() & (VERSION_1 | EVENT_IDX), features);
        let mut capacity = [0; 8];
        backend.read_config(0, &mut capacity).unwrap();
        assert_eq!(u64::from_le_bytes(capacity), (16 << 20) / 512);
        backend.accept(features).unwrap();
        let mut driver = Driver::new(backend, 1);
        for round in 0..20 {
            let pattern = [0xA0 + round; 1024];
            driver.put(DATA, &pattern);
            assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 6, 1024), (VIRTIO_BLK_S_OK, 1));
            driver.put(DATA, &[0; 1024]);
            assert_eq!(driver.request(VIRTIO_BLK_T_IN, 6, 1024), (VIRTIO_BLK_S_OK, 1025));
            assert_eq!(driver.get(DATA), pattern);
        }
        assert_eq!(driver.backend.stop_queue(driver.index), Ok(driver.requests));
    }
}

#[test]
fn what_is_no_request_of_a_disk_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, disk) = (folder.path().join("socket"), folder.path().join("disk"));
    std::fs::write(&disk, [7; 4096]).unwrap();
    let _process = start(&socket, &["--disk", disk.to_str().unwrap()]);
    let mut backend = connect(&socket, 1);
    backend.accept(VERSION_1).unwrap();
    let mut driver = Driver::new(backend, 0);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, 4096), (VIRTIO_BLK_S_OK, 4097));
    assert_eq!(driver.get(DATA), [7; 4096]);
    for (kind, sector, length) in [
        (VIRTIO_BLK_T_IN, 8, 512),
        (VIRTIO_BLK_T_OUT, 7, 1024),
        (VIRTIO_BLK_T_OUT, u64::MAX, 512),
        (VIRTIO_BLK_T_IN, 0, 511),
    ] {
        assert_eq!(driver.request(kind, sector, length).0, VIRTIO_BLK_S_IOERR, "{kind} {sector}");
    }
    assert_eq!(driver.request(99, 0, 512).0, VIRTIO_BLK_S_UNSUPP);
    assert_eq!(driver.request(VIRTIO_BLK_T_GET_ID, 0, 20), (VIRTIO_BLK_S_OK, 21));
    driver.put(DATA, &[1; 512]);
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 1, 512).0, VIRTIO_BLK_S_OK);
    assert_eq!(driver.request(VIRTIO_BLK_T_FLUSH, 0, 512).0, VIRTIO_BLK_S_OK);
    let bytes = std::fs::read(&disk).unwrap();
    assert_eq!((&bytes[..512], &bytes[512..1024]), (&[7; 512][..], &[1; 512][..]));
}

/// A device that its driver resets goes on with new queues; the process ends with its frontend.
#[test]
fn a_reset_device_starts_again_and_the_backend_ends_with_its_frontend() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let mut process = start(&socket, &[]);
    let mut backend = connect(&socket, 1);
    for _ in 0..3 {
        backend.accept(VERSION_1 | EVENT_IDX).unwrap();
        let mut driver = Driver::new(backend, 0);
        for _ in 0..5 {
            assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, 512), (VIRTIO_BLK_S_OK, 513));
        }
        backend = driver.backend;
        backend.reset().unwrap();
    }
    drop(backend);
    assert!(process.0.wait().unwrap().success());
}
