//! The exception vectors, faults, and the counting of interrupts.
//!
//! Handlers run on the stack of what they interrupt, which has no red zone on this architecture, and use no vector
//! register.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::gic;

/// Interrupts that are counted: the first so many.
const COUNTED: usize = 256;

/// How often each was received, on any vCPU.
static RECEIVED: [AtomicU64; COUNTED] = [const { AtomicU64::new(0) }; COUNTED];
/// How many of them were taken.
static TAKEN: [AtomicU64; COUNTED] = [const { AtomicU64::new(0) }; COUNTED];
/// Those that stay active until they are taken.
static LEVELS: [AtomicBool; COUNTED] = [const { AtomicBool::new(false) }; COUNTED];
/// The vCPUs that sleep until an interrupt is received, one bit each. The handler wakes them.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// Discards what was received on `vector`.
pub(crate) fn start_counting(vector: u8) {
    let vector = usize::from(vector);
    TAKEN[vector].store(RECEIVED[vector].load(Ordering::Acquire), Ordering::Release);
}

/// From now on, `vector` is level-triggered: it stays active from when it is received until it is taken.
pub(crate) fn keep_active(vector: u8) {
    LEVELS[usize::from(vector)].store(true, Ordering::Release);
}

/// Takes one interrupt on `vector`, if one was received.
pub(crate) fn take(vector: u8) -> bool {
    let nth = usize::from(vector);
    let next = |taken: u64| (taken < RECEIVED[nth].load(Ordering::Acquire)).then_some(taken + 1);
    let taken = TAKEN[nth].fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok();
    if taken && LEVELS[nth].load(Ordering::Acquire) {
        gic::deactivate(vector);
    }
    taken
}

/// Sleeps on `vcpu` until it takes an interrupt on `vector`.
pub(crate) fn wait(vcpu: usize, vector: u8) {
    WAITING.fetch_or(1 << vcpu, Ordering::SeqCst);
    gic::sleep_until(|| take(vector));
    WAITING.fetch_and(!(1 << vcpu), Ordering::SeqCst);
}

/// Installs the vectors.
///
/// # Safety
///
/// Called once on each vCPU, with its own number, before interrupts are enabled.
pub(crate) unsafe fn load(vcpu: usize) {
    unsafe extern "C" {
        static vectors: [u8; 2048];
    }
    let (table, bit) = ((&raw const vectors) as u64, 1_u64 << vcpu);
    // SAFETY: the table below; the other register is the handler's, for this vCPU's bit in `WAITING`.
    unsafe {
        asm!(
            "msr vbar_el1, {table}",
            "msr tpidr_el1, {bit}",
            "isb",
            table = in(reg) table,
            bit = in(reg) bit,
            options(nostack),
        );
    }
}

global_asm!(
    ".pushsection .text.vectors, \"ax\", %progbits",
    ".macro vector target",
    ".balign 128",
    "b \\target",
    ".endm",
    ".balign 2048",
    ".global vectors",
    "vectors:",
    ".rept 4",
    "vector fault_stub",
    ".endr",
    // From this program itself: exceptions, interrupts, fast interrupts, system errors.
    "vector exception_stub",
    "vector interrupt_stub",
    "vector fault_stub",
    "vector fault_stub",
    ".rept 8",
    "vector fault_stub",
    ".endr",
    // A data abort of an access that may have one goes on behind it. The access's caller has lost x0 and x1 anyway.
    "exception_stub:",
    "stp x2, x3, [sp, #-16]!",
    "mrs x2, esr_el1",
    "lsr x2, x2, #26",
    "cmp x2, #0x25",
    "b.ne 1f",
    "mrs x2, elr_el1",
    "adr x3, accesses",
    "cmp x2, x3",
    "b.lo 1f",
    "adr x3, accesses_end",
    "cmp x2, x3",
    "b.hs 1f",
    "adr x3, access_aborted",
    "msr elr_el1, x3",
    "ldp x2, x3, [sp], #16",
    "eret",
    "1:",
    "fault_stub:",
    "mrs x1, esr_el1",
    "lsr x0, x1, #26",
    "mrs x2, elr_el1",
    "mrs x3, far_el1",
    "mov x4, sp",
    "and x4, x4, #-16",
    "mov sp, x4",
    "bl {fault}",
    "brk #0",
    "interrupt_stub:",
    "stp x0, x1, [sp, #-32]!",
    "stp x2, x3, [sp, #16]",
    // ICC_IAR1_EL1
    "mrs x0, S3_0_C12_C12_0",
    "cmp w0, #1020",
    "b.hs 4f",
    // ICC_EOIR1_EL1: only the priority is dropped.
    "msr S3_0_C12_C12_1, x0",
    "cmp w0, #{counted}",
    "b.hs 2f",
    "adrp x1, {received}",
    "add x1, x1, :lo12:{received}",
    "add x1, x1, x0, lsl #3",
    "1:",
    "ldxr x2, [x1]",
    "add x2, x2, #1",
    "stlxr w3, x2, [x1]",
    "cbnz w3, 1b",
    // A level-triggered one stays active until it is taken, or the line that is up would raise it again.
    "adrp x1, {levels}",
    "add x1, x1, :lo12:{levels}",
    "ldrb w2, [x1, x0]",
    "cbnz w2, 3f",
    "2:",
    // ICC_DIR_EL1
    "msr S3_0_C12_C11_1, x0",
    "3:",
    // Wakes the waiting vCPUs, except this one, unless this is the wake interrupt itself.
    "cbz x0, 4f",
    "dsb ish",
    "adrp x1, {waiting}",
    "ldr w2, [x1, :lo12:{waiting}]",
    "mrs x3, tpidr_el1",
    "bics xzr, x2, x3",
    "b.eq 4f",
    "mov x2, #{others}",
    // ICC_SGI1R_EL1
    "msr S3_0_C12_C11_5, x2",
    "4:",
    "isb",
    "ldp x2, x3, [sp, #16]",
    "ldp x0, x1, [sp], #32",
    "eret",
    ".popsection",
    fault = sym crate::fault,
    counted = const COUNTED,
    received = sym RECEIVED,
    levels = sym LEVELS,
    waiting = sym WAITING,
    others = const gic::WAKE_OTHERS,
);
