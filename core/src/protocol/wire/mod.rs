//! The formats in which others speak to us and we to them, one file for each: how a value is read
//! from it and how it is written to it, beside one another.
//!
//! Nothing here allocates, and nothing is trusted: any bytes and any text are a value or an error.
//! What an engine does not use of it is not in its object code: the functions are `inline`.

pub mod text;
