//! Where a doorbell is and which writes ring it, in the shape of kvm-ioctls.

use crate::{Error, Result};
use xen_eventfd_core::{Doorbell, Filter, Space, Width};

/// The address of a doorbell.
///
#[doc = example!(r#"
let (memory, port) = (IoEventAddress::Mmio(0xfe00_0050), IoEventAddress::Pio(0xc050));
assert_eq!((memory.addr(), port.addr()), (0xfe00_0050, 0xc050));
"#)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IoEventAddress {
    /// A guest physical address.
    Mmio(u64),
    /// An x86 I/O port.
    Pio(u64),
}

impl IoEventAddress {
    /// The address as a number.
    ///
    #[doc = example!(r#"
assert_eq!(IoEventAddress::Pio(0xc050).addr(), 0xc050);
"#)]
    pub const fn addr(&self) -> u64 {
        match *self {
            Self::Mmio(addr) | Self::Pio(addr) => addr,
        }
    }

    pub(crate) const fn space(&self) -> Space {
        match self {
            Self::Mmio(_) => Space::Mmio,
            Self::Pio(_) => Space::Pio,
        }
    }

    /// The doorbell at this address that takes what `datamatch` selects.
    pub(crate) fn doorbell(&self, datamatch: impl Into<Filter>) -> Result<Doorbell> {
        let addr = self.addr();
        Doorbell::new(self.space(), addr, datamatch.into())
            .map_err(|why| Error::Invalid { addr, why })
    }
}

/// Any write of any width that begins at the address and ends within this many bytes (1 to 8):
/// KVM's length 0. Xen routes by bytes, so the bytes must be named.
///
#[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let doorbell = IoEventAddress::Mmio(0xfe00_0050);
let _queue = guest.register_ioevent(&kick, &doorbell, NoDatamatch(4))?;
// The guest writes 2 bytes.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Two, 7)?;
rustix::io::read(&kick, &mut [0; 8])?;
"#)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoDatamatch(pub u8);

/// Any write of this width.
///
#[doc = example!(r#"
let (one, rest) = (eventfd(0, EventfdFlags::empty())?, eventfd(0, EventfdFlags::empty())?);
let doorbell = IoEventAddress::Mmio(0xfe00_0050);
let _one = guest.register_ioevent(&one, &doorbell, 1_u32)?;
let _rest = guest.register_ioevent(&rest, &doorbell, AnyValue(Width::Four))?;
// The guest writes 9.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 9)?;
rustix::io::read(&rest, &mut [0; 8])?;
"#)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnyValue(pub Width);

/// Writes of this width whose value is `value` in the bits of `mask`. For a guest with
/// NOTIFICATION_DATA the queue's number is in the low 16 bits: mask 0xFFFF.
///
#[doc = example!(r#"
let kick = eventfd(0, EventfdFlags::empty())?;
let three = Masked { width: Width::Four, value: 3, mask: 0xFFFF };
let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0xfe00_0050), three)?;
// The guest notifies queue 3, with its next index in the high half.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 0x8001_0003)?;
rustix::io::read(&kick, &mut [0; 8])?;
"#)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Masked {
    /// How wide the write must be.
    pub width: Width,
    /// The value, without bits outside the mask.
    pub value: u64,
    /// The bits that are compared.
    pub mask: u64,
}

impl From<NoDatamatch> for Filter {
    fn from(NoDatamatch(span): NoDatamatch) -> Self {
        Self::Any { span }
    }
}

impl From<AnyValue> for Filter {
    fn from(AnyValue(width): AnyValue) -> Self {
        Self::Width(width)
    }
}

impl From<Masked> for Filter {
    fn from(Masked { width, value, mask }: Masked) -> Self {
        Self::Value { width, value, mask }
    }
}

/// A plain number is a datamatch: its type is the width, its value the value. `register_ioevent`
/// takes it as kvm-ioctls does; here it becomes what the table compares.
///
#[doc = example!(r#"
assert_eq!(Datamatch::from(3_u16), Datamatch::from(Masked { width: Width::Two, value: 3, mask: 0xFFFF }));
"#)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datamatch(Filter);

impl From<Datamatch> for Filter {
    fn from(Datamatch(filter): Datamatch) -> Self {
        filter
    }
}

macro_rules! number_is_datamatch {
    ($($number:ty => $width:ident),*) => {$(
        impl From<$number> for Datamatch {
            fn from(value: $number) -> Self {
                let width = Width::$width;
                Self(Filter::Value { width, value: value.into(), mask: width.mask() })
            }
        }

        /// `None`: any write of this width, as [`AnyValue`]; crosvm's `U32(None)`.
        impl From<Option<$number>> for Datamatch {
            fn from(value: Option<$number>) -> Self {
                value.map_or(Self(Filter::Width(Width::$width)), Self::from)
            }
        }
    )*};
}

impl Datamatch {
    /// Any write of any width that begins at the address and ends within `span` bytes, as
    /// [`NoDatamatch`]: crosvm's `AnyLength`, KVM's length 0.
    ///
    #[doc = example!(r#"
assert_eq!(Datamatch::any_length(4), Datamatch::from(NoDatamatch(4)));
"#)]
    pub const fn any_length(span: u8) -> Self {
        Self(Filter::Any { span })
    }
}

number_is_datamatch!(u8 => One, u16 => Two, u32 => Four, u64 => Eight);

macro_rules! filter_is_datamatch {
    ($($filter:ty),*) => {$(
        impl From<$filter> for Datamatch {
            fn from(filter: $filter) -> Self {
                Self(filter.into())
            }
        }
    )*};
}

filter_is_datamatch!(NoDatamatch, AnyValue, Masked);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_number_is_the_width() {
        let doorbell = IoEventAddress::Mmio(0x50).doorbell(Datamatch::from(7_u16)).unwrap();
        let width = Width::Two;
        assert_eq!(doorbell.filter(), Filter::Value { width, value: 7, mask: 0xFFFF });
    }

    #[test]
    fn a_number_that_is_not_there_is_any_of_its_width() {
        assert_eq!(Datamatch::from(Some(7_u16)), Datamatch::from(7_u16));
        assert_eq!(Datamatch::from(None::<u8>), Datamatch::from(AnyValue(Width::One)));
        assert_eq!(Datamatch::from(None::<u64>), Datamatch::from(AnyValue(Width::Eight)));
    }

    #[test]
    fn what_cannot_be_names_the_address() {
        let refused = IoEventAddress::Pio(0x1_0000).doorbell(NoDatamatch(4)).unwrap_err();
        assert!(refused.to_string().contains("0x10000"), "{refused}");
    }
}
