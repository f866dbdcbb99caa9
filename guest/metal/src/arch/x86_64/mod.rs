//! x86-64, as a PVH guest.

pub(crate) mod access;
mod apic;
mod boot;
pub(crate) mod hypercall;
pub(crate) mod interrupts;
mod ioapic;
mod library;
mod msr;
mod processors;
pub(crate) mod shared_info;
mod start_info;

pub(crate) use access::debug_byte;
pub(crate) use apic::{sleep_until, stop, wake_others};
pub(crate) use ioapic::connect as connect_line;
pub(crate) use processors::start as start_vcpu;
pub(crate) use start_info::command_line;

/// Nothing has to be done: an MSI finds the vCPU by the number of its APIC.
pub(crate) fn expect_message(_vector: u8, _vcpu: usize) {}

/// Readies this vCPU for interrupts.
///
/// # Safety
///
/// Called once on each vCPU, with its own number; on the first one before the others are started.
pub(crate) unsafe fn prepare(vcpu: usize) {
    // SAFETY: by the caller's contract, and no interrupt is enabled yet.
    unsafe { interrupts::load(vcpu) };
    apic::enable();
}
