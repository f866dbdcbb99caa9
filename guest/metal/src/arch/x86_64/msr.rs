//! Model specific registers.

use core::arch::asm;

/// Reads a register.
///
/// # Safety
///
/// The register exists.
pub(crate) unsafe fn read(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: by the caller's contract; reading has no other effect.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") register, out("eax") low, out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a register.
///
/// # Safety
///
/// The register exists, and the program expects what this value changes.
#[expect(clippy::cast_possible_truncation, reason = "the instruction takes two halves")]
pub(crate) unsafe fn write(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: by the caller's contract.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") register, in("eax") low, in("edx") high,
            options(nostack, preserves_flags),
        );
    }
}
