//! How a device goes on with a backend that is connected anew: one that was killed and started again, or one whose
//! connection ended with a process that served the guest before.
//!
//! A split queue has no index of what its backend has begun, only one of what is complete. Where requests are
//! completed in their order, that is enough. Where they are not, what is outstanding is known only if the backend notes it
//! in memory that outlives it (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD), or if nothing is.

use crate::error::{Error, Result};
use crate::memory::Regions;
use crate::record::Area;
use core::fmt;
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use virtio_bindings::virtio_ids::{
    VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET, VIRTIO_ID_RNG, VIRTIO_ID_SCSI,
    VIRTIO_ID_VSOCK,
};
use xen_eventfd::Guarded;
use xen_eventfd_core::DomId;
use xen_eventfd_host::memory::{FRAME, ForeignMemory};
use xen_eventfd_ioreq::RunDir;
use xen_eventfd_vhost::{Backend, Inflight, Memory, Queue, Region};

/// What a device's queues need to go on, by its type, with a backend that notes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumes {
    /// Requests are completed in their order, or one that is lost or done twice does no harm: what is complete says
    /// where to go on.
    InOrder,
    /// The same if the backend completed what it had begun before it closed the connection; else not while a request
    /// is outstanding.
    Drained,
    /// The driver has a session with its backend, which ends with the connection. So that is kept for the process that
    /// goes on after this one.
    SameSession,
}

impl Resumes {
    /// Of a device type, by its virtio number.
    pub(crate) fn of(device_type: u16) -> Self {
        match device_type.into() {
            VIRTIO_ID_NET | VIRTIO_ID_CONSOLE | VIRTIO_ID_RNG | VIRTIO_ID_VSOCK => Self::InOrder,
            VIRTIO_ID_BLOCK | VIRTIO_ID_SCSI => Self::Drained,
            _ => Self::SameSession,
        }
    }
}

/// Reads queues in a guest's memory.
pub(crate) trait Rings: Send + Sync + fmt::Debug {
    /// The 16 bits at an address.
    fn read(&self, addr: u64) -> Result<u16>;

    /// How many requests of a split queue are complete, modulo 2^16.
    fn used(&self, queue: &Queue) -> Result<u16> {
        self.read(queue.used.wrapping_add(2))
    }

    /// How many requests the driver has made.
    fn available(&self, queue: &Queue) -> Result<u16> {
        self.read(queue.available.wrapping_add(2))
    }
}

/// The queues of a guest of this machine.
#[derive(Debug)]
pub(crate) struct ForeignRings(pub(crate) Arc<dyn ForeignMemory>, pub(crate) DomId);

impl Rings for ForeignRings {
    fn read(&self, addr: u64) -> Result<u16> {
        let frame = FRAME as u64;
        let page = self.0.map(self.1, &[addr / frame])?;
        let mut bytes = [0; 2];
        // A ring is aligned, so both are in the page.
        page.read(usize::try_from((addr % frame) & !1).unwrap_or(0), &mut bytes);
        Ok(u16::from_le_bytes(bytes))
    }
}

/// Where connections to backends are kept, by the number of the device, for the process that goes on with the guest
/// after this one.
pub(crate) trait Sessions: Send + Sync + fmt::Debug {
    /// Keeps a connection, in place of the one before.
    fn keep(&self, name: &str, connection: BorrowedFd<'_>) -> xen_eventfd::Result<()>;

    /// Closes it.
    fn forget(&self, name: &str) -> xen_eventfd::Result<()>;
}

/// The guardian keeps them.
impl Sessions for Guarded {
    fn keep(&self, name: &str, connection: BorrowedFd<'_>) -> xen_eventfd::Result<()> {
        self.keep_descriptor(name, connection)
    }

    fn forget(&self, name: &str) -> xen_eventfd::Result<()> {
        self.forget_descriptor(name)
    }
}

/// What the connection of a device is kept as.
pub(crate) fn session_name(dom: DomId, number: usize) -> String {
    format!("{}/{number}", dom.0)
}

/// The connection of one device, which is kept.
#[derive(Debug, Clone)]
pub(crate) struct KeptSession {
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) name: String,
}

