//! Devices of which the kernel serves all rings or none: sockets (vhost-vsock) and SCSI targets (vhost-scsi).
//!
//! # Invariants
//! * While rings are set up or stopped, the kernel serves none.
//! * It serves them once those that every driver has are set up, so that it finds no ring half made. Each is kicked
//!   then, as kicks before that are lost.

use super::door::{self, Target};
use super::pairs::SharedMemory;
use super::{VHOST_SCSI, VHOST_VSOCK, failed, memory, read_config, ring};
use crate::eventfd::{Signaller, new_eventfd};
use crate::features::{check_accepted, of_device};
use crate::{Backend, Error, Queue, Region, Result};
use core::mem::{offset_of, size_of};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use vhost::vhost_kern::VhostKernBackend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use virtio_bindings::virtio_scsi::virtio_scsi_config;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Queues of a SCSI target before those for requests: control and event.
const SCSI_EXTRA_QUEUES: u16 = 2;

/// An open descriptor of the kernel's vhost.
struct Vhost {
    file: File,
    memory: SharedMemory,
}

impl AsRawFd for Vhost {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl VhostKernBackend for Vhost {
    type AS = SharedMemory;

    fn mem(&self) -> &SharedMemory {
        &self.memory
    }
}

impl Vhost {
    fn open(path: &'static str) -> Result<Self> {
        let file = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::Device { path, errno })?;
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let vhost = Self { file: file.into(), memory };
        vhost.set_owner().map_err(|error| failed("SET_OWNER", &error))?;
        Ok(vhost)
    }
}

/// What the rings lead to.
#[derive(Debug)]
enum End {
    /// The sockets of this host.
    Sockets,
    /// A target of the kernel's.
    Target(Box<Target>),
}

impl End {
    fn connect(&self, vhost: BorrowedFd<'_>) -> Result<()> {
        let refused = |request| move |errno| Error::Kernel { request, errno };
        match self {
            Self::Sockets => door::set_running(vhost, true).map_err(refused("VSOCK_SET_RUNNING")),
            Self::Target(target) => {
                door::set_endpoint(vhost, **target).map_err(|errno| match errno {
                    // Which of the two depends on the version of the kernel.
                    Errno::NODEV | Errno::EXIST => Error::Target { wwpn: target.name() },
                    errno => refused("SCSI_SET_ENDPOINT")(errno),
                })
            }
        }
    }

    fn disconnect(&self, vhost: BorrowedFd<'_>) -> Result<()> {
        let refused = |request| move |errno| Error::Kernel { request, errno };
        match self {
            Self::Sockets => door::set_running(vhost, false).map_err(refused("VSOCK_SET_RUNNING")),
            Self::Target(target) => {
                door::clear_endpoint(vhost, **target).map_err(refused("SCSI_CLEAR_ENDPOINT"))
            }
        }
    }
}

/// A device of which the kernel serves all rings or none.
pub struct Device {
    vhost: Vhost,
    end: End,
    config: Vec<u8>,
    queues: u16,
    /// As many of them are the kernel's, the first ones.
    rings: u16,
    /// Once the first so many rings are set up, they are served.
    needed: u16,
    offered: u64,
    /// The queues that run, with their kicks.
    running: BTreeMap<u16, OwnedFd>,
    is_connected: bool,
    errors: OwnedFd,
    signaller: Signaller,
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Device").field("end", &self.end).field("running", &self.running).finish()
    }
}

impl Device {
    /// A device that connects the guest's sockets with those of this host (AF_VSOCK), with this context identifier. The
    /// last of its 3 queues, for events, stays empty: nothing happens to a guest that such an event reports.
    ///
    /// # Errors
    /// [`Error::Device`]: ENOENT if the module is not loaded, EACCES without the right to use it.
    /// [`Error::Cid`] if the identifier is reserved, or another guest's.
    pub fn vsock(cid: u64) -> Result<Self> {
        let vhost = Vhost::open(VHOST_VSOCK)?;
        door::set_guest_cid(vhost.file.as_fd(), cid).map_err(|errno| Error::Cid { cid, errno })?;
        let config = cid.to_le_bytes().to_vec();
        Self::new(vhost, End::Sockets, config, 3, 2)
    }

