//! Devices that a launcher opens, confines to a guest, and passes to a process that may not open them
//! itself.

use super::door::{ioctl, open};
use super::sys::{evtchn, privcmd};
use super::{eventfd, evtchn as channels, privcmd as operations};
use crate::{Call, Domain, Host, HostError, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xen_eventfd_core::DomId;

/// The devices of an engine, open.
///
/// They are ordinary descriptors: a launcher opens and confines them, and a process that it
/// starts inherits them or receives them over a socket. The kernel does not check permissions again.
#[derive(Debug)]
#[non_exhaustive]
pub struct Devices {
    /// `/dev/xen/privcmd`.
    pub privcmd: OwnedFd,
    /// `/dev/xen/evtchn`. It serves one engine at a time, as it has one queue of events.
    pub evtchn: OwnedFd,
    /// The same device, opened once more for each event loop that the process has beside its engine's.
    pub more_evtchns: Vec<OwnedFd>,
    /// `/dev/xen/eventfd`, the kernel module's, if there is one.
    pub module: Option<OwnedFd>,
}

impl Devices {
    /// Wraps devices that are open.
    pub fn new(privcmd: OwnedFd, evtchn: OwnedFd, module: Option<OwnedFd>) -> Self {
        Self { privcmd, evtchn, more_evtchns: Vec::new(), module }
    }

    /// Opens them. The kernel module is optional.
    ///
    /// # Errors
    /// [`Call::Open`] names what is missing or forbidden.
    pub fn open() -> Result<Self> {
        let module = match open_at(eventfd::DEVICE) {
            Ok(module) => Some(module),
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::NXIO | Errno::NODEV) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            privcmd: open_at(operations::DEVICE)?,
            evtchn: open_at(channels::DEVICE)?,
            more_evtchns: Vec::new(),
            module,
        })
    }

    /// The same with event channels for another event loop.
    ///
    /// # Errors
    /// As [`Devices::open`].
    pub fn with_another_evtchn(mut self) -> Result<Self> {
        self.more_evtchns.push(open_at(channels::DEVICE)?);
        Ok(self)
    }

    /// Other descriptors of the same devices: what is confined by these is confined by those.
    ///
    /// # Errors
    /// [`Call::Open`] if the process has no descriptor left.
    pub fn try_clone(&self) -> Result<Self> {
        let clone = |fd: &OwnedFd, path| {
            rustix::io::fcntl_dupfd_cloexec(fd, 0)
                .map_err(|errno| HostError::new(Call::Open(path), errno))
        };
        let more = self.more_evtchns.iter().map(|evtchn| clone(evtchn, channels::DEVICE));
        Ok(Self {
            privcmd: clone(&self.privcmd, operations::DEVICE)?,
            evtchn: clone(&self.evtchn, channels::DEVICE)?,
            more_evtchns: more.collect::<Result<_>>()?,
            module: self.module.as_ref().map(|fd| clone(fd, eventfd::DEVICE)).transpose()?,
        })
    }

    /// Confines them to one guest, permanently: any process that uses them can act on no
    /// other domain (`IOCTL_PRIVCMD_RESTRICT`, `IOCTL_EVTCHN_RESTRICT_DOMID`). Ports of other guests
    /// that are bound already stay bound.
    ///
    /// # Errors
    /// [`Call::Confine`]: [`Errno::INVAL`] or [`Errno::ACCESS`] if one is confined already, or if no
    /// guest can have that id.
    pub fn confine(&self, dom: DomId) -> Result<()> {
        for evtchn in core::iter::once(&self.evtchn).chain(&self.more_evtchns) {
            let mut evtchn_dom = evtchn::RestrictDomid { domid: dom.0 };
            // SAFETY: the request reads one such struct.
            unsafe { ioctl(evtchn.as_fd(), evtchn::RESTRICT_DOMID, &mut evtchn_dom) }
                .map_err(|errno| HostError::new(Call::Confine(channels::DEVICE, dom), errno))?;
        }
        restrict(&self.privcmd, operations::DEVICE, dom)?;
        self.module.as_ref().map_or(Ok(()), |module| restrict(module, eventfd::DEVICE, dom))
    }

    /// The descriptors, for the launcher to pass on: privcmd, evtchn, and the module's if there is one. What
    /// [`Devices::with_another_evtchn`] has added is not among them.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.privcmd, &self.evtchn].into_iter().chain(&self.module).map(AsFd::as_fd)
    }
}

/// Opens `/dev/xen/privcmd` and confines it to one guest, permanently: a process that gets it can map that guest's
/// memory, and no other's.
///
/// # Errors
/// As [`Devices::open`] and [`Devices::confine`].
pub fn confined_privcmd(dom: DomId) -> Result<OwnedFd> {
    let privcmd = open_at(operations::DEVICE)?;
    restrict(&privcmd, operations::DEVICE, dom)?;
    Ok(privcmd)
}

/// Confines privcmd, or the module, which has that request too.
fn restrict(device: &OwnedFd, path: &'static str, dom: DomId) -> Result<()> {
    let mut domid = dom.0;
    // SAFETY: the request reads one domain id.
    unsafe { ioctl(device.as_fd(), privcmd::RESTRICT, &mut domid) }
        .map(drop)
        .map_err(|errno| HostError::new(Call::Confine(path, dom), errno))
}

fn open_at(path: &'static str) -> Result<OwnedFd> {
    open(path, OFlags::RDWR).map_err(|errno| HostError::new(Call::Open(path), errno))
}

/// What a launcher passes about a guest, as a process without xenstore cannot query it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownGuest {
    /// Domain id, name and UUID.
    pub domain: Domain,
    /// Whether it has interrupt lines: whether it is an HVM guest.
    pub has_lines: bool,
}

impl KnownGuest {
    /// A guest with these properties.
    pub fn new(domain: Domain, has_lines: bool) -> Self {
        Self { domain, has_lines }
    }

    /// Queries a host for them.
    ///
    /// # Errors
    /// The host's, if there is no such domain.
    pub fn ask(host: &dyn Host, dom: DomId) -> Result<Self> {
        Ok(Self { domain: host.domain(dom)?, has_lines: host.has_lines(dom)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        open("/dev/null", OFlags::RDWR).unwrap()
    }

    #[test]
    fn an_error_names_the_device_that_cannot_be_confined() {
        let refused = Devices::new(null(), null(), None).confine(DomId(5)).unwrap_err();
        assert_eq!(
            refused,
            HostError::new(Call::Confine("/dev/xen/evtchn", DomId(5)), Errno::NOTTY)
        );
    }

    #[test]
    fn all_descriptors_are_handed_over() {
        assert_eq!(Devices::new(null(), null(), None).fds().count(), 2);
        assert_eq!(Devices::new(null(), null(), Some(null())).fds().count(), 3);
    }
}
