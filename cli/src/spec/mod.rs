//! What a user writes for a doorbell or an interrupt.
//!
//! ```text
//! KICK  mmio:ADDR[:LEN[:DATAMATCH]]   pio:PORT[:LEN[:DATAMATCH]]   evtchn:PORT
//! CALL  evtchn:PORT   msi:ADDR:DATA   isa:LINE[:pulse|level]
//!       intx:DEVICE:PIN[:pulse|level]   spi:LINE[:pulse|level]
//! ```
//!
//! Numbers are decimal, or hexadecimal after `0x`. LEN is 1, 2, 4 or 8 bytes, or `any` (or 0) for
//! any width within 4 bytes; DATAMATCH is VALUE or VALUE/MASK.

mod call;
mod kick;
mod number;

pub use call::CallSpec;
pub use kick::{ANY_SPAN, KickSpec, Place, Watched, check_together};
pub(crate) use number::number;

/// What is wrong with a word of the user's, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Wrong(pub String);
