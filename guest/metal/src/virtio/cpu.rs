//! The driver's processor: the guest's first vCPU.

use core::convert::Infallible;
use core::sync::atomic::{AtomicU64, Ordering};

#[cfg(target_arch = "aarch64")]
use xen_eventfd_guest_script::Line;
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
    #[cfg(target_arch = "x86_64")]
    Pio,
}

/// The vCPU.
#[derive(Debug, Clone)]
pub(super) struct Cpu;

impl Cpu {
    pub(super) fn read(&self, space: Space, addr: u64, width: Width) -> u64 {
        // SAFETY: the driver reads registers of devices, which are not where the guest has memory.
        let read = unsafe { access::read(place(space, addr), width) };
        // As on x86, where an access that no device answers is no fault.
        read.unwrap_or(width.all_ones())
    }

    pub(super) fn write(&self, space: Space, addr: u64, width: Width, value: u64) {
        // SAFETY: as for `read`.
        let written = unsafe { access::write(place(space, addr), width, value) };
        written.unwrap_or_default();
    }

    /// Writes to a doorbell.
    pub(super) fn kick(&self, space: Space, addr: u64, width: Width, queue: u16) {
        KICKS.fetch_add(1, Ordering::Relaxed);
        self.write(space, addr, width, queue.into());
    }

    /// How many kicks there were.
    pub(super) fn kicks(&self) -> u64 {
        KICKS.load(Ordering::Relaxed)
    }

    /// Sleeps until an interrupt comes.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn wait(&self, vector: u8) {
        interrupts::wait(0, vector);
    }

    /// Takes a shared peripheral interrupt from now on. Its number is less than 256.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn connect(number: u32) {
        let number = spi(number);
        crate::arch::connect_line(Line::Spi { number, level: false }, 0);
    }

    /// Sleeps until it comes.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn wait_spi(&self, number: u32) {
        interrupts::wait(0, spi(number));
    }

    pub(super) fn check(&self) -> Result<(), Stopped> {
        Ok(())
    }
}

#[cfg(target_arch = "aarch64")]
fn spi(number: u32) -> u8 {
    u8::try_from(number).unwrap_or_else(|_| panic!("interrupt {number} is none of a device"))
}

fn place(space: Space, addr: u64) -> Place {
    let place = match space {
        Space::Mmio => u32::try_from(addr).ok().map(Place::Mmio),
        #[cfg(target_arch = "x86_64")]
        Space::Pio => u16::try_from(addr).ok().map(Place::Pio),
    };
    place.unwrap_or_else(|| panic!("a register at {addr:#x}"))
}
