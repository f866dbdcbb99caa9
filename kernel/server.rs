// SPDX-License-Identifier: GPL-2.0

//! A guest's doorbell server: how it comes to be with the highest id, and how it goes without
//! leaving a vCPU behind.

use crate::dispatch::{DispatchState, Routes, Vcpu};
use crate::page::IoreqPage;
use crate::ports::Ports;
use crate::protocol::ioreq::slots_for;
use crate::protocol::irq::Arch;
use crate::protocol::slot::{State, TAKE_LOOKS, TAKE_PAUSE_MICROS};
use crate::protocol::{self, DomId, IoServerId};
use crate::xen;
use kernel::pr_warn_once;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::time::{delay::fsleep, Delta};

/// Ioreq servers that one guest can have (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: usize = 8;

/// An enabled server with its page mapped and every vCPU's port bound.
pub(crate) struct Server {
    id: IoServerId,
    /// The guest's port for each vCPU, in order.
    remotes: KVec<protocol::Port>,
    /// Our ends of them, and what is registered.
    ports: Ports<Vcpu, Routes>,
    /// Goes last.
    page: Option<Arc<IoreqPage>>,
}

/// What Xen says of a guest that it does not have, or no longer lets us serve.
pub(crate) fn dead_or(error: Error) -> Error {
    if error == ENOENT || error == ESRCH {
        ENODEV
    } else {
        error
    }
}

/// How many vCPUs a guest has.
///
/// # Errors
/// `ENODEV` if it is gone, `EOPNOTSUPP` if it is one without ioreq servers, a PV guest.
pub(crate) fn vcpus(dom: DomId) -> Result<u32> {
    xen::vcpus(dom).map_err(|error| match dead_or(error) {
        EINVAL => EOPNOTSUPP,
        other => other,
    })
}

/// Waits until each vCPU has taken its answer, or the server is gone; `false` if one does not take it. May sleep.
fn answers_are_taken(page: &IoreqPage, dom: DomId, id: IoServerId) -> bool {
    (0..TAKE_LOOKS).any(|_| {
        let are_taken = page.slots().iter().all(|slot| slot.state() == State::None)
            || xen::server_exists(dom, id).map_err(dead_or) == Err(ENODEV);
        if !are_taken {
            fsleep(Delta::from_micros(TAKE_PAUSE_MICROS.into()));
        }
        are_taken
    })
}

/// Destroys a server that was never enabled.
fn destroy_spare(dom: DomId, id: IoServerId) {
    if xen::destroy_server(dom, id).is_err() {
        pr_warn_once!("a spare ioreq server stays\n");
    }
}

/// Whether a guest in which we have no server is gone or dying. It neither pauses the guest nor
/// creates a server, which might take the id that another engine is about to claim. Where Xen has no operation that it
/// refuses for a dying guest, as on Arm, one without any event channel counts as dying: a guest that closes all of
/// its own, its xenstore's too, ends what it has here, and nothing of another's.
pub(crate) fn is_dying(dom: DomId) -> bool {
    match xen::refused_unless_dying(dom) {
        EOPNOTSUPP => matches!(vcpus(dom), Err(ENODEV)) || !xen::has_event_channels(dom),
        refused => dead_or(refused) == ENODEV,
    }
}

/// Creates the server with the highest id that is free.
///
/// Xen hands out the lowest free id and asks the highest first, so a server created later would
/// outrank one that took the lowest. All free ids are taken, the highest kept, the others given
/// back before any is enabled.
fn claim_highest(dom: DomId) -> Result<IoServerId> {
    let mut created = [None; MAX_SERVERS];
    let mut refused = ENOSPC;
    for place in &mut created {
        match xen::create_server(dom) {
            Ok(id) => *place = Some(id),
            // Each costs the guest some ports, so it may end sooner than at the eighth.
            Err(error) => {
                refused = error;
                break;
            }
        }
    }
    let Some(highest) = created.iter().copied().flatten().max() else {
        // It has a vCPU count for us, so it is no PV guest but one that is dying.
        return Err(if refused == EINVAL { ENODEV } else { dead_or(refused) });
    };
    created.into_iter().flatten().filter(|id| *id != highest).for_each(|id| destroy_spare(dom, id));
    Ok(highest)
}

impl Server {
    /// Creates, maps, enables and binds a server.
    pub(crate) fn create(state: &Arc<DispatchState>) -> Result<Self> {
        let dom = state.dom();
        let vcpus = slots_for(vcpus(dom)?).ok_or(EOPNOTSUPP)?;
        let remotes = KVec::with_capacity(vcpus, GFP_KERNEL_ACCOUNT)?;
        let ports = Ports::new(vcpus, [Routes::new(), Routes::new()])?;
        let mut server = Self { id: claim_highest(dom)?, remotes, ports, page: None };
        match server.enable(state, vcpus) {
            Ok(()) => Ok(server),
            Err(error) => {
                // A port of a dying guest is refused like one that never was.
                let alive = server.tear_down(dom);
                Err(if alive { dead_or(error) } else { ENODEV })
            }
        }
    }

