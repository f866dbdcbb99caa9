//! x86-64: the time stamp counter, and no-operations that the profiler knows.

/// Now, in ticks.
pub fn now() -> u64 {
    // SAFETY: the instruction reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Makes a profiler that runs in the emulator begin to count.
pub fn begin_mark() {
    // SAFETY: a no-operation; the profiler looks for the number in it.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464501]", options(nomem, nostack)) };
}

/// Makes it stop.
pub fn end_mark() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x58464502]", options(nomem, nostack)) };
}
