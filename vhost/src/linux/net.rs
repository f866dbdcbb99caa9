//! A network card: `/dev/vhost-net` and a tap device, one of each for a pair of queues.

use super::door::event_fd;
use super::memory;
use super::tap::Tap;
use crate::features::of_device;
use crate::{Backend, Error, Queue, Region, Result};
use core::fmt;
use core::mem::{offset_of, size_of};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vhost::net::VhostNet;
use vhost::{VhostBackend, VringConfigData};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MAC, virtio_net_config,
};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use xen_eventfd_host::{Signaller, aio};

const DEVICE: &str = "/dev/vhost-net";

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

type SharedMemory = GuestMemoryAtomic<GuestMemoryMmap>;
type Vhost = vhost::vhost_kern::net::Net<SharedMemory>;

/// A card whose packets the kernel carries between the guest and tap devices. Queues 2n and 2n + 1 are those of
/// the tap device n: receive, transmit.
pub struct Net {
    pairs: Vec<(Vhost, Tap)>,
    memory: SharedMemory,
    /// What the kernel's vhost knows.
    of_vhost: u64,
    /// What the driver may accept.
    offered: u64,
    config: [u8; size_of::<virtio_net_config>()],
    running: BTreeSet<u16>,
    errors: OwnedFd,
    signaller: aio::Context,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taps: Vec<&str> = self.pairs.iter().map(|(_, tap)| tap.name()).collect();
        f.debug_struct("Net").field("taps", &taps).field("running", &self.running).finish()
    }
}

impl Net {
    /// A card with a pair of queues for each of these queues of tap devices.
    ///
    /// # Errors
    /// [`Error::Device`]: [`Errno::NOENT`] if the module is not loaded, [`Errno::ACCESS`] without the right to
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
        let mut config = [0; size_of::<virtio_net_config>()];
        let mac = offset_of!(virtio_net_config, mac);
        config[mac..mac + options.mac.len()].copy_from_slice(&options.mac);
        let system = |what| move |errno| Error::System { what, errno };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            pairs,
            memory,
            of_vhost,
            offered: of_device(of_vhost) | offloads | 1 << VIRTIO_NET_F_MAC,
            config,
            running: BTreeSet::new(),
            errors: eventfd(0, flags).map_err(system("make an eventfd"))?,
            signaller: aio::Context::new()
                .map_err(|error| error.errno)
                .map_err(system("set asynchronous I/O up"))?,
        })
    }

    /// The pair of a queue, and the queue's index in it.
    fn pair(&self, index: u16) -> Result<(&Vhost, &Tap, usize)> {
        let none = Error::NoQueue { index, queues: self.queues() };
        let (vhost, tap) = self.pairs.get(usize::from(index / 2)).ok_or(none)?;
        Ok((vhost, tap, usize::from(index % 2)))
    }

    fn kick_once(&mut self, kick: BorrowedFd<'_>) -> Result<()> {
        let failed = |errno| Error::System { what: "kick a queue", errno };
        self.signaller.signal(kick).map_err(|error| failed(error.errno))
    }
}

impl Backend for Net {
    fn features(&self) -> u64 {
        self.offered
    }

    fn queues(&self) -> u16 {
        u16::try_from(self.pairs.len() * 2).unwrap_or(u16::MAX)
    }

    fn maps_guests(&self) -> bool {
        false
    }

    fn accept(&mut self, features: u64) -> Result<()> {
        let strange = features & !self.offered;
        if strange != 0 {
            return Err(Error::NotOffered { features: strange });
        }
        for (vhost, tap) in &self.pairs {
            let known = features & of_device(self.of_vhost);
            vhost.set_features(known).map_err(|error| failed("SET_FEATURES", &error))?;
            tap.set_offload(features)?;
        }
        Ok(())
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        let beyond = Error::BeyondConfiguration { offset, length: bytes.len() };
        let rest = self.config.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(rest.ok_or(beyond)?);
        Ok(())
    }

