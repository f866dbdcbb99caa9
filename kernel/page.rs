// SPDX-License-Identifier: GPL-2.0

//! The ioreq page of a server, mapped into the kernel.
//!
//! A PV domain points a page table entry of its own at the guest's frame. A PVH domain has Xen put
//! the frame at a guest frame number of its own that has no memory, and maps that.

use crate::bindings;
use crate::protocol::ioreq::SLOTS;
use crate::protocol::slot::Slot;
use crate::protocol::{DomId, IoServerId};
use crate::unpopulated::{Occupied, Vacant};
use crate::xen;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::page::Page;
use kernel::pr_warn_once;
use kernel::prelude::*;

const _: () = assert!(size_of::<[Slot; SLOTS]>() == xen::PAGE_SIZE);

/// A server's page of slots; unmapped when dropped, which may sleep.
///
/// # Invariants
/// `address` is mapped, writable, and shows the page until the drop.
pub(crate) struct IoreqPage {
    address: NonNull<[Slot; SLOTS]>,
    backing: Backing,
}

/// What the mapping was before, and is again afterwards.
enum Backing {
    /// Our own page, and the entry that pointed at it.
    Pv { own: ManuallyDrop<Page>, entry: u64 },
    /// A frame without memory.
    Pvh { _place: Occupied },
}

// SAFETY: Slots are atomic, and the mapping is the kernel's, not a thread's.
unsafe impl Send for IoreqPage {}
// SAFETY: As above.
unsafe impl Sync for IoreqPage {}

impl IoreqPage {
    /// Acquires and maps the page of a server.
    pub(crate) fn map(dom: DomId, server: IoServerId) -> Result<Self> {
        if xen::is_pv_domain() {
            Self::map_pv(dom, server)
        } else {
            Self::map_pvh(dom, server)
        }
    }

    fn map_pv(dom: DomId, server: IoServerId) -> Result<Self> {
        let frame = xen::acquire_ioreq_page(dom, server, 0)?;
        let own = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        let address = vmap(own.as_ptr())?;
        let mut entry = 0;
        // SAFETY: The address is that of a page that we have just mapped and no other process knows.
        let pointed = to_result(unsafe {
            bindings::shim_pv_map(address.as_ptr().cast(), dom.0, frame, &raw mut entry)
        });
        if let Err(error) = pointed {
            vunmap(address);
            return Err(error);
        }
        // INVARIANT: It is mapped, and shows the frame.
        Ok(Self { address, backing: Backing::Pv { own: ManuallyDrop::new(own), entry } })
    }

    fn map_pvh(dom: DomId, server: IoServerId) -> Result<Self> {
        let place = Vacant::new()?;
        xen::acquire_ioreq_page(dom, server, place.frame())?;
        let place = place.occupied();
        let address = vmap(place.page().as_ptr())?;
        // INVARIANT: It is mapped, and the frame is where Xen put it.
        Ok(Self { address, backing: Backing::Pvh { _place: place } })
    }

    /// All slots, of which only the first belong to vCPUs.
    pub(crate) fn slots(&self) -> &[Slot; SLOTS] {
        // SAFETY: By the type's invariant; the alignment is a page's, and any bytes are slots.
        unsafe { self.address.as_ref() }
    }
}

impl Drop for IoreqPage {
    fn drop(&mut self) {
        match &mut self.backing {
            Backing::Pv { own, entry } => {
                let address = self.address.as_ptr().cast();
                // SAFETY: `map_pv` got this entry at this address, and none looks at the slots
                // any more.
                let restored = to_result(unsafe { bindings::shim_pv_unmap(address, *entry) });
                if restored.is_err() {
                    pr_warn_once!("a guest's page stays mapped: leak\n");
                    return;
                }
                vunmap(self.address);
                // SAFETY: It is dropped here only, and no longer mapped.
                unsafe { ManuallyDrop::drop(own) };
            }
            // The frame goes after this, with its place.
            Backing::Pvh { .. } => vunmap(self.address),
        }
    }
}

/// Maps one page for the kernel.
fn vmap(page: *mut kernel::bindings::page) -> Result<NonNull<[Slot; SLOTS]>> {
    // SAFETY: Both callers own the page and keep it until it is unmapped.
    let address = unsafe { bindings::shim_vmap(page) };
    NonNull::new(address.cast()).ok_or(ENOMEM)
}

/// Ends what [`vmap`] began.
fn vunmap(address: NonNull<[Slot; SLOTS]>) {
    // SAFETY: The address came from `vmap`, and its callers do not use it any more.
    unsafe { bindings::shim_vunmap(address.as_ptr().cast()) };
}
