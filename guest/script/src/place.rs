//! The place and the width of an access.

use core::fmt;

use crate::Reason;

/// A number in the language: decimal, or hexadecimal after `0x`.
pub(crate) fn number(token: &str) -> Option<u64> {
    let (digits, radix) = token.strip_prefix("0x").map_or((token, 10), |hex| (hex, 16));
    // `from_str_radix` accepts a sign.
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

/// The number of bytes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// 1 byte.
    One,
    /// 2 bytes.
    Two,
    /// 4 bytes.
    Four,
    /// 8 bytes: MMIO only.
    Eight,
}

impl Width {
    /// The width in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The largest value of this width, which an unclaimed read returns.
    #[must_use]
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// The part of `value` that an access of this width carries.
    #[must_use]
    pub const fn truncate(self, value: u64) -> u64 {
        value & self.all_ones()
    }

    /// The width of this many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    pub(crate) fn parse(token: &str) -> Result<Self, Reason> {
        number(token).and_then(Self::from_bytes).ok_or(Reason::Width)
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

/// The first byte of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A guest physical address below 4 GiB, the range that the guest maps.
    Mmio(u32),
    /// An I/O port.
    Pio(u16),
}

impl Place {
    pub(crate) fn parse(token: &str) -> Result<Self, Reason> {
        let (space, at) = token.split_once(':').ok_or(Reason::Place)?;
        let at = number(at).ok_or(Reason::Place)?;
        match space {
            "mmio" => u32::try_from(at).map(Self::Mmio).map_err(|_| Reason::Place),
            "pio" => u16::try_from(at).map(Self::Pio).map_err(|_| Reason::Place),
            _ => Err(Reason::Place),
        }
    }

    /// Whether `bytes` from here on, in elements of `width`, can be accessed.
    pub(crate) fn check(self, width: Width, bytes: u64) -> Result<(), Reason> {
        match self {
            Self::Mmio(address) if u64::from(address) + bytes > 1 << 32 => Err(Reason::Place),
            Self::Pio(_) if width == Width::Eight => Err(Reason::Width),
            // A string instruction writes to the same port each time.
            Self::Pio(port) if u64::from(port) + width.bytes() > 1 << 16 => Err(Reason::Place),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmio(address) => write!(f, "mmio:{address:#x}"),
            Self::Pio(port) => write!(f, "pio:{port:#x}"),
        }
    }
}
