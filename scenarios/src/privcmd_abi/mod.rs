//! An engine by the privcmd ABI of the kernel module (`docs/privcmd-abi.md`), so that the same scenarios test
//! what programs of that ABI rely on. No product has it: the library's kernel engine makes the module's own
//! requests, which can do more.
//!
//! A doorbell is in memory and takes one value of at most 16 bits, and only the low 16 bits of a write are
//! compared, whatever its width (`3_u32` takes 0x80010003 too); an eventfd has one doorbell of a guest. An
//! interrupt is an MSI, or a line that is raised and never lowered. There are no fallbacks and no event
//! channels in either direction, and a guest's death is noticed by the next request. A scenario that needs
//! more is skipped.

mod engine;
mod file;
mod sys;

pub(crate) use engine::Privcmd;

use xen_eventfd::Error;

const CANNOT: &str = "the privcmd ABI has no ";

/// What the ABI has no request for.
pub(crate) fn unsupported(what: &str) -> Error {
    Error::NoEngine(format!("{CANNOT}{what}"))
}

/// What the ABI has no request for, if that is the error.
pub(crate) fn missing(error: &Error) -> Option<&str> {
    match error {
        Error::NoEngine(why) => why.strip_prefix(CANNOT),
        _ => None,
    }
}
