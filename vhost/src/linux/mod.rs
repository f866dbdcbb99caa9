//! Linux's own vhost: a queue is served in the kernel.
//!
//! The requests are those of rust-vmm's crate `vhost`. The guest's memory is mapped by this process, lazily, and
//! the kernel reaches it there, so [`crate::Memory::Foreign`] is not for these backends.

mod door;
mod memory;
mod net;
mod tap;

pub use net::{Net, Options};
pub use tap::Tap;
