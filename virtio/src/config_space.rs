//! A configuration space: 256 bytes, with a mask of the bits that the guest may change.
//!
//! The source is the PCI Local Bus Specification 3.0, chapter 6.

use crate::state::StateError;
use crate::value::gather;
use alloc::vec::Vec;
use xen_eventfd_core::Width;

/// Bytes of a configuration space. What is beyond, only PCI Express has.
const SIZE: usize = 256;

pub(crate) const COMMAND: usize = 0x04;
pub(crate) const STATUS: usize = 0x06;
pub(crate) const BAR_0: usize = 0x10;
const SUBSYSTEM: usize = 0x2C;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3C;
const INTERRUPT_PIN: usize = 0x3D;
/// The first byte after a header of type 0.
const HEADER_END: usize = 0x40;

/// Bits of the command register.
pub(crate) const DECODES_PORTS: u16 = 1 << 0;
pub(crate) const DECODES_MEMORY: u16 = 1 << 1;
pub(crate) const MASTERS_BUS: u16 = 1 << 2;
pub(crate) const LINE_OFF: u16 = 1 << 10;

/// Bits of the status register.
pub(crate) const LINE_PENDING: u16 = 1 << 3;
const HAS_CAPABILITIES: u16 = 1 << 4;

/// A function's identity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) vendor: u16,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    /// Base class and subclass.
    pub(crate) class: [u8; 2],
    /// Whether it has the pin INTA.
    pub(crate) has_line: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct ConfigSpace {
    bytes: [u8; SIZE],
    /// The bits of each byte that the guest may change.
    writable: [u8; SIZE],
    /// Where the next capability will be, and the pointer that leads to it.
    end: usize,
    link: usize,
}

impl ConfigSpace {
    /// A header of type 0 without BARs or capabilities. Its subsystem is the device itself.
    pub(crate) fn new(identity: Identity) -> Self {
        let mut space =
            Self { bytes: [0; SIZE], writable: [0; SIZE], end: HEADER_END, link: CAPABILITIES };
        for at in [0, SUBSYSTEM] {
            space.put(at, &identity.vendor.to_le_bytes());
            space.put(at + 2, &identity.device.to_le_bytes());
        }
        let [base, sub] = identity.class;
        space.put(0x08, &[identity.revision, 0, sub, base]);
        if identity.has_line {
            space.put(INTERRUPT_PIN, &[1]);
            space.allow(INTERRUPT_LINE, &[0xFF]);
        }
        let command = DECODES_PORTS | DECODES_MEMORY | MASTERS_BUS | LINE_OFF;
        space.allow(COMMAND, &command.to_le_bytes());
        space
    }

    /// Adds a capability, `body` after the pointer to the next one. Returns its address.
    pub(crate) fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.end;
        self.put(STATUS, &HAS_CAPABILITIES.to_le_bytes());
        self.put(self.link, &[at.to_le_bytes()[0]]);
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.link = at + 1;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Lets the guest change the bits of `mask`.
    pub(crate) fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// Reads. What is beyond reads as all ones.
    pub(crate) fn read(&self, register: u16, width: Width) -> u64 {
        let first = usize::from(register);
        gather(width, |at| self.bytes.get(first + usize::from(at)).copied().unwrap_or(0xFF))
    }

    /// Writes what may be written.
    pub(crate) fn write(&mut self, register: u16, width: Width, value: u64) {
        let first = usize::from(register);
        for (at, new) in value.to_le_bytes().into_iter().enumerate().take(width.bytes().into()) {
            if let (Some(old), Some(mask)) =
                (self.bytes.get_mut(first + at), self.writable.get(first + at))
            {
                *old = *old & !mask | new & mask;
            }
        }
    }

    /// The bits that a guest may change, all others as 0.
    pub(crate) fn state(&self) -> Vec<u8> {
        self.bytes.iter().zip(&self.writable).map(|(byte, mask)| byte & mask).collect()
    }

    /// Sets the bits that a guest may change.
    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        if state.len() != SIZE {
            return Err(StateError::Size);
        }
        for ((byte, mask), new) in self.bytes.iter_mut().zip(&self.writable).zip(state) {
            *byte = *byte & !mask | new & mask;
        }
        Ok(())
    }

    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    pub(crate) fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(crate) fn long(&self, at: usize) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at + 2)) << 16
    }

    /// Whether the command register has all of these bits.
    pub(crate) fn commands(&self, bits: u16) -> bool {
        self.word(COMMAND) & bits == bits
    }

    /// The address in a BAR of `size` bytes, if the function decodes it. It does not at 0, nor at the end of
    /// the space, where a guest puts a BAR to learn its size.
    pub(crate) fn bar(&self, index: usize, size: u32, last: u32) -> Option<u32> {
        let address = self.long(BAR_0 + 4 * index) & !(size - 1);
        (address != 0 && address.checked_add(size).is_some_and(|end| end <= last))
            .then_some(address)
    }
}