    /// A modern driver writes to none of it.
    fn write_config(&mut self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn set_memory(&mut self, regions: &[Region<'_>]) -> Result<()> {
        let (memory, table) = memory::map(regions)?;
        for (vhost, _) in &self.pairs {
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
        let (vhost, tap, ring) = self.pair(index)?;
        let place = VringConfigData {
            queue_max_size: queue.size,
            queue_size: queue.size,
            flags: 0,
            desc_table_addr: queue.descriptors,
            used_ring_addr: queue.used,
            avail_ring_addr: queue.available,
            log_addr: None,
        };
        let step = |name: &'static str| move |error: vhost::Error| failed(name, &error);
        let [kick_fd, call_fd, errors] = [kick, call, self.errors.as_fd()].map(event_fd);
        let descriptor = |error: std::io::Error| failed("SET_VRING", &vhost::Error::IOError(error));
        vhost.set_vring_num(ring, queue.size).map_err(step("SET_VRING_NUM"))?;
        vhost.set_vring_base(ring, queue.base).map_err(step("SET_VRING_BASE"))?;
        vhost.set_vring_addr(ring, &place).map_err(step("SET_VRING_ADDR"))?;
        vhost.set_vring_err(ring, &errors.map_err(descriptor)?).map_err(step("SET_VRING_ERR"))?;
        vhost
            .set_vring_call(ring, &call_fd.map_err(descriptor)?)
            .map_err(step("SET_VRING_CALL"))?;
        vhost
            .set_vring_kick(ring, &kick_fd.map_err(descriptor)?)
            .map_err(step("SET_VRING_KICK"))?;
        vhost.set_backend(ring, Some(&tap.file)).map_err(step("NET_SET_BACKEND"))?;
        self.running.insert(index);
        self.kick_once(kick)
    }

    fn set_kick(&mut self, index: u16, kick: BorrowedFd<'_>) -> Result<()> {
        let (vhost, _, ring) = self.pair(index)?;
        event_fd(kick)
            .map_err(vhost::Error::IOError)
            .and_then(|kick| vhost.set_vring_kick(ring, &kick))
            .map_err(|error| failed("SET_VRING_KICK", &error))?;
        self.kick_once(kick)
    }

    fn set_call(&mut self, index: u16, call: BorrowedFd<'_>) -> Result<()> {
        let (vhost, _, ring) = self.pair(index)?;
        event_fd(call)
            .map_err(vhost::Error::IOError)
            .and_then(|call| vhost.set_vring_call(ring, &call))
            .map_err(|error| failed("SET_VRING_CALL", &error))
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16> {
        let (vhost, _, ring) = self.pair(index)?;
        vhost.set_backend(ring, None).map_err(|error| failed("NET_SET_BACKEND", &error))?;
        let base = vhost.get_vring_base(ring).map_err(|error| failed("GET_VRING_BASE", &error))?;
        self.running.remove(&index);
        // Of a split queue it is an index of 16 bits.
        u16::try_from(base).map_err(|_| failed("GET_VRING_BASE", &vhost::Error::InvalidQueue))
    }

    fn reset(&mut self) -> Result<()> {
        while let Some(index) = self.running.first().copied() {
            self.stop_queue(index)?;
        }
        Ok(())
    }

    /// The kernel stays.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn errors(&self) -> BorrowedFd<'_> {
        self.errors.as_fd()
    }
}

/// The error of a request.
fn failed(request: &'static str, error: &vhost::Error) -> Error {
    let errno = |error| Errno::from_io_error(error).unwrap_or(Errno::INVAL);
    match error {
        vhost::Error::VhostOpen(error) => Error::Device { path: DEVICE, errno: errno(error) },
        vhost::Error::IoctlError(error) | vhost::Error::IOError(error) => {
            Error::Kernel { request, errno: errno(error) }
        }
        // What the crate finds wrong before it asks: a queue that is not in the guest's memory.
        _ => Error::Kernel { request, errno: Errno::FAULT },
    }
}
