//! Pages to return to Xen.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::hypercall::{self, Operation};
use crate::xen;

/// 8 MiB.
const PAGES: usize = 2048;

#[repr(C, align(4096))]
struct Stock(UnsafeCell<[[u8; 4096]; PAGES]>);

// SAFETY: only the addresses of pages are ever used.
unsafe impl Sync for Stock {}

static STOCK: Stock = Stock(UnsafeCell::new([[0; 4096]; PAGES]));
static GIVEN: AtomicUsize = AtomicUsize::new(0);

#[repr(C)]
struct Reservation<'a> {
    extents: &'a u64,
    count: u64,
    order: u32,
    flags: u32,
    domid: u16,
}
// SAFETY: `struct xen_memory_reservation` for XENMEM_decrease_reservation, with a reference to
// as many extents as `count`, which is 1.
unsafe impl Operation for Reservation<'_> {
    const NUMBER: u64 = 12;
    const COMMAND: u64 = 1;
}

/// Returns one page, each page only once.
pub(crate) fn give() -> Result<(), &'static str> {
    let page = GIVEN.fetch_add(1, Ordering::Relaxed);
    if page >= PAGES {
        return Err("balloon: no pages are left");
    }
    let frame = (STOCK.0.get() as u64 >> 12) + page as u64;
    let mut reservation =
        Reservation { extents: &frame, count: 1, order: 0, flags: 0, domid: xen::SELF };
    // SAFETY: a page of the stock, which nothing uses.
    match unsafe { hypercall::perform(&mut reservation) } {
        Ok(1) => Ok(()),
        _ => Err("balloon: Xen does not take the page"),
    }
}
