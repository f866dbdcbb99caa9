//! What the driver shares with the device. The guest's addresses are its memory's, so a buffer is shared where it is.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// A queue takes two, and a driver has one queue at a time.
const PAGES: usize = 8;

#[repr(C, align(4096))]
struct Pages(UnsafeCell<[[u8; PAGE_SIZE]; PAGES]>);

const _: () = assert!(align_of::<Pages>() == PAGE_SIZE);

// SAFETY: only the addresses of pages are taken here; each page is given to one owner.
unsafe impl Sync for Pages {}

static POOL: Pages = Pages(UnsafeCell::new([[0; PAGE_SIZE]; PAGES]));
static GIVEN: AtomicUsize = AtomicUsize::new(0);
/// Those of them that came back. Once all have, they are given again.
static BACK: AtomicUsize = AtomicUsize::new(0);

/// The guest's memory, for virtio-drivers.
pub(super) struct Dma;

fn address<T: ?Sized>(memory: NonNull<T>) -> PhysAddr {
    memory.cast::<u8>().as_ptr() as PhysAddr
}

// SAFETY: pages are of this program's own memory, and each has one owner, for whom it is zero. All memory is mapped one to
// one.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = GIVEN.fetch_add(pages, Ordering::Relaxed);
        assert!(first + pages <= PAGES, "the driver wants more than {PAGES} pages");
        let pool = NonNull::from(&POOL).cast::<[u8; PAGE_SIZE]>();
        // SAFETY: in bounds, as asserted.
        let page = unsafe { pool.add(first) };
        // SAFETY: so many pages, which have no other owner; a device that had them has been reset.
        unsafe { page.cast::<u8>().write_bytes(0, pages * PAGE_SIZE) };
        (address(page), page.cast())
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        let back = BACK.fetch_add(pages, Ordering::Relaxed) + pages;
        if back == GIVEN.load(Ordering::Relaxed) {
            BACK.store(0, Ordering::Relaxed);
            GIVEN.store(0, Ordering::Relaxed);
        }
        0
    }

    unsafe fn mmio_phys_to_virt(at: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(at as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        address(buffer)
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
