//! 64-bit Arm: the virtual counter, and no-operations that the profiler knows.

/// Now, in ticks.
pub fn now() -> u64 {
    let ticks;
    // SAFETY: the instructions read a counter that Linux lets programs read.
    unsafe {
        core::arch::asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack))
    };
    ticks
}

/// Makes a profiler that runs in the emulator begin to count.
pub fn begin_mark() {
    // SAFETY: a no-operation; the profiler looks for the number in it.
    unsafe { core::arch::asm!("movz xzr, #0x4501", options(nomem, nostack)) };
}

/// Makes it stop.
pub fn end_mark() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("movz xzr, #0x4502", options(nomem, nostack)) };
}
