//! The GICv3 that Xen gives a guest: interrupts that wake, lines of devices, and sleeping until one arrives.

use core::arch::asm;

use xen_eventfd_guest_script::Line;

use super::interrupts;
use crate::sync::Lock;

/// Where the distributor is (public/arch-arm.h).
const DISTRIBUTOR: u64 = 0x0300_1000;
/// The redistributor of the first vCPU, of which those of the others are `STRIDE` apart.
const REDISTRIBUTOR: u64 = 0x0302_0000;
const STRIDE: u64 = 0x2_0000;
/// From a redistributor to its registers for private interrupts.
const PRIVATE: u64 = 0x1_0000;

/// Offsets of registers.
const CONTROL: u64 = 0;
const WAKER: u64 = 0x14;
const GROUP: u64 = 0x80;
const ENABLE: u64 = 0x100;
const PRIORITY: u64 = 0x400;
const CONFIGURATION: u64 = 0xc00;
const ROUTE: u64 = 0x6000;

/// Of `WAKER`: the redistributor may be asleep.
const ASLEEP: u32 = 1 << 1;
/// Of `CONTROL`: interrupts of group 1 are enabled, and routed by affinity.
const GROUP_1_BY_AFFINITY: u32 = 1 << 1 | 1 << 4;
/// The priority of all interrupts: higher than the mask, 0xff.
const MIDDLE: u8 = 0xa0;

/// The interrupt that vCPUs send each other to wake: the first software-generated one, to all others.
pub(crate) const WAKE_OTHERS: u64 = 1 << 40;

/// Held while registers that several interrupts share are changed.
static REGISTERS: Lock = Lock::new();

fn change<T: Copy>(base: u64, offset: u64, how: impl FnOnce(T) -> T) {
    let register = (base + offset) as *mut T;
    // SAFETY: a register of the GIC, which is mapped, and as wide as the caller knows.
    let value = unsafe { register.read_volatile() };
    // SAFETY: the same.
    unsafe { register.write_volatile(how(value)) };
}

/// Enables this vCPU's part. The vectors are installed, so interrupts may be enabled.
pub(crate) fn enable(vcpu: usize) {
    let own = REDISTRIBUTOR + STRIDE * vcpu as u64;
    if vcpu == 0 {
        change(DISTRIBUTOR, CONTROL, |control: u32| control | GROUP_1_BY_AFFINITY);
    }
    change(own, WAKER, |waker: u32| waker & !ASLEEP);
    change(own + PRIVATE, GROUP, |_: u32| u32::MAX);
    change(own + PRIVATE, PRIORITY, |_: u8| MIDDLE);
    change(own + PRIVATE, ENABLE, |_: u32| 1);
    // SAFETY: the registers of GICv3's interface: ICC_SRE_EL1 by registers at all, ICC_PMR_EL1 all priorities, ICC_CTLR_EL1
    // the end of an interrupt in two steps, ICC_IGRPEN1_EL1 on. Then interrupts are unmasked.
    unsafe {
        asm!(
            "mrs {scratch}, S3_0_C12_C12_5",
            "orr {scratch}, {scratch}, #1",
            "msr S3_0_C12_C12_5, {scratch}",
            "isb",
            "mov {scratch}, #0xff",
            "msr S3_0_C4_C6_0, {scratch}",
            "mov {scratch}, #2",
            "msr S3_0_C12_C12_4, {scratch}",
            "mov {scratch}, #1",
            "msr S3_0_C12_C12_7, {scratch}",
            "isb",
            "msr daifclr, #2",
            scratch = out(reg) _,
            options(nostack),
        );
    }
}

/// Routes `line` to `vcpu`.
pub(crate) fn connect(line: Line, vcpu: usize) {
    let number = u64::from(line.vector());
    if line.is_level() {
        interrupts::keep_active(line.vector());
    }
    REGISTERS.with(|| {
        let edge = 2_u32 << (number % 16 * 2);
        change(DISTRIBUTOR, CONFIGURATION + number / 16 * 4, |all: u32| {
            if line.is_level() { all & !edge } else { all | edge }
        });
        change(DISTRIBUTOR, PRIORITY + number, |_: u8| MIDDLE);
        // The affinity of vCPU n is n.
        change(DISTRIBUTOR, ROUTE + number * 8, |_: u64| vcpu as u64);
        // Ones alone have an effect.
        change(DISTRIBUTOR, ENABLE + number / 32 * 4, |_: u32| 1 << (number % 32));
    });
}

/// Ends an interrupt that was left active.
pub(crate) fn deactivate(vector: u8) {
    // SAFETY: ICC_DIR_EL1; no interrupt is lost, as the handler has counted it.
    unsafe { asm!("msr S3_0_C12_C11_1, {:x}", "isb", in(reg) u64::from(vector), options(nostack)) };
}

/// Wakes the other vCPUs, if there are any.
pub(crate) fn wake_others(vcpus: usize) {
    if vcpus > 1 {
        // SAFETY: ICC_SGI1R_EL1, after what the others are woken for.
        unsafe {
            asm!("dsb ish", "msr S3_0_C12_C11_5, {}", "isb", in(reg) WAKE_OTHERS, options(nostack));
        }
    }
}

/// Sleeps from interrupt to interrupt until `so` holds.
pub(crate) fn sleep_until(so: impl Fn() -> bool) {
    loop {
        // SAFETY: an interrupt that comes between check and sleep must end the sleep.
        unsafe { asm!("msr daifset, #2", options(nostack)) };
        let over = so();
        if !over {
            // SAFETY: ends with an interrupt, masked or not.
            unsafe { asm!("dsb sy", "wfi", options(nostack)) };
        }
        // SAFETY: restores the previous state; what has come is handled here.
        unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) };
        if over {
            return;
        }
    }
}

/// Stops this vCPU for good.
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: nothing wakes it, as intended.
        unsafe { asm!("msr daifset, #0xf", "wfi", options(nostack)) };
    }
}
