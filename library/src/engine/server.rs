//! Our ioreq server in one guest: how it comes to be, and how it goes without leaving a vCPU
//! behind.

use crate::Result;
use crate::run_dir::{Record, RunDir, ServerRecord};
use xen_eventfd_core::{DomId, IoServerId};
use xen_eventfd_host::{Errno, EventChannels, Host, HostError, IoreqPage, LocalPort};

/// Ioreq servers that one guest can have (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: usize = 8;

/// An enabled server with its page mapped and every vCPU's port bound.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: IoServerId,
    pub(crate) page: Box<dyn IoreqPage>,
    /// One for each vCPU, in order.
    pub(crate) ports: Vec<LocalPort>,
}

/// Creates the server with the highest id that is free.
///
/// Xen hands out the lowest free id and asks the highest first, so a server created later would
/// outrank one that took the lowest. All free ids are taken, the highest kept, the others given
/// back before any is enabled.
///
/// # Errors
/// The host's, if not even one could be created.
fn claim_highest(host: &dyn Host, dom: DomId) -> Result<IoServerId> {
    let mut created = Vec::new();
    let mut refused = None;
    while created.len() < MAX_SERVERS {
        match host.create_server(dom) {
            Ok(id) => created.push(id),
            // Each costs the guest some ports, so it may end sooner than at the eighth.
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let Some(highest) = created.iter().copied().max() else {
        let none = HostError::new(xen_eventfd_host::Call::CreateServer(dom), Errno::NOSPC);
        return Err(refused.unwrap_or(none).into());
    };
    for id in created.into_iter().filter(|id| *id != highest) {
        if let Err(error) = host.destroy_server(dom, id) {
            tracing::warn!(%error, "a spare ioreq server stays");
        }
    }
    Ok(highest)
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
        let dom = DomId(record.domid);
        let vcpus = host.vcpus(dom)?;
        let id = claim_highest(host, dom)?;
        record.server = Some(ServerRecord { id: id.0, ports: None });
        let made = run_dir.write(record).and_then(|()| {
            // Acquire before enable: Xen does not check, and crashes the host.
            let page = host.map_page(dom, id)?;
            host.set_server_state(dom, id, true)?;
            let slots = page.slots().get(..vcpus as usize).unwrap_or(page.slots());
            let remotes: Vec<_> = slots.iter().map(|slot| slot.vp_eport()).collect();
            record.server = Some(ServerRecord {
                id: id.0,
                ports: Some(remotes.iter().map(|port| port.0).collect()),
            });
            run_dir.write(record)?;
            let mut server = Self { id, page, ports: Vec::with_capacity(remotes.len()) };
            for remote in remotes {
                match events.bind(dom, remote) {
                    Ok(port) => server.ports.push(port),
                    Err(error) => {
                        // A port of a dying guest is refused like one that never was.
                        let disabled = host.set_server_state(dom, id, false);
                        let _ = server.tear_down(host, events, dom);
                        let gone = disabled.err().filter(HostError::is_gone);
                        return Err(gone.unwrap_or(error).into());
                    }
                }
            }
            Ok(server)
        });
        if made.is_err() {
            // Whatever was reached; if it is gone already, so much the better.
            let gone = match host.destroy_server(dom, id) {
                Ok(()) => true,
                Err(error) => error.is_gone(),
            };
            if gone {
                record.server = None;
                run_dir.remove(dom);
            }
        }
        made
    }

    /// Whether the guest still has this server.
    pub(crate) fn is_alive(&self, host: &dyn Host, dom: DomId) -> bool {
        // It is enabled, so this changes nothing; a guest that died has lost it.
        !matches!(host.set_server_state(dom, self.id, true), Err(error) if error.is_gone())
    }

    /// Takes a disabled server away from a guest that may be running, in the one order that leaves
    /// no vCPU waiting. The caller has seen to it that nobody else touches the slots.
    ///
    /// # Errors
    /// The first thing that failed other than by the guest's death; the rest was done all the
    /// same, but for the destruction, so that the server stays recognisable.
    pub(crate) fn tear_down(
        self,
        host: &dyn Host,
        events: &dyn EventChannels,
        dom: DomId,
    ) -> xen_eventfd_host::Result<()> {
        let mut first = Ok(());
        let mut note = |result: xen_eventfd_host::Result<()>| {
            if let Err(error) = result
                && !error.is_gone()
                && first.is_ok()
            {
                first = Err(error);
            }
        };
        for slot in self.page.slots().iter().take(self.ports.len()) {
            slot.sweep();
        }
        // Every one of them: only an event wakes a parked vCPU, the server's end does not.
        for port in &self.ports {
            note(events.notify(*port));
        }
        for port in &self.ports {
            note(events.unbind(*port));
        }
        drop(self.page);
        if first.is_ok() {
            first = match host.destroy_server(dom, self.id) {
                Err(error) if !error.is_gone() => Err(error),
                _ => Ok(()),
            };
        }
        first
    }

    /// Lets go of a guest that is dead: nobody is left to be woken.
    pub(crate) fn abandon(self, events: &dyn EventChannels) {
        for port in self.ports {
            let _ = events.unbind(port);
        }
    }
}
