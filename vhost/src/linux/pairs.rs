//! The pairs of queues of a card, of which the driver uses the first few.

use super::tap::Tap;
use super::{failed, ring};
use crate::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vhost::net::VhostNet;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

pub(super) type SharedMemory = GuestMemoryAtomic<GuestMemoryMmap>;
pub(super) type Vhost = vhost::vhost_kern::net::Net<SharedMemory>;

/// One queue to receive and one to transmit, the rings 0 and 1 of a vhost-net.
pub(super) struct Pair {
    pub(super) vhost: Vhost,
    pub(super) tap: Tap,
    started: [bool; 2],
    /// Whether packets come to this queue of the tap device. The kernel's vhost serves no other.
    attached: bool,
}

/// All of them. The thread of the control queue has them too.
#[derive(Clone)]
pub(super) struct Pairs(Arc<Mutex<Vec<Pair>>>);

impl Pairs {
    pub(super) fn new(pairs: Vec<(Vhost, Tap)>) -> Self {
        let pair = |(vhost, tap)| Pair { vhost, tap, started: [false; 2], attached: true };
        Self(Arc::new(Mutex::new(pairs.into_iter().map(pair).collect())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Pair>> {
        // Each change leaves them whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has packets go by the first so many pairs too.
    pub(super) fn set_active_at_least(&self, active: usize) -> Result<()> {
        self.lock().iter_mut().take(active).try_for_each(|pair| pair.attach(true))
    }

    /// Whether the tap devices of all pairs that packets go by are there.
    pub(super) fn check(&self) -> Result<()> {
        self.lock().iter().filter(|pair| pair.attached).try_for_each(|pair| pair.tap.check())
    }

    /// Has packets go by the first so many pairs.
    pub(super) fn set_active(&self, active: usize) -> Result<()> {
        let mut pairs = self.lock();
        pairs.iter_mut().enumerate().try_for_each(|(index, pair)| pair.attach(index < active))
    }
}

impl Pair {
    fn attach(&mut self, attach: bool) -> Result<()> {
        if attach == self.attached {
            return Ok(());
        }
        if attach {
            self.tap.attach(true)?;
        }
        for ring in (0..2).filter(|ring| self.started[*ring]) {
            self.serve(ring, attach)?;
        }
        if !attach {
            self.tap.attach(false)?;
        }
        self.attached = attach;
        Ok(())
    }

    /// Has the kernel serve a ring that is set up, once the pair is attached.
    pub(super) fn start(&mut self, ring: usize) -> Result<()> {
        if self.attached {
            self.serve(ring, true)?;
        }
        self.started[ring] = true;
        Ok(())
    }

    /// Stops a ring and returns its base.
    pub(super) fn stop(&mut self, ring: usize) -> Result<u16> {
        self.serve(ring, false)?;
        self.started[ring] = false;
        ring::base(&self.vhost, ring)
    }

    fn serve(&self, ring: usize, serve: bool) -> Result<()> {
        let tap = serve.then_some(&self.tap.file);
        self.vhost.set_backend(ring, tap).map_err(|error| failed("NET_SET_BACKEND", &error))
    }
}
