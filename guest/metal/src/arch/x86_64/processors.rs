//! The other vCPUs: started in long mode, with the first one's page tables and a stack of their own.

use super::{boot, hypercall};
use crate::hypercall::Refused;

const VCPU_OP: u64 = 24;
const INITIALISE: u64 = 0;
const UP: u64 = 1;

/// `struct vcpu_hvm_context` in 64-bit mode (public/hvm/hvm_vcpu.h).
#[repr(C)]
#[derive(Default)]
struct Context {
    mode: u32,
    pad: u32,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rbx: u64,
    rsp: u64,
    rbp: u64,
    rsi: u64,
    rdi: u64,
    rip: u64,
    rflags: u64,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    /// The 32-bit variant of the union is longer.
    rest: [u64; 4],
}

/// Starts `vcpu` at `entry`, which gets its number.
///
/// # Safety
///
/// `vcpu` is less than `MAX_VCPUS`, is not started yet, and everything that it uses is ready.
pub(crate) unsafe fn start(vcpu: usize, entry: extern "C" fn(usize) -> !) -> Result<(), Refused> {
    let context = Context {
        mode: 1,
        // As after a call: a return address below an aligned stack.
        rsp: boot::stack_top(vcpu) - 8,
        rdi: vcpu as u64,
        rip: entry as usize as u64,
        rflags: 2,
        cr0: boot::CR0,
        cr3: boot::page_tables(),
        cr4: boot::CR4,
        efer: boot::EFER,
        ..Context::default()
    };
    let context = (&raw const context) as u64;
    // SAFETY: Xen copies the context, which is what this command takes.
    unsafe { hypercall::call(VCPU_OP, INITIALISE, vcpu as u64, context) }?;
    // SAFETY: initialised; everything that it uses is ready by the caller's contract.
    unsafe { hypercall::call(VCPU_OP, UP, vcpu as u64, 0) }?;
    Ok(())
}
