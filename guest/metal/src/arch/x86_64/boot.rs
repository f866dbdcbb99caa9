//! From Xen's 32-bit entry to [`crate::main`] in long mode.
//!
//! Xen enters with protected mode, no paging, flat segments and the address of `start_info` in
//! `ebx`. The first 4 GiB are mapped one to one, RAM or not, by tables that the assembler fills.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use xen_eventfd_guest_script::MAX_VCPUS;

/// Room for the parsed script, measurements and calls.
pub(crate) const STACK_SIZE: usize = 128 * 1024;

/// PAE, and SSE with its exceptions, which Rust code uses.
pub(crate) const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// Protected mode, paging, write protection, and a floating point unit that faults as such.
pub(crate) const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// Long mode.
pub(crate) const EFER: u64 = 1 << 8;

/// One stack for each vCPU. Only their addresses are ever taken.
#[repr(C, align(16))]
pub(crate) struct Stacks(UnsafeCell<[[u8; STACK_SIZE]; MAX_VCPUS]>);

// SAFETY: nothing reads or writes through this value; each vCPU uses its own part as its stack.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_SIZE]; MAX_VCPUS]));

/// The top of the stack of `vcpu`, which is less than [`MAX_VCPUS`].
pub(crate) fn stack_top(vcpu: usize) -> u64 {
    (STACKS.0.get() as usize + (vcpu + 1) * STACK_SIZE) as u64
}

/// The page tables that every vCPU uses.
pub(crate) fn page_tables() -> u64 {
    unsafe extern "C" {
        static pml4: [u64; 512];
    }
    (&raw const pml4) as u64
}

global_asm!(
    // XEN_ELFNOTE_PHYS32_ENTRY
    ".pushsection .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 4, 18",
    ".asciz \"Xen\"",
    ".long entry32",
    ".popsection",
    ".pushsection .data.paging, \"aw\", @progbits",
    ".balign 4096",
    ".global pml4",
    "pml4:",
    ".quad pdpt + 3",
    ".fill 511, 8, 0",
    "pdpt:",
    ".quad directories + 0x0003, directories + 0x1003, directories + 0x2003, directories + 0x3003",
    ".fill 508, 8, 0",
    // 2,048 pages of 2 MiB: present, writable, large.
    "directories:",
    ".set page, 0",
    ".rept 2048",
    ".quad (page << 21) + 0x83",
    ".set page, page + 1",
    ".endr",
    ".balign 8",
    "gdt:",
    ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "gdt_pointer:",
    ".word gdt_pointer - gdt - 1",
    ".long gdt",
    ".popsection",
    ".pushsection .text.entry, \"ax\", @progbits",
    ".code32",
    ".global entry32",
    "entry32:",
    "cld",
    "mov eax, {cr4}",
    "mov cr4, eax",
    "mov eax, offset pml4",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "mov eax, {efer}",
    "xor edx, edx",
    "wrmsr",
    "mov eax, {cr0}",
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    // A far jump to 64-bit code.
    ".byte 0xea",
    ".long entry64",
    ".word 8",
    ".code64",
    "entry64:",
    "mov eax, 16",
    "mov ss, eax",
    "mov ds, eax",
    "mov es, eax",
    "lea rsp, [{stacks} + {stack_size}]",
    "xor ebp, ebp",
    "mov edi, ebx",
    "call {main}",
    "ud2",
    ".popsection",
    cr4 = const CR4,
    efer = const EFER,
    cr0 = const CR0,
    stacks = sym STACKS,
    stack_size = const STACK_SIZE,
    main = sym crate::main,
);
