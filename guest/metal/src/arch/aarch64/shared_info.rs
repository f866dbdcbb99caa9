//! The page that Xen shares with the guest, as Arm lays it out.

use super::access;

/// The frame of the shared page: behind those that Xen's tools use, in memory that is no RAM.
pub(crate) const FRAME: u64 = 0x39ff0;
/// How many vCPUs have their part in it.
pub(crate) const VCPUS: usize = 1;

/// `struct vcpu_info`, of which nothing is used.
#[repr(C)]
pub(crate) struct VcpuInfo([u64; 6]);

/// One reading of the guest's counter, in ticks, and of the machine's, in nanoseconds: Xen gives each domain's an
/// offset, and has every domain read the other, which is the only clock that they share on Arm.
pub(crate) fn clock(_vcpus: &[VcpuInfo; VCPUS], _vcpu: usize) -> (u64, u64) {
    let (ticks, machine) = access::counters();
    let nanoseconds =
        u128::from(machine) * 1_000_000_000 / u128::from(access::ticks_in_a_second().max(1));
    (ticks, u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
