//! What a registration listens to, checked once, here.

use super::ioreq::{Access, Kick, Space, Width};
use core::fmt;

/// A run of at least one byte of one space. It never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    space: Space,
    first: u64,
    last: u64,
}

impl Bytes {
    /// The bytes `first..=last`.
    ///
    /// # Errors
    /// [`Invalid::Range`] if they run backwards or beyond the end of the space.
    pub const fn new(space: Space, first: u64, last: u64) -> Result<Self, Invalid> {
        if first > last || last > space.last() {
            return Err(Invalid::Range);
        }
        Ok(Self { space, first, last })
    }

    /// Their address space.
    pub const fn space(&self) -> Space {
        self.space
    }

    /// The first byte's address.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The last byte's address.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Whether an access touches any of them.
    pub fn meet(&self, access: &Access) -> bool {
        let last = access.addr.saturating_add(u64::from(access.width.bytes()) - 1);
        access.space == self.space && access.addr <= self.last && self.first <= last
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:#x}-{:#x}", self.space.name(), self.first, self.last)
    }
}

/// Which writes to its address a doorbell takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// Writes of this width whose value, after the mask, is this one.
    Value {
        /// How wide the write must be.
        width: Width,
        /// The value, without bits outside the mask.
        value: u64,
        /// The bits that are compared; all of the width as a rule, 0xFFFF where the guest
        /// negotiated NOTIFICATION_DATA and only the low half is the queue's number.
        mask: u64,
    },
    /// Any write of this width: a wildcard.
    Width(Width),
    /// Any write that begins here and ends within `span` bytes (1 to 8): KVM's length 0.
    Any {
        /// How many bytes are claimed.
        span: u8,
    },
    /// What no other registration at this address takes, within `span` bytes (1 to 8).
    Fallback {
        /// How many bytes are claimed.
        span: u8,
    },
}

impl Filter {
    /// How many bytes: the width of a write, or the span within which it must end.
    #[inline]
    pub const fn bytes(&self) -> u8 {
        match *self {
            Self::Value { width, .. } | Self::Width(width) => width.bytes(),
            Self::Any { span } | Self::Fallback { span } => span,
        }
    }

    /// The writes that it takes, in one word.
    #[inline]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::Width(_) => "wildcard",
            Self::Any { .. } => "any",
            Self::Fallback { .. } => "fallback",
        }
    }
}

/// A doorbell: an address and the writes to it that one eventfd is signalled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Doorbell {
    bytes: Bytes,
    filter: Filter,
}

/// Why a registration cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invalid {
    /// The length is not 1, 2, 4 or 8, nor a span of 1 to 8.
    Length,
    /// The bytes run beyond the end of their address space.
    Range,
    /// The value has bits that the width or the mask does not have.
    Value,
    /// The mask is empty or wider than the access.
    Mask,
    /// The address is none of a register of 4 bytes.
    Aligned,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the length must be 1, 2, 4 or 8 (or, for any width, a span of 1 to 8)",
            Self::Range => "the bytes run beyond the end of the address space",
            Self::Value => "the datamatch has bits outside its width or mask; it would never match",
            Self::Mask => "the mask must select at least one bit of the width; use a wildcard",
            Self::Aligned => "a register of 4 bytes is at a multiple of 4",
        })
    }
}

impl core::error::Error for Invalid {}

impl Doorbell {
    /// Checks a registration.
    ///
    /// # Errors
    /// [`Invalid`] says which part cannot be.
    pub const fn new(space: Space, addr: u64, filter: Filter) -> Result<Self, Invalid> {
        let len = match filter {
            Filter::Value { width, value, mask } => {
                if mask == 0 || mask & !width.mask() != 0 {
                    return Err(Invalid::Mask);
                }
                if value & !mask != 0 {
                    return Err(Invalid::Value);
                }
                width.bytes()
            }
            Filter::Width(width) => width.bytes(),
            Filter::Any { span } | Filter::Fallback { span } => {
                if span == 0 || span > 8 {
                    return Err(Invalid::Length);
                }
                span
            }
        };
        let Some(last) = addr.checked_add(len as u64 - 1) else {
            return Err(Invalid::Range);
        };
        match Bytes::new(space, addr, last) {
            Ok(bytes) => Ok(Self { bytes, filter }),
            Err(invalid) => Err(invalid),
        }
    }

    /// The bytes that must be claimed for it.
    pub const fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// What it takes.
    pub const fn filter(&self) -> Filter {
        self.filter
    }

    /// Whether it is for what the others leave.
    pub const fn is_fallback(&self) -> bool {
        matches!(self.filter, Filter::Fallback { .. })
    }

    /// Whether it takes this write, were it alone. [`super::table::find`] says who gets it
    /// among many.
    pub fn takes(&self, kick: &Kick) -> bool {
        let access = &kick.access;
        access.space == self.bytes.space
            && access.addr == self.bytes.first
            && match self.filter {
                Filter::Value { width, value, mask } => {
                    access.width == width && kick.value & mask == value
                }
                Filter::Width(width) => access.width == width,
                Filter::Any { span } | Filter::Fallback { span } => access.width.bytes() <= span,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(width: Width, value: u64, mask: u64) -> Result<Doorbell, Invalid> {
        Doorbell::new(Space::Mmio, 0x50, Filter::Value { width, value, mask })
    }

    #[test]
    fn what_could_never_match_is_refused() {
        assert_eq!(value(Width::Two, 0x1_0000, 0xFFFF), Err(Invalid::Value));
        assert_eq!(value(Width::Two, 0, 0x1_FFFF), Err(Invalid::Mask));
        assert_eq!(value(Width::Four, 0, 0), Err(Invalid::Mask));
        assert!(value(Width::Eight, u64::MAX, u64::MAX).is_ok());
    }

    #[test]
    fn bytes_do_not_wrap() {
        let at = |space, addr| Doorbell::new(space, addr, Filter::Width(Width::Four)).err();
        assert_eq!(at(Space::Mmio, u64::MAX - 3), None);
        assert_eq!(at(Space::Mmio, u64::MAX - 2), Some(Invalid::Range));
        assert_eq!(at(Space::Pio, 0xFFFC), None);
        assert_eq!(at(Space::Pio, 0xFFFD), Some(Invalid::Range));
        assert_eq!(at(Space::Pio, 0x1_0000), Some(Invalid::Range));
    }

    #[test]
    fn spans_are_one_to_eight() {
        let any = |span| Doorbell::new(Space::Mmio, 0, Filter::Any { span }).err();
        assert_eq!(
            [any(0), any(1), any(8), any(9)],
            [Some(Invalid::Length), None, None, Some(Invalid::Length)]
        );
    }

    #[test]
    fn a_masked_value_ignores_the_rest() {
        let queue = value(Width::Four, 3, 0xFFFF).unwrap();
        assert!(queue.takes(&Kick::new(Space::Mmio, 0x50, Width::Four, 0x8001_0003)));
        assert!(!queue.takes(&Kick::new(Space::Mmio, 0x50, Width::Four, 4)));
        assert!(!queue.takes(&Kick::new(Space::Mmio, 0x50, Width::Two, 3)));
        assert!(!queue.takes(&Kick::new(Space::Pio, 0x50, Width::Four, 3)));
    }
}
