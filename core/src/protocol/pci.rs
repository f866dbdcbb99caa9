//! A guest's access to the configuration space of a PCI function.
//!
//! The source is Xen's `public/hvm/dm_op.h` (`XEN_DMOP_PCI_SBDF`) and `public/hvm/ioreq.h`
//! (`IOREQ_TYPE_PCI_CONFIG`).

use super::ioreq::Width;
use core::fmt;

/// A PCI function, as `XEN_DMOP_PCI_SBDF` numbers it: segment, bus, device and function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciFunction(u32);

impl PciFunction {
    /// A function of segment 0. `None` if the device is above 31 or the function above 7.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self((bus as u32) << 8 | (device as u32) << 3 | function as u32))
    }

    /// The function of this number, whose high half is the segment.
    pub const fn from_sbdf(sbdf: u32) -> Self {
        Self(sbdf)
    }

    /// Its number.
    pub const fn sbdf(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (segment, bus, device) = (self.0 >> 16, self.0 >> 8 & 0xFF, self.0 >> 3 & 31);
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{}", self.0 & 7)
    }
}

/// One access to the configuration space of a PCI function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigAccess {
    /// The function.
    pub function: PciFunction,
    /// The first byte's register, at most 0xFFF.
    pub register: u16,
    /// How many bytes: 1, 2 or 4.
    pub width: Width,
    /// The value of a write, which has no bits beyond the width; `None` for a read.
    pub write: Option<u32>,
}

/// The highest register.
const LAST_REGISTER: u64 = 0xFFF;

impl ConfigAccess {
    /// Decodes the address of a request: the function in its high half, the register in the low. `None` if
    /// some byte is beyond the configuration space, or the width is 8.
    pub(super) fn decode(addr: u64, width: Width, write: Option<u64>) -> Option<Self> {
        let (sbdf, first) = (u32::try_from(addr >> 32).ok()?, addr & u64::from(u32::MAX));
        if first + u64::from(width.bytes()) - 1 > LAST_REGISTER || width == Width::Eight {
            return None;
        }
        let register = u16::try_from(first).ok()?;
        let write = write.and_then(|value| u32::try_from(value & width.mask()).ok());
        Some(Self { function: PciFunction(sbdf), register, width, write })
    }

    /// The address of the request.
    pub const fn addr(&self) -> u64 {
        (self.function.0 as u64) << 32 | self.register as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_function_has_the_number_that_xen_gives_it() {
        let function = PciFunction::new(1, 31, 7).unwrap();
        assert_eq!((function.sbdf(), function.to_string()), (0x01FF, "0000:01:1f.7".to_string()));
        assert_eq!(PciFunction::from_sbdf(0x2_0008).to_string(), "0002:00:01.0");
        assert_eq!((PciFunction::new(0, 32, 0), PciFunction::new(0, 0, 8)), (None, None));
    }

    #[test]
    fn an_access_names_function_and_register() {
        let function = PciFunction::new(0, 1, 0).unwrap();
        let access = ConfigAccess::decode(0x8_0000_0FFC, Width::Four, Some(0x1_2345_6789)).unwrap();
        let write = Some(0x2345_6789);
        assert_eq!(access, ConfigAccess { function, register: 0xFFC, width: Width::Four, write });
        assert_eq!(access.addr(), 0x8_0000_0FFC);
        let odd = [(0x1000, Width::One), (0xFFD, Width::Four), (0xFFFF_FFFF, Width::Two)];
        assert!(odd.iter().all(|(at, width)| ConfigAccess::decode(*at, *width, None).is_none()));
        assert_eq!(ConfigAccess::decode(0, Width::Eight, None), None);
    }
}
