// SPDX-License-Identifier: GPL-2.0

//! Frame numbers of a domain that is not PV, without memory behind them, at which Xen puts frames of a guest.

use crate::bindings;
use crate::xen;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use kernel::bindings as kernel_bindings;
use kernel::pr_warn_once;
use kernel::prelude::*;

/// A frame number of ours with nothing at it, and its `struct page`.
///
/// # Invariants
/// The page is ours alone, from the kernel's unpopulated ones, and given back when this is dropped.
pub(crate) struct Vacant(NonNull<kernel_bindings::page>);

/// The same with a frame of a guest at it. It is taken out of our memory map when this is dropped, which may
/// sleep; a frame that Xen does not take out is not given back.
///
/// # Invariants
/// As [`Vacant`]'s, but that others may hold references to the page for as long as it is mapped.
pub(crate) struct Occupied(NonNull<kernel_bindings::page>);

// SAFETY: The page belongs to no thread.
unsafe impl Send for Vacant {}
// SAFETY: As above.
unsafe impl Send for Occupied {}
// SAFETY: `&Occupied` reads what is constant, and the page's counter, which is atomic.
unsafe impl Sync for Occupied {}

impl Vacant {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: It may be called at any time that may sleep.
        let page = unsafe { bindings::shim_alloc_unpopulated() };
        // INVARIANT: It is one that we have just got.
        NonNull::new(page).map(Self).ok_or(ENOMEM)
    }

    pub(crate) fn frame(&self) -> xen::Frame {
        // SAFETY: By the type's invariant.
        unsafe { bindings::shim_page_frame(self.0.as_ptr()) }
    }

    /// Xen has put a frame there.
    pub(crate) fn occupied(self) -> Occupied {
        // INVARIANT: It is not dropped as a vacant one.
        Occupied(ManuallyDrop::new(self).0)
    }
}

impl Drop for Vacant {
    fn drop(&mut self) {
        // SAFETY: `new` got it, and nothing maps it.
        unsafe { bindings::shim_free_unpopulated(self.0.as_ptr()) };
    }
}

impl Occupied {
    pub(crate) fn page(&self) -> NonNull<kernel_bindings::page> {
        self.0
    }

    /// Whether a page table, or I/O that is under way, has a reference to it. Once it is mapped nowhere, and not
    /// referenced, it stays so.
    pub(crate) fn is_referenced(&self) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { bindings::shim_page_is_referenced(self.0.as_ptr()) }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        let vacant = Vacant(self.0);
        // Rather lost than handed on while it still is the guest's.
        if xen::remove_from_physmap(vacant.frame()).is_err() {
            pr_warn_once!("a guest's page stays in the memory map: leak\n");
            core::mem::forget(vacant);
        }
    }
}
