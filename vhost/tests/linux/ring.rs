//! A queue as its driver has it, in a few lines.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use xen_eventfd_vhost::{Backend, Memory, Queue, Region};

/// Where a guest has its memory: not at 0, so that an address of one kind is not taken for the other.
pub(crate) const BEGIN: u64 = 0x10_0000;
/// What one queue takes of it, in bytes, and where its parts are.
pub(crate) const QUEUE_BYTES: u64 = 0x10000;
pub(crate) const AVAILABLE: u64 = 0x400;
pub(crate) const USED: u64 = 0x800;
pub(crate) const BUFFERS: u64 = 0x1000;
pub(crate) const BUFFER_BYTES: usize = 0x800;
pub(crate) const SIZE: u16 = 8;

/// Where a queue has the buffer of a slot.
pub(crate) fn buffer(slot: u16) -> u64 {
    BUFFERS + u64::from(slot) * BUFFER_BYTES as u64
}

/// A guest's memory in bytes, with room for the queues of two pairs and the control queue.
pub(crate) const MEMORY: u64 = 5 * QUEUE_BYTES;

pub(crate) fn guest_memory() -> File {
    let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    memory.set_len(MEMORY).unwrap();
    memory
}

pub(crate) fn set_memory(card: &mut dyn Backend, memory: &File) {
    let memory = Memory::File { file: memory.as_fd(), offset: 0 };
    card.set_memory(&[Region { guest_address: BEGIN, size: MEMORY, memory }]).unwrap();
}

/// One queue, as its driver has it.
pub(crate) struct Ring<'a> {
    memory: &'a File,
    pub(crate) index: u16,
    pub(crate) kick: OwnedFd,
    pub(crate) call: OwnedFd,
    pub(crate) posted: u16,
    pub(crate) seen: u16,
}

impl<'a> Ring<'a> {
    pub(crate) const ANSWER: u64 = BUFFERS + 0x100;

    pub(crate) fn new(memory: &'a File, index: u16) -> Self {
        let [kick, call] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        Self { memory, index, kick, call, posted: 0, seen: 0 }
    }

    pub(crate) fn queue(&self, base: u16) -> Queue {
        let begin = BEGIN + self.at(0);
        let (available, used) = (begin + AVAILABLE, begin + USED);
        Queue { size: SIZE, descriptors: begin, available, used, base }
    }

    pub(crate) fn start(&self, card: &mut dyn Backend, base: u16) {
        let queue = self.queue(base);
        card.start_queue(self.index, &queue, self.kick.as_fd(), self.call.as_fd()).unwrap();
    }

    pub(crate) fn at(&self, place: u64) -> u64 {
        u64::from(self.index) * QUEUE_BYTES + place
    }

    pub(crate) fn put(&self, place: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, self.at(place)).unwrap();
    }

    pub(crate) fn get<const N: usize>(&self, place: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, self.at(place)).unwrap();
        bytes
    }

    /// Makes a buffer available, with these bytes or for as many as it holds, and kicks.
    pub(crate) fn post(&mut self, bytes: Option<&[u8]>) {
        self.make_available(bytes);
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).unwrap();
    }

    pub(crate) fn make_available(&mut self, bytes: Option<&[u8]>) {
        let slot = self.posted % SIZE;
        let place = buffer(slot);
        let (length, flags) = match bytes {
            Some(bytes) => (bytes.len(), 0),
            None => (BUFFER_BYTES, VRING_DESC_F_WRITE),
        };
        self.put(place, bytes.unwrap_or_default());
        let address = BEGIN + self.at(place);
        let length = u32::try_from(length).unwrap();
        let descriptor =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes()].concat();
        self.put(16 * u64::from(slot), &descriptor);
        self.put(AVAILABLE + 4 + 2 * u64::from(slot), &slot.to_le_bytes());
        self.posted += 1;
        self.put(AVAILABLE + 2, &self.posted.to_le_bytes());
    }

    /// The next buffer that the backend has used, after its call.
    pub(crate) fn used(&mut self) -> Vec<u8> {
        while self.get(USED + 2) == self.seen.to_le_bytes() {
            poll(&mut [PollFd::new(&self.call, PollFlags::IN)], None).unwrap();
            rustix::io::read(&self.call, &mut [0; 8]).unwrap();
        }
        let entry = USED + 4 + 8 * u64::from(self.seen % SIZE);
        let [slot, length] = [0, 4].map(|field| u32::from_le_bytes(self.get(entry + field)));
        self.seen += 1;
        let bytes: [u8; BUFFER_BYTES] = self.get(buffer(u16::try_from(slot).unwrap()));
        bytes[..length as usize].to_vec()
    }

    /// Sends these bytes with room for an answer of so many bytes, which begins at [`Ring::ANSWER`]. Returns how much of
    /// that was written, as the backend reports it.
    pub(crate) fn exchange(&mut self, bytes: &[u8], answer: u32) -> usize {
        self.put(buffer(0), bytes);
        self.put(Self::ANSWER, &vec![0xEE; answer as usize]);
        let length = u32::try_from(bytes.len()).unwrap();
        for (index, place, length, flags, next) in [
            (0, buffer(0), length, VRING_DESC_F_NEXT, 1_u32),
            (1, Self::ANSWER, answer, VRING_DESC_F_WRITE, 0),
        ] {
            let address = BEGIN + self.at(place);
            let flags = flags | next << 16;
            let descriptor =
                [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes()].concat();
            self.put(16 * index, &descriptor);
        }
        let slot = u64::from(self.posted % SIZE);
        self.put(AVAILABLE + 4 + 2 * slot, &0_u16.to_le_bytes());
        self.posted += 1;
        self.put(AVAILABLE + 2, &self.posted.to_le_bytes());
        rustix::io::write(&self.kick, &1_u64.to_ne_bytes()).unwrap();
        self.used().len()
    }
}
