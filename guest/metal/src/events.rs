//! Event channels: pending bits in the page that Xen shares with the guest.
//!
//! There are no upcalls: a vCPU that waits polls, and Xen wakes it whatever the mask bits are.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch::shared_info::{self, FRAME, VcpuInfo};
use crate::hypercall::{self, Operation, Refused};
use crate::xen;

/// The parts of `struct shared_info` up to the pending bits.
#[repr(C)]
struct SharedInfo {
    vcpus: [VcpuInfo; shared_info::VCPUS],
    pending: [AtomicU64; 64],
}

#[repr(C)]
struct AddToPhysmap {
    domid: u16,
    size: u16,
    space: u32,
    index: u64,
    frame: u64,
}
// SAFETY: `struct xen_add_to_physmap`.
unsafe impl Operation for AddToPhysmap {
    const NUMBER: u64 = 12;
    const COMMAND: u64 = 7;
}

/// The guest's event channels.
#[derive(Clone, Copy)]
pub(crate) struct Events(&'static SharedInfo);

impl Events {
    /// Maps the shared page.
    pub(crate) fn map() -> Result<Self, Refused> {
        // Space 0, index 0: the shared page.
        let mut add = AddToPhysmap { domid: xen::SELF, size: 0, space: 0, index: 0, frame: FRAME };
        // SAFETY: nothing of this program is at that frame.
        unsafe { hypercall::perform(&mut add) }?;
        let page = (FRAME << 12) as *const SharedInfo;
        // SAFETY: mapped from now on; the fields in use are shared with Xen, hence atomics.
        Ok(Self(unsafe { &*page }))
    }

    /// One reading of that vCPU's counter, in ticks, and of Xen's clock, in nanoseconds since its start.
    pub(crate) fn clock(self, vcpu: usize) -> (u64, u64) {
        shared_info::clock(&self.0.vcpus, vcpu)
    }

    /// Takes the event that is pending on `port`, if there is one.
    pub(crate) fn take(self, port: u32) -> bool {
        let bit = 1 << (port % 64);
        let word = usize::try_from(port / 64).ok().and_then(|word| self.0.pending.get(word));
        // A plain load first: this runs in loops.
        word.is_some_and(|word| {
            word.load(Ordering::Relaxed) & bit != 0
                && word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
        })
    }

    /// Sleeps until an event on `port` is taken.
    pub(crate) fn wait(self, port: u32) {
        while !self.take(port) {
            xen::poll(port);
        }
    }
}
