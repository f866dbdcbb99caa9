//! The page that Xen shares with the guest, as x86 lays it out.

use core::sync::atomic::{AtomicU64, Ordering};

/// The frame of the shared page: a hole, beside the pages that Xen's tools use.
pub(crate) const FRAME: u64 = 0xfefe0;
/// How many vCPUs have their part in it.
pub(crate) const VCPUS: usize = 32;

/// `struct vcpu_info`, of which only the clock is used.
#[repr(C)]
pub(crate) struct VcpuInfo {
    events: [u64; 4],
    /// Odd while the two fields below change; its upper half is padding.
    version: AtomicU64,
    ticks: AtomicU64,
    time: AtomicU64,
    scale: u64,
}

/// One reading of that vCPU's counter, in ticks, and of Xen's clock, in nanoseconds since its start.
pub(crate) fn clock(vcpus: &[VcpuInfo; VCPUS], vcpu: usize) -> (u64, u64) {
    let Some(info) = vcpus.get(vcpu) else { return (0, 0) };
    loop {
        let before = info.version.load(Ordering::Acquire);
        let moment = (info.ticks.load(Ordering::Acquire), info.time.load(Ordering::Acquire));
        if before & 1 == 0 && info.version.load(Ordering::Acquire) == before {
            return moment;
        }
    }
}
