//! Linux's own vhost: a queue is served in the kernel.
//!
//! The requests are those of rust-vmm's crate `vhost`. The guest's memory is mapped by this process, lazily, and
//! the kernel reaches it there, so [`crate::Memory::Foreign`] is not for these backends.

mod control;
mod device;
mod door;
mod links;
mod memory;
mod net;
mod pairs;
mod ring;
mod tap;

pub use device::Device;
pub use net::{Net, Options};
pub use tap::Tap;

use crate::{Error, Result};
use rustix::io::Errno;

const VHOST_NET: &str = "/dev/vhost-net";
const VHOST_SCSI: &str = "/dev/vhost-scsi";
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// Reads of a configuration that this process has.
fn read_config(config: &[u8], offset: u32, bytes: &mut [u8]) -> Result<()> {
    let beyond = Error::BeyondConfiguration { offset, length: bytes.len() };
    let rest = config.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
    bytes.copy_from_slice(rest.ok_or(beyond)?);
    Ok(())
}

/// The error of a request of vhost.
fn failed(request: &'static str, error: &vhost::Error) -> Error {
    let errno = |error| Errno::from_io_error(error).unwrap_or(Errno::INVAL);
    match error {
        vhost::Error::VhostOpen(error) => Error::Device { path: VHOST_NET, errno: errno(error) },
        vhost::Error::IoctlError(error) | vhost::Error::IOError(error) => {
            Error::Kernel { request, errno: errno(error) }
        }
        // What the crate refuses before it calls the kernel: a queue that is not in the guest's memory.
        _ => Error::Kernel { request, errno: Errno::FAULT },
    }
}
