//! Descriptor tables, faults, and the counting of interrupts.
//!
//! Handlers run on stacks of their own (IST): `core` was compiled with a red zone.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use xen_eventfd_guest_script::{LEVELS, MAX_VCPUS};

use super::{apic, msr};

const CODE: u16 = 8;
const TASKS: u16 = 24;
const GS_BASE: u32 = 0xc000_0101;

/// How often each vector was received, on any vCPU.
static RECEIVED: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
/// How many of them were taken.
static TAKEN: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
/// The vCPUs that sleep until an interrupt is received, one bit each. The handler wakes them.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// Discards what was received on `vector`.
pub(crate) fn start_counting(vector: u8) {
    let vector = usize::from(vector);
    TAKEN[vector].store(RECEIVED[vector].load(Ordering::Acquire), Ordering::Release);
}

/// Takes one interrupt on `vector`, if one was received.
pub(crate) fn take(vector: u8) -> bool {
    let (level, vector) = (LEVELS.contains(&vector), usize::from(vector));
    let next = |taken: u64| (taken < RECEIVED[vector].load(Ordering::Acquire)).then_some(taken + 1);
    let taken = TAKEN[vector].fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok();
    if taken && level {
        apic::end_of_interrupt();
    }
    taken
}

/// Sleeps on `vcpu` until it takes an interrupt on `vector`.
pub(crate) fn wait(vcpu: usize, vector: u8) {
    WAITING.fetch_or(1 << vcpu, Ordering::SeqCst);
    apic::sleep_until(|| take(vector));
    WAITING.fetch_and(!(1 << vcpu), Ordering::SeqCst);
}

/// The task state segment, of which only the stacks are used.
#[repr(C, packed(4))]
#[derive(Clone, Copy)]
struct Task {
    reserved: u32,
    privileged: [u64; 3],
    reserved2: u64,
    stacks: [u64; 7],
    reserved3: u64,
    reserved4: u16,
    io_map: u16,
}

const TASK_SIZE: u16 = 104;
const _: () = assert!(size_of::<Task>() == TASK_SIZE as usize);

const HANDLER_STACK: usize = 16 * 1024;

/// The data that one vCPU's processor reads by address.
#[repr(C, align(16))]
struct Private {
    interrupt_stack: [u8; HANDLER_STACK],
    fault_stack: [u8; HANDLER_STACK],
    task: Task,
    /// Null, code, data, and the task in two halves.
    segments: [u64; 5],
    /// This vCPU's bit in `WAITING`, which the handler reads through GS.
    bit: u32,
}

#[repr(C, align(16))]
struct Gate {
    low: u64,
    high: u64,
}

struct Tables<T>(UnsafeCell<T>);

// SAFETY: each vCPU writes only its own part, and the gates are written by the first vCPU before
// the others are started (see `load`).
unsafe impl<T> Sync for Tables<T> {}

static PRIVATE: Tables<[Private; MAX_VCPUS]> = Tables(UnsafeCell::new(
    [const {
        Private {
            interrupt_stack: [0; HANDLER_STACK],
            fault_stack: [0; HANDLER_STACK],
            task: Task {
                reserved: 0,
                privileged: [0; 3],
                reserved2: 0,
                stacks: [0; 7],
                reserved3: 0,
                reserved4: 0,
                io_map: 0,
            },
            segments: [0; 5],
            bit: 0,
        }
    }; MAX_VCPUS],
));

static GATES: Tables<[Gate; 256]> =
    Tables(UnsafeCell::new([const { Gate { low: 0, high: 0 } }; 256]));

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

fn pointer<T>(table: *const T) -> Pointer {
    Pointer { limit: u16::try_from(size_of::<T>() - 1).unwrap_or(u16::MAX), base: table as u64 }
}

