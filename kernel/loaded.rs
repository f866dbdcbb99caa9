// SPDX-License-Identifier: GPL-2.0

//! What keeps the module from being unloaded, where no open file does.

use kernel::bindings as kernel_bindings;
use kernel::module::this_module;

/// The module stays loaded for as long as this is there. It is dropped where the module waits for before it goes: in a
/// work item of its own queues.
pub(crate) struct StayLoaded(());

impl StayLoaded {
    /// To be called while a file of the module is open, by its operations.
    pub(crate) fn now() -> Self {
        // SAFETY: It is this module, which runs.
        unsafe { kernel_bindings::__module_get(this_module::<crate::LocalModule>().as_ptr()) };
        Self(())
    }
}

impl Drop for StayLoaded {
    fn drop(&mut self) {
        // SAFETY: `now` got the reference.
        unsafe { kernel_bindings::module_put(this_module::<crate::LocalModule>().as_ptr()) };
    }
}
