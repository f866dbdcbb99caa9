//! Splits an instruction into accesses (`xen/arch/x86/hvm/emulate.c`, `xen/arch/arm/ioreq.c`).

use xen_eventfd_core::ioreq::{COPY, Ioreq, PIO};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::{Space, Width};

const PAGE: u64 = 0x1000;

/// One access of an instruction, which may consist of several.
pub(crate) struct Piece {
    pub(crate) addr: u64,
    pub(crate) size: u8,
    /// The offset of its bytes in the value.
    pub(crate) offset: u32,
}

impl Piece {
    pub(crate) fn request(&self, space: Space, flags: u8) -> Ioreq {
        let kind = match space {
            Space::Mmio => COPY,
            Space::Pio => PIO,
        };
        let (addr, size) = (self.addr, u32::from(self.size));
        Ioreq { addr, size, count: 1, flags, kind, ..Ioreq::default() }
    }
}

pub(crate) fn mask(size: u8) -> u64 {
    Width::new(u32::from(size)).map_or(u64::MAX, Width::mask)
}

pub(crate) fn check_port(port: u64, width: Width) {
    assert!(port <= 0xFFFF && width != Width::Eight, "x86 has no {width:?}-byte port {port:#x}");
}

/// How many accesses of `size` bytes lie in one page, but at least one.
pub(crate) fn in_page(addr: u64, size: u64) -> u32 {
    u32::try_from((PAGE - addr % PAGE) / size).unwrap_or(1).max(1)
}

/// Splits an access to memory at a page boundary (`hvmemul_phys_mmio_access`). Xen on Arm makes one request of any, with the
/// address that the processor reports (`try_fwd_ioserv`).
pub(crate) fn pieces(arch: Arch, space: Space, addr: u64, width: Width) -> Vec<Piece> {
    if space == Space::Pio {
        check_port(addr, width);
    }
    if space == Space::Pio || arch == Arch::Arm {
        return vec![Piece { addr, size: width.bytes(), offset: 0 }];
    }
    let whole = u64::from(width.bytes());
    let first = (PAGE - addr % PAGE).min(whole);
    let mut pieces = Vec::new();
    let mut offset = 0;
    for mut left in [first, whole - first] {
        for size in [8_u8, 4, 2, 1] {
            if left >= u64::from(size) {
                pieces.push(Piece { addr: addr.wrapping_add(u64::from(offset)), size, offset });
                offset += u32::from(size);
                left -= u64::from(size);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(addr: u64, width: Width) -> Vec<(u64, u8, u32)> {
        split_on(Arch::X86, addr, width)
    }

    fn split_on(arch: Arch, addr: u64, width: Width) -> Vec<(u64, u8, u32)> {
        let pieces = pieces(arch, Space::Mmio, addr, width);
        pieces.iter().map(|piece| (piece.addr, piece.size, piece.offset)).collect()
    }

    #[test]
    fn an_access_within_a_page_is_not_split() {
        assert_eq!(split(0x1FF8, Width::Eight), [(0x1FF8, 8, 0)]);
        assert_eq!(split(0x1051, Width::Four), [(0x1051, 4, 0)]);
    }

    #[test]
    fn an_access_across_pages_is_split_into_powers_of_two() {
        assert_eq!(split(0x1FFE, Width::Four), [(0x1FFE, 2, 0), (0x2000, 2, 2)]);
        let odd = [(0x1FFF, 1, 0), (0x2000, 4, 1), (0x2004, 2, 5), (0x2006, 1, 7)];
        assert_eq!(split(0x1FFF, Width::Eight), odd);
    }

    #[test]
    fn on_arm_an_access_across_pages_is_one() {
        assert_eq!(split_on(Arch::Arm, 0x1FFE, Width::Four), [(0x1FFE, 4, 0)]);
    }

    #[test]
    fn at_least_one_repetition_is_sent_even_across_a_page_end() {
        assert_eq!(in_page(0x1000, 4), 1024);
        assert_eq!(in_page(0x1FF9, 4), 1);
        assert_eq!(in_page(0x1FFE, 4), 1);
    }
}
