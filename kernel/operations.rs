// SPDX-License-Identifier: GPL-2.0

//! The table of operations of a kind of files of ours.

use kernel::bindings;

/// A file's table of operations, which is static.
pub(crate) struct Operations(pub(crate) bindings::file_operations);

// SAFETY: It is only read.
unsafe impl Sync for Operations {}
