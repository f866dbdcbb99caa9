//! The control queue of a card with several pairs of queues: a thread that sets how many of them are used.
//!
//! The kernel's vhost does not have it. A driver waits for the answer, and asks when it starts and when its user
//! changes the number.

use super::pairs::{Pairs, SharedMemory};
use crate::eventfd::{Signaller, new_eventfd};
use crate::{Error, Queue, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryLoadGuard, GuestMemoryMmap};

type Guard = GuestMemoryLoadGuard<GuestMemoryMmap>;

/// A control queue that is served.
pub(super) struct Control {
    stop: OwnedFd,
    thread: JoinHandle<Stopped>,
}

/// A control queue that was served, to go on from there.
pub(super) struct Stopped {
    pub(super) queue: Queue,
    pub(super) kick: OwnedFd,
    pub(super) call: OwnedFd,
}

/// What the thread has.
struct Served {
    place: Queue,
    queue: virtio_queue::Queue,
    memory: SharedMemory,
    pairs: Pairs,
    kick: OwnedFd,
    call: OwnedFd,
    signaller: Signaller,
}

impl Control {
    /// Starts to serve a queue of the guest, and looks at it once.
    pub(super) fn start(
        queue: &Queue,
        event_idx: bool,
        (memory, pairs): (SharedMemory, Pairs),
        [kick, call]: [BorrowedFd<'_>; 2],
    ) -> Result<Self> {
        let wrong = |_| Error::Memory { why: "the control queue is not as queues are" };
        let mut own = virtio_queue::Queue::new(queue.size).map_err(wrong)?;
        let halves = |address: u64| {
            let [low, high] = [address & 0xFFFF_FFFF, address >> 32].map(u32::try_from);
            (low.ok(), high.ok())
        };
        own.set_size(queue.size);
        let (low, high) = halves(queue.descriptors);
        own.set_desc_table_address(low, high);
        let (low, high) = halves(queue.available);
        own.set_avail_ring_address(low, high);
        let (low, high) = halves(queue.used);
        own.set_used_ring_address(low, high);
        own.set_next_avail(queue.base);
        own.set_next_used(queue.base);
        own.set_event_idx(event_idx);
        own.set_ready(true);
        let system = |what, errno| Error::System { what, errno };
        if !own.is_valid(&*memory.memory()) {
            return Err(Error::Memory { why: "the control queue is not in it" });
        }
        let copy = |fd: BorrowedFd<'_>| {
            rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(|errno| system("copy an eventfd", errno))
        };
        let served = Served {
            place: *queue,
            queue: own,
            memory,
            pairs,
            kick: copy(kick)?,
            call: copy(call)?,
            signaller: Signaller::default(),
        };
        let stop = new_eventfd()?;
        let stopped = copy(stop.as_fd())?;
        let thread = std::thread::Builder::new()
            .name("net-control".to_owned())
            .spawn(move || served.serve(&stopped))
            .map_err(|error| {
                system("start a thread", Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
            })?;
        Ok(Self { stop, thread })
    }

    /// Stops serving; `None` if the thread has panicked.
    pub(super) fn stop(self) -> Option<Stopped> {
        // The thread reads it at most once, so it is not full.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        self.thread.join().ok()
    }
}

impl Served {
    fn serve(mut self, stop: &OwnedFd) -> Stopped {
        loop {
            // A driver that breaks its queue has none. The device is reset then.
            let _ = self.commands();
            let mut waiting = [stop, &self.kick].map(|fd| PollFd::new(fd, PollFlags::IN));
            let _ = poll(&mut waiting, None);
            let [stopped, kicked] = waiting.map(|fd| !fd.revents().is_empty());
            if stopped {
                let queue = Queue { base: self.queue.next_avail(), ..self.place };
                return Stopped { queue, kick: self.kick, call: self.call };
            }
            if kicked {
                let _ = rustix::io::read(&self.kick, &mut [0; 8]);
            }
        }
    }

    fn commands(&mut self) -> core::result::Result<(), virtio_queue::Error> {
        let memory = self.memory.memory();
        loop {
            self.queue.disable_notification(&*memory)?;
            while let Some(chain) = self.queue.pop_descriptor_chain(memory.clone()) {
                let head = chain.head_index();
                let written = self.command(chain).map_or(0, |()| 1);
                self.queue.add_used(&*memory, head, written)?;
                if self.queue.needs_notification(&*memory)? {
                    // Fails only if the descriptor is no eventfd.
                    let _ = self.signaller.signal(self.call.as_fd());
                }
            }
            if !self.queue.enable_notification(&*memory)? {
                return Ok(());
            }
        }
    }

    /// Carries one command out and writes its result (virtio 1.3, 5.1.6.5).
    fn command(&self, chain: DescriptorChain<Guard>) -> std::io::Result<()> {
        let odd = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let memory = chain.memory().clone();
        let mut reader = chain.clone().reader(&memory).map_err(odd)?;
        let [class, command] = reader.read_obj::<[u8; 2]>()?.map(u32::from);
        let done = match (class, command) {
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
                let pairs = usize::from(u16::from_le_bytes(reader.read_obj()?));
                let there = self.pairs.lock().len();
                (1..=there).contains(&pairs) && self.pairs.select(pairs).is_ok()
            }
            _ => false,
        };
        let result = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        let mut writer = chain.writer(&memory).map_err(odd)?;
        writer.write_all(&result.to_le_bytes()[..1])
    }
}
