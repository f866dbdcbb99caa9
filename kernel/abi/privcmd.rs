// SPDX-License-Identifier: GPL-2.0

//! The requests of `<xen/privcmd.h>` that we take. What may be in them is the core's.

use super::copy;
use crate::protocol::irq::IrqOp;
use crate::protocol::wire::privcmd::{IoEventFd, IrqFd, MAX_DM_OP};
use crate::protocol::{DomId, Doorbell};
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

const MAGIC: u32 = b'P' as u32;
/// `IOCTL_PRIVCMD_RESTRICT`: `_IOC(_IOC_NONE, 'P', 6, sizeof(domid_t))`.
pub(crate) const RESTRICT: u32 = kernel::ioctl::_IO(MAGIC, 6) | (2 << 16);
/// `IOCTL_PRIVCMD_IRQFD`.
pub(crate) const IRQFD: u32 = kernel::ioctl::_IOW::<[u8; IrqFd::SIZE]>(MAGIC, 8);
/// `IOCTL_PRIVCMD_IOEVENTFD`.
pub(crate) const IOEVENTFD: u32 = kernel::ioctl::_IOW::<[u8; IoEventFd::SIZE]>(MAGIC, 9);

/// The domain that [`RESTRICT`] names.
pub(crate) fn restrict(arg: UserPtr) -> Result<DomId> {
    copy(arg).map(|dom| DomId(u16::from_ne_bytes(dom)))
}

pub(crate) fn ioeventfd(arg: UserPtr) -> Result<IoEventFd> {
    IoEventFd::parse(&copy(arg)?).map_err(|_| EINVAL)
}

pub(crate) fn irqfd(arg: UserPtr) -> Result<IrqFd> {
    IrqFd::parse(&copy(arg)?).map_err(|_| EINVAL)
}

/// What a request assigns.
pub(crate) struct Assignment {
    pub(crate) doorbell: Doorbell,
    /// Whether what its key points at can be read; matters if the key is new.
    pub(crate) readable: Result,
}

/// What a request assigns, if it does not take something back. What a caller has to be refused for by
/// the request alone comes first, so that no more is read than the ports of an accepted number of
/// vCPUs.
pub(crate) fn assignment(request: &IoEventFd) -> Result<Option<Assignment>> {
    if request.deassign {
        return Ok(None);
    }
    let doorbell = request.doorbell().map_err(|_| EINVAL)?;
    Ok(Some(Assignment { doorbell, readable: check_key(request) }))
}

/// Whether what a new key points at can be read: the page's first slot, and a port for each vCPU.
/// Nothing of it is used.
fn check_key(request: &IoEventFd) -> Result {
    copy::<32>(UserPtr::from_addr(request.ioreq as usize))?;
    let ports = UserPtr::from_addr(request.ports as usize);
    let len = (request.vcpus as usize).saturating_mul(size_of::<u32>());
    let mut reader = UserSlice::new(ports, len).reader();
    let mut chunk = [0; 256];
    while !reader.is_empty() {
        let len = reader.len().min(chunk.len());
        reader.read_slice(chunk.get_mut(..len).ok_or(EINVAL)?)?;
    }
    Ok(())
}

/// The operation that a request carries, as bytes.
pub(crate) struct DmOpBytes {
    bytes: [u8; MAX_DM_OP],
    len: usize,
}

impl DmOpBytes {
    /// Copies it. A request that takes something back has none: the patch does not look at it there.
    pub(crate) fn copy(request: &IrqFd) -> Result<Option<Self>> {
        if request.deassign {
            return Ok(None);
        }
        let mut bytes = [0; MAX_DM_OP];
        let len = request.size as usize;
        let known = bytes.get_mut(..len).ok_or(EINVAL)?;
        let dm_op = UserPtr::from_addr(request.dm_op as usize);
        UserSlice::new(dm_op, len).reader().read_slice(known)?;
        Ok(Some(Self { bytes, len }))
    }

    pub(crate) fn operation(&self) -> Result<IrqOp> {
        let bytes = self.bytes.get(..self.len).unwrap_or_default();
        IrqOp::parse(bytes).map_err(|_| EINVAL)
    }
}
