//! Where the structures are in the BARs.

use core::ops::Range;

/// The index of the memory BAR.
pub(crate) const REGISTERS_BAR: u8 = 0;
/// The index of the I/O BAR.
pub(crate) const DOORBELL_BAR: u8 = 1;
/// Bytes of the memory BAR.
pub const REGISTERS_SIZE: u32 = 0x2000;
/// Bytes of the I/O BAR, the least that PCI has.
pub(crate) const DOORBELL_SIZE: u32 = 4;

/// The common configuration structure.
pub(crate) const COMMON: Range<u32> = 0..0x40;
/// The ISR status.
pub(crate) const ISR: Range<u32> = 0x100..0x101;
/// The device-specific configuration, as long as it can be.
pub(crate) const DEVICE: Range<u32> = 0x200..0x1000;
/// The MSI-X table, as long as it can be. A page of its own, as PCI recommends.
pub(crate) const TABLE: Range<u32> = 0x1000..0x1800;
/// The MSI-X pending bits, as many as there can be.
pub(crate) const PENDING: Range<u32> = 0x1800..0x1810;

/// Bytes of one entry of the MSI-X table.
pub(crate) const ENTRY_SIZE: u32 = 16;
/// Vectors that fit into the table and the pending bits.
pub(crate) const MAX_VECTORS: usize = 128;

const _: () = {
    assert!((TABLE.end - TABLE.start) as usize == MAX_VECTORS * ENTRY_SIZE as usize);
    assert!((PENDING.end - PENDING.start) as usize * 8 == MAX_VECTORS);
    assert!(PENDING.end <= REGISTERS_SIZE && REGISTERS_SIZE.is_power_of_two());
    assert!(COMMON.end as usize == size_of::<virtio_spec::pci::CommonCfg>());
};
