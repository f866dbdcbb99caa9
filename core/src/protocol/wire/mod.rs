//! The formats in which others speak to us and we to them, one file for each: how a value is read
//! from it and how it is written to it, beside one another.
//!
//! Nothing here allocates, and nothing is trusted: any bytes and any text are a value or an error.
//! What an engine does not use of it is not in its object code: the functions are `inline`.

mod bytes;
pub mod dm_op;
pub mod native;
pub mod privcmd;
pub mod text;

use core::fmt;

/// The bytes are no value of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Invalid;

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes are no value of the format")
    }
}

impl core::error::Error for Invalid {}

/// A field that must be zero, as nothing is known of it.
#[inline]
fn zero(field: u32) -> Result<(), Invalid> {
    if field == 0 {
        Ok(())
    } else {
        Err(Invalid)
    }
}
