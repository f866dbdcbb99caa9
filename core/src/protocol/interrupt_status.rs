//! Where InterruptStatus and InterruptACK of a virtio-mmio device are, which an engine answers without its VMM.
//!
//! The driver reads the one (offset 0x60) and writes the other (0x64) for each interrupt (virtio 1.3, 4.2.2).
//! What they hold, and when the interrupt is raised, is in [`super::interrupt_state`].

use super::doorbell::{Bytes, Doorbell, Invalid};
use super::ioreq::{Access, Kick, Space, Width};
use super::table::Entry;

/// Bit of InterruptStatus: the device has used a buffer (`VIRTIO_MMIO_INT_VRING`).
pub const USED_BUFFER: u32 = 1 << 0;
/// Bit of InterruptStatus: the device's configuration has changed (`VIRTIO_MMIO_INT_CONFIG`).
pub const CONFIG_CHANGE: u32 = 1 << 1;

/// From InterruptStatus to InterruptACK.
pub const ACK: u64 = 4;
/// Bytes of both.
const LENGTH: u64 = 8;

/// The two registers of one device: InterruptStatus, and InterruptACK behind it, of 4 bytes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registers(Bytes);

impl Registers {
    /// Those with InterruptStatus at an address in memory.
    ///
    /// # Errors
    /// [`Invalid::Aligned`] unless it is a multiple of 4, [`Invalid::Range`] if InterruptACK is beyond the
    /// end of memory.
    pub const fn new(status: u64) -> Result<Self, Invalid> {
        if status & 3 != 0 {
            return Err(Invalid::Aligned);
        }
        let Some(last) = status.checked_add(LENGTH - 1) else {
            return Err(Invalid::Range);
        };
        match Bytes::new(Space::Mmio, status, last) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(invalid) => Err(invalid),
        }
    }

    /// The address of InterruptStatus.
    pub const fn addr(&self) -> u64 {
        self.0.first()
    }

    /// The bytes of both.
    pub const fn bytes(&self) -> Bytes {
        self.0
    }

    /// Whether all bytes of an access are theirs.
    fn hold(&self, access: &Access) -> bool {
        access.space == Space::Mmio
            && access.addr >= self.0.first()
            && access.addr <= self.0.last()
            && self.0.last() - access.addr >= u64::from(access.width.bytes()) - 1
    }

    /// What a read answers while the status is `word`: InterruptStatus is the word, InterruptACK is 0, and
    /// the read gets those of their bytes that it asks for.
    ///
    /// The specification has drivers read 4 bytes at the register's address. Of narrower reads QEMU
    /// answers none.
    pub fn read(&self, word: u32, access: &Access) -> u64 {
        // Both registers, as they lie in memory; the access is to some of their bytes.
        let offset = access.addr.wrapping_sub(self.addr()) & (LENGTH - 1);
        u64::from(word) >> (8 * offset) & access.width.mask()
    }

    /// The bits that a write acknowledges. `None`: it is no write of InterruptACK's 4 bytes, and changes
    /// nothing.
    pub fn acknowledged(&self, write: &Kick) -> Option<u32> {
        let Access { addr, width, .. } = write.access;
        let whole = width == Width::Four && addr == self.addr().wrapping_add(ACK);
        // A value has no bits beyond the width.
        if whole {
            u32::try_from(write.value).ok()
        } else {
            None
        }
    }
}

/// Something that an engine keeps for the registers of one device.
pub trait Device {
    /// Where they are.
    fn registers(&self) -> Registers;
}

impl Device for Registers {
    fn registers(&self) -> Registers {
        *self
    }
}

impl<D: Device> Device for &D {
    fn registers(&self) -> Registers {
        (**self).registers()
    }
}

/// The index of the device whose registers an access is to. `devices` are in order, as [`place`] keeps them.
pub fn find<D: Device>(devices: &[D], access: &Access) -> Option<usize> {
    let index = devices.partition_point(|device| device.registers().0.last() < access.addr);
    devices.get(index)?.registers().hold(access).then_some(index)
}

/// The index of the device with these registers.
pub fn position<D: Device>(devices: &[D], registers: Registers) -> Option<usize> {
    devices.binary_search_by_key(&registers, Device::registers).ok()
}

/// The index at which a device with these registers keeps the devices in order.
///
/// # Errors
/// The bytes that are another's: a device's, or a doorbell's of the table.
pub fn place<D: Device, E: Entry>(
    devices: &[D],
    table: &[E],
    registers: Registers,
) -> Result<usize, Bytes> {
    let bytes = registers.0;
    let index = devices.partition_point(|device| device.registers().0.last() < bytes.first());
    match devices.get(index).map(Device::registers) {
        Some(next) if next.0.first() <= bytes.last() => return Err(next.0),
        _ => {}
    }
    match doorbell_at(table, bytes) {
        Some(doorbell) => Err(doorbell.bytes()),
        None => Ok(index),
    }
}

/// The first doorbell of a table that has one of these bytes, which are memory's.
fn doorbell_at<E: Entry>(table: &[E], bytes: Bytes) -> Option<Doorbell> {
    // A doorbell has at most 8 bytes.
    let earliest = bytes.first().saturating_sub(7);
    let begin = |entry: &E| (entry.doorbell().bytes().space(), entry.doorbell().bytes().first());
    let start = table.partition_point(|entry| begin(entry) < (Space::Mmio, earliest));
    let near =
        table.iter().skip(start).take_while(|entry| begin(entry) <= (Space::Mmio, bytes.last()));
    near.map(|entry| *entry.doorbell()).find(|doorbell| doorbell.bytes().last() >= bytes.first())
}

