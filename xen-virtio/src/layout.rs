//! Where devices are in a guest: their functions on the bus, and their BARs before the guest moves them.

use core::ops::RangeInclusive;
use xen_eventfd_core::PciFunction;
use xen_eventfd_virtio::REGISTERS_SIZE;

/// Devices that fit on a bus: 00:00.0 is the host bridge.
pub(crate) const MAX_DEVICES: u8 = 31;

/// The window for memory BARs. libxl gives a PVH guest no memory from 0xFC000000 to 4 GiB; the ACPI tables begin
/// there, the local APIC is at 0xFEE00000.
pub(crate) const MEMORY: RangeInclusive<u32> = 0xFD00_0000..=0xFDFF_FFFF;
/// The window for I/O BARs.
pub(crate) const PORTS: RangeInclusive<u16> = 0xC000..=0xCFFF;
/// Ports of a doorbell.
const DOORBELL: u16 = 4;

const _: () = {
    assert!(*MEMORY.start() + MAX_DEVICES as u32 * REGISTERS_SIZE <= *MEMORY.end());
    assert!(*PORTS.start() + MAX_DEVICES as u16 * DOORBELL <= *PORTS.end());
};

/// Where a function is before its guest moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) function: PciFunction,
    /// The memory BAR.
    pub(crate) registers: u32,
    /// The I/O BAR.
    pub(crate) doorbell: u16,
}

/// The places of a guest's devices, in their order: from 00:01.0 on.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    (0..MAX_DEVICES).filter_map(|number| {
        Some(Place {
            function: PciFunction::new(0, number + 1, 0)?,
            registers: MEMORY.start() + u32::from(number) * REGISTERS_SIZE,
            doorbell: PORTS.start() + u16::from(number) * DOORBELL,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_has_a_place_of_its_own() {
        let places: Vec<Place> = places().collect();
        assert_eq!(places.len(), usize::from(MAX_DEVICES));
        assert_eq!(places[0].function.to_string(), "0000:00:01.0");
        for two in places.windows(2) {
            assert_eq!(two[1].registers - two[0].registers, REGISTERS_SIZE);
            assert!(two[1].doorbell > two[0].doorbell && two[0].function < two[1].function);
        }
    }
}
