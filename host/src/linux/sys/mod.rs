//! What the kernel and Xen understand: structs and numbers, each beside its source, and no logic.
//!
//! The layouts are those of 64-bit little-endian Linux, on x86 and Arm alike. What differs between
//! the two is which interrupts Xen knows, and it says so itself (`EOPNOTSUPP`).

pub(super) mod dm_op;
pub(super) mod eventfd;
pub(super) mod evtchn;
pub(super) mod hypercall;
pub(super) mod privcmd;
pub(super) mod privcmd_abi;
pub(super) mod xenstore;

use rustix::ioctl::{Direction, Opcode, opcode};

/// `_IOC(_IOC_NONE, group, number, sizeof(A))`: Xen's drivers give no direction.
const fn number<A>(group: u8, number: u8) -> Opcode {
    opcode::from_components(Direction::None, group, number, size_of::<A>())
}
