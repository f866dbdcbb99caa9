//! What a guest's access looks like when Xen hands it over.
//!
//! The source is Xen's `public/hvm/ioreq.h`.

use super::pci::ConfigAccess;
use core::mem::{align_of, offset_of, size_of};

/// An address space of a guest in which doorbells live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Guest physical memory.
    Mmio,
    /// x86 I/O ports.
    Pio,
}

impl Space {
    /// The highest address.
    pub const fn last(self) -> u64 {
        match self {
            Self::Mmio => u64::MAX,
            Self::Pio => 0xFFFF,
        }
    }
}

impl Space {
    /// In one word.
    #[inline]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mmio => "mmio",
            Self::Pio => "pio",
        }
    }
}

/// The width of one access, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Width {
    /// 1 byte.
    One = 1,
    /// 2 bytes.
    Two = 2,
    /// 4 bytes.
    Four = 4,
    /// 8 bytes.
    Eight = 8,
}

impl Width {
    /// The width of `bytes` bytes, if an access can have it.
    pub const fn new(bytes: u32) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// In bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> u8 {
        self as u8
    }

    /// The bits that a value of this width can have.
    pub const fn mask(self) -> u64 {
        match self {
            Self::One => 0xFF,
            Self::Two => 0xFFFF,
            Self::Four => 0xFFFF_FFFF,
            Self::Eight => u64::MAX,
        }
    }
}

/// `struct ioreq`: one slot of the ioreq page, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Ioreq {
    /// Guest physical address, or port.
    pub addr: u64,
    /// The value written, the answer to a read, or the guest address of a buffer.
    pub data: u64,
    /// Repetitions: 1 but for string instructions, 0 for [`INVALIDATE`].
    pub count: u32,
    /// Bytes of one access.
    pub size: u32,
    /// The guest's port through which Xen and the device model ring each other.
    pub vp_eport: u32,
    /// Not ours.
    pub pad: u16,
    /// `state` in bits 0 to 3, then [`DATA_IS_PTR`], [`DIR_READ`], `df`.
    pub flags: u8,
    /// [`PIO`], [`COPY`], …
    pub kind: u8,
}

const _: () = {
    assert!(size_of::<Ioreq>() == 32 && align_of::<Ioreq>() == 8);
    assert!(offset_of!(Ioreq, addr) == 0 && offset_of!(Ioreq, data) == 8);
    assert!(offset_of!(Ioreq, count) == 16 && offset_of!(Ioreq, size) == 20);
    assert!(offset_of!(Ioreq, vp_eport) == 24 && offset_of!(Ioreq, pad) == 28);
    assert!(offset_of!(Ioreq, flags) == 30 && offset_of!(Ioreq, kind) == 31);
};

/// Slots in the one page that Xen gives an ioreq server.
pub const SLOTS: usize = 128;

/// The slots of a guest with so many vCPUs, if the one page has them.
pub const fn slots_for(vcpus: u32) -> Option<usize> {
    match vcpus {
        1..=128 => Some(vcpus as usize),
        _ => None,
    }
}

/// Bits of [`Ioreq::flags`] that hold the state.
pub const STATE: u8 = 0x0F;
/// `data` is the address of a buffer in the guest.
pub const DATA_IS_PTR: u8 = 0x10;
/// The guest reads.
pub const DIR_READ: u8 = 0x20;

/// `IOREQ_TYPE_PIO`.
pub const PIO: u8 = 0;
/// `IOREQ_TYPE_COPY`: memory.
pub const COPY: u8 = 1;
/// `IOREQ_TYPE_PCI_CONFIG`: the configuration space of a PCI function.
pub const PCI_CONFIG: u8 = 2;
/// `IOREQ_TYPE_TIMEOFFSET`.
pub const TIMEOFFSET: u8 = 7;
/// `IOREQ_TYPE_INVALIDATE`: the guest gave memory back; sent to every enabled server.
pub const INVALIDATE: u8 = 8;

/// One plain access of a guest to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// Where it went.
    pub space: Space,
    /// The address of its first byte.
    pub addr: u64,
    /// How many bytes.
    pub width: Width,
}

/// A guest's write: an access and the value, which has no bits beyond the width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kick {
    /// Where it went.
    pub access: Access,
    /// What was written.
    pub value: u64,
}

impl Kick {
    /// A write of `value`, cut to the width.
    pub const fn new(space: Space, addr: u64, width: Width, value: u64) -> Self {
        Self { access: Access { space, addr, width }, value: value & width.mask() }
    }
}

/// Why a request is none that a doorbell serves. It is answered and counted all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Odd {
    /// `data` is the address of a guest buffer: a string instruction.
    Pointer,
    /// More than one repetition, or none.
    Count,
    /// A width that no single access has.
    Size,
    /// A type that is neither memory, port, configuration space nor broadcast.
    Kind,
    /// The bytes run beyond the end of the address space.
    Wrap,
}

/// What a slot asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A write.
    Kick(Kick),
    /// A read.
    Read(Access),
    /// An access to the configuration space of a PCI function.
    Config(ConfigAccess),
    /// A message to every server, to be acknowledged and nothing else.
    Broadcast,
    /// Something that no doorbell serves.
    Odd {
        /// Why not.
        why: Odd,
        /// Where it went, if that is memory or a port.
        space: Option<Space>,
        /// The address in it.
        addr: u64,
    },
}

