//! A backend on rust-vmm's side of the protocol that notes what it is asked.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    BackendReqHandler, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut,
};

/// `VIRTIO_F_VERSION_1`, bit 30, and one of the device's own.
pub(crate) const FEATURES: u64 = 1 << 32 | 1 << 30 | 1;
/// The configuration, in bytes from its beginning.
pub(crate) const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// What the backend was asked, and what it will be.
pub(crate) struct Recorder {
    /// Each request, in order.
    pub(crate) asked: Vec<String>,
    /// When each was made.
    pub(crate) at: Vec<Instant>,
    pub(crate) protocol: VhostUserProtocolFeatures,
    /// Refuses the request that is noted as this.
    pub(crate) refuse: Option<&'static str>,
    /// The kick, call and error eventfd of the last queue.
    pub(crate) eventfds: [Option<File>; 3],
    pub(crate) memory: Vec<File>,
}

impl Recorder {
    pub(crate) fn new(protocol: VhostUserProtocolFeatures) -> Arc<Mutex<Self>> {
        let (asked, at, refuse) = (Vec::new(), Vec::new(), None);
        let (eventfds, memory) = (Default::default(), Vec::new());
        Arc::new(Mutex::new(Self { asked, at, protocol, refuse, eventfds, memory }))
    }

    fn note(&mut self, request: String) -> Result<()> {
        let refused = self.refuse.is_some_and(|refuse| request.starts_with(refuse));
        self.asked.push(request);
        self.at.push(Instant::now());
        if refused { Err(Error::BackendInternalError) } else { Ok(()) }
    }
}

/// Serves one connection, in a thread of its own, until the frontend closes it.
pub(crate) fn serve(recorder: &Arc<Mutex<Recorder>>) -> (UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut handler = BackendReqHandler::from_stream(theirs, Arc::clone(recorder));
    let served = std::thread::spawn(move || while handler.handle_request().is_ok() {});
    (ours, served)
}

/// Signals an eventfd that a backend was given.
pub(crate) fn signal(eventfd: &Option<File>) {
    eventfd.as_ref().unwrap().write_all(&1_u64.to_ne_bytes()).unwrap();
}

impl VhostUserBackendReqHandlerMut for Recorder {
    fn set_owner(&mut self) -> Result<()> {
        self.note("owner".to_owned())
    }

    fn reset_owner(&mut self) -> Result<()> {
        unreachable!()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.note("reset".to_owned())
    }

    fn get_features(&mut self) -> Result<u64> {
        self.note("features?".to_owned())?;
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("features {features:#x}"))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let text: Vec<String> = regions
            .iter()
            .map(|region| {
                let VhostUserMemoryRegion { guest_phys_addr, memory_size, .. } = *region;
                let VhostUserMemoryRegion { user_addr, mmap_offset, .. } = *region;
                format!("{guest_phys_addr:#x} {memory_size:#x} {user_addr:#x} {mmap_offset:#x}")
            })
            .collect();
        self.memory = files;
        self.note(format!("memory {}", text.join(", ")))?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.note(format!("size of {index}: {num}"))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        assert_eq!((flags.bits(), log), (0, 0));
        self.note(format!("place of {index}: {descriptors:#x} {available:#x} {used:#x}"))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.note(format!("base of {index}: {base}"))
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        self.note(format!("base of {index}?"))?;
        Ok(VhostUserVringState::new(index, 9))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.eventfds[0] = file;
        self.note(format!("kick of {index}"))
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.eventfds[1] = file;
        self.note(format!("call of {index}"))
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.eventfds[2] = file;
        self.note(format!("errors of {index}"))
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        self.note("protocol?".to_owned())?;
        Ok(self.protocol)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        self.note(format!("protocol {features:#x}"))
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        self.note("queues?".to_owned())?;
        Ok(2)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.note(format!("{index} {}", if enable { "on" } else { "off" }))
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.note(format!("configuration {offset} {size}?"))?;
        let wanted = offset as usize..(offset + size) as usize;
        CONFIG.get(wanted).map(<[u8]>::to_vec).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], flags: VhostUserConfigFlags) -> Result<()> {
        assert_eq!(flags.bits(), 0);
        self.note(format!("configuration {offset} {bytes:?}"))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        unreachable!()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        unreachable!()
    }

    fn get_inflight_fd(&mut self, area: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        self.note(format!("notes? {} of {}", area.num_queues, area.queue_size))?;
        let file = File::from(super::guest_memory());
        file.write_all_at(b"notes", 64).unwrap();
        Ok((VhostUserInflight { mmap_size: 5, mmap_offset: 64, ..*area }, file))
    }

    fn set_inflight_fd(&mut self, area: &VhostUserInflight, file: File) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(area.mmap_size).unwrap()];
        file.read_exact_at(&mut bytes, area.mmap_offset).unwrap();
        let bytes = String::from_utf8(bytes).unwrap();
        self.note(format!("notes {bytes:?} {} of {}", area.num_queues, area.queue_size))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        unreachable!()
    }

    fn add_mem_region(
        &mut self,
        _: &VhostUserSingleMemoryRegion,
        _: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        unreachable!()
    }

    fn remove_mem_region(&mut self, _: &VhostUserSingleMemoryRegion) -> Result<()> {
        unreachable!()
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        unreachable!()
    }

    fn check_device_state(&mut self) -> Result<()> {
        unreachable!()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        unreachable!()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        unreachable!()
    }
}