    /// The disks of a target that the administrator has made (`/sys/kernel/config/target/vhost`), which has this name
    /// (`naa.5001405bd4bf9c3e`), with so many queues for requests.
    ///
    /// # Errors
    /// [`Error::Device`] as of [`Device::vsock`]. That there is no such target is found out once the memory is set.
    pub fn scsi(wwpn: &str, request_queues: u16) -> Result<Self> {
        let target = Target::new(wwpn).ok_or_else(|| Error::Target { wwpn: wwpn.to_owned() })?;
        let mut config = vec![0; size_of::<virtio_scsi_config>()];
        for (at, value) in [
            (offset_of!(virtio_scsi_config, num_queues), u32::from(request_queues)),
            // With two more, for the request itself, they fit into the smallest queue that a device has.
            (offset_of!(virtio_scsi_config, seg_max), 126),
            (offset_of!(virtio_scsi_config, max_sectors), 0xFFFF),
            (offset_of!(virtio_scsi_config, cmd_per_lun), 128),
            (offset_of!(virtio_scsi_config, event_info_size), 16),
            (offset_of!(virtio_scsi_config, sense_size), 96),
            (offset_of!(virtio_scsi_config, cdb_size), 32),
            // Channel 0, and with it in these 4 bytes the last target.
            (offset_of!(virtio_scsi_config, max_channel), 255 << 16),
            (offset_of!(virtio_scsi_config, max_lun), 16383),
        ] {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let queues = SCSI_EXTRA_QUEUES.saturating_add(request_queues);
        let vhost = Vhost::open(VHOST_SCSI)?;
        Self::new(vhost, End::Target(Box::new(target)), config, queues, queues)
    }

    fn new(vhost: Vhost, end: End, config: Vec<u8>, queues: u16, rings: u16) -> Result<Self> {
        let offered = vhost.get_features().map_err(|error| failed("GET_FEATURES", &error))?;
        Ok(Self {
            vhost,
            end,
            config,
            queues,
            rings,
            needed: rings.min(SCSI_EXTRA_QUEUES + 1),
            offered: of_device(offered),
            running: BTreeMap::new(),
            is_connected: false,
            errors: new_eventfd()?,
            signaller: Signaller::default(),
        })
    }

    fn queue(&self, index: u16) -> Result<usize> {
        if index >= self.queues {
            return Err(Error::NoQueue { index, queues: self.queues });
        }
        Ok(index.into())
    }

    /// Whether the kernel has this queue.
    fn is_ring(&self, index: u16) -> bool {
        index < self.rings
    }

    fn disconnect(&mut self) -> Result<()> {
        if core::mem::take(&mut self.is_connected) {
            self.end.disconnect(self.vhost.file.as_fd())?;
        }
        Ok(())
    }

    /// Has the kernel serve the rings, if those that every driver has are set up.
    fn connect(&mut self) -> Result<()> {
        if !(0..self.needed).all(|index| self.running.contains_key(&index)) {
            return Ok(());
        }
        self.end.connect(self.vhost.file.as_fd())?;
        self.is_connected = true;
        for (index, kick) in &self.running {
            if self.is_ring(*index) {
                self.signaller.signal(kick.as_fd())?;
            }
        }
        Ok(())
    }

    /// What only a device with a target needs of the memory and of the host, found out before the guest runs.
    fn check_target(&self, table: &[VhostUserMemoryRegionInfo]) -> Result<()> {
        let End::Target(_) = self.end else { return Ok(()) };
        let addresses: Vec<u64> = table.iter().map(|region| region.userspace_addr).collect();
        if !has_pages(&addresses) {
            return Err(Error::Memory {
                why: "Linux's vhost-scsi transfers to and from the guest's pages themselves, and this kernel \
                      has them mapped without a struct page, as a PV dom0 does; boot a PVH dom0 (dom0=pvh), or \
                      take a vhost-user backend (scsi,socket=PATH)",
            });
        }
        self.end.connect(self.vhost.file.as_fd())?;
        self.end.disconnect(self.vhost.file.as_fd())
    }
}

/// Whether the kernel can take hold of the pages that are mapped at these addresses of this process. Its own way to read
/// a process's memory does; where it cannot be asked, it is taken to be so.
fn has_pages(addresses: &[u64]) -> bool {
    let Ok(memory) = File::open("/proc/self/mem") else { return true };
    addresses.iter().all(|address| memory.read_exact_at(&mut [0], *address).is_ok())
}

impl Backend for Device {
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
        self.vhost.set_features(features).map_err(|error| failed("SET_FEATURES", &error))
    }

