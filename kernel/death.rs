// SPDX-License-Identifier: GPL-2.0

//! The news that domains went: xenstore's `@releaseDomain`.
//!
//! It comes for a domain that only stops as well, and does not say which: whoever hears it asks Xen. That
//! is done elsewhere, as xenbus has one thread for all watches of this domain's drivers.

use crate::bindings;
use crate::guests;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::types::Opaque;

/// The watch; it ends when dropped. The drop waits for a callback that runs.
pub(crate) struct Watch(Pin<KBox<Opaque<bindings::xenbus_watch>>>);

// SAFETY: xenbus locks its watches; any thread may end one.
unsafe impl Send for Watch {}

impl Watch {
    pub(crate) fn set() -> Result<Self> {
        let watch = bindings::xenbus_watch {
            node: c"@releaseDomain".as_char_ptr(),
            callback: Some(released),
            ..Default::default()
        };
        let watch = KBox::pin(Opaque::new(watch), GFP_KERNEL)?;
        // SAFETY: The watch stays where it is and as it is until `drop` has unregistered it; the
        // node is static.
        to_result(unsafe { bindings::register_xenbus_watch(watch.get()) })?;
        Ok(Self(watch))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: It was registered by `set` and is unregistered nowhere else.
        unsafe { bindings::unregister_xenbus_watch(self.0.get()) };
    }
}

/// Runs in xenbus's thread, and does not wait.
///
/// # Safety
/// None is asked for: it uses no argument.
unsafe extern "C" fn released(
    _watch: *mut bindings::xenbus_watch,
    _path: *const c_char,
    _token: *const c_char,
) {
    guests::look_at_all();
}
