//! What an HVM guest's firmware gets to know of its memory (Xen's `public/hvm/hvm_info_table.h`).
//!
//! libxl writes it before the guest runs. To look which frames are there would not do: QEMU gives the guest more of
//! them, for its screen and its ROMs, directly after its memory, and moves them later.

use core::ops::Range;
use xen_eventfd_host::memory::FRAME;

/// The page that it is in.
pub(crate) const PAGE: u64 = 0x9_F000;
const OFFSET: usize = 0x800;
const SIGNATURE: &[u8; 8] = b"HVM INFO";
/// Where its fields are.
const LENGTH: usize = 8;
const LOW_END: usize = 20;
const HIGH_END: usize = 28;
/// The bytes that have fields that are used here.
const LEAST: usize = 32;

/// A PC has its screen here, and no memory.
const SCREEN: Range<u64> = 0xA_0000..0xC_0000;
const FOUR_GIB: u64 = 1 << 32;

/// The guest's memory, from a copy of [`PAGE`]. `None`: there is no such table.
pub(crate) fn memory(page: &[u8]) -> Option<Vec<Range<u64>>> {
    let table = page.get(OFFSET..)?;
    let field = |at: usize| Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?));
    let whole = table.get(..usize::try_from(field(LENGTH)?).ok()?)?;
    let sum = whole.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if !whole.starts_with(SIGNATURE) || whole.len() < LEAST || sum != 0 {
        return None;
    }
    let end = |at| Some(u64::from(field(at)?) * FRAME as u64);
    let (low, high) = (end(LOW_END)?, end(HIGH_END)?);
    let ranges = [0..low.min(SCREEN.start), SCREEN.end..low, FOUR_GIB..high];
    Some(ranges.into_iter().filter(|range| !range.is_empty()).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The page of a guest whose memory ends at these frames; 0: there is none.
    pub(crate) fn page(low: u32, high: u32) -> Vec<u8> {
        let mut table = [0; 48];
        table[..8].copy_from_slice(SIGNATURE);
        for (at, value) in [(LENGTH, 48), (LOW_END, low), (24, 0xF_EFF8), (HIGH_END, high)] {
            table[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        table[12] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        let mut page = vec![0; FRAME];
        page[OFFSET..OFFSET + 48].copy_from_slice(&table);
        page
    }

    #[test]
    fn memory_is_all_but_the_screens() {
        assert_eq!(memory(&page(0x7800, 0)).unwrap(), [0..0xA_0000, 0xC_0000..0x780_0000]);
        let all = [0..0xA_0000, 0xC_0000..0xF000_0000, 0x1_0000_0000..0x1_1000_0000];
        assert_eq!(memory(&page(0xF_0000, 0x11_0000)).unwrap(), all);
        // A larger hole (`mmio_hole` in the guest's configuration).
        assert_eq!(memory(&page(0xC_0000, 0x14_0000)).unwrap()[2], 0x1_0000_0000..0x1_4000_0000);
    }

    #[test]
    fn a_damaged_table_is_none() {
        assert_eq!(memory(&[0; FRAME]), None);
        assert_eq!(memory(&page(0x7800, 0)[..OFFSET + 8]), None);
        for at in [0, LENGTH, 12, LOW_END, HIGH_END + 1] {
            let mut page = page(0x7800, 0);
            page[OFFSET + at] ^= 0x40;
            assert_eq!(memory(&page), None, "{at}");
        }
        // Beyond the page.
        let mut page = page(0x7800, 0);
        page[OFFSET + LENGTH + 1] = 0x10;
        assert_eq!(memory(&page), None);
    }
}
