//! The guest's memory, from which its driver takes what it shares with the device.
//!
//! Every buffer is copied there and back, as a driver in a process does not live in the guest's memory. So the
//! device never sees a buffer of the driver's.

use core::cell::RefCell;
use core::ptr::NonNull;
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use xen_eventfd_cli::failure::Failure;

/// The memory of a guest: one region from address 0 on, which is a file.
#[derive(Debug)]
pub(crate) struct Ram {
    file: File,
    size: u64,
}

impl Ram {
    /// As many bytes, whole pages.
    pub(crate) fn new(size: u64) -> Result<Self, Failure> {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).map(File::from);
        let file = file.map_err(|errno| Failure::system("make a guest's memory", errno))?;
        file.set_len(size).map_err(|error| Failure::system("make a guest's memory", error))?;
        Ok(Self { file, size })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives the memory to the driver that runs in this thread.
    pub(crate) fn give(&self) -> Result<(), Failure> {
        let cannot = |error: &dyn core::fmt::Display| {
            Failure::system("map a guest's memory", std::io::Error::other(error.to_string()))
        };
        let file = self.file.try_clone().map_err(|error| cannot(&error))?;
        let size = usize::try_from(self.size).map_err(|error| cannot(&error))?;
        let region = (GuestAddress(0), size, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([region]);
        let memory = memory.map_err(|error| cannot(&error))?;
        // Address 0 means to virtio-drivers that there is no memory.
        let pages = Pages { memory, next: PAGE, end: self.size, free: BTreeMap::new() };
        PAGES.set(Some(pages));
        Ok(())
    }
}

const PAGE: u64 = PAGE_SIZE as u64;

thread_local! {
    static PAGES: RefCell<Option<Pages>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Pages {
    memory: GuestMemoryMmap,
    /// What was never given out begins here.
    next: u64,
    end: u64,
    /// What was given back, by the number of pages.
    free: BTreeMap<usize, Vec<u64>>,
}

impl Pages {
    /// The address of as many pages that follow one another.
    fn take(&mut self, pages: usize) -> Option<u64> {
        if let Some(address) = self.free.get_mut(&pages).and_then(Vec::pop) {
            return Some(address);
        }
        let (address, size) = (self.next, PAGE.checked_mul(pages as u64)?);
        self.next = address.checked_add(size).filter(|end| *end <= self.end)?;
        Some(address)
    }

    fn give_back(&mut self, address: u64, pages: usize) {
        self.free.entry(pages).or_default().push(address);
    }
}

/// Does something with this thread's memory; `None` without memory.
fn with<T>(act: impl FnOnce(&mut Pages) -> Option<T>) -> Option<T> {
    PAGES.with_borrow_mut(|pages| pages.as_mut().and_then(act))
}

/// The guest's memory, for virtio-drivers.
#[derive(Debug)]
pub(crate) struct Dma;

// SAFETY: pages are from one mapping, which lives as long as the thread; each is given out once until it comes
// back, aligned and zeroed. Nothing else in this process refers to the mapping but by copying.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let taken = with(|all| {
            let address = all.take(pages)?;
            all.memory.write_slice(&vec![0; pages * PAGE_SIZE], GuestAddress(address)).ok()?;
            let host = all.memory.get_host_address(GuestAddress(address)).ok()?;
            Some((address, NonNull::new(host)?))
        });
        taken.unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        with(|all| {
            all.give_back(address, pages);
            Some(0)
        })
        .unwrap_or(-1)
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        // Only virtio-drivers' own PCI transport asks for it.
        NonNull::dangling()
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let shared = with(|all| {
            let address = all.take(buffer.len().div_ceil(PAGE_SIZE))?;
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the caller promises a valid buffer that no other thread touches meanwhile.
                let bytes = unsafe { buffer.as_ref() };
                all.memory.write_slice(bytes, GuestAddress(address)).ok()?;
            }
            Some(address)
        });
        shared.unwrap_or(0)
    }

    unsafe fn unshare(address: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        with(|all| {
            if direction != BufferDirection::DriverToDevice {
                // SAFETY: as in `share`, and nothing else refers to it.
                let bytes = unsafe { buffer.as_mut() };
                all.memory.read_slice(bytes, GuestAddress(address)).ok()?;
            }
            all.give_back(address, buffer.len().div_ceil(PAGE_SIZE));
            Some(())
        });
    }
}