impl Request {
    /// Decodes a copy of a slot. Nothing in it is trusted.
    pub fn decode(slot: &Ioreq) -> Self {
        let space = match slot.kind {
            COPY => Some(Space::Mmio),
            PIO => Some(Space::Pio),
            PCI_CONFIG => None,
            // Broadcasts come with a count of 0 and an address of no meaning.
            INVALIDATE | TIMEOFFSET => return Self::Broadcast,
            _ => return Self::Odd { why: Odd::Kind, space: None, addr: slot.addr },
        };
        let odd = |why| Self::Odd { why, space, addr: slot.addr };
        if slot.flags & DATA_IS_PTR != 0 {
            return odd(Odd::Pointer);
        }
        if slot.count != 1 {
            return odd(Odd::Count);
        }
        let Some(width) = Width::new(slot.size) else {
            return odd(Odd::Size);
        };
        let reads = slot.flags & DIR_READ != 0;
        let Some(space) = space else {
            let write = if reads { None } else { Some(slot.data) };
            let config = ConfigAccess::decode(slot.addr, width, write);
            return config.map_or(odd(Odd::Wrap), Self::Config);
        };
        match slot.addr.checked_add(u64::from(width.bytes()) - 1) {
            Some(last) if last <= space.last() => {}
            _ => return odd(Odd::Wrap),
        }
        if reads {
            Self::Read(Access { space, addr: slot.addr, width })
        } else {
            Self::Kick(Kick::new(space, slot.addr, width, slot.data))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(kind: u8, addr: u64, size: u32, data: u64) -> Ioreq {
        Ioreq { addr, data, size, count: 1, flags: 1, kind, ..Ioreq::default() }
    }

    #[test]
    fn a_write_is_a_kick_cut_to_its_width() {
        let kick = Request::decode(&write(COPY, 0x50, 2, 0xABCD_0003));
        assert_eq!(kick, Request::Kick(Kick::new(Space::Mmio, 0x50, Width::Two, 3)));
    }

    #[test]
    fn one_page_has_128_vcpus() {
        assert_eq!((slots_for(1), slots_for(128)), (Some(1), Some(SLOTS)));
        assert!([0, 129, 4096, u32::MAX].iter().all(|vcpus| slots_for(*vcpus).is_none()));
        assert_eq!(SLOTS * size_of::<Ioreq>(), 4096);
    }

    #[test]
    fn a_read_is_no_kick() {
        let read = Ioreq { flags: 1 | DIR_READ, ..write(PIO, 0x50, 4, 7) };
        let access = Access { space: Space::Pio, addr: 0x50, width: Width::Four };
        assert_eq!(Request::decode(&read), Request::Read(access));
    }

    #[test]
    fn an_access_to_configuration_space_is_no_kick() {
        let Request::Config(write_4) = Request::decode(&write(PCI_CONFIG, 0x8_0000_0010, 4, !0))
        else {
            panic!("a write decoded to something else")
        };
        assert_eq!((write_4.function.sbdf(), write_4.register, write_4.write), (8, 0x10, Some(!0)));
        let read = Ioreq { flags: 1 | DIR_READ, ..write(PCI_CONFIG, 0x8_0000_0010, 2, 7) };
        let read = Request::decode(&read);
        assert!(matches!(read, Request::Config(read) if read.write.is_none()), "{read:?}");
    }

    #[test]
    fn broadcasts_survive_a_count_of_zero() {
        let invalidate = Ioreq { count: 0, ..write(INVALIDATE, 0, 4, !0) };
        assert_eq!(Request::decode(&invalidate), Request::Broadcast);
    }

    #[test]
    fn whatever_is_odd_is_named() {
        let odd = |slot: Ioreq| match Request::decode(&slot) {
            Request::Odd { why, space, addr } => {
                let known = [(COPY, Space::Mmio), (PIO, Space::Pio)];
                let expected = known.iter().find(|(kind, _)| *kind == slot.kind);
                assert_eq!((space, addr), (expected.map(|(_, space)| *space), slot.addr));
                why
            }
            other => panic!("{slot:?} decoded to {other:?}"),
        };
        assert_eq!(odd(write(9, 0, 4, 0)), Odd::Kind);
        assert_eq!(odd(write(PCI_CONFIG, 0xFFE, 4, 0)), Odd::Wrap);
        assert_eq!(odd(Ioreq { count: 2, ..write(PCI_CONFIG, 0, 4, 0) }), Odd::Count);
        assert_eq!(odd(write(COPY, 0, 3, 0)), Odd::Size);
        assert_eq!(odd(write(COPY, 0, 0, 0)), Odd::Size);
        assert_eq!(odd(write(COPY, u64::MAX - 2, 4, 0)), Odd::Wrap);
        assert_eq!(odd(write(PIO, 0xFFFF, 2, 0)), Odd::Wrap);
        assert_eq!(odd(Ioreq { count: 2, ..write(COPY, 0, 4, 0) }), Odd::Count);
        assert_eq!(odd(Ioreq { flags: 1 | DATA_IS_PTR, ..write(COPY, 0, 4, 0) }), Odd::Pointer);
    }

    #[test]
    fn the_last_bytes_of_a_space_are_still_inside() {
        assert!(matches!(Request::decode(&write(COPY, u64::MAX, 1, 0)), Request::Kick(_)));
        assert!(matches!(Request::decode(&write(PIO, 0xFFFC, 4, 0)), Request::Kick(_)));
    }
}
