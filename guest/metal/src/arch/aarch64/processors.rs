//! The other vCPUs: started by PSCI, with a stack of their own.

use core::arch::asm;

use super::boot;
use crate::hypercall::{Refused, answered};

/// `CPU_ON` with 64-bit addresses (Arm's Power State Coordination Interface).
const CPU_ON: u64 = 0xc400_0003;

/// Starts `vcpu` at `entry`, which gets its number.
///
/// # Safety
///
/// `vcpu` is less than `MAX_VCPUS`, is not started yet, and everything that it uses is ready.
pub(crate) unsafe fn start(vcpu: usize, entry: extern "C" fn(usize) -> !) -> Result<(), Refused> {
    let top = boot::stack_top(vcpu);
    let arguments = (top - 16) as *mut [u64; 2];
    // SAFETY: inside of the stack of a vCPU that does not run yet.
    unsafe { arguments.write([vcpu as u64, entry as usize as u64]) };
    let answer: i64;
    // SAFETY: Xen starts that vCPU at the entry, which takes the top of its stack; all other registers are kept. The
    // affinity of vCPU n is n, below 16. The barrier has the other vCPU see the arguments.
    unsafe {
        asm!(
            "dsb ish",
            "hvc #0",
            inlateout("x0") CPU_ON => answer,
            inlateout("x1") vcpu as u64 => _,
            inlateout("x2") boot::second_entry() => _,
            inlateout("x3") top => _,
            options(nostack),
        );
    }
    answered(answer).map(drop)
}
