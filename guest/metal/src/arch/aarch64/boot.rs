//! From Xen's entry to [`crate::main`] with address translation.
//!
//! Xen enters at EL1 without translation, at the start of the image, with the device tree's address in `x0`. The
//! first 4 GiB are mapped one to one by tables that the assembler fills: as memory what Xen's tools fill, as
//! device registers all else, where the tests have their doorbells. The next 4 GiB are the same once more, all as memory.

use core::arch::global_asm;
use core::cell::UnsafeCell;

use xen_eventfd_guest_script::MAX_VCPUS;

/// Room for the parsed script, measurements and calls.
pub(crate) const STACK_SIZE: usize = 128 * 1024;

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

/// Where a vCPU other than the first one starts, with the top of its stack in `x0`; below it are an argument and the
/// function that gets it.
pub(crate) fn second_entry() -> u64 {
    unsafe extern "C" {
        fn second_vcpu();
    }
    second_vcpu as *const () as u64
}

/// A block of memory: valid, attribute 1, inner shareable, accessed.
const MEMORY: u64 = 0b01 | 1 << 2 | 3 << 8 | 1 << 10;
/// A block of registers: valid, attribute 0, accessed, never executed.
const REGISTERS: u64 = 0b01 | 1 << 10 | 3 << 53;
/// All of a GiB as memory, never executed.
const DATA: u64 = MEMORY | 3 << 53;
/// Where all of it is.
pub(crate) const AS_MEMORY: u64 = 4 << 30;
/// Attribute 0: device, not gathered, not reordered, acknowledged early. Attribute 1: memory, written back.
const ATTRIBUTES: u64 = 0x04 | 0xff << 8;
/// 8 GiB of addresses, 4 KiB pages, tables in inner shareable memory that is written back, no second half.
const TRANSLATION: u64 = 31 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;
/// Translation, caches for data and instructions.
const CONTROL: u64 = 1 | 1 << 2 | 1 << 12;

/// Blocks of 2 MiB in the first GiB: before, of, and after what Xen's tools share with the guest
/// (`GUEST_MAGIC_BASE`, public/arch-arm.h).
const SHARED: [u64; 3] = [0x3900_0000 >> 21, 8, 512 - 8 - (0x3900_0000 >> 21)];
/// The same of the second GiB, where the guest's memory begins.
const OWN: [u64; 2] = [8, 512 - 8];

global_asm!(
    ".pushsection .data.paging, \"aw\", %progbits",
    ".balign 4096",
    "gibibytes:",
    ".quad first_gibibyte + 3, second_gibibyte + 3",
    ".quad {registers} + (2 << 30), {registers} + (3 << 30)",
    ".quad {data}, {data} + (1 << 30), {data} + (2 << 30), {data} + (3 << 30)",
    ".balign 4096",
    "first_gibibyte:",
    ".set block, 0",
    ".rept {before}",
    ".quad {registers} + (block << 21)",
    ".set block, block + 1",
    ".endr",
    ".rept {shared}",
    ".quad {memory} + (block << 21)",
    ".set block, block + 1",
    ".endr",
    ".rept {after}",
    ".quad {registers} + (block << 21)",
    ".set block, block + 1",
    ".endr",
    "second_gibibyte:",
    ".rept {own}",
    ".quad {memory} + (block << 21)",
    ".set block, block + 1",
    ".endr",
    ".rept {other}",
    ".quad {registers} + (block << 21)",
    ".set block, block + 1",
    ".endr",
    ".popsection",
    ".pushsection .text.entry, \"ax\", %progbits",
    // The head of an arm64 Image, as Xen's tools know it.
    ".global entry",
    "entry:",
    "b first_vcpu",
    ".long 0",
    ".quad 0, image_end - entry, 0xa, 0, 0, 0",
    ".ascii \"ARM\\x64\"",
    ".long 0",
    "first_vcpu:",
    "mov x19, x0",
    "bl translate",
    "ldr x0, =bss_begin",
    "ldr x1, =bss_end",
    "1:",
    "cmp x0, x1",
    "b.hs 2f",
    "stp xzr, xzr, [x0], #16",
    "b 1b",
    "2:",
    "ldr x0, =({stacks} + {stack_size})",
    "mov sp, x0",
    "mov x29, xzr",
    "mov x30, xzr",
    "mov x0, x19",
    "b {main}",
    ".global second_vcpu",
    "second_vcpu:",
    "mov x19, x0",
    "bl translate",
    "mov sp, x19",
    "mov x29, xzr",
    "mov x30, xzr",
    "ldp x0, x1, [x19, #-16]",
    "br x1",
    // Switches translation on, and the vector registers.
    "translate:",
    "ldr x1, =gibibytes",
    "msr ttbr0_el1, x1",
    "ldr x1, ={attributes}",
    "msr mair_el1, x1",
    "ldr x1, ={translation}",
    "msr tcr_el1, x1",
    "mov x1, #(3 << 20)",
    "msr cpacr_el1, x1",
    "isb",
    "tlbi vmalle1",
    "dsb nsh",
    "isb",
    "mrs x1, sctlr_el1",
    "ldr x2, ={control}",
    "orr x1, x1, x2",
    "msr sctlr_el1, x1",
    "isb",
    "ret",
    ".ltorg",
    ".popsection",
    memory = const MEMORY,
    registers = const REGISTERS,
    data = const DATA,
    before = const SHARED[0],
    shared = const SHARED[1],
    after = const SHARED[2],
    own = const OWN[0],
    other = const OWN[1],
    attributes = const ATTRIBUTES,
    translation = const TRANSLATION,
    control = const CONTROL,
    stacks = sym STACKS,
    stack_size = const STACK_SIZE,
    main = sym crate::main,
);
