// SPDX-License-Identifier: GPL-2.0

//! What callers pass and get back: structs in user memory.
//!
//! # Invariants
//! * User memory is touched through [`UserSlice`] alone, and copied once: what is checked is what
//!   is used.
//! * What is not known is not ignored: flags, padding and tails that are not zero are errors.

pub(crate) mod native;
pub(crate) mod privcmd;

use crate::protocol::wire::native::Argument;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// The largest struct that a later version of a caller may pass, as the header's tests have it.
const MAX_SIZE: usize = 4096;

/// Copies `N` bytes.
fn copy<const N: usize>(arg: UserPtr) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    UserSlice::new(arg, N).reader().read_slice(&mut bytes)?;
    Ok(bytes)
}

/// Reads a struct that begins with its size: what we know of it, which is its first version.
fn read<A: Argument>(arg: UserPtr) -> Result<A> {
    let size = u32::from_ne_bytes(copy(arg)?) as usize;
    if size < A::SIZE {
        return Err(EINVAL);
    }
    if size > MAX_SIZE {
        return Err(E2BIG);
    }
    let mut reader = UserSlice::new(arg, size).reader();
    let mut known = A::ZERO;
    reader.read_slice(known.as_mut())?;
    let mut beyond = [0; 64];
    while !reader.is_empty() {
        let len = reader.len().min(beyond.len());
        let Some(chunk) = beyond.get_mut(..len) else { break };
        reader.read_slice(chunk)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Err(E2BIG);
        }
    }
    A::parse(&known).map_err(|_| EINVAL)
}

/// Writes the fields of a struct that are answered.
fn answer<A: Argument>(arg: UserPtr, argument: &A) -> Result {
    let bytes = argument.emit();
    let fields = bytes.as_ref().get(A::ANSWER..).unwrap_or_default();
    let to = arg.wrapping_byte_add(A::ANSWER);
    UserSlice::new(to, fields.len()).writer().write_slice(fields)
}
