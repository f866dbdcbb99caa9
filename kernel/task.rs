// SPDX-License-Identifier: GPL-2.0

//! The calling thread.

use crate::bindings;

/// Whether it was killed, so that what takes long should end. Lets others run first, where the kernel
/// does not interrupt itself. May sleep.
pub(crate) fn is_killed() -> bool {
    // SAFETY: It may be called wherever one may sleep.
    unsafe { bindings::shim_killed() }
}
