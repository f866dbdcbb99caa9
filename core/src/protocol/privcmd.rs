//! The requests of the kernel patch that this project starts from (`IOCTL_PRIVCMD_IOEVENTFD` and
//! `IOCTL_PRIVCMD_IRQFD`), as values: the structs of Linux's `include/uapi/xen/privcmd.h` and what
//! may be in them.
//!
//! The order of the checks is the patch's own (`drivers/xen/privcmd.c`); a caller can tell them
//! apart by it.

use super::doorbell::{Doorbell, Filter};
use super::id::DomId;
use super::ioreq::{Space, Width};
use super::irq::{Irq, Line, Trigger};

/// `PRIVCMD_IOEVENTFD_FLAG_DEASSIGN` and `PRIVCMD_IRQFD_FLAG_DEASSIGN`.
const DEASSIGN: u32 = 1;
/// virtio-mmio's QueueNotify, which the patch adds to every address.
const QUEUE_NOTIFY: u64 = 0x50;
/// The bits of a write that name the queue (`QUEUE_NOTIFY_VQ_MASK`).
const QUEUE_MASK: u64 = 0xFFFF;
/// vCPUs that the patch accepts.
const MAX_VCPUS: u32 = 4096;
/// Bytes of a `dm_op` that are looked at; Xen's own `struct xen_dm_op` is smaller.
pub const MAX_DM_OP: usize = 256;

/// The request cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Invalid;

/// Fields of a struct, from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Invalid)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, Invalid> {
        self.take().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Result<u16, Invalid> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, Invalid> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32, Invalid> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Invalid> {
        self.take().map(u64::from_ne_bytes)
    }
}

fn deassign(flags: u32) -> Result<bool, Invalid> {
    match flags {
        0 => Ok(false),
        DEASSIGN => Ok(true),
        _ => Err(Invalid),
    }
}

/// `struct privcmd_ioeventfd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoEventFd {
    /// The user's address of the ioreq page: here, the name of a server.
    pub ioreq: u64,
    /// The user's address of one port for each vCPU.
    pub ports: u64,
    addr: u64,
    addr_len: u32,
    /// The eventfd's descriptor.
    pub event_fd: i32,
    /// How many vCPUs the caller says that the guest has.
    pub vcpus: u32,
    vq: u32,
    /// Whether it takes an assignment back.
    pub deassign: bool,
    /// The guest.
    pub dom: DomId,
}

impl IoEventFd {
    /// `sizeof`.
    pub const SIZE: usize = 48;

    /// Reads a struct.
    ///
    /// # Errors
    /// [`Invalid`] if a flag is unknown.
    pub fn read(bytes: &[u8; Self::SIZE]) -> Result<Self, Invalid> {
        let mut fields = Fields(bytes);
        Ok(Self {
            ioreq: fields.u64()?,
            ports: fields.u64()?,
            addr: fields.u64()?,
            addr_len: fields.u32()?,
            event_fd: fields.i32()?,
            vcpus: fields.u32()?,
            vq: fields.u32()?,
            deassign: deassign(fields.u32()?)?,
            dom: DomId(fields.u16()?),
        })
    }

    /// What is to be assigned: a write of `addr_len` bytes to the queue's notify register whose low
    /// half is the queue's number.
    ///
    /// # Errors
    /// [`Invalid`] if the bytes wrap, `addr_len` is no width, `vcpus` is 0 or above 4096, or no
    /// write of this width can name the queue.
    pub fn doorbell(&self) -> Result<Doorbell, Invalid> {
        self.addr.checked_add(u64::from(self.addr_len)).ok_or(Invalid)?;
        let width = Width::new(self.addr_len).ok_or(Invalid)?;
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return Err(Invalid);
        }
        let addr = self.addr.checked_add(QUEUE_NOTIFY).ok_or(Invalid)?;
        let mask = QUEUE_MASK & width.mask();
        let filter = Filter::Value { width, value: u64::from(self.vq), mask };
        Doorbell::new(Space::Mmio, addr, filter).map_err(|_| Invalid)
    }
}

/// `struct privcmd_irqfd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqFd {
    /// The user's address of a `struct xen_dm_op`.
    pub dm_op: u64,
    /// Its length in bytes.
    pub size: u32,
    /// The eventfd's descriptor.
    pub fd: i32,
    /// Whether it takes an assignment back.
    pub deassign: bool,
    /// The guest.
    pub dom: DomId,
}

