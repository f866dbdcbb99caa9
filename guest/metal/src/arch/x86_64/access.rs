//! Single accesses of an exact width, as the device model must see them.

use core::arch::asm;
use core::convert::Infallible;

use xen_eventfd_guest_script::{MAX_REP_BYTES, Place, Width};

/// No access is: one that no device model claims reads ones, or is lost.
pub(crate) type Aborted = Infallible;

const SOURCE: usize = 4096;
const _: () = assert!(SOURCE as u64 == MAX_REP_BYTES);

/// A page filled with one value: the source of `rep outs`. Xen makes two requests of one whose source
/// crosses a page.
#[repr(C, align(4096))]
pub(crate) struct Source([u8; SOURCE]);

const _: () = assert!(align_of::<Source>() == SOURCE);

impl Source {
    pub(crate) const fn new() -> Self {
        Self([0; SOURCE])
    }

    fn fill(&mut self, width: Width, value: u64) -> *const u8 {
        let bytes = value.to_le_bytes();
        let element = match width {
            Width::One => &bytes[..1],
            Width::Two => &bytes[..2],
            Width::Four => &bytes[..4],
            Width::Eight => &bytes[..],
        };
        for slot in self.0.chunks_exact_mut(element.len()) {
            slot.copy_from_slice(element);
        }
        self.0.as_ptr()
    }
}

/// One store or `out`.
///
/// # Safety
///
/// An MMIO place is not memory of this program.
pub(crate) unsafe fn write(place: Place, width: Width, value: u64) -> Result<(), Aborted> {
    macro_rules! one {
        ($instruction:literal, $($operand:tt)*) => {
            // SAFETY: by the caller's contract; a port is not memory.
            unsafe { asm!($instruction, $($operand)*, options(nostack, preserves_flags)) }
        };
    }
    match (place, width) {
        (Place::Mmio(at), Width::One) => {
            one!("mov [{:r}], {:l}", in(reg) u64::from(at), in(reg) value);
        }
        (Place::Mmio(at), Width::Two) => {
            one!("mov [{:r}], {:x}", in(reg) u64::from(at), in(reg) value);
        }
        (Place::Mmio(at), Width::Four) => {
            one!("mov [{:r}], {:e}", in(reg) u64::from(at), in(reg) value);
        }
        (Place::Mmio(at), Width::Eight) => {
            one!("mov [{:r}], {:r}", in(reg) u64::from(at), in(reg) value);
        }
        (Place::Pio(port), Width::One) => one!("out dx, al", in("dx") port, in("rax") value),
        (Place::Pio(port), Width::Two) => one!("out dx, ax", in("dx") port, in("rax") value),
        (Place::Pio(port), _) => one!("out dx, eax", in("dx") port, in("rax") value),
    }
    Ok(())
}

/// One load or `in`.
///
/// # Safety
///
/// An MMIO place is not memory that another vCPU writes.
pub(crate) unsafe fn read(place: Place, width: Width) -> Result<u64, Aborted> {
    let value: u64;
    macro_rules! one {
        ($instruction:literal, $($operand:tt)*) => {
            // SAFETY: by the caller's contract; a port is not memory.
            unsafe { asm!($instruction, $($operand)*, options(nostack, preserves_flags)) }
        };
    }
    match (place, width) {
        (Place::Mmio(at), Width::One) => {
            one!("mov {1:l}, [{0:r}]", in(reg) u64::from(at), out(reg) value);
        }
        (Place::Mmio(at), Width::Two) => {
            one!("mov {1:x}, [{0:r}]", in(reg) u64::from(at), out(reg) value);
        }
        (Place::Mmio(at), Width::Four) => {
            one!("mov {1:e}, [{0:r}]", in(reg) u64::from(at), out(reg) value);
        }
        (Place::Mmio(at), Width::Eight) => {
            one!("mov {1:r}, [{0:r}]", in(reg) u64::from(at), out(reg) value);
        }
        (Place::Pio(port), Width::One) => one!("in al, dx", in("dx") port, out("rax") value),
        (Place::Pio(port), Width::Two) => one!("in ax, dx", in("dx") port, out("rax") value),
        (Place::Pio(port), _) => one!("in eax, dx", in("dx") port, out("rax") value),
    }
    // A narrow access leaves the rest of its register unchanged.
    Ok(width.truncate(value))
}

/// One string instruction.
///
/// # Safety
///
/// An MMIO place, to the last of `count` elements, is not memory of this program; and they are no
/// more than [`MAX_REP_BYTES`].
pub(crate) unsafe fn rep(
    source: &mut Source,
    place: Place,
    width: Width,
    value: u64,
    count: u64,
) -> Result<(), Aborted> {
    macro_rules! store {
        ($instruction:literal, $at:ident) => {
            // SAFETY: by the caller's contract.
            unsafe {
                asm!(
                    $instruction,
                    inout("rdi") u64::from($at) => _, inout("rcx") count => _, in("rax") value,
                    options(nostack, preserves_flags),
                )
            }
        };
    }
    macro_rules! out {
        ($instruction:literal, $port:ident) => {
            // SAFETY: the source is as large as the largest count.
            unsafe {
                asm!(
                    $instruction,
                    inout("rsi") source.fill(width, value) => _, inout("rcx") count => _,
                    in("dx") $port,
                    options(nostack, preserves_flags),
                )
            }
        };
    }
    match (place, width) {
        (Place::Mmio(at), Width::One) => store!("rep stosb", at),
        (Place::Mmio(at), Width::Two) => store!("rep stosw", at),
        (Place::Mmio(at), Width::Four) => store!("rep stosd", at),
        (Place::Mmio(at), Width::Eight) => store!("rep stosq", at),
        (Place::Pio(port), Width::One) => out!("rep outsb", port),
        (Place::Pio(port), Width::Two) => out!("rep outsw", port),
        (Place::Pio(port), _) => out!("rep outsd", port),
    }
    Ok(())
}

/// Reached by a script that was written for another architecture.
///
/// # Safety
///
/// None; on Arm there is one.
pub(crate) unsafe fn pair(_place: Place, _width: Width, _value: u64) -> Result<(), Aborted> {
    panic!("x86 has no instruction that stores a pair")
}

/// The time stamp counter, ordered after all earlier instructions.
pub(crate) fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter; RDTSCP may be missing, hence the fence.
    unsafe {
        asm!(
            "lfence", "rdtsc",
            out("eax") low, out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// One pause instruction.
pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Writes to Xen's debug port, which Xen's console shows.
pub(crate) fn debug_byte(byte: u8) {
    // SAFETY: a port is not memory.
    let Ok(()) = unsafe { write(Place::Pio(0xe9), Width::One, u64::from(byte)) };
}
