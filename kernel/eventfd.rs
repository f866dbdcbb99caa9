// SPDX-License-Identifier: GPL-2.0

//! A reference to an eventfd.

use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;

/// An eventfd's context, of which one reference is ours.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: The context is reference counted and locks itself; any thread may use and release it.
unsafe impl Send for EventFd {}
// SAFETY: As above.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// The eventfd behind a descriptor of the calling process.
    ///
    /// # Errors
    /// `EBADF` if it is not open, `EINVAL` if it is no eventfd.
    pub(crate) fn from_descriptor(descriptor: i32) -> Result<Self> {
        // SAFETY: It may be called with any number.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(descriptor) })?;
        NonNull::new(context).map(Self).ok_or(EINVAL)
    }

    /// Adds 1. It never blocks: a full counter stays full. May be called from an interrupt.
    pub(crate) fn signal(&self) {
        // SAFETY: Our reference keeps the context alive.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }

    /// Whether it is the same eventfd.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: It is our reference, and nobody uses it after this.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}
