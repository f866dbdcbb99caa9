// SPDX-License-Identifier: GPL-2.0

//! References to an eventfd: to its counter, and to its open file.

use crate::bindings;
use core::ptr::NonNull;
use kernel::bindings as kernel_bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;

/// An eventfd's context, of which one reference is ours. It does not keep the eventfd open.
pub(crate) struct EventFd(NonNull<kernel_bindings::eventfd_ctx>);

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
        let context = from_err_ptr(unsafe { kernel_bindings::eventfd_ctx_fdget(descriptor) })?;
        NonNull::new(context).map(Self).ok_or(EINVAL)
    }

    /// Adds 1. It never blocks: a full counter stays full. May be called from an interrupt.
    pub(crate) fn signal(&self) {
        // SAFETY: Our reference keeps the context alive.
        unsafe { kernel_bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }

    /// Whether it is the same eventfd.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// For those who wait on it in the kernel.
    pub(crate) fn context(&self) -> *mut kernel_bindings::eventfd_ctx {
        self.0.as_ptr()
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: It is our reference, and nothing uses it after this.
        unsafe { kernel_bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}

/// An eventfd that we keep open.
pub(crate) struct OpenEventFd {
    file: OpenFile,
    counter: EventFd,
}

/// An eventfd's file, of which one reference is ours.
struct OpenFile(NonNull<kernel_bindings::file>);

// SAFETY: A file is reference counted; nothing of it that belongs to a thread is used.
unsafe impl Send for OpenFile {}
// SAFETY: As above.
unsafe impl Sync for OpenFile {}

impl OpenFile {
    fn counter(&self) -> Result<EventFd> {
        // SAFETY: It is an eventfd's file, and open: the reference to it is ours.
        let context = unsafe { kernel_bindings::eventfd_ctx_fileget(self.0.as_ptr()) };
        NonNull::new(from_err_ptr(context)?).map(EventFd).ok_or(EINVAL)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // SAFETY: It is our reference, and nothing uses it after this.
        unsafe { kernel_bindings::fput(self.0.as_ptr()) };
    }
}

impl OpenEventFd {
    /// As [`EventFd::from_descriptor`].
    pub(crate) fn from_descriptor(descriptor: i32) -> Result<Self> {
        // SAFETY: It may be called with any number.
        let file = from_err_ptr(unsafe { kernel_bindings::eventfd_fget(descriptor) })?;
        let file = OpenFile(NonNull::new(file).ok_or(EINVAL)?);
        let counter = file.counter()?;
        Ok(Self { file, counter })
    }

    /// Another reference to its counter, which does not keep it open.
    pub(crate) fn another_reference(&self) -> Result<EventFd> {
        self.file.counter()
    }

    /// Its counter.
    pub(crate) fn counter(&self) -> &EventFd {
        &self.counter
    }

    /// Its file, which lives as long as this.
    pub(crate) fn file(&self) -> *mut kernel_bindings::file {
        self.file.0.as_ptr()
    }

    /// Whether its counter is not 0: no process has read it since it was signalled. May be called from
    /// an interrupt.
    pub(crate) fn is_unread(&self) -> bool {
        // SAFETY: It is an eventfd's file, and open.
        unsafe { bindings::shim_eventfd_is_unread(self.file.0.as_ptr()) }
    }
}
