// SPDX-License-Identifier: GPL-2.0

//! The doorbells of a guest that is served, and the one that changes them.

use crate::claimed::Claimed;
use crate::dispatch::DispatchState;
use crate::doorbells::{self, Registration, Table};
use crate::eventfd::EventFd;
use crate::protocol::{Counters, DomId, Doorbell, IoServerId, Kick};
use crate::server::{dead_or, Server};
use crate::{task, xen};
use kernel::prelude::*;
use kernel::sync::Arc;

/// For people who look.
pub(crate) struct Stats {
    pub(crate) server: IoServerId,
    pub(crate) vcpus: usize,
    pub(crate) doorbells: usize,
    pub(crate) counters: Counters,
}

/// A guest's doorbell server and what is registered with it.
pub(crate) struct Kicks {
    server: Server,
    state: Arc<DispatchState>,
    claimed: Claimed,
}

impl Kicks {
    /// Sets a doorbell server up in a guest.
    pub(crate) fn begin(dom: DomId) -> Result<Self> {
        let state = DispatchState::new(dom)?;
        Ok(Self { server: Server::create(&state)?, state, claimed: Claimed::new() })
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// What is registered.
    pub(crate) fn table(&self) -> &Table {
        self.server.table()
    }

    /// Registers a doorbell.
    pub(crate) fn register(&mut self, doorbell: Doorbell, eventfd: EventFd) -> Result {
        let Self { server, state, claimed } = self;
        doorbells::check(server.table(), &doorbell)?;
        let new = Registration::new(doorbell, eventfd)?;
        server.change(|table| Ok(table.reserve(1, GFP_KERNEL_ACCOUNT)?))?;
        let (dom, id, bytes) = (state.dom(), server.id(), doorbell.bytes());
        claimed.reserve(|claims| state.swap_claims(claims))?;
        // From here on its kicks are held, so none is lost between the map and the table.
        let owed = claimed.acquire(bytes, |claims| state.swap_claims(claims))?;
        let mut mapped: usize = 0;
        let map = |piece| {
            xen::map_range(dom, id, piece).map_err(dead_or)?;
            mapped = mapped.saturating_add(1);
            Ok(())
        };
        let registered = owed
            .iter()
            .try_for_each(map)
            .and_then(|()| server.change(|table| doorbells::insert(table, &new)));
        if registered.is_err() {
            claimed.release(bytes, |claims| state.release(claims, bytes))?;
            let unmap = |piece| {
                owed.iter().skip(mapped).any(|never_mapped| never_mapped == piece)
                    || xen::unmap_range(dom, id, piece).is_ok()
            };
            claimed.give_back(bytes, unmap, || true, |claims| state.swap_claims(claims))?;
            return registered;
        }
        // A handler that did not find it has ended, and what it held is there.
        state.redeliver(server.table(), &new);
        Ok(())
    }

    /// Takes a registration back. When this returns, its eventfd is not signalled again. It needs no
    /// memory.
    pub(crate) fn unregister(&mut self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        let Self { server, state, claimed } = self;
        doorbells::find(server.table(), doorbell, eventfd)?;
        let (dom, id, bytes) = (state.dom(), server.id(), doorbell.bytes());
        // First, so that what comes once it is removed is late and not held.
        claimed.release(bytes, |claims| state.release(claims, bytes))?;
        server.change(|table| doorbells::remove(table, doorbell))?;
        claimed.give_back(
            bytes,
            |piece| xen::unmap_range(dom, id, piece).is_ok(),
            task::is_killed,
            |claims| state.swap_claims(claims),
        )
    }

    /// How far all of it is.
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            server: self.server.id(),
            vcpus: self.server.vcpus(),
            doorbells: self.table().len(),
            counters: self.state.count(self.server.readers()),
        }
    }

    /// The held kick at an index.
    pub(crate) fn waiting(&self, index: usize) -> Option<Kick> {
        self.state.waiting(index)
    }

    /// Takes the server away from the guest.
    pub(crate) fn end(self) {
        self.server.tear_down(self.state.dom());
    }
}
