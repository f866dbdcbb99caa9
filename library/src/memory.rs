//! A guest's memory as a file that any program can map.

use crate::{Result, Xen};
use std::os::fd::OwnedFd;
use xen_eventfd_core::DomId;
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::{Call, Errno, HostError};
use xen_eventfd_ioreq::reservable;

impl Xen {
    /// Makes a part of a guest's memory a file: its `mmap` (`MAP_SHARED`) maps the guest's pages, with
    /// `guest_address` at offset 0, and its `lseek` returns the length. It can be passed to programs that
    /// know nothing of Xen, as vhost-user backends are.
    ///
    /// The kernel module does this, whichever engine serves the guest, and the guest need not be taken. Pages
    /// are mapped when they are touched; one that the guest does not have is SIGBUS, and so are all once the
    /// guest is gone. `length` and `guest_address` are multiples of 4096.
    ///
    /// # Errors
    /// [`Error::Host`](crate::Error::Host) with [`Call::Memory`]: [`Errno::NOENT`] if the module is not
    /// loaded, [`Errno::OPNOTSUPP`] for a PV guest, [`Errno::NODEV`] if there is no such guest,
    /// [`Errno::INVAL`] for what the guest does not have; [`Error::Forked`](crate::Error::Forked).
    ///
    #[doc = example!(r#"
match xen.guest_memory(dom, 0, 0x20_0000) {
    Ok(memory) => println!("2 MiB, to be mapped by others: {memory:?}"),
    Err(why) => println!("{why}"),
}
"#)]
    pub fn guest_memory(&self, dom: DomId, guest_address: u64, length: u64) -> Result<OwnedFd> {
        self.check_process()?;
        let module = reservable(Control::open())?;
        let module = module.ok_or_else(|| HostError::new(Call::Memory(dom), Errno::NOENT))?;
        Ok(module.memory(dom, guest_address, length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_module_the_error_says_who_needs_it() {
        let error = HostError::new(Call::Memory(DomId(3)), Errno::NOENT).to_string();
        for part in ["domain 3", "modprobe xen-eventfd", "XEN_MMAP"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
