// SPDX-License-Identifier: GPL-2.0

//! What callers pass and get back: structs in user memory.
//!
//! # Invariants
//! * User memory is touched through [`UserSlice`] alone, and copied once: what is checked is what
//!   is used.
//! * What is not known is not ignored: flags, padding and tails that are not zero are errors.

pub(crate) mod native;
pub(crate) mod privcmd;

use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// A struct on its way in: its fields are taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk().ok_or(EINVAL)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// The out-fields of a struct, which are at its end.
struct Answer<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Answer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    fn put(mut self, field: &[u8]) -> Self {
        let end = self.len.saturating_add(field.len());
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(field);
            self.len = end;
        }
        self
    }

    fn u16(self, field: u16) -> Self {
        self.put(&field.to_ne_bytes())
    }

    fn u32(self, field: u32) -> Self {
        self.put(&field.to_ne_bytes())
    }

    fn u64(self, field: u64) -> Self {
        self.put(&field.to_ne_bytes())
    }

    /// Writes them behind the in-fields of the struct, which are `offset` bytes.
    fn write(&self, arg: UserPtr, offset: usize) -> Result {
        let mut writer = UserSlice::new(arg.wrapping_byte_add(offset), N).writer();
        writer.write_slice(&self.bytes)
    }
}

/// Copies `N` bytes.
fn copy<const N: usize>(arg: UserPtr) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    UserSlice::new(arg, N).reader().read_slice(&mut bytes)?;
    Ok(bytes)
}

/// Reads a struct that begins with its size and whose first version has `N` bytes, which is all that
/// we know of it.
fn read<const N: usize>(arg: UserPtr) -> Result<[u8; N]> {
    let size = u32::from_ne_bytes(copy(arg)?) as usize;
    if size < N {
        return Err(EINVAL);
    }
    if size > PAGE_SIZE {
        return Err(E2BIG);
    }
    let mut reader = UserSlice::new(arg, size).reader();
    let mut known = [0; N];
    reader.read_slice(&mut known)?;
    let mut beyond = [0; 64];
    while !reader.is_empty() {
        let len = reader.len().min(beyond.len());
        let Some(chunk) = beyond.get_mut(..len) else { break };
        reader.read_slice(chunk)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Err(E2BIG);
        }
    }
    Ok(known)
}
