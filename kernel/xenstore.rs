// SPDX-License-Identifier: GPL-2.0

//! What xenstore says. To be asked in a thread of our own (`access.rs`), and under no lock: xenbus waits
//! for an answer for as long as it takes, and no signal ends that.

use crate::bindings;
use crate::protocol::DomId;
use kernel::bindings as kernel_bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::str::{CStrExt, CString};

/// Looks at a value; `None` if there is none, or it is no text. Without a name, `folder` is the
/// value's own path; one that does not begin with `/` is this domain's. May sleep.
///
/// # Errors
/// xenstore could not be asked.
pub(crate) fn ask<T>(
    folder: &CStr,
    name: &CStr,
    look: impl FnOnce(&str) -> T,
) -> Result<Option<T>> {
    // SAFETY: No transaction, and both strings outlive the call.
    let value = from_err_ptr(unsafe {
        bindings::xenbus_read(
            bindings::xenbus_transaction { id: 0 },
            folder.as_char_ptr(),
            name.as_char_ptr(),
            core::ptr::null_mut(),
        )
    });
    let value = match value {
        Err(error) if error == ENOENT => return Ok(None),
        value => value?,
    };
    // SAFETY: What xenbus gives out ends with a zero.
    let text = unsafe { CStr::from_char_ptr(value.cast()) };
    let looked = text.to_str().ok().map(look);
    // SAFETY: It is ours, allocated by kmalloc, and `text` is not used any more.
    unsafe { kernel_bindings::kfree(value.cast()) };
    Ok(looked)
}

/// The same, with nothing for what could not be asked.
fn read<T>(folder: &CStr, name: &CStr, look: impl FnOnce(&str) -> T) -> Option<T> {
    ask(folder, name, look).ok().flatten()
}

/// Whether a guest has emulated interrupt controllers, and thus lines (x86).
///
/// Xen has no call for it, and must not be asked to set a line that is not there. The answer is in
/// what toolstacks write of an HVM guest, where the guest cannot: its type, or the settings of its
/// firmware. Without either, it counts as none.
pub(crate) fn has_lines(dom: DomId) -> bool {
    let Ok(libxl) = CString::try_from_fmt(fmt!("/libxl/{}", dom.0)) else { return false };
    if let Some(hvm) = read(&libxl, c"type", |kind| kind == "hvm") {
        return hvm;
    }
    let Ok(own) = CString::try_from_fmt(fmt!("/local/domain/{}", dom.0)) else { return false };
    read(&own, c"hvmloader/bios", |_| ()).is_some()
}