impl IrqFd {
    /// `sizeof`.
    pub const SIZE: usize = 24;

    /// Reads a struct.
    ///
    /// # Errors
    /// [`Invalid`] if a flag is unknown.
    pub fn read(bytes: &[u8; Self::SIZE]) -> Result<Self, Invalid> {
        let mut fields = Fields(bytes);
        Ok(Self {
            dm_op: fields.u64()?,
            size: fields.u32()?,
            fd: fields.i32()?,
            deassign: deassign(fields.u32()?)?,
            dom: DomId(fields.u16()?),
        })
    }
}

/// What a device model operation does to an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Raises a message-signalled interrupt.
    Msi {
        /// Destination and mode.
        addr: u64,
        /// Vector and delivery mode.
        data: u32,
    },
    /// Raises or lowers a line, and nothing else.
    Set {
        /// The line.
        line: Line,
        /// Whether it is raised.
        up: bool,
    },
}

impl Operation {
    /// Reads a `struct xen_dm_op` (Xen's `public/hvm/dm_op.h`) with one of the operations that
    /// raise an interrupt. Whatever else a caller would have us do in its name is refused.
    ///
    /// # Errors
    /// [`Invalid`] if it is another operation, too short for what it says, longer than
    /// [`MAX_DM_OP`], or names an interrupt that cannot be.
    pub fn read(dm_op: &[u8]) -> Result<Self, Invalid> {
        if dm_op.len() > MAX_DM_OP {
            return Err(Invalid);
        }
        let mut fields = Fields(dm_op);
        let (op, pad) = (fields.u32()?, fields.u32()?);
        if pad != 0 {
            return Err(Invalid);
        }
        let operation = match op {
            8 => {
                let (segment, bus) = (fields.u16()?, fields.u8()?);
                if (segment, bus) != (0, 0) {
                    return Err(Invalid);
                }
                let line = Line::PciIntx { device: fields.u8()?, pin: fields.u8()? };
                Self::Set { line, up: level(fields.u8()?)? }
            }
            9 => Self::Set { line: Line::Isa(fields.u8()?), up: level(fields.u8()?)? },
            14 => {
                let (data, pad) = (fields.u32()?, fields.u32()?);
                if pad != 0 {
                    return Err(Invalid);
                }
                Self::Msi { data, addr: fields.u64()? }
            }
            19 => {
                let operation =
                    Self::Set { line: Line::Spi(fields.u32()?), up: level(fields.u8()?)? };
                if fields.take::<3>()? != [0; 3] {
                    return Err(Invalid);
                }
                operation
            }
            _ => return Err(Invalid),
        };
        operation.irq().check().map_err(|_| Invalid)?;
        Ok(operation)
    }

    /// The interrupt that it is about.
    pub const fn irq(&self) -> Irq {
        match *self {
            Self::Msi { addr, data } => Irq::Msi { addr, data },
            Self::Set { line, .. } => Irq::Line(line, Trigger::Level),
        }
    }
}

