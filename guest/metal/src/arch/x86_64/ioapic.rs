//! The I/O APIC that Xen emulates for an HVM guest, to which the lines of a PC are connected.

use xen_eventfd_guest_script::{Line, Place, Width};

use super::access;
use crate::sync::Lock;

/// Selects a register; `WINDOW` reads and writes it.
const SELECT: Place = Place::Mmio(0xfec0_0000);
const WINDOW: Place = Place::Mmio(0xfec0_0010);

/// The two registers of input 0: vector and mode, and destination.
const FIRST_INPUT: u64 = 0x10;
/// Level-triggered.
const LEVEL: u64 = 1 << 15;

/// Held for both accesses, so that no other vCPU selects a register in between.
static REGISTERS: Lock = Lock::new();

/// Routes `line` to `vcpu` with the line's vector.
pub(crate) fn connect(line: Line, vcpu: usize) {
    let register = FIRST_INPUT + 2 * u64::from(line.input());
    let how = u64::from(line.vector()) | if line.is_level() { LEVEL } else { 0 };
    // An APIC's id is twice its vCPU's number.
    let destination = (2 * vcpu as u64) << 24;
    REGISTERS.with(|| {
        write(register + 1, destination);
        write(register, how);
    });
}

fn write(register: u64, value: u64) {
    for (place, value) in [(SELECT, register), (WINDOW, value)] {
        // SAFETY: not memory of this program, whether there is such a device or not.
        let Ok(()) = unsafe { access::write(place, Width::Four, value) };
    }
}