impl KeptSession {
    pub(crate) fn keep(&self, connection: BorrowedFd<'_>) {
        if let Err(error) = self.sessions.keep(&self.name, connection) {
            tracing::warn!(%error, "if this process is killed, a device's connection ends with it; the driver of `fs` has to reset it then");
        }
    }

    fn forget(&self) {
        if let Err(error) = self.sessions.forget(&self.name) {
            tracing::debug!(%error, "a connection that has ended is kept");
        }
    }
}

/// The place of a backend that cannot be opened again, while no device has it.
type Spare = Arc<Mutex<Option<Box<dyn Backend>>>>;

/// Connects to a device's backend.
#[derive(Clone)]
pub(crate) struct Connector {
    connect: Arc<dyn Fn() -> Result<Box<dyn Backend>> + Send + Sync>,
    spare: Option<Spare>,
    /// First it goes on with the session of the process before.
    has_session: bool,
}

impl Connector {
    pub(crate) fn new(
        connect: impl Fn() -> Result<Box<dyn Backend>> + Send + Sync + 'static,
    ) -> Self {
        Self { connect: Arc::new(connect), spare: None, has_session: false }
    }

    /// The same, but first goes on with the session of the process before.
    pub(crate) fn going_on(
        self,
        go_on: impl FnOnce() -> Result<Box<dyn Backend>> + Send + 'static,
    ) -> Self {
        let go_on = Mutex::new(Some(go_on));
        let connector = Self::new(move || {
            let first = go_on.lock().unwrap_or_else(PoisonError::into_inner).take();
            first.map_or_else(|| (self.connect)(), |go_on| go_on())
        });
        Self { has_session: true, ..connector }
    }

    /// Has this backend to give, and no other after it.
    pub(crate) fn once(backend: Box<dyn Backend>) -> Self {
        let spare = Arc::new(Mutex::new(Some(backend)));
        let from = Arc::clone(&spare);
        let connector = Self::new(move || {
            let taken = from.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.ok_or(Error::NoBackend)
        });
        Self { spare: Some(spare), ..connector }
    }

