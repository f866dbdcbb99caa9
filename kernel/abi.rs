// SPDX-License-Identifier: GPL-2.0

//! The requests of `/dev/xen/eventfd`, as `uapi/xen-eventfd.h` has them, and nothing else.
//!
//! # Invariants
//! * User memory is touched through [`UserSlice`] alone, and copied once: what is checked is what
//!   is used.
//! * What is not known is not ignored: flags, padding and tails that are not zero are errors.

use crate::doorbells::{Counters, MAX_DOORBELLS, MAX_HELD};
use crate::protocol::{DomId, Doorbell, Filter, Space, Width};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

const MAGIC: u32 = 0xEF;
pub(crate) const QUERY: u32 = kernel::ioctl::_IO(MAGIC, 0);
pub(crate) const BIND: u32 = kernel::ioctl::_IO(MAGIC, 1);
pub(crate) const ASSIGN: u32 = kernel::ioctl::_IO(MAGIC, 2);
pub(crate) const DEASSIGN: u32 = kernel::ioctl::_IO(MAGIC, 3);
pub(crate) const STATS: u32 = kernel::ioctl::_IO(MAGIC, 4);

const ABI: u32 = 1;
const FEATURES: u64 = 1;

const QUERY_SIZE: usize = 24;
const BIND_SIZE: usize = 8;
const DOORBELL_SIZE: usize = 48;
const STATS_SIZE: usize = 72;

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

/// A struct on its way out.
struct Answer<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Answer<N> {
    /// It begins with its size.
    fn new() -> Self {
        let mut answer = Self { bytes: [0; N], len: 0 };
        answer.put(&(N as u32).to_ne_bytes());
        answer
    }

    fn put(&mut self, field: &[u8]) {
        let end = self.len.saturating_add(field.len());
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(field);
            self.len = end;
        }
    }

    fn write(&self, arg: UserPtr) -> Result {
        UserSlice::new(arg, N).writer().write_slice(&self.bytes)
    }
}

/// Reads a struct whose first version has `N` bytes, which is all that we know of it.
fn read<const N: usize>(arg: UserPtr) -> Result<[u8; N]> {
    let mut size = [0; 4];
    UserSlice::new(arg, size.len()).reader().read_slice(&mut size)?;
    let size = u32::from_ne_bytes(size) as usize;
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

/// Answers [`QUERY`].
pub(crate) fn query(arg: UserPtr) -> Result {
    read::<QUERY_SIZE>(arg)?;
    let mut answer = Answer::<QUERY_SIZE>::new();
    answer.put(&ABI.to_ne_bytes());
    answer.put(&FEATURES.to_ne_bytes());
    answer.put(&(MAX_DOORBELLS as u32).to_ne_bytes());
    answer.put(&(MAX_HELD as u32).to_ne_bytes());
    answer.write(arg)
}

/// The guest that [`BIND`] names.
pub(crate) fn bind(arg: UserPtr) -> Result<DomId> {
    let known = read::<BIND_SIZE>(arg)?;
    let mut fields = Fields(&known);
    fields.u32()?;
    let (dom, pad) = (DomId(fields.u16()?), fields.u16()?);
    if pad != 0 || !dom.is_guest() {
        return Err(EINVAL);
    }
    Ok(dom)
}

/// The doorbell and the file descriptor that [`ASSIGN`] and [`DEASSIGN`] name.
pub(crate) fn doorbell(arg: UserPtr) -> Result<(Doorbell, i32)> {
    let known = read::<DOORBELL_SIZE>(arg)?;
    let mut fields = Fields(&known);
    let (_size, flags) = (fields.u32()?, fields.u32()?);
    let (space, kind) = (fields.u32()?, fields.u32()?);
    let (len, eventfd) = (fields.u32()?, fields.i32()?);
    let (addr, value, mask) = (fields.u64()?, fields.u64()?, fields.u64()?);
    if flags != 0 {
        return Err(EINVAL);
    }
    let space = match space {
        0 => Space::Mmio,
        1 => Space::Pio,
        _ => return Err(EINVAL),
    };
    let width = || Width::new(len).ok_or(EINVAL);
    let filter = match kind {
        0 => Filter::Value { width: width()?, value, mask },
        1 | 2 if value != 0 || mask != 0 => return Err(EINVAL),
        1 => Filter::Width(width()?),
        2 => Filter::Any { span: u8::try_from(len).map_err(|_| EINVAL)? },
        _ => return Err(EINVAL),
    };
    Ok((Doorbell::new(space, addr, filter).map_err(|_| EINVAL)?, eventfd))
}

/// Whether [`STATS`] can be answered; before any work is done for it.
pub(crate) fn wants_stats(arg: UserPtr) -> Result {
    read::<STATS_SIZE>(arg).map(|_| ())
}

/// Answers [`STATS`].
pub(crate) fn stats(arg: UserPtr, server: u16, doorbells: usize, counters: &Counters) -> Result {
    let mut answer = Answer::<STATS_SIZE>::new();
    answer.put(&server.to_ne_bytes());
    answer.put(&u16::try_from(doorbells).unwrap_or(u16::MAX).to_ne_bytes());
    let Counters { delivered, held, redelivered, late, reads, broadcasts, odd, spurious } = counters;
    for count in [delivered, held, redelivered, late, reads, broadcasts, odd, spurious] {
        answer.put(&count.to_ne_bytes());
    }
    answer.write(arg)
}
