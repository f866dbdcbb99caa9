//! A guest's reservation in the kernel module.
//!
//! A program that uses the module without this library does not know of the lock in the run directory. So a
//! userspace engine reserves its guests in the module as well, if it is loaded.

use crate::run_dir::{PATIENCE, PATIENCE_STEP, is_ending};
use crate::{Error, Result};
use xen_eventfd_core::DomId;
use xen_eventfd_host::linux::eventfd::{Control, Owner, Reservation};
use xen_eventfd_host::{Errno, HostError};

/// Takes a guest in the module by `create`. A holder that is about to end is waited for.
///
/// # Errors
/// [`Error::InUse`] names the holder; [`Error::GuestDied`].
pub fn take_in_module<T>(
    control: &Control,
    dom: DomId,
    create: impl Fn() -> xen_eventfd_host::Result<T>,
) -> Result<T> {
    let mut patience = PATIENCE;
    loop {
        let error = match create() {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        let holder = match error.errno {
            Errno::BUSY => control.owner(dom)?,
            _ => return Err(refused(dom, error)),
        };
        if patience == 0 || !holder.as_ref().is_none_or(leaves) {
            return Err(Error::InUse { dom, holder: name(holder) });
        }
        patience -= 1;
        std::thread::sleep(PATIENCE_STEP);
    }
}

/// How a guest of a userspace engine is kept from programs that would take it in the module.
#[derive(Debug)]
pub enum Reserve {
    /// It is not: the host is not this machine's, or no module was handed over, or the server has no doorbells.
    No,
    /// In the module that is loaded, if one is.
    Loaded,
    /// In the module that was handed over.
    Handed(Control),
}

impl Reserve {
    /// `None`: there is no module.
    pub(crate) fn reserve(&self, dom: DomId) -> Result<Option<Reservation>> {
        let take =
            |control: &Control| take_in_module(control, dom, || control.reserve(dom)).map(Some);
        match self {
            Self::No => Ok(None),
            Self::Handed(control) => take(control),
            Self::Loaded => reservable(Control::open())?.as_ref().map_or(Ok(None), take),
        }
    }
}

/// The module, if guests are to be reserved there: what its device has answered.
///
/// # Errors
/// It is there, and cannot be asked: then it is not known which guests it serves.
pub fn reservable<T>(opened: xen_eventfd_host::Result<T>) -> Result<Option<T>> {
    match opened {
        Ok(module) => Ok(Some(module)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the module is not loaded.
pub fn is_absent(error: &HostError) -> bool {
    matches!(error.errno, Errno::NOENT | Errno::NXIO | Errno::NODEV)
}

fn refused(dom: DomId, error: HostError) -> Error {
    if error.is_gone() { Error::GuestDied(dom) } else { error.into() }
}

/// Whether a holder that is still there lets go by itself in a moment.
fn leaves(owner: &Owner) -> bool {
    owner.pid.is_some_and(is_ending)
}

fn name(owner: Option<Owner>) -> String {
    match owner {
        Some(Owner { pid: Some(pid), name }) => {
            format!("process {pid} ({name}), which holds it at /dev/xen/eventfd")
        }
        Some(Owner { pid: None, name }) => {
            format!("a process ({name}) that has ended or is of another pid namespace")
        }
        None => "a process that comes and goes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_host::Call;

    #[test]
    fn a_holder_that_lives_is_named_and_not_waited_for() {
        let owner = Owner { pid: Some(std::process::id()), name: "backend".to_owned() };
        assert!(!leaves(&owner));
        assert!(name(Some(owner)).contains(&std::process::id().to_string()));
        assert!(!leaves(&Owner { pid: None, name: "hidden".to_owned() }));
        // No process has a number like this.
        assert!(leaves(&Owner { pid: Some(u32::MAX), name: "dead".to_owned() }));
    }

    #[test]
    fn a_guest_that_is_gone_is_told_from_one_that_cannot_be_served() {
        let said = |errno| refused(DomId(5), HostError::new(Call::Take(DomId(5)), errno));
        assert!(matches!(said(Errno::NODEV), Error::GuestDied(DomId(5))));
        let pv = said(Errno::OPNOTSUPP);
        assert!(matches!(pv, Error::Host(_)) && pv.to_string().contains("PV guest"), "{pv}");
    }
}