/// Xen takes 0 and 1.
fn level(byte: u8) -> Result<bool, Invalid> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioreq::Kick;
    use super::*;
    use std::vec::Vec;

    fn ioeventfd() -> [u8; IoEventFd::SIZE] {
        let mut bytes = [0; IoEventFd::SIZE];
        bytes[0..8].copy_from_slice(&0x7000_u64.to_ne_bytes());
        bytes[16..24].copy_from_slice(&0xFE00_0000_u64.to_ne_bytes());
        bytes[24..28].copy_from_slice(&4_u32.to_ne_bytes());
        bytes[32..36].copy_from_slice(&2_u32.to_ne_bytes());
        bytes[36..40].copy_from_slice(&3_u32.to_ne_bytes());
        bytes[44..46].copy_from_slice(&7_u16.to_ne_bytes());
        bytes
    }

    fn with(at: usize, field: &[u8]) -> Result<IoEventFd, Invalid> {
        let mut bytes = ioeventfd();
        bytes[at..at + field.len()].copy_from_slice(field);
        IoEventFd::read(&bytes)
    }

    #[test]
    fn a_doorbell_is_the_notify_register_and_the_low_half_of_what_is_written() {
        let request = with(0, &[]).unwrap();
        assert_eq!((request.dom, request.vcpus, request.deassign), (DomId(7), 2, false));
        let doorbell = request.doorbell().unwrap();
        let kick = |value| Kick::new(Space::Mmio, 0xFE00_0050, Width::Four, value);
        assert!(doorbell.takes(&kick(3)) && doorbell.takes(&kick(0x8001_0003)));
        assert!(!doorbell.takes(&kick(0x3_0000)));
    }

    #[test]
    fn flags_are_none_or_deassign() {
        assert!(with(40, &1_u32.to_ne_bytes()).unwrap().deassign);
        for flags in [2_u32, 3, 1 << 31] {
            assert_eq!(with(40, &flags.to_ne_bytes()), Err(Invalid));
        }
    }

    #[test]
    fn what_cannot_be_assigned() {
        let refused = |at, field: &[u8]| with(at, field).unwrap().doorbell() == Err(Invalid);
        for addr in [u64::MAX, u64::MAX - 3, u64::MAX - 0x50, u64::MAX - 0x52] {
            assert!(refused(16, &addr.to_ne_bytes()), "{addr:#x}");
        }
        assert!(!refused(16, &(u64::MAX - 0x53).to_ne_bytes()));
        for len in [0_u32, 3, 5, 16, u32::MAX] {
            assert!(refused(24, &len.to_ne_bytes()), "{len} bytes");
        }
        for vcpus in [0_u32, 4097, u32::MAX] {
            assert!(refused(32, &vcpus.to_ne_bytes()), "{vcpus} vCPUs");
        }
        assert!(!refused(32, &4096_u32.to_ne_bytes()));
        assert!(refused(36, &0x1_0000_u32.to_ne_bytes()), "a queue that no write names");
    }

    #[test]
    fn one_byte_names_256_queues() {
        let mut bytes = ioeventfd();
        bytes[24] = 1;
        bytes[36..40].copy_from_slice(&0xFF_u32.to_ne_bytes());
        assert!(IoEventFd::read(&bytes).unwrap().doorbell().is_ok());
        bytes[36..40].copy_from_slice(&0x100_u32.to_ne_bytes());
        assert_eq!(IoEventFd::read(&bytes).unwrap().doorbell(), Err(Invalid));
    }

    fn dm_op(op: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = op.to_ne_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_four_operations_that_raise_interrupts() {
        let msi = [&0x41_u32.to_ne_bytes()[..], &[0; 4], &0xFEE0_0000_u64.to_ne_bytes()].concat();
        let expected = Operation::Msi { addr: 0xFEE0_0000, data: 0x41 };
        assert_eq!(Operation::read(&dm_op(14, &msi)), Ok(expected));
        let set = |line, up| Ok(Operation::Set { line, up });
        assert_eq!(Operation::read(&dm_op(9, &[5, 1])), set(Line::Isa(5), true));
        let intx = Line::PciIntx { device: 3, pin: 1 };
        assert_eq!(Operation::read(&dm_op(8, &[0, 0, 0, 3, 1, 0])), set(intx, false));
        assert_eq!(
            Operation::read(&dm_op(19, &[33, 0, 0, 0, 1, 0, 0, 0])),
            set(Line::Spi(33), true)
        );
        // A caller may pass its whole union.
        assert_eq!(
            Operation::read(&dm_op(9, &[5, 1, 0, 0, 0, 0, 0, 0, 0, 9])),
            set(Line::Isa(5), true)
        );
    }

    #[test]
    fn nothing_else_is_done_in_a_callers_name() {
        for op in (0..=30).filter(|op| ![8, 9, 14, 19].contains(op)) {
            assert_eq!(Operation::read(&dm_op(op, &[0; 40])), Err(Invalid), "operation {op}");
        }
        let refused: [&[u8]; 9] = [
            &[],
            &dm_op(9, &[5]),
            &dm_op(9, &[16, 1]),
            &dm_op(9, &[5, 2]),
            &dm_op(8, &[1, 0, 0, 3, 1, 0]),
            &dm_op(8, &[0, 0, 1, 3, 1, 0]),
            &dm_op(14, &[0; 16]),
            &dm_op(19, &[33, 0, 0, 0, 1, 0, 0, 1]),
            &dm_op(9, &[1; MAX_DM_OP]),
        ];
        for bytes in refused {
            assert_eq!(Operation::read(bytes), Err(Invalid), "{bytes:?}");
        }
        let mut padded = dm_op(9, &[5, 1]);
        padded[4] = 1;
        assert_eq!(Operation::read(&padded), Err(Invalid));
    }
}
