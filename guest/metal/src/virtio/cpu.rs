//! The driver's processor: the guest's first vCPU.

use core::convert::Infallible;
use core::sync::atomic::{AtomicU64, Ordering};

use xen_eventfd_guest_script::Place;
pub(super) use xen_eventfd_guest_script::Width;

use crate::arch::{access, interrupts};

static KICKS: AtomicU64 = AtomicU64::new(0);

/// Why it does not go on. There is no reason: the driver ends with it.
pub(super) type Stopped = Infallible;

/// Where an access is directed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Space {
    Mmio,
    Pio,
}

/// The vCPU.
#[derive(Debug, Clone)]
pub(super) struct Cpu;

impl Cpu {
    pub(super) fn read(&self, space: Space, addr: u64, width: Width) -> u64 {
        // SAFETY: the driver reads registers of devices, which are not where the guest has memory.
        let Ok(value) = unsafe { access::read(place(space, addr), width) };
        value
    }

    pub(super) fn write(&self, space: Space, addr: u64, width: Width, value: u64) {
        // SAFETY: as for `read`.
        let Ok(()) = unsafe { access::write(place(space, addr), width, value) };
    }

    /// Writes to a doorbell.
    pub(super) fn kick(&self, port: u64, queue: u16) {
        KICKS.fetch_add(1, Ordering::Relaxed);
        self.write(Space::Pio, port, Width::Two, queue.into());
    }

    /// How many kicks there were.
    pub(super) fn kicks(&self) -> u64 {
        KICKS.load(Ordering::Relaxed)
    }

    /// Sleeps until an interrupt comes.
    pub(super) fn wait(&self, vector: u8) {
        interrupts::wait(0, vector);
    }

    pub(super) fn check(&self) -> Result<(), Stopped> {
        Ok(())
    }
}

fn place(space: Space, addr: u64) -> Place {
    let place = match space {
        Space::Mmio => u32::try_from(addr).ok().map(Place::Mmio),
        Space::Pio => u16::try_from(addr).ok().map(Place::Pio),
    };
    place.unwrap_or_else(|| panic!("a register at {addr:#x}"))
}
