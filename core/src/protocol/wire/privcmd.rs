//! The requests of Linux's privcmd patch (`IOCTL_PRIVCMD_IOEVENTFD` and
//! `IOCTL_PRIVCMD_IRQFD`), as values: the structs of Linux's `include/uapi/xen/privcmd.h` and what
//! may be in them.
//!
//! The order of the checks is the patch's own (`drivers/xen/privcmd.c`); a caller can report them
//! apart by it.

use super::super::doorbell::{Doorbell, Filter};
use super::super::id::DomId;
use super::super::ioreq::{Space, Width};
use super::bytes::{Field, Reader, Writer};
use super::Invalid;

/// `PRIVCMD_IOEVENTFD_FLAG_DEASSIGN` and `PRIVCMD_IRQFD_FLAG_DEASSIGN`.
const DEASSIGN: u32 = 1;
/// virtio-mmio's QueueNotify, which the patch adds to every address.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// The bits of a write that name the queue (`QUEUE_NOTIFY_VQ_MASK`).
pub const QUEUE_MASK: u64 = 0xFFFF;
/// vCPUs that the patch accepts.
const MAX_VCPUS: u32 = 4096;
/// Bytes of a `dm_op` that are looked at; Xen's own `struct xen_dm_op` is smaller.
pub const MAX_DM_OP: usize = 256;

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($(#[$of:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub struct $name {
                $($(#[$of])* pub $field: $type,)*
            }

            impl $name {
                /// `sizeof`. What is behind the last field is padding, and not looked at.
                pub const SIZE: usize = $size;

                /// Reads a struct.
                ///
                /// # Errors
                /// [`Invalid`] if a flag is unknown.
                #[inline]
                pub fn parse(bytes: &[u8; Self::SIZE]) -> Result<Self, Invalid> {
                    let mut from = Reader(bytes);
                    Ok(Self { $($field: Field::read(&mut from)?,)* })
                }

                /// Writes it.
                #[inline]
                pub fn emit(&self) -> [u8; Self::SIZE] {
                    let mut bytes = [0; Self::SIZE];
                    let mut to = Writer(&mut bytes);
                    $(self.$field.write(&mut to);)*
                    bytes
                }
            }
        )*
    };
}

structs! {
    /// `struct privcmd_ioeventfd`.
    IoEventFd 48 {
        /// The user's address of the ioreq page: here, the name of a server.
        ioreq: u64,
        /// The user's address of one port for each vCPU.
        ports: u64,
        /// Where the device's registers begin.
        addr: u64,
        /// How wide a write to its notify register must be, in bytes.
        addr_len: u32,
        /// The eventfd's descriptor.
        event_fd: i32,
        /// How many vCPUs the caller says that the guest has.
        vcpus: u32,
        /// The queue's number.
        vq: u32,
        /// Whether it takes an assignment back.
        deassign: bool,
        /// The guest.
        dom: DomId,
    }
    /// `struct privcmd_irqfd`.
    IrqFd 24 {
        /// The user's address of a `struct xen_dm_op`.
        dm_op: u64,
        /// Its length in bytes.
        size: u32,
        /// The eventfd's descriptor.
        fd: i32,
        /// Whether it takes an assignment back.
        deassign: bool,
        /// The guest.
        dom: DomId,
    }
}

/// The flags: `deassign` is the only one.
impl Field for bool {
    #[inline(always)]
    fn read(from: &mut Reader<'_>) -> Result<Self, Invalid> {
        match from.u32()? {
            0 => Ok(false),
            DEASSIGN => Ok(true),
            _ => Err(Invalid),
        }
    }

    #[inline(always)]
    fn write(&self, to: &mut Writer<'_>) {
        to.u32(if *self { DEASSIGN } else { 0 });
    }
}

impl Field for DomId {
    #[inline(always)]
    fn read(from: &mut Reader<'_>) -> Result<Self, Invalid> {
        from.u16().map(DomId)
    }

    #[inline(always)]
    fn write(&self, to: &mut Writer<'_>) {
        to.u16(self.0);
    }
}

impl IoEventFd {
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

#[cfg(test)]
mod tests {
    use super::super::super::ioreq::Kick;
    use super::*;

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
        IoEventFd::parse(&bytes)
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
    fn what_is_written_is_what_was_read() {
        let bytes = ioeventfd();
        assert_eq!(IoEventFd::parse(&bytes).unwrap().emit(), bytes);
        let mut bytes = [0x5A; IrqFd::SIZE];
        bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[22..].fill(0);
        assert_eq!(IrqFd::parse(&bytes).unwrap().emit(), bytes);
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
        assert!(IoEventFd::parse(&bytes).unwrap().doorbell().is_ok());
        bytes[36..40].copy_from_slice(&0x100_u32.to_ne_bytes());
        assert_eq!(IoEventFd::parse(&bytes).unwrap().doorbell(), Err(Invalid));
    }
}
