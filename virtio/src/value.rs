//! Values of an access, little endian as PCI has them.

use xen_eventfd_core::Width;

/// The value of a read of `width` bytes, of which `byte` returns each.
pub(crate) fn gather(width: Width, mut byte: impl FnMut(u8) -> u8) -> u64 {
    (0..width.bytes()).rev().fold(0, |value, at| value << 8 | u64::from(byte(at)))
}

/// The low 32 bits.
pub(crate) fn low(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

/// The high 32 bits.
pub(crate) fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// The low 16 bits.
pub(crate) fn word(value: u64) -> u16 {
    (value & 0xFFFF) as u16
}

/// `value` with its low or its high half replaced.
pub(crate) fn with_half(value: u64, is_high: bool, half: u32) -> u64 {
    let shift = if is_high { 32 } else { 0 };
    value & !(0xFFFF_FFFF << shift) | u64::from(half) << shift
}
