//! The common configuration structure of PCI (virtio 1.3, section 4.1.4.3).
//!
//! A field is read in any way, and written with its own width or, those of 64 bits, also whole. Any other
//! write has no effect.

use crate::common::{Common, Field};
use crate::effect::Effect;
use crate::layout::COMMON;
use crate::value::{high, low};
use alloc::vec::Vec;
use xen_eventfd_core::Width;

/// Offset and width of each field.
const FIELDS: [(u32, Width, Field); 20] = [
    (0x00, Width::Four, Field::DeviceFeatureSelect),
    (0x04, Width::Four, Field::DeviceFeature),
    (0x08, Width::Four, Field::DriverFeatureSelect),
    (0x0C, Width::Four, Field::DriverFeature),
    (0x10, Width::Two, Field::ConfigVector),
    (0x12, Width::Two, Field::Queues),
    (0x14, Width::One, Field::Status),
    (0x15, Width::One, Field::Generation),
    (0x16, Width::Two, Field::QueueSelect),
    (0x18, Width::Two, Field::QueueSize),
    (0x1A, Width::Two, Field::QueueVector),
    (0x1C, Width::Two, Field::QueueEnable),
    (0x1E, Width::Two, Field::QueueNotifyOffset),
    (0x20, Width::Four, Field::Descriptors { is_high: false }),
    (0x24, Width::Four, Field::Descriptors { is_high: true }),
    (0x28, Width::Four, Field::Driver { is_high: false }),
    (0x2C, Width::Four, Field::Driver { is_high: true }),
    (0x30, Width::Four, Field::Device { is_high: false }),
    (0x34, Width::Four, Field::Device { is_high: true }),
    (0x3A, Width::Two, Field::QueueReset),
];

/// What a byte of it reads as.
pub(crate) fn byte(common: &Common, offset: u32) -> u8 {
    let field = FIELDS
        .iter()
        .find(|(at, width, _)| (*at..*at + u32::from(width.bytes())).contains(&offset));
    field.map_or(0, |(at, _, field)| common.value(*field).to_le_bytes()[(offset - at) as usize])
}

/// Writes to it. `mapped` as [`Common::set`] has it.
pub(crate) fn write(
    common: &mut Common,
    offset: u32,
    width: Width,
    value: u64,
    mapped: impl Fn(u16) -> u16 + Copy,
    effects: &mut Vec<Effect>,
) {
    if width == Width::Eight {
        if offset + 8 <= COMMON.end {
            write(common, offset, Width::Four, low(value).into(), mapped, effects);
            write(common, offset + 4, Width::Four, high(value).into(), mapped, effects);
        }
        return;
    }
    let is_it = |(at, of, _): &&(u32, Width, Field)| (*at, *of) == (offset, width);
    if let Some((_, _, field)) = FIELDS.iter().find(is_it) {
        common.set(*field, low(value), mapped, effects);
    }
}
