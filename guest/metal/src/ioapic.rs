//! The I/O APIC that Xen emulates for an HVM guest: where the lines of a PC end.

use xen_eventfd_guest_script::{Line, Place, Width};

use crate::access;
use crate::sync::Lock;

/// Takes the number of a register; the other takes or gives its value.
const SELECT: Place = Place::Mmio(0xfec0_0000);
const WINDOW: Place = Place::Mmio(0xfec0_0010);

/// The two registers of input 0: what it sends and how, and to whom.
const FIRST_INPUT: u64 = 0x10;
/// Once for each time that it is up, until the interrupt's end finds it down.
const LEVEL: u64 = 1 << 15;

/// Between the two accesses of one vCPU there is none of another's.
static REGISTERS: Lock = Lock::new();

/// Has `line` interrupt `vcpu` with its vector.
pub(crate) fn connect(line: Line, vcpu: usize) {
    let register = FIRST_INPUT + 2 * u64::from(line.input());
    let how = u64::from(line.vector()) | if line.is_level() { LEVEL } else { 0 };
    // An APIC's number is twice its vCPU's.
    let whom = (2 * vcpu as u64) << 24;
    REGISTERS.with(|| {
        write(register + 1, whom);
        write(register, how);
    });
}

fn write(register: u64, value: u64) {
    for (place, value) in [(SELECT, register), (WINDOW, value)] {
        // SAFETY: no memory of this program, whether there is such a device or not.
        unsafe { access::write(place, Width::Four, value) };
    }
}
