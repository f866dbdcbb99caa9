//! 64-bit Arm, as a guest of Xen with a GICv3.

pub(crate) mod access;
mod boot;
mod device_tree;
mod gic;
pub(crate) mod hypercall;
pub(crate) mod interrupts;
mod library;
mod processors;
pub(crate) mod shared_info;

use xen_eventfd_guest_script::Line;

pub(crate) use access::debug_byte;
pub(crate) use device_tree::command_line;
pub(crate) use gic::{connect as connect_line, sleep_until, stop, wake_others};
pub(crate) use processors::start as start_vcpu;

/// Has the SPI of this number raise an interrupt, on this vCPU: Xen gives a guest no MSIs.
pub(crate) fn expect_message(vector: u8, vcpu: usize) {
    connect_line(Line::Spi { number: vector, level: false }, vcpu);
}

/// Readies this vCPU for interrupts.
///
/// # Safety
///
/// Called once on each vCPU, with its own number; on the first one before the others are started.
pub(crate) unsafe fn prepare(vcpu: usize) {
    // SAFETY: by the caller's contract, and no interrupt is enabled yet.
    unsafe { interrupts::load(vcpu) };
    gic::enable(vcpu);
}
