//! The MSI-X table and its pending bits (PCI Local Bus Specification 3.0, section 6.8.2).
//!
//! # Invariants
//! * There are at most as many vectors as there are pending bits.
//! * A vector is pending only while it cannot be raised; [`MsiX::release`] is called after every change.

use crate::effect::{Message, Route};
use crate::layout::{ENTRY_SIZE, MAX_VECTORS};
use crate::state::{EntryState, StateError};
use crate::value::{high, low, with_half, word};
use alloc::vec::Vec;
use xen_eventfd_core::Width;

/// Bits of the capability's message control.
pub(crate) const ENABLE: u16 = 1 << 15;
pub(crate) const MASK_ALL: u16 = 1 << 14;

/// No vector (`VIRTIO_MSI_NO_VECTOR`).
pub(crate) const NO_VECTOR: u16 = 0xFFFF;

#[derive(Debug, Clone, Copy)]
struct Entry {
    message: Message,
    is_masked: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct MsiX {
    entries: Vec<Entry>,
    pending: u128,
    /// MSI-X is on.
    pub(crate) is_enabled: bool,
    /// No vector may be raised: the function is masked, or does not master the bus.
    pub(crate) is_held: bool,
}

impl MsiX {
    /// A table of so many vectors, all masked.
    pub(crate) fn new(vectors: usize) -> Self {
        let entry = Entry { message: Message { addr: 0, data: 0 }, is_masked: true };
        let entries = alloc::vec![entry; vectors.min(MAX_VECTORS)];
        Self { entries, pending: 0, is_enabled: false, is_held: false }
    }

    pub(crate) fn vectors(&self) -> usize {
        self.entries.len()
    }

    /// The vector that an event is mapped to when the driver writes `vector`.
    pub(crate) fn mapped(&self, vector: u16) -> u16 {
        if usize::from(vector) < self.entries.len() { vector } else { NO_VECTOR }
    }

    /// How the events of a vector go while MSI-X is on.
    pub(crate) fn route(&self, vector: u16) -> Route {
        match self.entries.get(usize::from(vector)) {
            None => Route::Nowhere,
            Some(entry) if self.is_held || entry.is_masked => Route::Masked,
            Some(entry) => Route::Message(entry.message),
        }
    }

    /// An event: the message to raise now, unless it is pending or goes nowhere.
    pub(crate) fn signal(&mut self, vector: u16) -> Option<Message> {
        match self.route(vector) {
            Route::Message(message) => return Some(message),
            Route::Masked => self.pending |= 1 << vector,
            Route::Nowhere | Route::Line | Route::InterruptStatus => {}
        }
        None
    }

    /// Takes a vector that is pending and may be raised.
    pub(crate) fn release(&mut self) -> Option<Message> {
        if self.pending == 0 || !self.is_enabled {
            return None;
        }
        let vectors = 0..word(self.entries.len() as u64);
        for vector in vectors.filter(|vector| self.pending & 1 << vector != 0) {
            if let Route::Message(message) = self.route(vector) {
                self.pending &= !(1 << vector);
                return Some(message);
            }
        }
        None
    }

    /// Forgets what is pending.
    pub(crate) fn forget(&mut self) {
        self.pending = 0;
    }

    /// The table, and what is pending.
    pub(crate) fn state(&self) -> (Vec<EntryState>, [u8; 16]) {
        let entry = |entry: &Entry| EntryState {
            addr: entry.message.addr,
            data: entry.message.data,
            is_masked: entry.is_masked,
        };
        (self.entries.iter().map(entry).collect(), self.pending.to_le_bytes())
    }

    /// Sets the table and what is pending.
    pub(crate) fn restore(
        &mut self,
        entries: &[EntryState],
        pending: [u8; 16],
    ) -> Result<(), StateError> {
        let pending = u128::from_le_bytes(pending);
        if entries.len() != self.entries.len() {
            return Err(StateError::Size);
        }
        if pending.checked_shr(word(entries.len() as u64).into()).unwrap_or(0) != 0
            || entries.iter().any(|entry| entry.addr & 3 != 0)
        {
            return Err(StateError::Value);
        }
        let entry = |state: &EntryState| Entry {
            message: Message { addr: state.addr, data: state.data },
            is_masked: state.is_masked,
        };
        self.entries = entries.iter().map(entry).collect();
        self.pending = pending;
        Ok(())
    }

    /// A byte of the table; 0 beyond its end.
    pub(crate) fn table_byte(&self, offset: u32) -> u8 {
        let Some(entry) = self.entries.get((offset / ENTRY_SIZE) as usize) else { return 0 };
        let mut bytes = [0; ENTRY_SIZE as usize];
        bytes[..8].copy_from_slice(&entry.message.addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&entry.message.data.to_le_bytes());
        bytes[12] = u8::from(entry.is_masked);
        bytes[(offset % ENTRY_SIZE) as usize]
    }

    /// A byte of the pending bits, to which `also` adds those that the caller holds.
    pub(crate) fn pending_byte(&self, offset: u32, also: u128) -> u8 {
        let bytes = (self.pending | also).to_le_bytes();
        bytes.get(offset as usize).copied().unwrap_or(0)
    }

    /// Writes to the table. Only aligned accesses of 4 and 8 bytes have an effect.
    pub(crate) fn write(&mut self, offset: u32, width: Width, value: u64) {
        if !offset.is_multiple_of(width.bytes().into()) {
            return;
        }
        match width {
            Width::One | Width::Two => {}
            Width::Four => self.write_long(offset, low(value)),
            Width::Eight => {
                self.write_long(offset, low(value));
                self.write_long(offset + 4, high(value));
            }
        }
    }

    fn write_long(&mut self, offset: u32, value: u32) {
        let Some(entry) = self.entries.get_mut((offset / ENTRY_SIZE) as usize) else { return };
        match offset % ENTRY_SIZE {
            // The two lowest bits of an address are always 0.
            0 => entry.message.addr = with_half(entry.message.addr, false, value & !3),
            4 => entry.message.addr = with_half(entry.message.addr, true, value),
            8 => entry.message.data = value,
            _ => entry.is_masked = value & 1 != 0,
        }
    }
}
