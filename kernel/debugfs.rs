// SPDX-License-Identifier: GPL-2.0

//! Files of debugfs about guests. While one is open the module stays: the kernel crate's own files
//! do not see to that, and closing one runs code of the module.
//!
//! # Invariants
//! * The private data of an inode with [`OPERATIONS`] is the `Taken` of a [`File`], which keeps it
//!   for as long as the kernel calls back.

use crate::operations::Operations;
use crate::show;
use crate::taken::Taken;
use core::ptr;
use kernel::bindings as kernel_bindings;
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::str::{CStrExt, CString};
use kernel::sync::Arc;

static OPERATIONS: Operations = Operations(kernel_bindings::file_operations {
    owner: this_module::<crate::LocalModule>().as_ptr(),
    open: Some(open),
    read: Some(kernel_bindings::seq_read),
    llseek: Some(kernel_bindings::seq_lseek),
    release: Some(kernel_bindings::single_release),
    ..pin_init::zeroed()
});

/// An entry of debugfs, or an error, which debugfs takes for nothing; removed when dropped.
struct Entry(*mut kernel_bindings::dentry);

// SAFETY: Debugfs locks its entries itself; any thread may remove one.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: It came from debugfs, and nothing uses it after this.
        unsafe { kernel_bindings::debugfs_remove(self.0) };
    }
}

/// A folder; empty by the time that it is dropped.
pub(crate) struct Folder(Entry);

/// A file about a guest. Dropping it waits for the one that is reading it; who has it open reads no more.
pub(crate) struct File {
    /// Goes first.
    _entry: Entry,
    _taken: Arc<Taken>,
}

impl Folder {
    pub(crate) fn new(name: &CStr) -> Self {
        // SAFETY: The name is copied; without a parent it lies at the root.
        let entry =
            unsafe { kernel_bindings::debugfs_create_dir(name.as_char_ptr(), ptr::null_mut()) };
        Self(Entry(entry))
    }

    /// Shows a guest in a file that has its number for a name.
    pub(crate) fn show(&self, taken: &Arc<Taken>) -> Result<File> {
        let name = CString::try_from_fmt(fmt!("{}", taken.guest.dom().0))?;
        let taken = taken.clone();
        // SAFETY: The name is copied, the folder is there, and the operations are static. The data is
        // what they expect, and outlives the entry.
        let entry = unsafe {
            kernel_bindings::debugfs_create_file_full(
                name.as_char_ptr(),
                0o400,
                self.0 .0,
                ptr::from_ref::<Taken>(&taken).cast_mut().cast(),
                ptr::null(),
                &raw const OPERATIONS.0,
            )
        };
        Ok(File { _entry: Entry(entry), _taken: taken })
    }
}

/// # Safety
/// As debugfs calls it, for a file with [`OPERATIONS`].
unsafe extern "C" fn open(
    inode: *mut kernel_bindings::inode,
    file: *mut kernel_bindings::file,
) -> c_int {
    // SAFETY: The inode is there.
    let taken = unsafe { (*inode).i_private };
    // SAFETY: The file is being opened; what is shown is the inode's data, which is what `show`
    // expects.
    unsafe { kernel_bindings::single_open(file, Some(show), taken) }
}

/// # Safety
/// As a sequence file with the data of [`open`] calls it: debugfs calls nothing once its entry is
/// removed.
unsafe extern "C" fn show(
    sequence: *mut kernel_bindings::seq_file,
    _: *mut c_void,
) -> c_int {
    // SAFETY: The sequence is there.
    let private = unsafe { (*sequence).private };
    // SAFETY: By the invariant.
    let taken = unsafe { &*private.cast_const().cast::<Taken>() };
    // SAFETY: The kernel lends the sequence for the call, to us alone.
    unsafe { show::write(taken, sequence) };
    0
}
