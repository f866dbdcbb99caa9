//! The requests of the privcmd ABI: Linux's `include/uapi/xen/privcmd.h`, since 6.8. The core has
//! their structs.

use rustix::ioctl::{Opcode, opcode};
use xen_eventfd_core::wire::privcmd::{IoEventFd, IrqFd};

/// `IOCTL_PRIVCMD_IRQFD`.
pub(super) const IRQFD: Opcode = opcode::write::<[u8; IrqFd::SIZE]>(b'P', 8);
/// `IOCTL_PRIVCMD_IOEVENTFD`.
pub(super) const IOEVENTFD: Opcode = opcode::write::<[u8; IoEventFd::SIZE]>(b'P', 9);

const _: () = assert!(IRQFD == 0x4018_5008 && IOEVENTFD == 0x4030_5009);
