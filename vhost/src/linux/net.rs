//! A network card: `/dev/vhost-net` and a tap device, one of each for a pair of queues.

use super::control::Control;
use super::links::Links;
use super::pairs::{Pair, Pairs, SharedMemory, Vhost};
use super::tap::Tap;
use super::{failed, memory, read_config, ring};
use crate::eventfd::{Signaller, new_eventfd};
use crate::features::{check_accepted, of_device};
use crate::{Backend, Error, Inflight, Queue, Region, Result};
use core::fmt;
use core::mem::{offset_of, size_of};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vhost::VhostBackend;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    virtio_net_config,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// What the tap device does for the guest and the guest for it.
const OFFLOADS: u64 = 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_ECN
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_HOST_ECN;

/// What a card is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The card's address.
    pub mac: [u8; 6],
    /// Whether checksums and segmentation are left to the other side.
    pub offloads: bool,
}

/// What a card with several pairs of queues has beside.
const SEVERAL: u64 = 1 << VIRTIO_NET_F_MQ | 1 << VIRTIO_NET_F_CTRL_VQ;

/// A card whose packets the kernel carries between the guest and tap devices. Queues 2n and 2n + 1 are those of
/// the tap device n: receive, transmit. If there are several, the last queue is the control queue, by which the
/// driver selects how many of the pairs it uses; at first it is one. A thread of this process has that queue.
pub struct Net {
    pairs: Pairs,
    /// With the control queue.
    queues: u16,
    control: Option<Control>,
    /// What the driver has accepted.
    accepted: u64,
    memory: SharedMemory,
    /// What the kernel's vhost knows.
    of_vhost: u64,
    /// What the driver may accept.
    offered: u64,
    config: [u8; size_of::<virtio_net_config>()],
    running: BTreeSet<u16>,
    errors: OwnedFd,
    /// `None`: this process may not watch them. A request that fails then shows that a tap device is gone.
    links: Option<Links>,
    signaller: Signaller,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.pairs.lock();
        let taps: Vec<&str> = pairs.iter().map(|pair| pair.tap.name()).collect();
        f.debug_struct("Net").field("taps", &taps).field("running", &self.running).finish()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Its thread has the tap devices too, which would stay.
        drop(self.control.take().and_then(Control::stop));
    }
}

impl Net {
    /// A card with a pair of queues for each of these queues of tap devices.
    ///
    /// # Errors
    /// [`Error::Device`]: ENOENT if the module is not loaded, EACCES without the right to
    /// use it.
    pub fn new(taps: Vec<Tap>, options: Options) -> Result<Self> {
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let open = |tap| {
            let vhost = Vhost::new(memory.clone()).map_err(|error| failed("OPEN", &error))?;
            vhost.set_owner().map_err(|error| failed("SET_OWNER", &error))?;
            Ok((vhost, tap))
        };
        let pairs: Vec<(Vhost, Tap)> = taps.into_iter().map(open).collect::<Result<_>>()?;
        let known = pairs.iter().map(|(vhost, _)| vhost.get_features());
        let of_vhost = known
            .reduce(|all, one| Ok(all? & one?))
            .unwrap_or(Ok(0))
            .map_err(|error| failed("GET_FEATURES", &error))?;
        let offloads = if options.offloads { OFFLOADS } else { 0 };
        let count = u16::try_from(pairs.len()).unwrap_or(u16::MAX);
        let (several, control) = if count > 1 { (SEVERAL, 1) } else { (0, 0) };
        let mut config = [0; size_of::<virtio_net_config>()];
        let mut put = |at: usize, field: &[u8]| config[at..at + field.len()].copy_from_slice(field);
        put(offset_of!(virtio_net_config, mac), &options.mac);
        put(offset_of!(virtio_net_config, max_virtqueue_pairs), &count.to_le_bytes());
        Ok(Self {
            pairs: Pairs::new(pairs),
            queues: count.saturating_mul(2).saturating_add(control),
            control: None,
            accepted: 0,
            memory,
            of_vhost,
            offered: of_device(of_vhost) | offloads | several | 1 << VIRTIO_NET_F_MAC,
            config,
            running: BTreeSet::new(),
            errors: new_eventfd()?,
            links: Links::watch().ok(),
            signaller: Signaller::default(),
        })
    }

    /// The pair that a queue is of and the queue's ring in it; `None` for the control queue, which is behind
    /// those that the driver can use (virtio 1.3, 5.1.2).
    fn ring(&self, index: u16) -> Result<Option<(usize, usize)>> {
        let has_control = self.accepted & 1 << VIRTIO_NET_F_CTRL_VQ != 0;
        let data = match self.accepted & 1 << VIRTIO_NET_F_MQ {
            0 => 2,
            _ => self.queues / 2 * 2,
        };
        match index {
            index if index < data => Ok(Some((usize::from(index / 2), usize::from(index % 2)))),
            index if index == data && has_control => Ok(None),
            index => Err(Error::NoQueue { index, queues: data + u16::from(has_control) }),
        }
    }

