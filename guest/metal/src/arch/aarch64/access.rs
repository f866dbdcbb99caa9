//! Single accesses of an exact width, as the device model must see them.
//!
//! Xen answers one that no device model claims with a data abort. Each load and store is an instruction of its own
//! in a range that `interrupts` knows; there an abort is an answer, and all else is a fault. An access that is not aligned
//! goes through a mapping as memory ([`boot`](super::boot)), as to devices there is none.

use core::arch::{asm, global_asm};

use xen_eventfd_guest_script::{MAX_REP_BYTES, Place, Width};

use super::boot::AS_MEMORY;

/// An access has ended in a data abort.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aborted;

/// What the routines return.
#[repr(C)]
struct Answer {
    value: u64,
    aborted: u64,
}

unsafe extern "C" {
    fn load_1(at: u64) -> Answer;
    fn load_2(at: u64) -> Answer;
    fn load_4(at: u64) -> Answer;
    fn load_8(at: u64) -> Answer;
    fn store_1(at: u64, value: u64) -> Answer;
    fn store_2(at: u64, value: u64) -> Answer;
    fn store_4(at: u64, value: u64) -> Answer;
    fn store_8(at: u64, value: u64) -> Answer;
    fn update_1(at: u64, value: u64) -> Answer;
    fn update_2(at: u64, value: u64) -> Answer;
    fn update_4(at: u64, value: u64) -> Answer;
    fn update_8(at: u64, value: u64) -> Answer;
    fn pair_4(at: u64, value: u64) -> Answer;
    fn pair_8(at: u64, value: u64) -> Answer;
}

// They change no registers but those of the answer.
global_asm!(
    ".pushsection .text.access, \"ax\", %progbits",
    ".macro access name, instruction:vararg",
    ".global \\name",
    "\\name:",
    "\\instruction",
    "mov x1, xzr",
    "ret",
    ".endm",
    ".global accesses, accesses_end, access_aborted",
    "accesses:",
    "access load_1, ldrb w0, [x0]",
    "access load_2, ldrh w0, [x0]",
    "access load_4, ldr w0, [x0]",
    "access load_8, ldr x0, [x0]",
    "access store_1, strb w1, [x0]",
    "access store_2, strh w1, [x0]",
    "access store_4, str w1, [x0]",
    "access store_8, str x1, [x0]",
    // The processor reports no registers of these: Xen reads the instruction. It knows the first four.
    "access update_1, strb w1, [x0], #1",
    "access update_2, strh w1, [x0], #2",
    "access update_4, str w1, [x0], #4",
    "access update_8, str x1, [x0], #8",
    "access pair_4, stp w1, w1, [x0]",
    "access pair_8, stp x1, x1, [x0]",
    "accesses_end:",
    "access_aborted:",
    "mov x0, #-1",
    "mov x1, #1",
    "ret",
    ".popsection",
);

/// Where a vCPU accesses a place.
fn address(place: Place, width: Width) -> u64 {
    let Place::Mmio(at) = place else { no_ports() };
    let at = u64::from(at);
    if at.is_multiple_of(width.bytes()) { at } else { at + AS_MEMORY }
}

/// Whether it came through.
fn done(answer: Answer) -> Result<u64, Aborted> {
    if answer.aborted == 0 { Ok(answer.value) } else { Err(Aborted) }
}

/// Reached by a script that was written for another architecture.
fn no_ports() -> ! {
    panic!("an Arm guest has no I/O ports")
}

/// What stands in for a source of string instructions, which this architecture does not have.
pub(crate) struct Source;

impl Source {
    pub(crate) const fn new() -> Self {
        Self
    }
}

/// One store.
///
/// # Safety
///
/// The place is not memory of this program.
pub(crate) unsafe fn write(place: Place, width: Width, value: u64) -> Result<(), Aborted> {
    let store = match width {
        Width::One => store_1,
        Width::Two => store_2,
        Width::Four => store_4,
        Width::Eight => store_8,
    };
    // SAFETY: by the caller's contract.
    done(unsafe { store(address(place, width), value) }).map(drop)
}

/// One load.
///
/// # Safety
///
/// The place is not memory that another vCPU writes.
pub(crate) unsafe fn read(place: Place, width: Width) -> Result<u64, Aborted> {
    let load = match width {
        Width::One => load_1,
        Width::Two => load_2,
        Width::Four => load_4,
        Width::Eight => load_8,
    };
    // SAFETY: by the caller's contract.
    done(unsafe { load(address(place, width)) })
}

/// As many stores, upwards, each of which increments its address.
///
/// # Safety
///
/// The place, to the last of `count` elements, is not memory of this program; and they are no
/// more than [`MAX_REP_BYTES`].
pub(crate) unsafe fn rep(
    _source: &mut Source,
    place: Place,
    width: Width,
    value: u64,
    count: u64,
) -> Result<(), Aborted> {
    let store = match width {
        Width::One => update_1,
        Width::Two => update_2,
        Width::Four => update_4,
        Width::Eight => update_8,
    };
    let mut at = address(place, width);
    for _ in 0..count.min(MAX_REP_BYTES) {
        // SAFETY: by the caller's contract.
        at = done(unsafe { store(at, value) })?;
    }
    Ok(())
}

/// One store of a pair.
///
/// # Safety
///
/// The place, to the second of the pair, is not memory of this program.
pub(crate) unsafe fn pair(place: Place, width: Width, value: u64) -> Result<(), Aborted> {
    let store = match width {
        Width::Eight => pair_8,
        _ => pair_4,
    };
    // SAFETY: by the caller's contract.
    done(unsafe { store(address(place, width), value) }).map(drop)
}

/// The counter, ordered after all earlier instructions.
pub(crate) fn ticks() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nostack, preserves_flags)) };
    ticks
}

/// That counter, and the machine's own, which has no offset of this guest.
pub(crate) fn counters() -> (u64, u64) {
    let (ticks, machine): (u64, u64);
    // SAFETY: reads two counters; Xen lets guests read the physical one (`CNTHCTL_EL2.EL1PCTEN`).
    unsafe {
        asm!("isb", "mrs {}, cntvct_el0", "mrs {}, cntpct_el0", out(reg) ticks, out(reg) machine,
            options(nostack, preserves_flags))
    };
    (ticks, machine)
}

/// How fast the counter goes.
pub(crate) fn ticks_in_a_second() -> u64 {
    let ticks: u64;
    // SAFETY: reads a register without effects.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    ticks
}

/// One pause instruction.
pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Writes to Xen's console, by a hypercall that needs nothing but the byte.
pub(crate) fn debug_byte(byte: u8) {
    const CONSOLE_IO: u64 = 18;
    const WRITE: u64 = 0;
    // SAFETY: Xen reads one byte there. Refused where Xen was not built for debugging: then the byte is lost.
    let _ = unsafe { super::hypercall::call(CONSOLE_IO, WRITE, 1, (&raw const byte) as u64) };
}
