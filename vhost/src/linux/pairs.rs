//! The pairs of queues of a card, of which the driver uses the first few.

use super::tap::Tap;
use super::{failed, ring};
use crate::{Error, Result};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pread, pwrite};
use std::os::fd::{BorrowedFd, OwnedFd};
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
pub(super) struct Pairs {
    all: Arc<Mutex<Vec<Pair>>>,
    note: Arc<Mutex<Option<Note>>>,
}

/// Where it is noted how many pairs the driver has selected: a little-endian 16-bit number.
struct Note {
    file: OwnedFd,
    offset: u64,
}

impl Note {
    const SIZE: usize = 2;

    fn write(&self, selected: usize) -> core::result::Result<(), Errno> {
        let selected = u16::try_from(selected).map_err(|_| Errno::INVAL)?;
        pwrite(&self.file, &selected.to_le_bytes(), self.offset).map(drop)
    }

    fn read(&self) -> core::result::Result<usize, Errno> {
        let mut bytes = [0; Self::SIZE];
        pread(&self.file, &mut bytes, self.offset)?;
        Ok(u16::from_le_bytes(bytes).into())
    }
}

fn not_noted(errno: Errno) -> Error {
    Error::System { what: "note how many pairs of queues are selected", errno }
}

impl Pairs {
    pub(super) fn new(pairs: Vec<(Vhost, Tap)>) -> Self {
        let pair = |(vhost, tap)| Pair { vhost, tap, started: [false; 2], attached: true };
        let all = pairs.into_iter().map(pair).collect();
        Self { all: Arc::new(Mutex::new(all)), note: Arc::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Pair>> {
        // Each change leaves them whole.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) -> MutexGuard<'_, Option<Note>> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A note that the driver uses one pair, as at first, and its size in bytes.
    pub(super) fn new_note(&self) -> Result<(OwnedFd, u64)> {
        let note = memfd_create("pairs", MemfdFlags::CLOEXEC)
            .map(|file| Note { file, offset: 0 })
            .and_then(|note| note.write(1).map(|()| note));
        note.map(|note| (note.file, Note::SIZE as u64)).map_err(not_noted)
    }

    /// Has packets go by as many pairs as are noted there, and notes each change there.
    pub(super) fn go_on_with(&self, file: BorrowedFd<'_>, offset: u64) -> Result<()> {
        let file = fcntl_dupfd_cloexec(file, 0).map_err(not_noted)?;
        let note = Note { file, offset };
        let selected = note.read().map_err(not_noted)?;
        *self.note() = Some(note);
        // The file of another process's session: what it says is held to what there is.
        self.set_active(selected.max(1))
    }

    /// The driver has selected none any more.
    pub(super) fn forget_note(&self) {
        *self.note() = None;
    }

    /// The driver selects the first so many pairs. That is noted before it is done, and both before the driver is answered,
    /// which asks the next process again if this one does not come so far.
    pub(super) fn select(&self, selected: usize) -> Result<()> {
        self.note().as_ref().map_or(Ok(()), |note| note.write(selected)).map_err(not_noted)?;
        self.set_active(selected)
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
