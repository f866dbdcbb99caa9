//! The hypercall page and the call into it.

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;

use super::msr;
use crate::hypercall::{Refused, answered};

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; 4096]>);

// SAFETY: Xen fills the page once, before any other vCPU runs; from then on it is only executed.
unsafe impl Sync for Page {}

static PAGE: Page = Page(UnsafeCell::new([0; 4096]));

/// Makes Xen fill the page, on the first vCPU, before the first hypercall.
pub(crate) fn install() -> Result<(), &'static str> {
    // Leaves move up by 0x100 each where Xen offers another hypervisor's interface as well.
    let base = (0x4000_0000..0x4001_0000).step_by(0x100).find(|leaf| {
        let id = __cpuid(*leaf);
        (id.ebx, id.ecx, id.edx) == (0x566e_6558, 0x6558_4d4d, 0x4d4d_566e)
    });
    let Some(base) = base else { return Err("no Xen in CPUID") };
    let register = __cpuid(base + 2).ebx;
    // SAFETY: the register that CPUID names makes Xen write to this page and nothing else.
    unsafe { msr::write(register, PAGE.0.get() as u64) };
    Ok(())
}

/// Calls with up to three operands.
///
/// # Safety
///
/// The page is installed; the operands are what hypercall `number` takes, and its effects do not touch
/// memory that the program uses.
pub(crate) unsafe fn call(number: u64, a: u64, b: u64, c: u64) -> Result<u64, Refused> {
    let entry = PAGE.0.get() as u64 + number * 32;
    let answer: i64;
    // SAFETY: the page holds one entry of 32 bytes for each hypercall; they follow this register
    // convention and keep all others.
    unsafe {
        asm!(
            "call {entry}",
            entry = in(reg) entry,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            lateout("rax") answer,
        );
    }
    answered(answer)
}
