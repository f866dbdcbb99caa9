//! A guest that is one engine's alone.
//!
//! Engines of the library keep out of each other's way by a lock in the run directory. Whoever uses
//! the kernel module without the library sees nothing of that, so the guest is kept there as well:
//! by serving it there, or by reserving it.

use super::module::Reserve;
use super::orphan;
use super::userspace::server::give_back;
use crate::run_dir::{Lock, Purpose, Record, RunDir};
use crate::{EngineKind, Error, Result};
use xen_eventfd_core::{DomId, IoServerId, Kick};
use xen_eventfd_host::Host;
use xen_eventfd_host::linux::eventfd::Reservation;

/// The right to serve a guest, and the record of how.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) record: Record,
    reservation: Option<Reservation>,
    /// Released last.
    _lock: Lock,
}

impl Hold {
    /// Locks a guest for an engine, and recovers what a dead one left. What is held in the record
    /// then is for this one to deliver.
    pub(crate) fn take(
        host: &dyn Host,
        run_dir: &RunDir,
        dom: DomId,
        kind: EngineKind,
    ) -> Result<Self> {
        let domain = host.domain(dom).map_err(|error| match error.is_gone() {
            true => Error::UnknownDomain(dom.0.to_string()),
            false => error.into(),
        })?;
        let lock = run_dir.lock(dom, Purpose::Serve(kind))?;
        let fresh = Record::new(dom, domain.uuid);
        let mut record = run_dir.read(dom)?.unwrap_or_else(|| fresh.clone());
        match orphan::recover(host, run_dir, &mut record)? {
            orphan::Reaped::GuestGone => record = fresh,
            reaped => tracing::debug!(?reaped, %dom, "looked for an orphan"),
        }
        Ok(Self { record, reservation: None, _lock: lock })
    }

    /// Keeps the guest from those who use the kernel module without this library.
    pub(crate) fn reserve(&mut self, how: &Reserve) -> Result<()> {
        self.reservation = how.reserve(self.record.dom())?;
        Ok(())
    }

    /// Leaves in the record what the next engine needs, once the server is gone: kicks that were
    /// answered for a dead engine and that nobody has asked for, and what Xen did not take back.
    pub(crate) fn settle(
        &mut self,
        host: &dyn Host,
        run_dir: &RunDir,
        inherited: Vec<Kick>,
    ) -> Result<()> {
        let record = &mut self.record;
        record.server = None;
        record.hold_only(inherited);
        run_dir.write(record)?;
        let mut created = record.created.clone().into_iter().map(IoServerId);
        created.try_for_each(|id| give_back(host, run_dir, record, id))
    }
}
