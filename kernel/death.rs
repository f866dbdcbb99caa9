// SPDX-License-Identifier: GPL-2.0

//! The news that domains went: xenstore's `@releaseDomain`.
//!
//! It comes for a domain that only stops as well, and does not say which: the one that receives it asks Xen. That
//! is done elsewhere, as xenbus has one thread for all watches of this domain's drivers.
//!
//! It does not come where this domain is not privileged, nor when a guest lives and loses its ioreq server
//! (to another process, or to Xen up to 4.13 at a soft reset). So Xen is also asked now and then, by a hypercall for each guest that changes nothing and pauses no guest.

use crate::bindings;
use core::ptr::NonNull;
use kernel::container_of;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::types::Opaque;

/// Has all guests looked at. It waits for nothing.
pub(crate) type LookAtAll = extern "C" fn();

/// Seconds between two looks at all guests.
const PERIOD: c_uint = 2;

/// What has all guests looked at now and then. The drop waits for a look that is being begun.
pub(crate) struct Clock(NonNull<bindings::shim_clock>);

// SAFETY: The kernel locks its delayed work; any thread may stop it.
unsafe impl Send for Clock {}
// SAFETY: `&Clock` does nothing.
unsafe impl Sync for Clock {}

impl Clock {
    /// `look` runs in a work queue of the kernel's.
    pub(crate) fn start(look: LookAtAll) -> Result<Self> {
        // SAFETY: The function is the module's, which outlives the clock: `drop` stops it.
        let clock = unsafe { bindings::shim_clock_start(Some(look), PERIOD) };
        NonNull::new(clock).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // SAFETY: It was started by `start` and is stopped nowhere else.
        unsafe { bindings::shim_clock_stop(self.0.as_ptr()) };
    }
}

/// The watch; it ends when dropped. The drop waits for a callback that runs.
pub(crate) struct Watch(Pin<KBox<Watching>>);

/// What xenbus knows of the watch, and what is done when it fires.
struct Watching {
    watch: Opaque<bindings::xenbus_watch>,
    look: LookAtAll,
}

// SAFETY: xenbus locks its watches; any thread may end one.
unsafe impl Send for Watch {}

impl Watch {
    /// `look` runs in xenbus's thread.
    pub(crate) fn set(look: LookAtAll) -> Result<Self> {
        let watch = bindings::xenbus_watch {
            node: c"@releaseDomain".as_char_ptr(),
            callback: Some(released),
            ..Default::default()
        };
        let watch = KBox::pin(Watching { watch: Opaque::new(watch), look }, GFP_KERNEL)?;
        // SAFETY: The watch stays where it is and as it is until `drop` has unregistered it; the
        // node is static.
        to_result(unsafe { bindings::register_xenbus_watch(watch.watch.get()) })?;
        Ok(Self(watch))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: It was registered by `set` and is unregistered nowhere else.
        unsafe { bindings::unregister_xenbus_watch(self.0.watch.get()) };
    }
}

/// Runs in xenbus's thread.
///
/// # Safety
/// `watch` is that of a [`Watching`], which is there.
unsafe extern "C" fn released(
    watch: *mut bindings::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) {
    let watch = watch.cast::<Opaque<bindings::xenbus_watch>>();
    // SAFETY: The caller's promise.
    let watching = unsafe { container_of!(watch, Watching, watch) };
    // SAFETY: As above.
    (unsafe { &*watching }.look)();
}
