//! Our ioreq server in one guest: how it comes to be, and how it goes without leaving a vCPU
//! behind.

use crate::run_dir::{Record, RunDir, ServerRecord};
use crate::{Error, Result};
use xen_eventfd_core::slot::State;
use xen_eventfd_core::{DomId, IoServerId, Port};
use xen_eventfd_host::{Call, Errno, EventChannels, Host, HostError, IoreqPage, LocalPort};

/// Ioreq servers that one guest can have (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: usize = 8;

/// An enabled server with its page mapped and every vCPU's port bound.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: IoServerId,
    pub(crate) page: Box<dyn IoreqPage>,
    /// The guest's port for each vCPU, in order.
    remotes: Vec<Port>,
    /// Our ends of them.
    pub(crate) ports: Vec<LocalPort>,
    /// Ends that another process of our domain keeps bound, for the vCPUs of an orphan.
    kept: Vec<Option<LocalPort>>,
}

/// Creates the server with the highest id that is free.
///
/// Xen hands out the lowest free id and asks the highest first, so a server created later would
/// outrank one that took the lowest. All free ids are taken, the highest kept, the others given
/// back before any is enabled. All of them are in the record meanwhile, but for one that Xen has
/// just created or is just destroying: if we are killed at that very moment it stays, without a
/// page and without a vCPU that would wait for it.
///
/// # Errors
/// The host's, if not even one could be created.
fn claim_highest(host: &dyn Host, run_dir: &RunDir, record: &mut Record) -> Result<IoServerId> {
    let dom = record.dom();
    let known = record.created.len();
    let mut refused = HostError::new(Call::CreateServer(dom), Errno::NOSPC);
    while record.created.len() - known < MAX_SERVERS {
        match host.create_server(dom) {
            Ok(id) => {
                record.created.push(id.0);
                if let Err(error) = run_dir.write(record) {
                    return Err(give_all_back(host, run_dir, record, known, error));
                }
            }
            // Each costs the guest some ports, so it may end sooner than at the eighth.
            Err(error) => {
                refused = error;
                break;
            }
        }
    }
    let created = record.created[known..].to_vec();
    let highest = created.iter().copied().max();
    for id in created.into_iter().filter(|id| Some(*id) != highest).map(IoServerId) {
        if let Err(error) = give_back(host, run_dir, record, id) {
            tracing::warn!(%error, "a spare ioreq server stays");
        }
    }
    highest.map(IoServerId).ok_or(refused.into())
}

/// Gives back what was created just now, as the last of it could not be recorded. Returns why.
fn give_all_back(
    host: &dyn Host,
    run_dir: &RunDir,
    record: &mut Record,
    known: usize,
    why: Error,
) -> Error {
    let mut created = record.created.split_off(known);
    // One with nothing in it needs no room. If others cannot be forgotten, they stay.
    if run_dir.write(record).is_err() {
        let unrecorded = created.pop();
        record.created.append(&mut created);
        created.extend(unrecorded);
    }
    for id in created {
        if let Err(error) = host.destroy_server(record.dom(), IoServerId(id)) {
            tracing::warn!(%error, "an ioreq server stays");
        }
    }
    why
}

/// Destroys a server that is in the record as created and was never enabled.
///
/// # Errors
/// The server stays then, and so does the record of it.
pub(crate) fn give_back(
    host: &dyn Host,
    run_dir: &RunDir,
    record: &mut Record,
    id: IoServerId,
) -> Result<()> {
    // First, as its id may be another's a moment later.
    record.created.retain(|created| *created != id.0);
    let given_back =
        run_dir.write(record).and_then(|()| match host.destroy_server(record.dom(), id) {
            Err(error) if !error.is_gone() => Err(error.into()),
            _ => Ok(()),
        });
    if given_back.is_err() {
        record.created.push(id.0);
        // What cannot be written is still there from before.
        let _ = run_dir.write(record);
    }
    given_back
}

impl Server {
    /// Creates, maps, enables and binds a server, and leaves a record from which another process
    /// can recognise it at every moment of that.
    pub(crate) fn create(
        host: &dyn Host,
        events: &dyn EventChannels,
        run_dir: &RunDir,
        record: &mut Record,
    ) -> Result<Self> {
        let dom = record.dom();
        let vcpus = host.vcpus(dom)? as usize;
        let id = claim_highest(host, run_dir, record)?;
        // Acquire before enable: Xen does not check, and crashes the host.
        let enabled = host.map_page(dom, id).and_then(|page| {
            host.set_server_state(dom, id, true)?;
            Ok(page)
        });
        let page = match enabled {
            Ok(page) => page,
            Err(error) => {
                if let Err(error) = give_back(host, run_dir, record, id) {
                    tracing::warn!(%error, "an ioreq server stays");
                }
                return Err(error.into());
            }
        };
        let remotes: Vec<Port> =
            page.slots().iter().take(vcpus).map(|slot| slot.vp_eport()).collect();
        let (ports, kept) = (Vec::with_capacity(remotes.len()), Vec::new());
        let mut server = Self { id, page, ports, remotes, kept };
        record.created.retain(|created| *created != id.0);
        let ports = server.remotes.iter().map(|port| port.0).collect();
        record.server = Some(ServerRecord { id: id.0, ports, local: vec![] });
        let bound = run_dir.write(record).and_then(|()| server.bind(events, dom)).and_then(|()| {
            let local = server.ports.iter().map(|port| port.0).collect();
            record.server.as_mut().into_iter().for_each(|server| server.local.clone_from(&local));
            run_dir.write(record)
        });
        match bound {
            Ok(()) => Ok(server),
            Err(error) => Err(server.undo(host, events, run_dir, record, error)),
        }
    }

