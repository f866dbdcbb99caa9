//! What belongs to one process.
//!
//! A child that is forked has copies of all handles, but none of the engine's threads, and locks as
//! they were at that moment, perhaps held by a thread that it does not have. It shares descriptors with
//! its parent, so what it did with them would be done to its parent. So a handle is of no use in a
//! child: its calls fail, and dropping it does nothing at all.

use crate::{Error, Result};
use std::sync::Arc;
use xen_eventfd_host::process::ProcessTag;

/// A handle that is good in the process that made it. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Own<T> {
    value: Arc<T>,
    process: ProcessTag,
}

impl<T> Own<T> {
    /// A handle of this process.
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), process: ProcessTag::current() }
    }

    /// What it is a handle of.
    ///
    /// # Errors
    /// [`Error::Forked`] in a child.
    pub(crate) fn get(&self) -> Result<&T> {
        if self.process.is_current() { Ok(&self.value) } else { Err(Error::Forked) }
    }

    /// The same in any process: only for what neither takes a lock nor changes anything.
    pub(crate) fn constant(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Own<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), process: self.process }
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // One reference more than there are handles: nothing below is ever dropped here.
            std::mem::forget(Arc::clone(&self.value));
        }
    }
}
