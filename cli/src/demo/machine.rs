//! One round: a machine, its guest, the engine and the backend.

use super::backend::{self, Queue, Received};
use super::vmm::Vmm;
use crate::failure::{Exit, Failure};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xen_eventfd::{IoEvent, IoEventAddress, Space, VcpuId, Width, Xen};
use xen_eventfd_model::{Config, Model, Stopped, Vcpu};

/// vCPUs of the guest.
pub const VCPUS: u32 = 2;
/// Its virtio-mmio devices.
pub const DEVICES: usize = 3;
/// Queues of each device.
pub const QUEUES: usize = 4;

/// Where the first device is; the others follow, a page each.
const BASE: u64 = 0xFE00_0000;
const PAGE: u64 = 0x1000;
/// `QueueNotify` of virtio-mmio.
const NOTIFY: u64 = 0x50;
/// `ConfigGeneration`, which drivers read now and then.
const GENERATION: u64 = 0xFC;
/// A vCPU looks at a device's configuration once in so many kicks.
const CONFIG_EVERY: u64 = 100;
/// How long kicks may be under way when the vCPUs have stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who turns kicks into signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The engine.
    Ioeventfd,
    /// The VMM, as without us.
    Vmm,
}

/// What came of a round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Kicks that the guest sent.
    pub kicks: u64,
    /// The sum of all that the backends read from their eventfds.
    pub delivered: u64,
    /// How often a backend found an eventfd signalled; fewer than kicks, as an eventfd counts.
    pub signals: u64,
    /// Accesses to the devices' configuration.
    pub config_accesses: u64,
    /// How often the VMM woke up.
    pub vmm_wakeups: u64,
    /// Requests that the VMM answered.
    pub vmm_requests: u64,
    /// From just before a kick until its backend has read the eventfd, in ns.
    pub latency: Histogram<u64>,
    /// How long the vCPUs were at it.
    pub took: Duration,
}

/// The page of a device.
pub(super) fn device_page(device: usize) -> (u64, u64) {
    let first = BASE + PAGE * device as u64;
    (first, first + PAGE - 1)
}

/// The address of a device's doorbell.
pub(super) fn doorbell(device: usize) -> u64 {
    device_page(device).0 + NOTIFY
}

/// Plays one round of about `kicks` kicks.
///
/// # Errors
/// When the engine fails, or the guest stops.
pub fn measure(means: Means, kicks: u64) -> Result<Round, Failure> {
    let model = Model::new();
    let dom = model.domain(Config::new("demo").vcpus(VCPUS));
    let share = kicks.div_ceil(u64::from(VCPUS));
    let room = usize::try_from(share).unwrap_or(usize::MAX);
    let queues_of_devices = Arc::new(backend::queues_of_devices(DEVICES, QUEUES, room)?);

    let vmm = Vmm::start(&*model.client("vmm"), dom, Arc::clone(&queues_of_devices))?;

    let run_dir = tempfile::tempdir().map_err(|e| Failure::system("make a directory", e))?;
    let xen = Xen::builder().run_dir(run_dir.path()).open_on(model.client("engine"))?;
    let guest = xen.guest(dom)?;
    let mut doorbells: Vec<IoEvent> = Vec::new();
    if means == Means::Ioeventfd {
        for (device, queues) in queues_of_devices.iter().enumerate() {
            for (queue, each) in (0_u32..).zip(queues) {
                let at = IoEventAddress::Mmio(doorbell(device));
                doorbells.push(guest.register_ioevent(each, &at, queue)?);
            }
        }
    }

    let stop = Arc::new(AtomicBool::new(false));
    let backends: Vec<_> = (0..DEVICES)
        .map(|device| backend::start(Arc::clone(&queues_of_devices), device, Arc::clone(&stop)))
        .collect();

    // What comes with setting up is not counted.
    let (wakeups, requests) = vmm.so_far();
    let began = Instant::now();
    let vcpus: Vec<_> = (0..VCPUS)
        .map(|id| {
            let queues_of_devices = Arc::clone(&queues_of_devices);
            model.vcpu(dom, VcpuId(id)).run(move |vcpu| work(vcpu, &queues_of_devices, share))
        })
        .collect();
    let mut sent = Sent::default();
    for vcpu in vcpus {
        let stopped =
            |why: Stopped| Failure::new(Exit::Failed, format!("the guest stopped: {why}"));
        let of_one = vcpu.join().map_err(stopped)?;
        sent.kicks += of_one.kicks;
        sent.config_accesses += of_one.config_accesses;
    }
    let took = began.elapsed();
    settle(&queues_of_devices, sent.kicks);
    stop.store(true, Ordering::Release);
    // No process counts these.
    queues_of_devices.iter().flatten().for_each(Queue::ring);
    let mut received = Received::default();
    for backend in backends {
        received.add(&backend.join().unwrap_or_default());
    }
    let (wakeups_after, requests_after) = vmm.so_far();
    drop(doorbells);
    guest.close()?;
    vmm.stop();
    Ok(Round {
        kicks: sent.kicks,
        delivered: received.kicks,
        signals: received.signals,
        config_accesses: sent.config_accesses,
        vmm_wakeups: wakeups_after - wakeups,
        vmm_requests: requests_after - requests,
        latency: received.latency,
        took,
    })
}

#[derive(Debug, Default)]
struct Sent {
    kicks: u64,
    config_accesses: u64,
}

/// A vCPU's share. Each queue is kicked by one vCPU, as drivers do it.
fn work(vcpu: &Vcpu, queues_of_devices: &backend::Queues, kicks: u64) -> Result<Sent, Stopped> {
    let mut sent = Sent::default();
    let mine = |queue: usize| queue % VCPUS as usize == vcpu.id().0 as usize;
    for turn in 0.. {
        for (device, queues) in queues_of_devices.iter().enumerate() {
            for (queue, each) in queues.iter().enumerate().filter(|(queue, _)| mine(*queue)) {
                if sent.kicks == kicks {
                    return Ok(sent);
                }
                if sent.kicks % CONFIG_EVERY == 0 {
                    let register = device_page(device).0 + GENERATION;
                    vcpu.read(Space::Mmio, register, Width::Four)?;
                    sent.config_accesses += 1;
                }
                each.stamp(turn);
                vcpu.write(Space::Mmio, doorbell(device), Width::Four, queue as u64)?;
                sent.kicks += 1;
            }
        }
    }
    Ok(sent)
}

/// Gives kicks that are under way the time to arrive.
fn settle(queues_of_devices: &backend::Queues, kicks: u64) {
    let deadline = Instant::now() + PATIENCE;
    let received =
        || queues_of_devices.iter().flatten().map(|each| each.received() as u64).sum::<u64>();
    while received() < kicks && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}
