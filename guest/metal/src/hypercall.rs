//! Hypercalls by the structures that they take.

use core::fmt;

use crate::arch::hypercall::call;

/// Xen's error: a negative errno.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refused(i64);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xen answered {}", self.0)
    }
}

/// One command of one hypercall, whose only operand is this structure.
///
/// # Safety
///
/// The implementer is laid out as the structure of public/*.h that this command takes, and pointers
/// in it are references to what the command expects.
pub(crate) unsafe trait Operation {
    /// `__HYPERVISOR_*`
    const NUMBER: u64;
    /// `XENMEM_*`, `EVTCHNOP_*`, …
    const COMMAND: u64;
}

/// Makes Xen carry out `operation`.
///
/// # Safety
///
/// The page is installed, and the operation frees no memory that is in use.
pub(crate) unsafe fn perform<T: Operation>(operation: &mut T) -> Result<u64, Refused> {
    let operand = (&raw mut *operation) as u64;
    // SAFETY: layout by the trait's contract, effects by the caller's contract.
    unsafe { call(T::NUMBER, T::COMMAND, operand, 0) }
}

/// What Xen's answer means.
pub(crate) fn answered(answer: i64) -> Result<u64, Refused> {
    u64::try_from(answer).map_err(|_| Refused(answer))
}
