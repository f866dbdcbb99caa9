//! Our ioreq server in one guest: how it comes to be, and how it goes without leaving a vCPU
//! behind.

use crate::liveness::Liveness;
use crate::rank::{self, give_back};
use crate::record::{Record, ServerRecord};
use crate::run_dir::RunDir;
use crate::{Error, Result};
use rustix::io::Errno;
use std::time::Duration;
use xen_eventfd_core::slot::{State, TAKE_LOOKS, TAKE_PAUSE_MICROS};
use xen_eventfd_core::{DomId, IoServerId, Port};
use xen_eventfd_host::{Call, EventChannels, Host, HostError, IoreqPage, LocalPort};

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
        let id = rank::create(host, run_dir, record)?;
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

    /// What tells whether the guest still has it.
    pub(crate) fn liveness(&self, dom: DomId) -> Liveness {
        let channel = self.remotes.first().copied().zip(self.ports.first().copied());
        Liveness::new(dom, self.id, channel)
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

    /// Serves an orphan on, of which no port is bound: it is enabled and its ports are. [`Server::wake_all`] is to follow.
    pub(crate) fn serve_again(
        mut self,
        host: &dyn Host,
        events: &dyn EventChannels,
        run_dir: &RunDir,
        record: &mut Record,
    ) -> Result<Self> {
        let dom = record.dom();
        // A process that swept it may have been killed as well.
        host.set_server_state(dom, self.id, true)?;
        let bound = self.bind(events, dom).and_then(|()| {
            let ports = self.remotes.iter().map(|port| port.0).collect();
            let local = self.ports.iter().map(|port| port.0).collect();
            record.server = Some(ServerRecord { id: self.id.0, ports, local });
            run_dir.write(record)
        });
        self.or_orphan(events, bound)
    }

    /// Wakes every vCPU whose answer the process before has published and not announced. It goes on with what is routed
    /// to the server by then.
    pub(crate) fn wake_all(self, events: &dyn EventChannels) -> Result<Self> {
        let woken = self.ports.iter().try_for_each(|port| events.notify(*port));
        self.or_orphan(events, woken.map_err(Into::into))
    }

    /// Itself, or an orphan again, for the next process.
    fn or_orphan(mut self, events: &dyn EventChannels, done: Result<()>) -> Result<Self> {
        if done.is_err() {
            for port in self.ports.drain(..) {
                let _ = events.unbind(port);
            }
        }
        done.map(|()| self)
    }

    /// Whether anything is still to be done for the guest, by what came of disabling the server: a guest
    /// that has lost it is dead.
    pub(crate) fn is_gone(disabled: &xen_eventfd_host::Result<()>) -> bool {
        disabled.as_ref().is_err_and(HostError::is_gone)
    }

    /// Takes a server away from a guest that may be running, in the one order that leaves no vCPU
    /// waiting (`docs/architecture.md`, *Letting go of a guest*): for a guest that is let go of, for one
    /// that died, and for an orphan. The caller has disabled it, with this result, has ended all other use
    /// of the slots, and has acted on the requests in them.
    ///
    /// # Errors
    /// The first thing that failed other than by the guest's death; the rest was done all the
    /// same. Only a server that is disabled and whose vCPUs are all woken is destroyed, on Arm once they have taken
    /// their answers: the others stay, to be recognised.
    pub(crate) fn tear_down(
        mut self,
        disabled: xen_eventfd_host::Result<()>,
        host: &dyn Host,
        events: &dyn EventChannels,
        dom: DomId,
    ) -> xen_eventfd_host::Result<()> {
        if Self::is_gone(&disabled) {
            // No vCPU is left to be woken.
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
        if host.arch().waits_at_server() {
            idle = idle.and_then(|()| self.await_taken_answers(host, dom));
        }
        let mut unbound = Ok(());
        for port in self.ports.drain(..) {
            unbound = unbound.and(alive(events.unbind(port)));
        }
        drop(self.page);
        idle.and_then(|()| alive(host.destroy_server(dom, self.id))).and(unbound)
    }

    /// Waits until each vCPU has taken its answer, or the guest is gone.
    fn await_taken_answers(&self, host: &dyn Host, dom: DomId) -> xen_eventfd_host::Result<()> {
        let slots = || self.page.slots().iter().take(self.remotes.len());
        for _ in 0..TAKE_LOOKS {
            if slots().all(|slot| slot.state() == State::None)
                || !host.server_alive(dom, self.id)?
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(TAKE_PAUSE_MICROS.into()));
        }
        Err(HostError::new(Call::DestroyServer(dom, self.id), Errno::BUSY))
    }
}
