//! ABI structs and numbers of the kernel and Xen, each beside its source, without logic.
//!
//! The layouts are those of 64-bit little-endian Linux, on x86 and Arm alike. The two differ in the
//! interrupts that Xen supports, which Xen reports itself (`EOPNOTSUPP`).

pub(super) mod evtchn;
pub(super) mod hypercall;
pub(super) mod privcmd;
pub(super) mod xenstore;

use rustix::ioctl::{Direction, Opcode, opcode};

/// `_IOC(_IOC_NONE, group, number, sizeof(A))`: Xen's drivers encode no direction.
const fn number<A>(group: u8, number: u8) -> Opcode {
    opcode::from_components(Direction::None, group, number, size_of::<A>())
}