    fn start_control(
        &mut self,
        queue: &Queue,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<()> {
        let event_idx = self.accepted & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let shared = (self.memory.clone(), self.pairs.clone());
        self.control = Some(Control::start(queue, event_idx, shared, [kick, call])?);
        Ok(())
    }

    /// Restarts the control queue with another kick or call eventfd.
    fn restart_control(
        &mut self,
        kick: Option<BorrowedFd<'_>>,
        call: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let Some(stopped) = self.control.take().and_then(Control::stop) else { return Ok(()) };
        let kick = kick.unwrap_or(stopped.kick.as_fd());
        let call = call.unwrap_or(stopped.call.as_fd());
        self.start_control(&stopped.queue, kick, call)
    }
}

impl Backend for Net {
    fn features(&self) -> u64 {
        self.offered
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn maps_guests(&self) -> bool {
        false
    }

    fn accept(&mut self, features: u64) -> Result<()> {
        check_accepted(features, self.offered)?;
        for Pair { vhost, tap, .. } in &*self.pairs.lock() {
            let known = features & of_device(self.of_vhost);
            vhost.set_features(known).map_err(|error| failed("SET_FEATURES", &error))?;
            tap.set_offload(features)?;
        }
        self.accepted = features;
        self.pairs.set_active(1)
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        read_config(&self.config, offset, bytes)
    }

    /// A modern driver writes to none of it.
    fn write_config(&mut self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn set_memory(&mut self, regions: &[Region<'_>]) -> Result<()> {
        let (memory, table) = memory::map(regions)?;
        for Pair { vhost, .. } in &*self.pairs.lock() {
            vhost.set_mem_table(&table).map_err(|error| failed("SET_MEM_TABLE", &error))?;
        }
        // A thread that panicked with the lock has left nothing half done.
        let lock = self.memory.lock();
        lock.unwrap_or_else(|poisoned| poisoned.into_inner()).replace(memory);
        Ok(())
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &Queue,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<()> {
        let Some((pair, ring)) = self.ring(index)? else {
            self.running.insert(index);
            return self.start_control(queue, kick, call);
        };
        let mut pairs = self.pairs.lock();
        let pair = &mut pairs[pair];
        ring::set_up(&pair.vhost, ring, queue, [kick, call, self.errors.as_fd()])?;
        // With the tap device the kernel also looks at the queue, so it needs no kick.
        pair.start(ring)?;
        self.running.insert(index);
        Ok(())
    }

    fn notes_requests(&self) -> bool {
        self.pairs.lock().len() > 1
    }

    fn new_inflight(&mut self, queues: u16, queue_size: u16) -> Result<Inflight> {
        let (file, size) = self.pairs.new_note()?;
        Ok(Inflight { file, offset: 0, size, queues, queue_size })
    }

    fn set_inflight(&mut self, inflight: &Inflight) -> Result<()> {
        self.pairs.go_on_with(inflight.file.as_fd(), inflight.offset)
    }

    fn set_kick(&mut self, index: u16, kick: BorrowedFd<'_>) -> Result<()> {
        let Some((pair, ring)) = self.ring(index)? else {
            return self.restart_control(Some(kick), None);
        };
        ring::set_kick(&self.pairs.lock()[pair].vhost, ring, kick)?;
        self.signaller.signal(kick)
    }

    fn set_call(&mut self, index: u16, call: BorrowedFd<'_>) -> Result<()> {
        let Some((pair, ring)) = self.ring(index)? else {
            return self.restart_control(None, Some(call));
        };
        ring::set_call(&self.pairs.lock()[pair].vhost, ring, call)
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16> {
        let base = match self.ring(index)? {
            Some((pair, ring)) => self.pairs.lock()[pair].stop(ring)?,
            None => self.control.take().and_then(Control::stop).map_or(0, |end| end.queue.base),
        };
        self.running.remove(&index);
        Ok(base)
    }

    fn reset(&mut self) -> Result<()> {
        while let Some(index) = self.running.first().copied() {
            self.stop_queue(index)?;
        }
        self.pairs.forget_note();
        Ok(())
    }

    /// The kernel does not end, but a tap device can be removed.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.links.as_ref().map(Links::fd)
    }

    fn check(&self) -> Result<()> {
        if let Some(links) = &self.links {
            links.drain();
        }
        self.pairs.check()
    }

    fn errors(&self) -> BorrowedFd<'_> {
        self.errors.as_fd()
    }
}