/// Loads segments, task and gates.
///
/// # Safety
///
/// Called once on each vCPU, with its own number, before interrupts are enabled; on the first one
/// before the others are started.
pub(crate) unsafe fn load(vcpu: usize) {
    let gates = GATES.0.get();
    if vcpu == 0 {
        // SAFETY: the only vCPU so far.
        fill(unsafe { &mut *gates });
    }
    let all = PRIVATE.0.get().cast::<Private>();
    // SAFETY: the caller's number is less than MAX_VCPUS.
    let own = unsafe { all.add(vcpu) };
    // SAFETY: no other vCPU's, by the caller's contract.
    let private = unsafe { &mut *own };
    private.bit = 1 << vcpu;
    private.task.stacks[0] = private.interrupt_stack.as_ptr_range().end as u64;
    private.task.stacks[1] = private.fault_stack.as_ptr_range().end as u64;
    private.task.io_map = TASK_SIZE;
    let task = (&raw const private.task) as u64;
    private.segments = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        u64::from(TASK_SIZE - 1)
            | (task & 0xff_ffff) << 16
            | 0x89 << 40
            | (task >> 24 & 0xff) << 56,
        task >> 32,
    ];
    let (segments, gates) = (pointer(&raw const private.segments), pointer(gates));
    // SAFETY: the selectors are those of the table that is loaded, which is as flat as the previous one.
    unsafe {
        asm!(
            "lgdt [{segments}]",
            "lidt [{gates}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov {scratch:e}, 16",
            "mov ss, {scratch:e}",
            "mov ds, {scratch:e}",
            "mov es, {scratch:e}",
            "ltr {task:x}",
            segments = in(reg) &segments,
            gates = in(reg) &gates,
            code = const CODE,
            task = in(reg) TASKS,
            scratch = out(reg) _,
        );
    }
    // SAFETY: every long mode processor has this register; only the handler uses GS.
    unsafe { msr::write(GS_BASE, (&raw const private.bit) as u64) };
}

fn fill(gates: &mut [Gate; 256]) {
    unsafe extern "C" {
        static stubs: [[u8; 16]; 256];
    }
    for (vector, gate) in gates.iter_mut().enumerate() {
        let stub = (&raw const stubs) as u64 + 16 * vector as u64;
        let stack = if vector < 32 { 2 } else { 1 };
        // Present, an interrupt gate: interrupts stay off until the handler returns.
        gate.low = (stub & 0xffff)
            | u64::from(CODE) << 16
            | stack << 32
            | 0x8e << 40
            | (stub >> 16 & 0xffff) << 48;
        gate.high = stub >> 32;
    }
}

global_asm!(
    ".pushsection .text.stubs, \"ax\", @progbits",
    ".balign 16",
    ".global stubs",
    "stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    // These vectors push an error code, the others get a zero.
    ".if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 \
        || vector == 29 || vector == 30)",
    "push 0",
    ".endif",
    "push vector",
    ".if vector < 32",
    "jmp fault_stub",
    ".else",
    "jmp interrupt_stub",
    ".endif",
    ".set vector, vector + 1",
    ".endr",
    "fault_stub:",
    "mov rdi, [rsp]",
    "mov rsi, [rsp + 8]",
    "mov rdx, [rsp + 16]",
    "mov rcx, cr2",
    "and rsp, -16",
    "cld",
    "call {fault}",
    "ud2",
    "interrupt_stub:",
    "push rax",
    "push rcx",
    "push rdx",
    "mov eax, [rsp + 24]",
    "lock inc qword ptr [{received} + 8 * rax]",
    // End of interrupt. That of a level-triggered line has to wait until it is taken: the line is up,
    // so the next interrupt would be raised at once.
    "sub eax, {first_level}",
    "cmp eax, {levels}",
    "jb 3f",
    "xor eax, eax",
    "xor edx, edx",
    "mov ecx, 0x80b",
    "wrmsr",
    "3:",
    // Wakes the waiting vCPUs, except this one, unless this is the wake vector itself.
    "cmp dword ptr [rsp + 24], 0xfe",
    "je 2f",
    "mov eax, gs:[0]",
    "not eax",
    "test eax, [{waiting}]",
    "jz 2f",
    "mov eax, 0xc40fe",
    "mov ecx, 0x830",
    "wrmsr",
    "2:",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "add rsp, 16",
    "iretq",
    ".popsection",
    fault = sym crate::fault,
    received = sym RECEIVED,
    waiting = sym WAITING,
    first_level = const *LEVELS.start(),
    levels = const *LEVELS.end() - *LEVELS.start() + 1,
);