    fn read_config(&mut self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        read_config(&self.config, offset, bytes)
    }

    /// A driver may write what sizes it wants of a SCSI device's, and gets those that the kernel has.
    fn write_config(&mut self, _: u32, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn set_memory(&mut self, regions: &[Region<'_>]) -> Result<()> {
        let (memory, table) = memory::map(regions)?;
        self.vhost.set_mem_table(&table).map_err(|error| failed("SET_MEM_TABLE", &error))?;
        let lock = self.vhost.memory.lock();
        lock.unwrap_or_else(|poisoned| poisoned.into_inner()).replace(memory);
        self.check_target(&table)
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &Queue,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<()> {
        let ring = self.queue(index)?;
        self.disconnect()?;
        if self.is_ring(index) {
            ring::set_up(&self.vhost, ring, queue, [kick, call, self.errors.as_fd()])?;
        }
        self.running.insert(index, copy(kick)?);
        self.connect()
    }

    fn set_kick(&mut self, index: u16, kick: BorrowedFd<'_>) -> Result<()> {
        let ring = self.queue(index)?;
        if self.is_ring(index) {
            ring::set_kick(&self.vhost, ring, kick)?;
        }
        self.running.insert(index, copy(kick)?);
        self.signaller.signal(kick)
    }

    fn set_call(&mut self, index: u16, call: BorrowedFd<'_>) -> Result<()> {
        let ring = self.queue(index)?;
        if self.is_ring(index) { ring::set_call(&self.vhost, ring, call) } else { Ok(()) }
    }

    fn stop_queue(&mut self, index: u16) -> Result<u16> {
        let ring = self.queue(index)?;
        self.disconnect()?;
        self.running.remove(&index);
        let base = if self.is_ring(index) { ring::base(&self.vhost, ring)? } else { 0 };
        self.connect()?;
        Ok(base)
    }

    fn reset(&mut self) -> Result<()> {
        self.disconnect()?;
        for index in core::mem::take(&mut self.running).into_keys() {
            // The next driver may have fewer: the kernel writes to all that have a place, once they are served.
            if self.is_ring(index) {
                door::forget_ring(self.vhost.file.as_fd(), index.into())
                    .map_err(|errno| Error::Kernel { request: "SET_VRING_ADDR", errno })?;
            }
        }
        Ok(())
    }

    /// The kernel does not end.
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

fn copy(eventfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(eventfd, 0)
        .map_err(|errno| Error::System { what: "copy an eventfd", errno })
}

#[cfg(test)]
mod tests {
    use super::has_pages;

    #[test]
    fn memory_that_this_process_can_read_has_pages_and_none_has_not() {
        let page = vec![7_u8; 4096];
        let at = page.as_ptr().addr() as u64;
        assert!(has_pages(&[at]));
        // The first page of a process is never mapped.
        assert!(!has_pages(&[at, 0]));
    }
}