    /// Has a backend with which its device could not go on for the next attempt, if it is the only one.
    pub(crate) fn give_back(&self, backend: Box<dyn Backend>) {
        if let Some(spare) = &self.spare {
            *spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(backend);
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// The file of a device in which its backend notes the requests that it has begun. It is in the run directory, as what a
/// backend makes for that is closed with this process.
#[derive(Debug, Clone)]
pub(crate) struct Notebook {
    pub(crate) run_dir: RunDir,
    pub(crate) dom: DomId,
    pub(crate) number: usize,
}

impl Notebook {
    fn name(&self) -> String {
        format!("inflight-{}", self.number)
    }

    /// A new one, with what the backend has put into its own.
    pub(crate) fn make(
        &self,
        backend: &mut dyn Backend,
        queues: u16,
        queue_size: u16,
    ) -> Result<Inflight> {
        let Inflight { file: own, offset, size, queues, queue_size } =
            backend.new_inflight(queues, queue_size)?;
        let file = self.run_dir.keep(self.dom, &self.name())?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let copied = File::from(own)
            .read_exact_at(&mut bytes, offset)
            .and_then(|()| file.write_all_at(&bytes, 0));
        copied.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(Inflight { file: file.into(), offset: 0, size, queues, queue_size })
    }

    /// The one that another process has left.
    pub(crate) fn open(&self, area: Area) -> Result<Option<Inflight>> {
        let Area { size, queues, queue_size } = area;
        let file = self.run_dir.kept(self.dom, &self.name())?;
        Ok(file.map(|file| Inflight { file: file.into(), offset: 0, size, queues, queue_size }))
    }

    /// Nothing is noted any more.
    pub(crate) fn remove(&self) {
        if let Err(error) = self.run_dir.remove_kept(self.dom, &self.name()) {
            tracing::warn!(%error, "a device's notes of requests stay");
        }
    }
}

/// What a device needs to have its backend again.
#[derive(Debug, Clone)]
pub(crate) struct Again {
    pub(crate) notebook: Notebook,
    pub(crate) connector: Connector,
    pub(crate) memory: Arc<OwnedRegions>,
    pub(crate) rings: Arc<dyn Rings>,
    /// If the device needs its connection kept.
    pub(crate) session: Option<KeptSession>,
}

impl Again {
    /// Keeps the connection, if the device needs that.
    pub(crate) fn keep_session(&self, backend: &dyn Backend) {
        if let (Some(session), Some(connection)) = (&self.session, backend.fd()) {
            session.keep(connection);
        }
    }

    /// The connection has ended.
    pub(crate) fn forget_session(&self) {
        if let Some(session) = &self.session {
            session.forget();
        }
    }

    /// Whether the connection of the process before is gone on with.
    pub(crate) fn has_session(&self) -> bool {
        self.connector.has_session
    }

    /// A backend that has the guest's memory.
    pub(crate) fn connect(&self) -> Result<Box<dyn Backend>> {
        let mut backend = (self.connector.connect)()?;
        let regions = self.memory.regions(backend.maps_guests());
        if let Err(error) = backend.set_memory(&regions) {
            self.connector.give_back(backend);
            return Err(error.into());
        }
        Ok(backend)
    }
}

/// The guest's memory, with descriptors of its own, for backends of either kind.
#[derive(Debug)]
pub(crate) struct OwnedRegions {
    files: Result<Vec<OwnedRegion>>,
    foreign: Result<Vec<OwnedRegion>>,
}

#[derive(Debug)]
struct OwnedRegion {
    guest_address: u64,
    size: u64,
    /// The file, or privcmd.
    fd: OwnedFd,
    offset: u64,
    domain: Option<DomId>,
}

impl OwnedRegions {
    /// Has the memory for backends of both kinds, as far as it is to be had: which one a backend needs is not known before it
    /// is there, and by then this process may open nothing any more.
    ///
    /// # Errors
    /// It is to be had for neither.
    pub(crate) fn open(memory: &mut dyn Regions) -> Result<Self> {
        let mut owned = |maps_guests| {
            let regions = memory.regions_for(maps_guests)?;
            regions.iter().map(OwnedRegion::of).collect()
        };
        match (owned(false), owned(true)) {
            (Err(error), Err(_)) => Err(error),
            (files, foreign) => Ok(Self { files, foreign }),
        }
    }

    /// No memory.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { files: Ok(Vec::new()), foreign: Ok(Vec::new()) }
    }

    /// Fails, once, with the reason why it is not to be had for backends of this kind.
    pub(crate) fn require(&mut self, maps_guests: bool) -> Result<()> {
        let owned = if maps_guests { &mut self.foreign } else { &mut self.files };
        match owned {
            Ok(_) => Ok(()),
            Err(_) => core::mem::replace(owned, Ok(Vec::new())).map(drop),
        }
    }

    /// What a backend of a kind maps; nothing, which it refuses, if it is not to be had.
    pub(crate) fn regions(&self, maps_guests: bool) -> Vec<Region<'_>> {
        let owned = if maps_guests { &self.foreign } else { &self.files };
        owned.iter().flatten().map(OwnedRegion::region).collect()
    }
}

impl OwnedRegion {
    fn of(region: &Region<'_>) -> Result<Self> {
        let (fd, offset, domain) = match region.memory {
            Memory::File { file, offset } => (file, offset, None),
            Memory::Foreign { privcmd, domain } => (privcmd, 0, Some(domain)),
        };
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
        Ok(Self { guest_address: region.guest_address, size: region.size, fd, offset, domain })
    }

    fn region(&self) -> Region<'_> {
        let memory = match self.domain {
            None => Memory::File { file: self.fd.as_fd(), offset: self.offset },
            Some(domain) => Memory::Foreign { privcmd: self.fd.as_fd(), domain },
        };
        Region { guest_address: self.guest_address, size: self.size, memory }
    }
}
