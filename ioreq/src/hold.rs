//! A guest that is one process's alone, in one role.
//!
//! Taking it is one straight way: its lock in the run directory, its record, the recovery of what a killed
//! process left, its reservation in the kernel module.

use crate::orphan::{self, Reaped};
use crate::rank::give_back;
use crate::record::Record;
use crate::reservation::Reserve;
use crate::run_dir::{Lock, Purpose, RunDir};
use crate::server::Server;
use crate::{Error, Result};
use xen_eventfd_core::{DomId, IoServerId, Kick};
use xen_eventfd_host::linux::eventfd::Reservation;
use xen_eventfd_host::{EventChannels, Host};

/// The right to serve a guest in one role, and the record of how.
#[derive(Debug)]
pub struct Hold {
    pub(crate) record: Record,
    run_dir: RunDir,
    #[expect(dead_code, reason = "released before the lock")]
    reservation: Option<Reservation>,
    #[expect(dead_code, reason = "released last")]
    lock: Lock,
}

impl Hold {
    /// Takes a guest, in the role of the run directory. `serves` says for what, to those who ask for the
    /// holder: `userspace engine`. `events`: the event channels of a process that has some already, by which what a killed
    /// process left is recovered; others are opened for that if need be.
    ///
    /// # Errors
    /// [`Error::UnknownDomain`]; [`Error::InUse`] names the holder; [`Error::RunDir`] and
    /// [`Error::Untrusted`]; [`Error::Host`] if what a killed process left cannot be recovered.
    pub fn take(
        host: &dyn Host,
        events: Option<&dyn EventChannels>,
        run_dir: &RunDir,
        dom: DomId,
        serves: &'static str,
        reserve: &Reserve,
    ) -> Result<Self> {
        let (lock, fresh, mut record) = Self::begin(host, run_dir, dom, serves)?;
        match orphan::recover(host, events, run_dir, &mut record)? {
            Reaped::GuestGone => record = fresh,
            reaped => tracing::debug!(?reaped, %dom, "looked for an orphan"),
        }
        let reservation = reserve.reserve(dom)?;
        Ok(Self { record, run_dir: run_dir.clone(), reservation, lock })
    }

    /// The same, and with the server that a killed process left, if it can be served on.
    pub(crate) fn take_over(
        host: &dyn Host,
        events: &dyn EventChannels,
        run_dir: &RunDir,
        dom: DomId,
        serves: &'static str,
        reserve: &Reserve,
    ) -> Result<(Self, Option<Server>)> {
        let (lock, fresh, mut record) = Self::begin(host, run_dir, dom, serves)?;
        let reservation = reserve.reserve(dom)?;
        let server = if record.uuid == fresh.uuid {
            orphan::adopt(host, events, run_dir, &mut record)?
        } else {
            orphan::recover(host, Some(events), run_dir, &mut record)?;
            record = fresh;
            None
        };
        Ok((Self { record, run_dir: run_dir.clone(), reservation, lock }, server))
    }

    /// Locks the guest. Returns the record of one of which nothing is known, and the one that is there.
    fn begin(
        host: &dyn Host,
        run_dir: &RunDir,
        dom: DomId,
        serves: &'static str,
    ) -> Result<(Lock, Record, Record)> {
        let domain = host.domain(dom).map_err(|error| match error.is_gone() {
            true => Error::UnknownDomain(dom.0.to_string()),
            false => error.into(),
        })?;
        let lock = run_dir.lock(dom, Purpose::Serve(serves))?;
        let fresh = Record::new(dom, domain.uuid);
        let record = run_dir.read(dom)?.unwrap_or_else(|| fresh.clone());
        Ok((lock, fresh, record))
    }

    /// The guest.
    pub fn dom(&self) -> DomId {
        self.record.dom()
    }

    /// Writes that were answered for a killed process, for this one to act on.
    pub fn held(&self) -> impl Iterator<Item = Kick> + '_ {
        self.record.held()
    }

    /// Leaves in the record what the next process needs, once the server is gone: writes that were answered
    /// and that this process has not acted on, and servers that Xen did not take back.
    ///
    /// # Errors
    /// [`Error::RunDir`], [`Error::Host`]: what could not be given back is in the record.
    pub fn settle(&mut self, host: &dyn Host, left: impl IntoIterator<Item = Kick>) -> Result<()> {
        let record = &mut self.record;
        record.server = None;
        record.hold_only(left);
        self.run_dir.write(record)?;
        let mut created = record.created.clone().into_iter().map(IoServerId);
        created.try_for_each(|id| give_back(host, &self.run_dir, record, id))
    }

    /// Forgets a guest that has died.
    pub fn forget(&self) {
        self.run_dir.remove(self.dom());
    }
}