    /// The event channel of the first vCPU: the guest's end and ours.
    pub(crate) fn channel(&self) -> Option<(Port, LocalPort)> {
        self.remotes.first().copied().zip(self.ports.first().copied())
    }

    fn bind(&mut self, events: &dyn EventChannels, dom: DomId) -> Result<()> {
        for remote in &self.remotes {
            self.ports.push(events.bind(dom, *remote)?);
        }
        Ok(())
    }

    /// Takes away a server that came to be only in part. Returns why.
    fn undo(
        self,
        host: &dyn Host,
        events: &dyn EventChannels,
        run_dir: &RunDir,
        record: &mut Record,
        why: Error,
    ) -> Error {
        let dom = record.dom();
        let disabled = host.set_server_state(dom, self.id, false);
        // A port of a dying guest is refused like one that never was.
        let gone = disabled.as_ref().err().filter(|error| error.is_gone()).cloned();
        match self.tear_down(disabled, host, events, dom) {
            Ok(()) => {
                record.server = None;
                // The old one names a server that is gone; that does no harm.
                let _ = run_dir.write(record);
            }
            Err(error) => tracing::warn!(%error, "an ioreq server stays"),
        }
        gone.map_or(why, Into::into)
    }

    /// Another process's server, as its record has it: no port of it is bound here. `kept` are those
    /// that a forked child of that process keeps bound.
    pub(crate) fn orphan(
        record: &ServerRecord,
        page: Box<dyn IoreqPage>,
        kept: Vec<Option<LocalPort>>,
    ) -> Self {
        let remotes = record.ports.iter().copied().map(Port).collect();
        Self { id: IoServerId(record.id), page, remotes, ports: Vec::new(), kept }
    }

    /// Whether anything is still to be done for the guest, by what came of disabling the server: a guest
    /// that has lost it is dead.
    pub(crate) fn is_gone(disabled: &xen_eventfd_host::Result<()>) -> bool {
        disabled.as_ref().is_err_and(HostError::is_gone)
    }

    /// Takes a server away from a guest that may be running, in the one order that leaves no vCPU
    /// waiting (`docs/architecture.md`, *Letting go of a guest*): whoever lets go of a guest, buries one
    /// or recovers an orphan ends here. The caller has disabled it, with what came of that, has seen to
    /// it that nobody else touches the slots, and has acted on the kicks in them.
    ///
    /// # Errors
    /// The first thing that failed other than by the guest's death; the rest was done all the
    /// same. Only a server that is disabled and whose vCPUs are all woken is destroyed: the others
    /// stay, to be recognised.
    pub(crate) fn tear_down(
        mut self,
        disabled: xen_eventfd_host::Result<()>,
        host: &dyn Host,
        events: &dyn EventChannels,
        dom: DomId,
    ) -> xen_eventfd_host::Result<()> {
        if Self::is_gone(&disabled) {
            // Nobody is left to be woken.
            for port in self.ports {
                let _ = events.unbind(port);
            }
            return Ok(());
        }
        let alive = |result: xen_eventfd_host::Result<()>| match result {
            Err(error) if error.is_gone() => Ok(()),
            other => other,
        };
        let mut idle = disabled;
        for (vcpu, slot) in self.page.slots().iter().take(self.remotes.len()).enumerate() {
            slot.sweep();
            // Every one of them: only an event wakes a parked vCPU, the server's end does not.
            let waits = slot.state() != State::None;
            let kept = self.kept.get(vcpu).copied().flatten();
            let rung = match self.ports.get(vcpu) {
                Some(port) => events.notify(*port),
                None if kept.is_some_and(|port| host.notify_port(port).is_ok()) => Ok(()),
                None => events.bind(dom, self.remotes[vcpu]).and_then(|port| {
                    let rung = events.notify(port);
                    events.unbind(port).and(rung)
                }),
            };
            // One whose answer Xen has taken goes on without it.
            if waits || self.ports.get(vcpu).is_some() {
                idle = idle.and(alive(rung));
            }
        }
        let mut unbound = Ok(());
        for port in self.ports.drain(..) {
            unbound = unbound.and(alive(events.unbind(port)));
        }
        drop(self.page);
        idle.and_then(|()| alive(host.destroy_server(dom, self.id))).and(unbound)
    }
}
