//! The demonstration's backend: a disk over vhost-user, on the crates of rust-vmm as any other backend.

use core::mem::{offset_of, size_of};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, virtio_blk_config,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, QueueOwnedT, Reader, Writer};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// The unit of [`virtio_blk_config::capacity`] and of a request's place on the disk, in bytes.
const SECTOR: u64 = 512;
const MAX_QUEUE_SIZE: usize = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen for a frontend
    #[arg(long)]
    socket: PathBuf,
    /// The disk; memory of this process otherwise
    #[arg(long)]
    disk: Option<PathBuf>,
    /// The size of a disk in memory, in MiB
    #[arg(long, default_value_t = 16, conflicts_with = "disk")]
    mebibytes: u32,
    /// Request queues
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=32))]
    queues: u16,
    /// Does not offer VIRTIO_RING_F_EVENT_IDX
    #[arg(long)]
    no_event_idx: bool,
}

/// Why the backend cannot serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot have the disk: {0}")]
    Disk(#[from] io::Error),
    #[error("cannot listen at {path}: {why}")]
    Listen { path: PathBuf, why: vhost::vhost_user::Error },
    #[error("{0}")]
    Daemon(vhost_user_backend::Error),
}

/// Serves one frontend, until it disconnects. A line on standard output reports that the socket is there.
pub(crate) fn serve(arguments: &Arguments) -> Result<(), Error> {
    let path = &arguments.socket;
    serve_one(path, Disk::new(arguments)?, || {
        // The caller need not read it.
        let _ = writeln!(io::stdout(), "listening at {}", path.display());
    })
}

/// The same with a disk that is there; `listens` is called once the socket is.
pub(crate) fn serve_one(path: &Path, disk: Disk, listens: impl FnOnce()) -> Result<(), Error> {
    let mut listener =
        Listener::new(path, true).map_err(|why| Error::Listen { path: path.to_owned(), why })?;
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let name = "demo-backend".to_owned();
    let mut daemon =
        VhostUserDaemon::new(name, Arc::new(Mutex::new(disk)), memory).map_err(Error::Daemon)?;
    listens();
    daemon.start(&mut listener).map_err(Error::Daemon)?;
    match daemon.wait() {
        Err(vhost_user_backend::Error::HandleRequest(
            vhost::vhost_user::Error::Disconnected | vhost::vhost_user::Error::PartialMessage,
        )) => Ok(()),
        done => done.map_err(Error::Daemon),
    }
}

pub(crate) struct Disk {
    file: File,
    /// In bytes, whole sectors.
    size: u64,
    queues: u16,
    features: u64,
    memory: Option<Memory>,
}

