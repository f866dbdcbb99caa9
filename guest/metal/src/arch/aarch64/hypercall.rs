//! The call into Xen.

use core::arch::asm;

use crate::hypercall::{Refused, answered};

/// Nothing has to be installed: the call is an instruction.
pub(crate) fn install() -> Result<(), &'static str> {
    Ok(())
}

/// Calls with up to three operands.
///
/// # Safety
///
/// The operands are what hypercall `number` takes, and its effects do not touch memory that the program
/// uses.
pub(crate) unsafe fn call(number: u64, a: u64, b: u64, c: u64) -> Result<u64, Refused> {
    let answer: i64;
    // SAFETY: Xen follows this register convention (public/arch-arm.h) and keeps all others.
    unsafe {
        asm!(
            "hvc #0xea1",
            in("x16") number,
            inlateout("x0") a => answer,
            in("x1") b,
            in("x2") c,
            options(nostack),
        );
    }
    answered(answer)
}
