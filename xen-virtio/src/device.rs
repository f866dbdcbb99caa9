//! A device: the effects of its function, carried out on its backend and in the engine.
//!
//! # Invariants
//! * The engine has the kicks and calls of exactly those queues that the backend serves.
//! * A queue's calls have their route before the backend can make one.

use crate::error::{Error, Result};
use crate::kind::{DeviceConfig, Kind};
use crate::layout::Place;
use crate::queue::Queue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use virtio_bindings::virtio_config::VIRTIO_F_RING_RESET;
use xen_eventfd::{Guest, Host};
use xen_eventfd_host::Signaller;
use xen_eventfd_vhost::{Backend, Region};
use xen_eventfd_virtio::{Bar, Description, Effect, Function, QueueSetup};

/// What the function does by itself, with a backend that can stop a queue.
const RING_RESET: u64 = 1 << VIRTIO_F_RING_RESET;

/// A device of a guest.
#[derive(Debug)]
pub(crate) struct Device {
    guest: Guest,
    /// Kicks a queue whatever its backend has done with the eventfd.
    signaller: Box<dyn Signaller>,
    backend: Box<dyn Backend>,
    /// The port of the doorbell, while the function decodes it.
    doorbell: Option<u16>,
    queues: BTreeMap<u16, Queue>,
    config: DeviceConfig,
    /// What its driver has accepted.
    features: u64,
    /// Why it needed a reset first.
    failure: Option<String>,
}

impl Device {
    /// A device and its function. `memory` is all of the guest's.
    pub(crate) fn new(
        host: &dyn Host,
        guest: &Guest,
        mut backend: Box<dyn Backend>,
        kind: &Kind,
        place: Place,
        memory: &[Region<'_>],
    ) -> Result<(Self, Function)> {
        backend.set_memory(memory)?;
        let function = Function::new(&Description {
            device_type: kind.device_type,
            features: kind.features.offered(&*backend) | RING_RESET,
            queue_sizes: vec![kind.queue_size; kind.queues.into()],
            config: kind.config.read(&mut *backend)?,
            // Calls reach the guest by messages only.
            has_line: false,
            registers: place.registers,
            doorbell: place.doorbell,
        })?;
        let device = Self {
            guest: guest.clone(),
            signaller: host.signaller()?,
            backend,
            doorbell: None,
            queues: BTreeMap::new(),
            config: kind.config.clone(),
            features: 0,
            failure: None,
        };
        Ok((device, function))
    }

    /// Carries out an effect that is the device's own.
    pub(crate) fn carry_out(&mut self, effect: Effect, function: &mut Function) -> Result<()> {
        match effect {
            Effect::Features(features) => {
                self.features = features;
                Ok(self.backend.accept(features & self.backend.features())?)
            }
            Effect::Reset => {
                self.features = 0;
                self.queues.clear();
                Ok(self.backend.reset()?)
            }
            Effect::QueueStarted(setup) => self.start(&setup),
            Effect::QueueStopped(index) => {
                self.queues.remove(&index);
                self.backend.stop_queue(index)?;
                Ok(())
            }
            Effect::Rerouted { queue, route } => match self.queues.get_mut(&queue) {
                Some(queue) => queue.reroute(&self.guest, route),
                None => Ok(()),
            },
            Effect::Kick(index) => {
                if let Some(queue) = self.queues.get(&index) {
                    self.signaller.signal(queue.kick())?;
                }
                Ok(())
            }
            Effect::Moved { bar: Bar::Doorbell, to, .. } => {
                self.doorbell = to.and_then(|port| u16::try_from(port).ok());
                let mut queues = self.queues.values_mut();
                queues.try_for_each(|queue| queue.listen(&self.guest, self.doorbell))
            }
            Effect::ConfigWritten { offset, width, value } => {
                if !self.config.is_of_backend() {
                    return Ok(());
                }
                let bytes = value.to_le_bytes();
                self.backend.write_config(offset, &bytes[..width.bytes().into()])?;
                function.set_config(&self.config.read(&mut *self.backend)?);
                Ok(())
            }
            Effect::DriverOk
            | Effect::Moved { bar: Bar::Registers, .. }
            | Effect::Raise(_)
            | Effect::Line(_) => Ok(()),
        }
    }

    /// What becomes readable when the backend ends, finds a queue broken, or requests something.
    pub(crate) fn backend_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let backend = &self.backend;
        backend.fd().into_iter().chain([backend.errors()]).chain(backend.requests())
    }

    /// Looks at what the backend has requested. Returns the effects if its configuration has changed.
    pub(crate) fn take_requests(&mut self, function: &mut Function) -> Result<Vec<Effect>> {
        if !self.backend.take_requests()? || !self.config.is_of_backend() {
            return Ok(Vec::new());
        }
        Ok(function.change_config(&self.config.read(&mut *self.backend)?))
    }

    /// Whether the backend is there and has no complaint.
    pub(crate) fn check_backend(&self) -> Result<()> {
        self.backend.check()?;
        let errors = self.backend.errors();
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
        self
    }

    /// Its backend, as at the start: it can serve another guest.
    pub(crate) fn into_backend(mut self) -> Result<Box<dyn Backend>> {
        self.backend.reset()?;
        Ok(self.backend)
    }

    fn start(&mut self, setup: &QueueSetup) -> Result<()> {
        let mut queue = Queue::new(&self.guest, setup.index, setup.route)?;
        queue.listen(&self.guest, self.doorbell)?;
        let ring = xen_eventfd_vhost::Queue {
            size: setup.size,
            descriptors: setup.descriptors,
            available: setup.driver,
            used: setup.device,
            base: 0,
        };
        self.backend.start_queue(setup.index, &ring, queue.kick(), queue.call())?;
        self.queues.insert(setup.index, queue);
        Ok(())
    }
}
