// SPDX-License-Identifier: GPL-2.0

//! A workqueue of the module's own: what may wait long is done there, and not in a thread that the
//! kernel shares with others. The kernel crate has the system's queues only, which the module could
//! not wait for before it goes.

use crate::bindings;
use core::ptr::NonNull;
use kernel::bindings as kernel_bindings;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::workqueue::Queue;

/// A workqueue. Dropping it waits for all of its work, so no work may hold the last reference to it.
pub(crate) struct WorkQueue(NonNull<kernel_bindings::workqueue_struct>);

// SAFETY: A workqueue locks itself; any thread may use and destroy it.
unsafe impl Send for WorkQueue {}
// SAFETY: As above.
unsafe impl Sync for WorkQueue {}

impl WorkQueue {
    /// A queue of which so many items are worked on at once.
    pub(crate) fn new(name: &'static CStr, at_once: c_int) -> Result<Self> {
        // SAFETY: The name is copied.
        let queue = unsafe { bindings::shim_alloc_workqueue(name.as_char_ptr(), at_once) };
        NonNull::new(queue).map(Self).ok_or(ENOMEM)
    }

    /// For the kernel crate's work items.
    pub(crate) fn queue(&self) -> &Queue {
        // SAFETY: It is a workqueue, which is destroyed by the drop alone.
        unsafe { Queue::from_raw(self.0.as_ptr()) }
    }

    /// Waits for what has been queued so far.
    pub(crate) fn flush(&self) {
        // SAFETY: As above.
        unsafe { kernel_bindings::__flush_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        // SAFETY: `new` made it, and no process queues anything any more.
        unsafe { kernel_bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}
