//! Where devices are in a guest: their functions on the bus, and their BARs before the guest moves them.

use core::ops::RangeInclusive;
use xen_eventfd_core::PciFunction;
use xen_eventfd_virtio::{Bus, REGISTERS_SIZE};

/// The window for memory BARs. libxl gives a PVH guest no memory from 0xFC000000 to 4 GiB; the ACPI tables begin
/// there, the local APIC is at 0xFEE00000.
pub(crate) const MEMORY: RangeInclusive<u32> = 0xFD00_0000..=0xFDFF_FFFF;
/// The window for I/O BARs.
pub(crate) const PORTS: RangeInclusive<u16> = 0xC000..=0xCFFF;
/// Ports of a doorbell.
const DOORBELL: u16 = 4;

/// The slots of a PVH guest's bus: 00:00.0 is the host bridge.
const OWN_SLOTS: RangeInclusive<u8> = 1..=31;
/// The slots of QEMU's bus that are taken, of those that libxl has devices put at ([`Place::of_qemu`]).
const QEMU_SLOTS: RangeInclusive<u8> = 0x10..=0x1E;
/// In between: USB 2.0 controllers.
const QEMU_USB: u8 = 0x1D;

const _: () = {
    assert!(*MEMORY.start() + *OWN_SLOTS.end() as u32 * REGISTERS_SIZE <= *MEMORY.end());
    assert!(*PORTS.start() + *OWN_SLOTS.end() as u16 * DOORBELL <= *PORTS.end());
};

/// Where a guest's devices are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A PVH guest has no PCI bus, and gets one.
    OwnBus,
    /// An HVM guest has QEMU's, which has its own functions, and takes more.
    BesideQemu,
}

/// Where a function is before its guest moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) function: PciFunction,
    /// The memory BAR.
    pub(crate) registers: u32,
    /// The I/O BAR.
    pub(crate) doorbell: u16,
}

impl Layout {
    /// The most devices that any guest has.
    pub(crate) const MOST: usize = (*OWN_SLOTS.end() - *OWN_SLOTS.start() + 1) as usize;

    /// What of the bus is ours, without devices.
    pub(crate) fn bus(self) -> Bus {
        match self {
            Self::OwnBus => Bus::with_host_bridge(),
            Self::BesideQemu => Bus::default(),
        }
    }

    /// The places of a guest's devices, in their order.
    pub(crate) fn places(self) -> impl Iterator<Item = Place> {
        let slots = match self {
            Self::OwnBus => OWN_SLOTS,
            Self::BesideQemu => QEMU_SLOTS,
        };
        slots.filter(move |slot| self == Self::OwnBus || *slot != QEMU_USB).filter_map(
            move |slot| {
                let function = PciFunction::new(0, slot, 0)?;
                Some(match self {
                    Self::OwnBus => Place::in_windows(function, slot - OWN_SLOTS.start()),
                    Self::BesideQemu => Place::of_qemu(function),
                })
            },
        )
    }
}

impl Place {
    /// No firmware places the BARs of a PVH guest.
    fn in_windows(function: PciFunction, number: u8) -> Self {
        Self {
            function,
            registers: MEMORY.start() + u32::from(number) * REGISTERS_SIZE,
            doorbell: PORTS.start() + u16::from(number) * DOORBELL,
        }
    }

    /// hvmloader finds the function and places its BARs.
    ///
    /// QEMU's machine for Xen has its chipset at 0 and 1. libxl has it put USB 2.0 controllers at 0x1D and, where the
    /// host's graphics are passed through, a bridge at 0x1F (`libxl_dm.c`, `hw/xen/xen_igd.c`). All others, those that
    /// are passed through too, take the lowest slots that are free.
    fn of_qemu(function: PciFunction) -> Self {
        Self { function, registers: 0, doorbell: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_a_place_of_its_own() {
        let places: Vec<Place> = Layout::OwnBus.places().collect();
        assert_eq!(places.len(), Layout::MOST);
        assert_eq!(places[0].function.to_string(), "0000:00:01.0");
        for two in places.windows(2) {
            assert_eq!(two[1].registers - two[0].registers, REGISTERS_SIZE);
            assert!(two[1].doorbell > two[0].doorbell && two[0].function < two[1].function);
        }
    }

    #[test]
    fn beside_qemu_none_is_where_libxl_puts_another() {
        let places: Vec<Place> = Layout::BesideQemu.places().collect();
        assert_eq!(places.len(), 14);
        assert_eq!(places[0].function.to_string(), "0000:00:10.0");
        for place in &places {
            assert!(!["0000:00:1d.0", "0000:00:1f.0"].contains(&&*place.function.to_string()));
            // A BAR at 0 is decoded nowhere.
            assert_eq!((place.registers, place.doorbell), (0, 0));
        }
    }
}
