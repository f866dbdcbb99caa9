// SPDX-License-Identifier: GPL-2.0

//! A guest's doorbell server: how it comes to be with the highest id, and how it goes without
//! leaving a vCPU behind.

use crate::guest::Guest;
use crate::page::IoreqPage;
use crate::port::{Ended, Handler, Port};
use crate::protocol::ioreq::slots_for;
use crate::protocol::{self, DomId, IoServerId};
use crate::xen;
use kernel::pr_warn_once;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Ioreq servers that one guest can have (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: usize = 8;

/// An enabled server with its page mapped and every vCPU's port bound.
pub(crate) struct Server {
    id: IoServerId,
    /// One for each vCPU, in order.
    ports: KVec<Port<Vcpu>>,
}

/// Whose events a port brings.
struct Vcpu {
    guest: Arc<Guest>,
    index: usize,
}

impl Handler for Vcpu {
    fn handle(&self, port: protocol::Port) -> Ended {
        if self.guest.serve(self.index) {
            // It fails only if the guest is gone.
            let _ = xen::send(port);
        }
        // Only Xen rings this port. An event that found nothing (of a binding, of a sweep) is no
        // reason to have the next kick wait.
        Ended::Served
    }
}

/// What Xen says of a guest that it does not have, or no longer lets us serve.
pub(crate) fn dead_or(error: Error) -> Error {
    if error == ENOENT || error == ESRCH {
        ENODEV
    } else {
        error
    }
}

/// Whether a guest in which we have no server is neither gone nor dying. Xen counts the vCPUs of one
/// that is dying, but creates no server in it.
pub(crate) fn is_alive(dom: DomId) -> bool {
    match xen::create_server(dom) {
        Ok(id) => {
            if xen::destroy_server(dom, id).is_err() {
                pr_warn_once!("a spare ioreq server stays\n");
            }
            true
        }
        Err(error) => error != EINVAL && dead_or(error) != ENODEV,
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
    for id in created.into_iter().flatten().filter(|id| *id != highest) {
        if xen::destroy_server(dom, id).is_err() {
            pr_warn_once!("a spare ioreq server stays\n");
        }
    }
    Ok(highest)
}

impl Server {
    /// Creates, maps, enables and binds a server.
    pub(crate) fn create(guest: &Arc<Guest>) -> Result<Self> {
        let dom = guest.dom();
        let vcpus = xen::vcpus(dom).map_err(|error| match dead_or(error) {
            EINVAL => EOPNOTSUPP,
            other => other,
        })?;
        let vcpus = slots_for(vcpus).ok_or(EOPNOTSUPP)?;
        let ports = KVec::with_capacity(vcpus, GFP_KERNEL_ACCOUNT)?;
        let mut server = Self { id: claim_highest(dom)?, ports };
        match server.enable(guest, vcpus) {
            Ok(()) => Ok(server),
            Err(error) => {
                // A port of a dying guest is refused like one that never was.
                let gone = !server.is_alive(dom);
                server.tear_down(guest);
                Err(if gone { ENODEV } else { dead_or(error) })
            }
        }
    }

    fn enable(&mut self, guest: &Arc<Guest>, vcpus: usize) -> Result {
        let dom = guest.dom();
        // Acquire before enable: Xen does not check, and crashes the host.
        guest.give_page(IoreqPage::map(dom, self.id)?);
        xen::set_server_state(dom, self.id, true)?;
        for index in 0..vcpus {
            let remote = guest.vp_eport(index).ok_or(EINVAL)?;
            let port = Port::bind(Vcpu { guest: guest.clone(), index }, dom, remote)?;
            self.ports.push_within_capacity(port).map_err(|_| ENOMEM)?;
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

    /// Whether the guest still has this server.
    pub(crate) fn is_alive(&self, dom: DomId) -> bool {
        // It is enabled, so this changes nothing; a guest that died has lost it.
        !matches!(xen::set_server_state(dom, self.id, true).map_err(dead_or), Err(ENODEV))
    }

    /// Takes the server away from a guest that may be running, in the one order that leaves no vCPU
    /// waiting. A guest that is dead refuses some of it, and needs none of that.
    pub(crate) fn tear_down(self, guest: &Guest) {
        // This pauses the domain: afterwards nothing new is on its way.
        let disabled = xen::set_server_state(guest.dom(), self.id, false).map_err(dead_or);
        // No handler runs then, and without a page none serves.
        let page = guest.take_page();
        if let Some(page) = &page {
            for slot in page.slots() {
                slot.sweep();
            }
        }
        // Every one of them: only an event wakes a parked vCPU, the server's end does not.
        for port in &self.ports {
            let _ = xen::send(port.local());
        }
        drop(self.ports);
        drop(page);
        if disabled == Err(ENODEV) {
            // The page was the last of the guest. Its number, and the server's, may be another's.
            return;
        }
        if let Err(error) = xen::destroy_server(guest.dom(), self.id) {
            if dead_or(error) != ENODEV {
                pr_warn_once!("an ioreq server stays behind, disabled\n");
            }
        }
    }
}