/// The registers that have one of a doorbell's bytes.
pub fn in_the_way<D: Device>(devices: &[D], doorbell: &Doorbell) -> Option<Registers> {
    let bytes = doorbell.bytes();
    if bytes.space() != Space::Mmio {
        return None;
    }
    let index = devices.partition_point(|device| device.registers().0.last() < bytes.first());
    devices.get(index).map(Device::registers).filter(|next| next.0.first() <= bytes.last())
}

#[cfg(test)]
mod tests {
    use super::super::doorbell::Filter;
    use super::*;

    const AT: u64 = 0xFE00_0060;

    fn registers() -> Registers {
        Registers::new(AT).unwrap()
    }

    fn access(addr: u64, width: Width) -> Access {
        Access { space: Space::Mmio, addr, width }
    }

    #[test]
    fn registers_are_aligned_and_end() {
        assert_eq!(Registers::new(AT + 2), Err(Invalid::Aligned));
        assert_eq!(Registers::new(u64::MAX - 3), Err(Invalid::Range));
        let last = Registers::new(u64::MAX - 7).unwrap();
        assert_eq!((last.addr(), last.bytes().last()), (u64::MAX - 7, u64::MAX));
    }

    #[test]
    fn a_read_gets_its_bytes_of_the_status_and_zeros_of_the_acknowledgement() {
        let read = |offset, width| registers().read(0x0403_0201, &access(AT + offset, width));
        assert_eq!(read(0, Width::Four), 0x0403_0201);
        assert_eq!(read(0, Width::Eight), 0x0403_0201);
        assert_eq!((read(0, Width::One), read(3, Width::One), read(2, Width::Two)), (1, 4, 0x0403));
        assert_eq!((read(4, Width::Four), read(7, Width::One), read(3, Width::Two)), (0, 0, 4));
    }

    #[test]
    fn only_a_write_of_the_whole_register_acknowledges() {
        let write = |offset, width| {
            registers().acknowledged(&Kick::new(Space::Mmio, AT + offset, width, 3))
        };
        assert_eq!(write(ACK, Width::Four), Some(3));
        for (offset, width) in
            [(0, Width::Four), (0, Width::Eight), (4, Width::One), (4, Width::Two)]
        {
            assert_eq!(write(offset, width), None, "{offset} {width:?}");
        }
    }

    #[test]
    fn a_device_is_found_by_accesses_that_are_its_own() {
        let devices =
            [registers(), Registers::new(AT + 8).unwrap(), Registers::new(AT + 0x1000).unwrap()];
        let found = |addr, width| find(&devices, &access(addr, width));
        assert_eq!((found(AT, Width::Four), found(AT + 7, Width::One)), (Some(0), Some(0)));
        assert_eq!(
            (found(AT + 8, Width::Eight), found(AT + 0x1004, Width::Four)),
            (Some(1), Some(2))
        );
        assert_eq!((found(AT - 4, Width::Four), found(AT - 1, Width::Two)), (None, None));
        assert_eq!((found(AT + 4, Width::Eight), found(AT + 0x1008, Width::One)), (None, None));
        assert_eq!(found(u64::MAX, Width::One), None);
        let port = Access { space: Space::Pio, addr: 0x60, width: Width::Four };
        assert_eq!(find(&[Registers::new(0x60).unwrap()], &port), None);
        assert_eq!(position(&devices, Registers::new(AT + 0x1000).unwrap()), Some(2));
        assert_eq!(position(&devices, Registers::new(AT + 4).unwrap()), None);
    }

    #[test]
    fn no_byte_has_two_owners() {
        let doorbell = |addr, span| Doorbell::new(Space::Mmio, addr, Filter::Any { span }).unwrap();
        let port = Doorbell::new(Space::Pio, 0x60, Filter::Any { span: 8 }).unwrap();
        let mut table = [doorbell(AT - 0x10, 4), doorbell(AT + 8, 4), port];
        table.sort_unstable();
        let devices = [Registers::new(AT - 0x1000).unwrap(), Registers::new(AT + 0x1000).unwrap()];
        let placed = |addr| place(&devices, &table, Registers::new(addr).unwrap());
        assert_eq!((placed(AT), placed(AT + 0xFF8), placed(AT + 0x1008)), (Ok(1), Ok(1), Ok(2)));
        assert_eq!((placed(0x60), placed(AT - 0x1000 - 8)), (Ok(0), Ok(0)));
        for taken in
            [AT + 4, AT + 8, AT - 0x10, AT - 0x14, AT + 0x1000 - 4, AT + 0x1004, AT - 0x1000]
        {
            assert!(placed(taken).is_err(), "{taken:#x}");
        }
        for (addr, span, free) in [
            (AT + 0xFF8, 8, true),
            (AT + 0xFF9, 8, false),
            (AT + 0x1007, 1, false),
            (AT + 0x1008, 1, true),
            (AT - 0x1000 + 3, 2, false),
        ] {
            assert_eq!(in_the_way(&devices, &doorbell(addr, span)).is_none(), free, "{addr:#x}");
        }
        assert_eq!(in_the_way(&[Registers::new(0x60).unwrap()], &port), None);
    }
}
