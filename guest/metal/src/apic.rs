//! The local APIC, in x2APIC mode: interrupts that wake, and sleeping until one does.

use core::arch::asm;

use crate::msr;

const APIC_BASE: u32 = 0x1b;
const END_OF_INTERRUPT: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const COMMAND: u32 = 0x830;

/// Sent from vCPU to vCPU: there is news, look again.
const WAKE: u64 = 0xfe;

/// Switches this vCPU's APIC on. Its interrupts find their handlers, so they may be enabled.
pub(crate) fn enable() {
    // SAFETY: every x86-64 processor has this register.
    let base = unsafe { msr::read(APIC_BASE) };
    // SAFETY: enabled, in x2APIC mode, which Xen offers to every such guest.
    unsafe { msr::write(APIC_BASE, base | 3 << 10) };
    // SAFETY: exists in x2APIC mode; spurious interrupts go to 0xff, whose handler counts them.
    unsafe { msr::write(SPURIOUS, 0x1ff) };
    // SAFETY: the interrupt table is loaded before (see `crate::run`).
    unsafe { asm!("sti", options(nostack)) };
}

/// Ends the interrupt that this vCPU has in service, the most urgent one.
pub(crate) fn end_of_interrupt() {
    // SAFETY: exists in x2APIC mode; nothing is lost, as whoever takes an interrupt has counted it.
    unsafe { msr::write(END_OF_INTERRUPT, 0) };
}

/// Wakes the other vCPUs, if there are any.
pub(crate) fn wake_others(vcpus: usize) {
    if vcpus > 1 {
        // SAFETY: exists in x2APIC mode; this sends a fixed interrupt to all others.
        unsafe { msr::write(COMMAND, 0b11 << 18 | 1 << 14 | WAKE) };
    }
}

/// Sleeps from interrupt to interrupt until `so`.
pub(crate) fn sleep_until(so: impl Fn() -> bool) {
    loop {
        // SAFETY: an interrupt that comes between check and sleep must end the sleep.
        unsafe { asm!("cli", options(nostack)) };
        let over = so();
        if over {
            // SAFETY: as they were before.
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
        // SAFETY: nothing wakes it, and nothing is to.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}
