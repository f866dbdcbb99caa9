//! The local APIC, in x2APIC mode: interrupts that wake, and sleeping until one arrives.

use core::arch::asm;

use super::msr;

const APIC_BASE: u32 = 0x1b;
const END_OF_INTERRUPT: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const COMMAND: u32 = 0x830;

/// The vector that vCPUs send each other to wake.
const WAKE: u64 = 0xfe;

/// Enables this vCPU's APIC. The interrupt handlers are installed, so interrupts may be enabled.
pub(crate) fn enable() {
    // SAFETY: every x86-64 processor has this register.
    let base = unsafe { msr::read(APIC_BASE) };
    // SAFETY: enabled, in x2APIC mode, which Xen offers to every such guest.
    unsafe { msr::write(APIC_BASE, base | 3 << 10) };
    // SAFETY: exists in x2APIC mode; spurious interrupts go to 0xff, whose handler counts them.
    unsafe { msr::write(SPURIOUS, 0x1ff) };
    // SAFETY: the interrupt table is loaded before (see `super::prepare`).
    unsafe { asm!("sti", options(nostack)) };
}

/// Ends the interrupt that this vCPU has in service.
pub(crate) fn end_of_interrupt() {
    // SAFETY: exists in x2APIC mode; no interrupt is lost, as the handler has counted it.
    unsafe { msr::write(END_OF_INTERRUPT, 0) };
}

/// Wakes the other vCPUs, if there are any.
pub(crate) fn wake_others(vcpus: usize) {
    if vcpus > 1 {
        // SAFETY: exists in x2APIC mode; this sends a fixed interrupt to all others.
        unsafe { msr::write(COMMAND, 0b11 << 18 | 1 << 14 | WAKE) };
    }
}

/// Sleeps from interrupt to interrupt until `so` holds.
pub(crate) fn sleep_until(so: impl Fn() -> bool) {
    loop {
        // SAFETY: an interrupt that comes between check and sleep must end the sleep.
        unsafe { asm!("cli", options(nostack)) };
        let over = so();
        if over {
            // SAFETY: restores the previous state.
            unsafe { asm!("sti", options(nostack)) };
            return;
        }
        // SAFETY: interrupts come only after the instruction that follows `sti`.
        unsafe { asm!("sti", "hlt", options(nostack)) };
    }
}

/// Stops this vCPU for good.
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: nothing wakes it, as intended.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}
