//! Where devices are in a guest: on PCI their functions on the bus, and their BARs before the guest moves them; on
//! virtio-mmio the addresses and interrupts that libxl has put into the guest's device tree.

use core::fmt;
use core::ops::RangeInclusive;
use serde::{Deserialize, Serialize};
use xen_eventfd_core::PciFunction;
use xen_eventfd_virtio::REGISTERS_SIZE;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// An x86 PVH guest has no PCI bus, and gets one.
    OwnBus,
    /// An x86 HVM guest has QEMU's, which has its own functions, and takes more.
    BesideQemu,
    /// An Arm guest has its devices where its device tree says, which libxl has made.
    DeviceTree(Vec<MmioPlace>),
}

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A function, before its guest moves it.
    Function {
        function: PciFunction,
        /// The memory BAR.
        registers: u32,
        /// The I/O BAR.
        doorbell: u16,
    },
    Mmio(MmioPlace),
}

/// Where a device on virtio-mmio is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MmioPlace {
    /// The address of its registers.
    pub(crate) base: u64,
    /// Its interrupt, a shared peripheral interrupt: 32 and up. libxl's device tree has it edge-triggered.
    pub(crate) spi: u32,
}

/// What a device is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    Function(PciFunction),
    /// The address of its registers.
    Address(u64),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(function) => function.fmt(f),
            Self::Address(base) => write!(f, "mmio@{base:#x}"),
        }
    }
}

impl Layout {
    /// The most devices that any guest has.
    pub(crate) const MOST: usize = (*OWN_SLOTS.end() - *OWN_SLOTS.start() + 1) as usize;

    /// The places of a guest's devices, in their order.
    pub(crate) fn places(&self) -> Vec<Place> {
        let function = |slot| PciFunction::new(0, slot, 0);
        match self {
            Self::OwnBus => {
                let place =
                    |slot| Some(Place::in_windows(function(slot)?, slot - OWN_SLOTS.start()));
                OWN_SLOTS.filter_map(place).collect()
            }
            Self::BesideQemu => {
                let slots = QEMU_SLOTS.filter(|slot| *slot != QEMU_USB);
                slots.filter_map(function).map(Place::of_qemu).collect()
            }
            Self::DeviceTree(places) => places.iter().copied().map(Place::Mmio).collect(),
        }
    }
}

impl Place {
    /// What the device is known by.
    pub(crate) fn at(self) -> At {
        match self {
            Self::Function { function, .. } => At::Function(function),
            Self::Mmio(MmioPlace { base, .. }) => At::Address(base),
        }
    }

    /// No firmware places the BARs of a PVH guest.
    fn in_windows(function: PciFunction, number: u8) -> Self {
        Self::Function {
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
        Self::Function { function, registers: 0, doorbell: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(place: Place) -> (u32, u16) {
        let Place::Function { registers, doorbell, .. } = place else { panic!("{place:?}") };
        (registers, doorbell)
    }

    #[test]
    fn each_device_has_a_place_of_its_own() {
        let places = Layout::OwnBus.places();
        assert_eq!(places.len(), Layout::MOST);
        assert_eq!(places[0].at().to_string(), "0000:00:01.0");
        for two in places.windows(2) {
            let [(first, doorbell), (second, next)] = [two[0], two[1]].map(bars);
            assert_eq!(second - first, REGISTERS_SIZE);
            assert!(next > doorbell && two[0].at() < two[1].at());
        }
    }

    #[test]
    fn a_device_of_a_device_tree_is_where_that_has_it() {
        let place = MmioPlace { base: 0x200_0000, spi: 33 };
        let places = Layout::DeviceTree(vec![place]).places();
        assert_eq!(places, [Place::Mmio(place)]);
        assert_eq!(places[0].at().to_string(), "mmio@0x2000000");
    }

    #[test]
    fn beside_qemu_none_is_where_libxl_puts_another() {
        let places = Layout::BesideQemu.places();
        assert_eq!(places.len(), 14);
        assert_eq!(places[0].at().to_string(), "0000:00:10.0");
        for place in places {
            assert!(!["0000:00:1d.0", "0000:00:1f.0"].contains(&&*place.at().to_string()));
            // A BAR at 0 is decoded nowhere.
            assert_eq!(bars(place), (0, 0));
        }
    }
}
