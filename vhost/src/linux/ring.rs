//! How a ring of the kernel's vhost is set up, whatever its device.

use super::door::event_fd;
use super::failed;
use crate::{Error, Queue, Result};
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use vhost::{VhostBackend, VringConfigData};

/// Sets a ring up. The kernel does not serve it meanwhile. `eventfds` are for kicks, calls and errors.
pub(super) fn set_up(
    vhost: &impl VhostBackend,
    ring: usize,
    queue: &Queue,
    eventfds: [BorrowedFd<'_>; 3],
) -> Result<()> {
    let place = VringConfigData {
        queue_max_size: queue.size,
        queue_size: queue.size,
        flags: 0,
        desc_table_addr: queue.descriptors,
        used_ring_addr: queue.used,
        avail_ring_addr: queue.available,
        log_addr: None,
    };
    let step = |name: &'static str| move |error: vhost::Error| failed(name, &error);
    let descriptor = |error: std::io::Error| failed("SET_VRING", &vhost::Error::IOError(error));
    let [kick, call, errors] = eventfds.map(event_fd);
    vhost.set_vring_num(ring, queue.size).map_err(step("SET_VRING_NUM"))?;
    vhost.set_vring_base(ring, queue.base).map_err(step("SET_VRING_BASE"))?;
    vhost.set_vring_addr(ring, &place).map_err(step("SET_VRING_ADDR"))?;
    vhost.set_vring_err(ring, &errors.map_err(descriptor)?).map_err(step("SET_VRING_ERR"))?;
    vhost.set_vring_call(ring, &call.map_err(descriptor)?).map_err(step("SET_VRING_CALL"))?;
    vhost.set_vring_kick(ring, &kick.map_err(descriptor)?).map_err(step("SET_VRING_KICK"))
}

/// Gives a ring another eventfd for kicks.
pub(super) fn set_kick(vhost: &impl VhostBackend, ring: usize, kick: BorrowedFd<'_>) -> Result<()> {
    event_fd(kick)
        .map_err(vhost::Error::IOError)
        .and_then(|kick| vhost.set_vring_kick(ring, &kick))
        .map_err(|error| failed("SET_VRING_KICK", &error))
}

/// Gives a ring another eventfd for calls.
pub(super) fn set_call(vhost: &impl VhostBackend, ring: usize, call: BorrowedFd<'_>) -> Result<()> {
    event_fd(call)
        .map_err(vhost::Error::IOError)
        .and_then(|call| vhost.set_vring_call(ring, &call))
        .map_err(|error| failed("SET_VRING_CALL", &error))
}

/// Where a ring that is not served any more goes on.
pub(super) fn base(vhost: &impl VhostBackend, ring: usize) -> Result<u16> {
    let request = "GET_VRING_BASE";
    let base = vhost.get_vring_base(ring).map_err(|error| failed(request, &error))?;
    // Of a split queue it is an index of 16 bits.
    u16::try_from(base).map_err(|_| Error::Kernel { request, errno: Errno::OVERFLOW })
}
