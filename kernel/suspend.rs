// SPDX-License-Identifier: GPL-2.0

//! This domain's own suspension.
//!
//! Where a domain resumes, it has none of the event channels that it had, the number of each may be another's, and
//! a domain may have another number. And in a PV domain a page of a guest must not be mapped when it is suspended:
//! the page table with that entry is not restored (seen with Xen 4.20). So all guests are let go of before, once
//! user processes are frozen and before other drivers are suspended: as a driver of a device that there is for
//! this alone.

use crate::bindings;
use kernel::error::to_result;
use kernel::prelude::*;

/// Has something done before each suspension, until it is dropped.
pub(crate) struct BeforeSuspend;

impl BeforeSuspend {
    pub(crate) fn call(what: extern "C" fn()) -> Result<Self> {
        // SAFETY: The function is the module's, which outlives this: `drop` ends it. It is called once, as there
        // is one module.
        to_result(unsafe { bindings::shim_before_suspend(Some(what)) })?;
        Ok(Self)
    }
}

impl Drop for BeforeSuspend {
    fn drop(&mut self) {
        // SAFETY: `call` succeeded.
        unsafe { bindings::shim_before_suspend_end() };
    }
}
