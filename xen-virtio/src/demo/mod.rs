//! The demonstration.

pub(crate) mod backend;