    fn enable(&mut self, state: &Arc<DispatchState>, vcpus: usize) -> Result {
        let dom = state.dom();
        // Acquire before enable: Xen does not check, and crashes the host.
        let page = Arc::new(IoreqPage::map(dom, self.id)?, GFP_KERNEL_ACCOUNT)?;
        let page = self.page.insert(page).clone();
        xen::set_server_state(dom, self.id, true)?;
        // That has returned the ports, and without them no vCPU could be notified at the end.
        for slot in page.slots().iter().take(vcpus) {
            self.remotes.push_within_capacity(slot.vp_eport()).map_err(|_| ENOMEM)?;
        }
        for (index, remote) in self.remotes.iter().enumerate() {
            self.ports.bind(Vcpu::new(state, &page, index), dom, *remote)?;
        }
        Ok(())
    }

    /// Its number.
    pub(crate) fn id(&self) -> IoServerId {
        self.id
    }

    /// The vCPUs that it serves.
    pub(crate) fn vcpus(&self) -> usize {
        self.ports.len()
    }

    /// Those of them that have a handler.
    pub(crate) fn readers(&self) -> impl Iterator<Item = &Vcpu> {
        self.ports.readers()
    }

    /// What is registered.
    pub(crate) fn routes(&self) -> &Routes {
        self.ports.value()
    }

    /// Changes what is registered, as [`Ports::change`].
    pub(crate) fn change(&mut self, change: impl FnMut(&mut Routes) -> Result) -> Result {
        self.ports.change(change)
    }

    /// Whether a server of the guest with this id would be another engine's: after ours was destroyed, its id
    /// is free. Ours is there as long as the event channels that came with it lead to our ends.
    fn is_foreign(&self, dom: DomId) -> bool {
        let channel = self.ports.first().zip(self.remotes.first());
        channel.is_some_and(|(port, remote)| !port.is_bound_to(dom, *remote))
    }

    /// Whether the guest still has this server: one that died, or was reset, has lost it, however long
    /// another mapping keeps it findable.
    pub(crate) fn is_alive(&self, dom: DomId) -> bool {
        let gone = || xen::server_exists(dom, self.id).map_err(dead_or) == Err(ENODEV);
        !(self.is_foreign(dom) || gone())
    }

    /// Why an event channel of the guest is refused: a port of a dead one is like one that never was.
    pub(crate) fn refused(&self, dom: DomId, error: Error) -> Error {
        match error {
            _ if !self.is_alive(dom) => ENODEV,
            // Xen's words for one that is not the guest's, or not for us.
            ENOENT | ESRCH => EINVAL,
            other => other,
        }
    }

    /// Takes the server away from a guest that may be running, in the one order that leaves no vCPU
    /// waiting, however far it came to be. A guest that is dead refuses some of it, and needs none of
    /// that. Returns whether the guest still had the server.
    pub(crate) fn tear_down(self, dom: DomId) -> bool {
        if self.is_foreign(dom) {
            return false;
        }
        // This pauses the domain: afterwards nothing new is on its way.
        let disabled = xen::set_server_state(dom, self.id, false).map_err(dead_or);
        self.ports.stop();
        if disabled != Err(ENODEV) {
            // The kicks that came so far.
            self.readers().for_each(|vcpu| _ = vcpu.serve(self.routes()));
        }
        if let Some(page) = &self.page {
            page.slots().iter().for_each(|slot| _ = slot.sweep());
        }
        // Every one of them: only an event wakes a parked vCPU, the server's end does not.
        self.ports.ring();
        let bound = self.ports.len();
        drop(self.ports);
        // Bound just for that: the one that could not be bound above may be waiting all the same.
        for remote in self.remotes.iter().skip(bound) {
            if let Ok(local) = xen::bind_interdomain(dom, *remote) {
                let _ = xen::send(local);
                xen::close_if_bound_to(local, dom, *remote);
            }
        }
        if disabled == Err(ENODEV) {
            drop(self.page);
            // The page was the last of the guest. Its number, and the server's, may be another's.
            return false;
        }
        // One that is paused takes no answer.
        let are_taken = !Arch::NATIVE.waits_at_server()
            || self.page.as_ref().is_none_or(|page| answers_are_taken(page, dom, self.id));
        drop(self.page);
        let destroyed = if are_taken { xen::destroy_server(dom, self.id) } else { Err(EBUSY) };
        match destroyed.map_err(dead_or) {
            Ok(()) => true,
            Err(ENODEV) => false,
            Err(_) => {
                pr_warn_once!(
                    "domain {}: ioreq server {} stays until the guest ends, disabled{}\n",
                    dom.0,
                    self.id.0,
                    if are_taken { "" } else { ": a vCPU has not taken its answer; is it paused?" }
                );
                true
            }
        }
    }
}
