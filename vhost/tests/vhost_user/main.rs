//! The frontend of vhost-user, with rust-vmm's side of a backend, and with backends that lie.

mod go_on;
mod lies;
mod messages;
mod peer;
mod recorder;
mod requests;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;
use xen_eventfd_vhost::{Memory, Needs, Queue, Region};

/// Longer than any answer takes.
const PATIENT: Duration = Duration::from_secs(60);
/// What a device with one queue needs.
const ONE_QUEUE: Needs = Needs { queues: 1, fixed: true };
/// A guest's memory in bytes.
const SIZE: u64 = 1 << 20;

const QUEUE: Queue =
    Queue { size: 64, descriptors: 0x1000, available: 0x2000, used: 0x3000, base: 5 };

fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn guest_memory() -> OwnedFd {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, SIZE).unwrap();
    memory
}

fn region(file: BorrowedFd<'_>) -> Region<'_> {
    Region { guest_address: 0, size: SIZE, memory: Memory::File { file, offset: 0 } }
}