impl Disk {
    fn new(arguments: &Arguments) -> io::Result<Self> {
        let file = match &arguments.disk {
            Some(path) => File::options().read(true).write(true).open(path)?,
            None => {
                let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC)?);
                file.set_len(u64::from(arguments.mebibytes) << 20)?;
                file
            }
        };
        Self::of(file, arguments.queues, arguments.no_event_idx)
    }

    /// A disk in a file.
    #[cfg(test)]
    pub(crate) fn over(path: &Path, queues: u16) -> io::Result<Self> {
        Self::of(File::options().read(true).write(true).open(path)?, queues, false)
    }

    fn of(file: File, queues: u16, no_event_idx: bool) -> io::Result<Self> {
        let size = (&file).seek(SeekFrom::End(0))? / SECTOR * SECTOR;
        let bit = |number: u32, offered: bool| if offered { 1_u64 << number } else { 0 };
        let features = bit(VIRTIO_F_VERSION_1, true)
            | bit(VIRTIO_RING_F_INDIRECT_DESC, true)
            | bit(VIRTIO_RING_F_EVENT_IDX, !no_event_idx)
            | bit(VIRTIO_BLK_F_FLUSH, true)
            | bit(VIRTIO_BLK_F_MQ, queues > 1)
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        Ok(Self { file, size, queues, features, memory: None })
    }

    /// Completes all requests that are in a queue.
    fn requests(&self, vring: &VringRwLock) -> Result<(), virtio_queue::Error> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let chains: Vec<Chain> = vring.get_mut().get_queue_mut().iter(memory.memory())?.collect();
        let used = !chains.is_empty();
        for chain in chains {
            let head = chain.head_index();
            // A chain that is no request is given back as it is.
            vring.add_used(head, self.request(chain).unwrap_or(0))?;
        }
        if used && vring.needs_notification()? {
            // Fails only if the frontend has set no eventfd, and then is not to be signalled.
            let _ = vring.signal_used_queue();
        }
        Ok(())
    }

    /// Completes one request (virtio 1.3, 5.2.6). Returns as many bytes as it has written to the guest.
    fn request(&self, chain: Chain) -> io::Result<u32> {
        let odd = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let guest = chain.memory().clone();
        let mut reader = chain.clone().reader(&guest).map_err(odd)?;
        let mut writer = chain.writer(&guest).map_err(odd)?;
        let [kind, _priority] = [reader.read_obj::<u32>()?, reader.read_obj::<u32>()?];
        let sector: u64 = reader.read_obj()?;
        let data = writer.available_bytes().checked_sub(1);
        let mut status = writer.split_at(data.ok_or(io::ErrorKind::InvalidInput)?).map_err(odd)?;
        let outcome = match kind {
            VIRTIO_BLK_T_IN => self.read(sector, &mut writer),
            VIRTIO_BLK_T_OUT => self.write(sector, &mut reader),
            VIRTIO_BLK_T_FLUSH => self.file.sync_data(),
            VIRTIO_BLK_T_GET_ID => writer.write_all(&[0; VIRTIO_BLK_ID_BYTES as usize]),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let code = match outcome {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        status.write_all(&code.to_le_bytes()[..1])?;
        Ok(u32::try_from(writer.bytes_written() + 1).unwrap_or(u32::MAX))
    }

    fn read(&self, sector: u64, to: &mut Writer<'_>) -> io::Result<()> {
        let length = to.available_bytes() as u64;
        self.seek(sector, length)?;
        io::copy(&mut (&self.file).take(length), to).map(drop)
    }

    fn write(&self, sector: u64, from: &mut Reader<'_>) -> io::Result<()> {
        self.seek(sector, from.available_bytes() as u64)?;
        io::copy(from, &mut &self.file).map(drop)
    }

    /// Seeks to a sector from which there are as many bytes.
    fn seek(&self, sector: u64, length: u64) -> io::Result<()> {
        let first = sector.checked_mul(SECTOR);
        let end = first.and_then(|first| first.checked_add(length));
        match (first, end) {
            (Some(first), Some(end)) if end <= self.size && length.is_multiple_of(SECTOR) => {
                (&self.file).seek(SeekFrom::Start(first)).map(drop)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn config(&self) -> [u8; size_of::<virtio_blk_config>()] {
        let mut bytes = [0; size_of::<virtio_blk_config>()];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(offset_of!(virtio_blk_config, capacity), &(self.size / SECTOR).to_le_bytes());
        put(offset_of!(virtio_blk_config, num_queues), &self.queues.to_le_bytes());
        bytes
    }
}

impl VhostUserBackendMut for Disk {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        self.queues.into()
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    // The queues know it.
    fn set_event_idx(&mut self, _: bool) {}

    /// Nothing beyond its end, which the frontend takes as a refusal.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let end = offset.saturating_add(size) as usize;
        self.config().get(offset as usize..end).unwrap_or_default().to_vec()
    }

    fn update_memory(&mut self, memory: Memory) -> io::Result<()> {
        self.memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK).ok()
    }

    fn handle_event(
        &mut self,
        queue: u16,
        _: EventSet,
        vrings: &[VringRwLock],
        _: usize,
    ) -> io::Result<()> {
        let vring = vrings.get(usize::from(queue)).ok_or(io::ErrorKind::InvalidInput)?;
        let done = || -> Result<(), virtio_queue::Error> {
            loop {
                vring.disable_notification()?;
                self.requests(vring)?;
                if !vring.enable_notification()? {
                    return Ok(());
                }
            }
        };
        done().map_err(io::Error::other)
    }
}
