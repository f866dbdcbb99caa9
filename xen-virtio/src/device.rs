//! A device: the effects of its registers, carried out on its backend and in the engine.
//!
//! Its backend may be away for a while: killed, and not started again yet, or not connected yet since this process
//! took the guest over. Kicks and what the driver does to registers are kept for it.
//!
//! # Invariants
//! * The engine has the kicks and calls of exactly those queues that the backend serves, or will once it is there.
//! * A queue's calls have their route before the backend can make one.
//! * The engine answers InterruptStatus of a device on virtio-mmio for as long as there is the device.

use crate::error::{Error, Result};
use crate::kind::{DeviceConfig, Kind};
use crate::layout::{MmioPlace, Place};
use crate::queue::Queue;
use crate::record::{Area, DeviceRecord};
use crate::registers::{DeviceRegisters, DeviceState};
use crate::resume::{Again, Resumes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use virtio_bindings::virtio_config::VIRTIO_F_RING_RESET;
use xen_eventfd::{Guest, Host, InterruptStatus, IoEventAddress, Irq, Line, Registered, Trigger};
use xen_eventfd_host::Signaller;
use xen_eventfd_vhost::{Backend, Inflight, Region};
use xen_eventfd_virtio::{
    Bar, Description, Effect, INTERRUPT_STATUS, QUEUE_NOTIFY, QueueSetup, Transport,
};

/// What the registers do by themselves, with a backend that can stop a queue.
const RING_RESET: u64 = 1 << VIRTIO_F_RING_RESET;

/// How often it is said that a device's backend has ended.
const REPORTS: Duration = Duration::from_secs(60);

/// A device of a guest.
#[derive(Debug)]
pub(crate) struct Device {
    guest: Guest,
    /// Kicks a queue whatever its backend has done with the eventfd.
    signaller: Box<dyn Signaller>,
    /// `None` while it is away.
    backend: Option<Box<dyn Backend>>,
    /// How it is connected to again; without, a device whose backend ends needs a reset.
    again: Option<Again>,
    resumes: Resumes,
    /// The features of its backend that it offers its driver.
    offered: u64,
    /// The doorbell, while the device has it: a function that decodes its port, or virtio-mmio.
    doorbell: Option<IoEventAddress>,
    /// InterruptStatus of a device on virtio-mmio.
    interrupt_status: Option<InterruptStatus>,
    queues: BTreeMap<u16, Queue>,
    /// Those of them that the process before had started.
    taken_over: BTreeSet<u16>,
    /// Its driver has reset it while its backend was away.
    was_reset: bool,
    config: DeviceConfig,
    /// What its driver has accepted.
    features: u64,
    /// What its driver wrote to the configuration since its reset, by the offset.
    written: BTreeMap<u32, Vec<u8>>,
    /// The write with which a new connection ended.
    suspect: Option<u32>,
    /// When its backend was last said to be away.
    reported: Option<Instant>,
    /// Why it needed a reset first.
    failure: Option<String>,
    /// Of all queues, as its backend notes requests.
    sizes: (u16, u16),
    /// Where its backend notes which requests it has begun, since the driver runs.
    inflight: Option<Inflight>,
}

impl Device {
    /// A device and its registers. `memory` is all of the guest's.
    pub(crate) fn new(
        host: &dyn Host,
        guest: &Guest,
        mut backend: Box<dyn Backend>,
        kind: &Kind,
        place: Place,
        memory: &[Region<'_>],
    ) -> Result<(Self, DeviceRegisters)> {
        backend.set_memory(memory)?;
        let description = Description {
            device_type: kind.device_type,
            features: kind.features.offered(&*backend) | RING_RESET,
            queue_sizes: vec![kind.queue_size; kind.queues.into()],
            config: kind.config.read(&mut *backend)?,
        };
        let registers = DeviceRegisters::new(description, place)?;
        let device = Self::with(host, guest, kind, place, Some(backend))?;
        Ok((device, registers))
    }

    fn with(
        host: &dyn Host,
        guest: &Guest,
        kind: &Kind,
        place: Place,
        backend: Option<Box<dyn Backend>>,
    ) -> Result<Self> {
        let (doorbell, interrupt_status) = match place {
            // The function says when it decodes it.
            Place::Function { .. } => (None, None),
            Place::Mmio(MmioPlace { base, spi }) => {
                let doorbell = IoEventAddress::Mmio(base + u64::from(QUEUE_NOTIFY));
                let irq = Irq::Line(Line::Spi(spi), Trigger::Pulse);
                let at = base + u64::from(INTERRUPT_STATUS);
                (Some(doorbell), Some(guest.register_interrupt_status(at, irq)?))
            }
        };
        Ok(Self {
            guest: guest.clone(),
            signaller: host.signaller()?,
            offered: backend
                .as_ref()
                .map_or(0, |backend| kind.features.offered(&**backend) & !kind.features.own),
            backend,
            again: None,
            resumes: Resumes::of(kind.device_type),
            doorbell,
            interrupt_status,
            queues: BTreeMap::new(),
            taken_over: BTreeSet::new(),
            was_reset: false,
            config: kind.config.clone(),
            features: 0,
            written: BTreeMap::new(),
            suspect: None,
            reported: None,
            failure: None,
            sizes: (kind.queues, kind.queue_size),
            inflight: None,
        })
    }

    /// The same, which connects to its backend again if that ends.
    pub(crate) fn with_again(self, again: Option<Again>) -> Self {
        Self { again, ..self }
    }

    /// Has its connection kept for another process, if it needs that.
    pub(crate) fn keep_session(&self) {
        if let (Some(again), Some(backend)) = (&self.again, &self.backend) {
            again.keep_session(&**backend);
        }
    }

    /// A device in the state that another process has left, whose backend is away, and its registers.
    pub(crate) fn restore(
        host: &dyn Host,
        guest: &Guest,
        kind: &Kind,
        again: Option<Again>,
        record: &DeviceRecord,
    ) -> Result<(Self, DeviceRegisters)> {
        let (mut registers, effects) = DeviceRegisters::restore(&record.registers)?;
        let place = record.registers.place();
        let mut device = Self::with(host, guest, kind, place, None)?.with_again(again);
        device.written.clone_from(&record.written);
        device.offered = record.registers.features() & !(RING_RESET | kind.features.own);
        device.failure.clone_from(&record.failure);
        if let (Some(again), Some(area)) = (&device.again, record.inflight) {
            device.inflight = again.notebook.open(area)?;
        }
        for effect in effects {
            device.carry_out(effect, registers.transport())?;
        }
        device.taken_over = device.queues.keys().copied().collect();
        let goes_on = device.again.as_ref().is_some_and(Again::has_session);
        if !device.queues.is_empty() && !goes_on && device.needs_same_session() {
            device.fails(&Error::SessionEnded);
            // The driver is notified with all others.
            drop(registers.transport().needs_reset());
            device.queues.clear();
        }
        Ok((device, registers))
    }

    /// What is kept of it.
    pub(crate) fn record(&self, registers: DeviceState) -> DeviceRecord {
        let mut record = DeviceRecord::new(registers);
        record.written.clone_from(&self.written);
        record.failure.clone_from(&self.failure);
        record.inflight = self.inflight.as_ref().map(|inflight| Area {
            size: inflight.size,
            queues: inflight.queues,
            queue_size: inflight.queue_size,
        });
        record
    }

    /// Carries out an effect that is the device's own.
    pub(crate) fn carry_out(
        &mut self,
        effect: Effect,
        registers: &mut dyn Transport,
    ) -> Result<()> {
        match effect {
            Effect::Features(features) => {
                self.features = features;
                self.backend
                    .as_mut()
                    .map_or(Ok(()), |backend| Ok(backend.accept(features & backend.features())?))
            }
            Effect::Reset => {
                self.features = 0;
                self.written.clear();
                self.queues.clear();
                self.forget_requests();
                self.acknowledge(u32::MAX);
                self.taken_over.clear();
                self.was_reset = self.backend.is_none();
                self.backend.as_mut().map_or(Ok(()), |backend| Ok(backend.reset()?))
            }
            // Only a reset ends it: until then no queue of it is served.
            Effect::QueueStarted(_) if registers.is_broken() => Ok(()),
            Effect::QueueStarted(setup) => self.start(&setup),
            Effect::QueueStopped(index) => {
                self.queues.remove(&index);
                self.taken_over.remove(&index);
                self.backend.as_mut().map_or(Ok(()), |backend| {
                    backend.stop_queue(index)?;
                    Ok(())
                })
            }
            Effect::Rerouted { queue, route } => match self.queues.get_mut(&queue) {
                Some(queue) => queue.reroute(&self.guest, route, self.interrupt_status.as_ref()),
                None => Ok(()),
            },
            Effect::Kick(index) => {
                if let Some(queue) = self.queues.get(&index) {
                    self.signaller.signal(queue.kick())?;
                }
                Ok(())
            }
            Effect::Moved { bar: Bar::Doorbell, to, .. } => {
                self.doorbell = to.map(IoEventAddress::Pio);
                let mut queues = self.queues.values_mut();
                queues.try_for_each(|queue| queue.listen(&self.guest, self.doorbell))
            }
            Effect::ConfigWritten { offset, width, value } => {
                if !self.config.is_of_backend() {
                    return Ok(());
                }
                let bytes = value.to_le_bytes()[..width.bytes().into()].to_vec();
                self.written.insert(offset, bytes.clone());
                let Some(backend) = &mut self.backend else { return Ok(()) };
                backend.write_config(offset, &bytes)?;
                registers.set_config(&self.config.read(&mut **backend)?);
                Ok(())
            }
            Effect::DriverOk => self.note_requests(),
            Effect::SetInterruptStatus(bits) => {
                if let Some(Err(error)) =
                    self.interrupt_status.as_ref().map(|status| status.set(bits))
                {
                    tracing::debug!(%error, "an interrupt was not raised");
                }
                Ok(())
            }
            Effect::Acknowledged(bits) => {
                self.acknowledge(bits);
                Ok(())
            }
            Effect::Moved { bar: Bar::Registers, .. } | Effect::Raise(_) | Effect::Line(_) => {
                Ok(())
            }
        }
    }

    /// Clears bits of InterruptStatus. It fails only if the guest is gone.
    fn acknowledge(&self, bits: u32) {
        if let Some(Err(error)) = self.interrupt_status.as_ref().map(|status| status.clear(bits)) {
            tracing::debug!(%error, "an interrupt was not acknowledged");
        }
    }

    /// InterruptStatus, of a device on virtio-mmio.
    pub(crate) fn interrupt_status(&self) -> u32 {
        let status = self.interrupt_status.as_ref();
        status.and_then(|status| status.status().ok()).map_or(0, |status| status.bits)
    }

    /// Has a backend that can note which requests it has begun.
    fn note_requests(&mut self) -> Result<()> {
        let (Some(again), Some(backend)) = (&self.again, &mut self.backend) else { return Ok(()) };
        if !backend.notes_requests() {
            return Ok(());
        }
        let inflight = match self.inflight.take() {
            Some(inflight) => inflight,
            None => again.notebook.make(&mut **backend, self.sizes.0, self.sizes.1)?,
        };
        let inflight = self.inflight.insert(inflight);
        Ok(backend.set_inflight(inflight)?)
    }

    fn forget_requests(&mut self) {
        if let (Some(again), Some(_)) = (&self.again, self.inflight.take()) {
            again.notebook.remove();
        }
    }

    /// What it needs to connect to its backend, if that is away.
    pub(crate) fn is_away(&self) -> Option<&Again> {
        self.again.as_ref().filter(|_| self.backend.is_none())
    }

    /// Whether its backend has ended.
    pub(crate) fn has_lost_backend(&self) -> bool {
        self.backend.as_ref().is_some_and(|backend| backend.check().is_err())
    }

    /// Whether the end of its backend is to be said: once a minute.
    pub(crate) fn is_news(&mut self) -> bool {
        let is_news = self.reported.is_none_or(|before| before.elapsed() >= REPORTS);
        if is_news {
            self.reported = Some(Instant::now());
        }
        is_news
    }

    /// Drops a backend that has ended, to wait for it to come back. Returns whether the driver can go on once it has.
    pub(crate) fn lose_backend(&mut self) -> Lost {
        let Some(again) = &self.again else { return Lost::ForGood };
        self.backend = None;
        again.forget_session();
        let checked = match self.resumes {
            _ if self.inflight.is_some() => Ok(()),
            Resumes::InOrder => Ok(()),
            Resumes::Drained => self.queues.values().try_for_each(|queue| drained(again, queue)),
            Resumes::SameSession if self.queues.is_empty() => Ok(()),
            Resumes::SameSession => Err(Error::SessionEnded),
        };
        checked.map_or_else(Lost::NeedsReset, |()| Lost::GoesOn)
    }

    /// Goes on with a backend that is there again and has the guest's memory.
    pub(crate) fn resume(
        &mut self,
        mut backend: Box<dyn Backend>,
        registers: &mut dyn Transport,
    ) -> Result<Resumed> {
        let Some(again) = self.again.clone() else { return Ok(Resumed::GoesOn(Vec::new())) };
        let config = match self.begin_again(&mut *backend, &again) {
            Ok(config) => config,
            Err(error) => {
                again.connector.give_back(backend);
                return Err(error);
            }
        };
        self.backend = Some(backend);
        match self.go_on(&again, registers.is_broken()) {
            Ok(()) => {
                // Not before its queues are started: it would say of each that it has begun nothing.
                self.keep_session();
                Ok(Resumed::GoesOn(registers.change_config_to(&config)))
            }
            Err(error) if self.has_lost_backend() => {
                self.backend = None;
                Err(error)
            }
            // It serves the device once the driver has reset that.
            Err(error) => {
                self.queues.clear();
                self.backend.as_mut().map_or(Ok(()), |backend| backend.reset())?;
                self.keep_session();
                Ok(Resumed::NeedsReset(error))
            }
        }
    }

    /// Has a backend come so far as the driver had its predecessor. Returns the configuration.
    fn begin_again(&mut self, backend: &mut dyn Backend, again: &Again) -> Result<Vec<u8>> {
        let missing = self.offered & !backend.features();
        if missing != 0 {
            return Err(Error::Features(missing));
        }
        if core::mem::take(&mut self.was_reset) && again.has_session() {
            // A session that goes on does not know of it.
            backend.reset()?;
        }
        if self.features != 0 {
            backend.accept(self.features & backend.features())?;
        }
        self.write_again(backend)
    }

    /// Whether it cannot go on with a new connection to its backend.
    fn needs_same_session(&self) -> bool {
        self.resumes == Resumes::SameSession && self.inflight.is_none()
    }

    /// Writes once more to the configuration what the driver wrote, and reads it. A write with which two connections
    /// ended, one after the other, is not made again.
    fn write_again(&mut self, backend: &mut dyn Backend) -> Result<Vec<u8>> {
        let mut last = None;
        let written = self.written.iter().try_for_each(|(offset, bytes)| {
            last = Some(*offset);
            backend.write_config(*offset, bytes)
        });
        let config = written.map_err(Error::from).and_then(|()| self.config.read(backend));
        self.suspect = match (&config, last) {
            (Err(_), Some(offset)) if self.suspect == Some(offset) => {
                self.written.remove(&offset);
                None
            }
            (Err(_), last) => last,
            (Ok(_), _) => None,
        };
        config
    }

    /// Starts the queues where their requests are complete.
    fn go_on(&mut self, again: &Again, is_broken: bool) -> Result<()> {
        if is_broken || self.queues.is_empty() {
            return Ok(());
        }
        // What is noted there is requested once more by the backend itself.
        self.note_requests()?;
        let needs_same_session = self.needs_same_session();
        let Some(backend) = &mut self.backend else { return Ok(()) };
        for (index, queue) in &self.queues {
            let left_at = match self.taken_over.contains(index) {
                true => backend.left_at(*index)?,
                // Its driver has made it since, in a session of its own.
                false => None,
            };
            let base = match left_at {
                Some(base) => base,
                None if needs_same_session && self.taken_over.contains(index) => {
                    return Err(Error::SessionEnded);
                }
                None => again.rings.used(queue.ring())?,
            };
            let ring = xen_eventfd_vhost::Queue { base, ..*queue.ring() };
            backend.start_queue(*index, &ring, queue.kick(), queue.call())?;
            // Of what was used before, the call may have been lost.
            self.signaller.signal(queue.call())?;
        }
        self.taken_over.clear();
        Ok(())
    }

    /// What becomes readable when the backend ends, finds a queue broken, or requests something.
    pub(crate) fn backend_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.backend.iter().flat_map(|backend| {
            backend.fd().into_iter().chain([backend.errors()]).chain(backend.requests())
        })
    }

    /// Looks at what the backend has requested. Returns the effects if its configuration has changed.
    pub(crate) fn take_requests(&mut self, registers: &mut dyn Transport) -> Result<Vec<Effect>> {
        let Some(backend) = &mut self.backend else { return Ok(Vec::new()) };
        if !backend.take_requests()? || !self.config.is_of_backend() {
            return Ok(Vec::new());
        }
        Ok(registers.change_config(&self.config.read(&mut **backend)?))
    }

    /// Whether the backend is there and has no complaint.
    pub(crate) fn check_backend(&self) -> Result<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        backend.check()?;
        let errors = backend.errors();
        let mut polled = [PollFd::new(&errors, PollFlags::IN)];
        match poll(&mut polled, Some(&Timespec::default()))? {
            0 => Ok(()),
            _ => Err(Error::BrokenQueue),
        }
    }

    /// Notes why the device cannot go on. Returns whether that is the first time.
    pub(crate) fn fails(&mut self, error: &Error) -> bool {
        let is_first = self.failure.is_none();
        self.failure.get_or_insert_with(|| error.to_string());
        is_first
    }

    /// The queues that its backend serves.
    pub(crate) fn running(&self) -> Vec<u16> {
        self.queues.keys().copied().collect()
    }

    /// Kicks of its queues, of what the engine has registered, and interrupts that they have raised.
    pub(crate) fn traffic(&self, registered: &[Registered]) -> [u64; 2] {
        let queues = || self.queues.values();
        let kicks = queues().map(|queue| queue.kicks(registered));
        [
            kicks.fold(0, u64::saturating_add),
            queues().map(Queue::interrupts).fold(0, u64::saturating_add),
        ]
    }

    /// The features that its driver has accepted.
    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    /// Why it needed a reset first, if it ever did.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether a call of a queue waits for its vector to be unmasked.
    pub(crate) fn is_pending(&self, queue: u16) -> bool {
        self.queues.get(&queue).is_some_and(Queue::is_pending)
    }

    /// The same without its doorbells and interrupts, as its guest is let go of.
    pub(crate) fn ended(mut self) -> Self {
        self.queues.clear();
        self.interrupt_status = None;
        self.again.iter().for_each(Again::forget_session);
        self.forget_requests();
        self
    }

    /// Its backend, as at the start: it can serve another guest.
    pub(crate) fn into_backend(self) -> Result<Box<dyn Backend>> {
        match (self.backend, self.again) {
            (Some(mut backend), _) => {
                backend.reset()?;
                Ok(backend)
            }
            (None, Some(again)) => again.connect(),
            (None, None) => Err(Error::NoBackend),
        }
    }

    fn start(&mut self, setup: &QueueSetup) -> Result<()> {
        let ring = xen_eventfd_vhost::Queue {
            size: setup.size,
            descriptors: setup.descriptors,
            available: setup.driver,
            used: setup.device,
            base: 0,
        };
        let status = self.interrupt_status.as_ref();
        let mut queue = Queue::new(&self.guest, setup.index, ring, setup.route, status)?;
        queue.listen(&self.guest, self.doorbell)?;
        let started = self.backend.as_mut().map_or(Ok(()), |backend| {
            backend.start_queue(setup.index, &ring, queue.kick(), queue.call())
        });
        // With a backend that has ended, the next one starts it.
        if started.is_ok() || self.has_lost_backend() {
            self.queues.insert(setup.index, queue);
        }
        Ok(started?)
    }
}

/// Fails if not all is complete that the driver has requested.
fn drained(again: &Again, queue: &Queue) -> Result<()> {
    let (rings, ring) = (&again.rings, queue.ring());
    match rings.available(ring)?.wrapping_sub(rings.used(ring)?) {
        0 => Ok(()),
        requests => Err(Error::Outstanding { index: queue.index(), requests }),
    }
}

/// What became of a device whose backend is there again.
#[derive(Debug)]
pub(crate) enum Resumed {
    /// It goes on. The driver is to be notified by this, if the configuration is another.
    GoesOn(Vec<Effect>),
    /// The driver has to reset it first, for this reason.
    NeedsReset(Error),
}

/// What the end of a backend means for its device.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The driver waits, and goes on once the backend is there again.
    GoesOn,
    /// The driver has to reset the device, for this reason. It works again once the backend is there.
    NeedsReset(Error),
    /// It is not connected to again.
    ForGood,
}
