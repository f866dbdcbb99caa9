//! The machine: a guest on the model, its disk on its PCI bus, and a backend in a process of its own.

use super::driver::{Cpu, Disk, Ram, Trouble};
use super::process::Process;
use crate::devices::Devices;
use crate::error::Error;
use crate::layout::Layout;
use crate::memory::Regions;
use crate::resume::OwnedRegions;
use crate::server::Server;
use crate::spec::{DeviceSpec, SpecError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use xen_eventfd::{Host, VcpuId, Xen};
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_model::{Config, Model, Vcpu};
use xen_eventfd_vhost::{Memory, Region};

/// Bytes of one request, and of a sector, in which the disk counts.
pub(super) const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// The guest's memory in bytes.
const RAM: u64 = 16 << 20;
/// How long a reply of the backend may take, and a request of the guest.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    /// Blocks written, and then read.
    pub(super) blocks: u64,
    /// Requests that came back, of twice as many.
    pub(super) completed: u64,
    /// Blocks that were read as they had been written.
    pub(super) equal: u64,
    /// Writes of the guest to the doorbell, and those of them that the engine passed on.
    pub(super) kicks: u64,
    pub(super) delivered: u64,
    /// Interrupts that the guest took.
    pub(super) interrupts: u64,
    /// Accesses to registers while the guest found and started its disk: each woke `xen-virtio`.
    pub(super) accesses: u64,
    /// The same while data flowed.
    pub(super) wakeups: u64,
    /// The backend's process.
    pub(super) backend: u32,
    /// How long data flowed.
    pub(super) took: Duration,
}

/// Lets a guest write so many blocks to its disk, read them back and compare.
///
/// # Errors
/// When a part of it fails; a request that does not come back is one.
pub(super) fn measure(blocks: u32) -> Result<Round, Failure> {
    let dir = tempfile::tempdir().map_err(|error| Failure::system("make a directory", error))?;
    let socket = dir.path().join("disk.sock");
    let mebibytes = u32::try_from((u64::from(blocks) * BLOCK as u64).div_ceil(1 << 20));
    let backend = Process::start(&socket, mebibytes.unwrap_or(u32::MAX))?;

    let model = Model::new();
    let dom = model.domain(Config::new("demo"));
    let ram = Arc::new(Ram::new(RAM)?);
    let host: Arc<dyn Host> = model.client("xen-virtio");
    let xen = Xen::builder().run_dir(dir.path()).open_on(Arc::clone(&host))?;

    let spec: DeviceSpec = format!("blk,socket={}", socket.display())
        .parse()
        .map_err(|error: SpecError| Failure::new(Exit::Failed, error.to_string()))?;
    let frontend = spec.connect()?;
    let connected = vec![(spec, frontend)];
    let layout = Layout::OwnBus;
    let server = Server::take(&xen, dir.path(), dom, &layout)?;
    let server = server.with_devices(&layout, connected, OwnedRegions::open(&mut &*ram)?, None)?;
    let (devices, guest) = (Arc::clone(server.devices()), server.guest().clone());

    let completed = Arc::new(AtomicU64::new(0));
    let work =
        Work { blocks, ram, devices: Arc::clone(&devices), completed: Arc::clone(&completed) };
    let vcpu = model.vcpu(dom, VcpuId(0)).run(move |vcpu| work.run(vcpu));
    until(&completed, &devices, || vcpu.is_finished())?;
    let round = vcpu.join()?;
    let delivered = guest.counters().delivered;
    server.stop()?;
    Ok(Round { delivered, backend: backend.id(), ..round })
}

impl Regions for &Ram {
    fn regions_for(&mut self, _: bool) -> Result<Vec<Region<'_>>, Error> {
        let memory = Memory::File { file: self.file(), offset: 0 };
        Ok(vec![Region { guest_address: 0, size: self.size(), memory }])
    }
}

/// Waits for the guest as long as requests come back.
fn until(
    completed: &AtomicU64,
    devices: &Devices,
    is_done: impl Fn() -> bool,
) -> Result<(), Failure> {
    let mut last = (0, Instant::now());
    while !is_done() {
        if let Some(failure) = devices.failure() {
            return Err(Failure::new(Exit::Failed, format!("the disk has failed: {failure}")));
        }
        let now = completed.load(Ordering::Acquire);
        if now != last.0 {
            last = (now, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            let lost =
                format!("request {} of the guest did not come back within {PATIENCE:?}", now + 1);
            return Err(Failure::new(Exit::Failed, lost + ". This is a bug; please report it"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// What the guest does.
struct Work {
    blocks: u32,
    ram: Arc<Ram>,
    devices: Arc<Devices>,
    completed: Arc<AtomicU64>,
}

impl Work {
    fn run(&self, vcpu: &Vcpu) -> Result<Round, Failure> {
        self.ram.give()?;
        let mut disk = Disk::find(Cpu::new(vcpu))?;
        let accesses = self.devices.requests();
        let began = Instant::now();
        let mut round = Round { blocks: self.blocks.into(), accesses, ..Round::default() };
        let mut block = [0; BLOCK];
        for number in 0..self.blocks {
            fill(&mut block, number);
            disk.write(place(number), &block)?;
            self.completed.fetch_add(1, Ordering::AcqRel);
        }
        let mut expected = [0; BLOCK];
        for number in 0..self.blocks {
            block.fill(0);
            disk.read(place(number), &mut block)?;
            self.completed.fetch_add(1, Ordering::AcqRel);
            fill(&mut expected, number);
            round.equal += u64::from(block == expected);
        }
        round.completed = self.completed.load(Ordering::Acquire);
        round.took = began.elapsed();
        round.kicks = disk.kicks();
        round.interrupts = disk.interrupts();
        round.wakeups = self.devices.requests() - accesses;
        Ok(round)
    }
}

/// The sector of a block.
fn place(block: u32) -> usize {
    block as usize * (BLOCK / SECTOR)
}

/// A pattern that no other block and no other part of this one has.
fn fill(block: &mut [u8; BLOCK], number: u32) {
    for (at, word) in (0_u32..).zip(block.chunks_exact_mut(8)) {
        word[..4].copy_from_slice(&number.to_le_bytes());
        word[4..].copy_from_slice(&(!at).to_le_bytes());
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Engine(error) => error.into(),
            other => Self::new(Exit::Failed, other.to_string()),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::new(Exit::Failed, trouble.to_string())
    }
}
