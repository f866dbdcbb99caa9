// SPDX-License-Identifier: GPL-2.0

//! The doorbells of a guest that is served, and the devices whose registers are answered; and the one that
//! changes them.

use crate::claimed::Claimed;
use crate::device::{DeviceInterrupt, MAX_DEVICES};
use crate::dispatch::{DispatchState, Routes};
use crate::doorbells::{self, Registration, Table};
use crate::eventfd::EventFd;
use crate::protocol::doorbell::Bytes;
use crate::protocol::interrupt_status::{self, Registers};
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
        &self.server.routes().doorbells
    }

    /// Registers a doorbell.
    pub(crate) fn register(&mut self, doorbell: Doorbell, eventfd: EventFd) -> Result {
        let Routes { doorbells: table, devices } = self.server.routes();
        doorbells::check(table, devices, &doorbell)?;
        let new = Registration::new(doorbell, eventfd)?;
        self.server.change(|routes| Ok(routes.doorbells.reserve(1, GFP_KERNEL_ACCOUNT)?))?;
        self.claim(doorbell.bytes(), |routes| doorbells::insert(&mut routes.doorbells, &new))?;
        // A handler that did not find it has ended, and what it held is there.
        self.state.redeliver(self.table(), &new);
        Ok(())
    }

    /// Takes a registration back. When this returns, its eventfd is not signalled again. It needs no
    /// memory.
    pub(crate) fn unregister(&mut self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        doorbells::find(self.table(), doorbell, eventfd)?;
        self.release(doorbell.bytes(), |routes| doorbells::remove(&mut routes.doorbells, doorbell))
    }

    /// Whether the registers of a device could be answered.
    pub(crate) fn check_device(&self, registers: Registers) -> Result {
        let Routes { doorbells: table, devices } = self.server.routes();
        if devices.len() >= MAX_DEVICES {
            return Err(ENOSPC);
        }
        interrupt_status::place(devices, table, registers).map(drop).map_err(|_| EEXIST)
    }

    /// Answers the registers of a device from now on.
    pub(crate) fn register_device(&mut self, device: &Arc<DeviceInterrupt>) -> Result {
        let registers = device.registers();
        self.server.change(|routes| Ok(routes.devices.reserve(1, GFP_KERNEL_ACCOUNT)?))?;
        self.claim(registers.bytes(), |routes| {
            let Routes { doorbells: table, devices } = routes;
            let index = interrupt_status::place(devices, table, registers).map_err(|_| EEXIST)?;
            devices.insert_within_capacity(index, device.clone()).map_err(|_| ENOMEM)
        })?;
        // Acknowledgements that came before the handlers knew of it.
        self.state.discard(registers.bytes());
        Ok(())
    }

    /// Answers them no longer. When this returns, no access to them is being answered. It needs no memory.
    pub(crate) fn unregister_device(&mut self, registers: Registers) -> Result {
        self.release(registers.bytes(), |routes| {
            let devices = &mut routes.devices;
            let index = interrupt_status::position(devices, registers).ok_or(ENOENT)?;
            devices.remove(index).map(drop).map_err(|_| ENOENT)
        })
    }

    /// Has Xen route bytes to us, and `insert` what handles them into what the handlers look accesses up in,
    /// where there is room for it.
    fn claim(&mut self, bytes: Bytes, insert: impl FnMut(&mut Routes) -> Result) -> Result {
        let Self { server, state, claimed } = self;
        let (dom, id) = (state.dom(), server.id());
        claimed.reserve(|claims| state.swap_claims(claims))?;
        // From here on kicks to them are held, so none is lost between the map and the table.
        let owed = claimed.acquire(bytes, |claims| state.swap_claims(claims))?;
        let mut mapped: usize = 0;
        let map = |piece| {
            xen::map_range(dom, id, piece).map_err(dead_or)?;
            mapped = mapped.saturating_add(1);
            Ok(())
        };
        let inserted = owed.iter().try_for_each(map).and_then(|()| server.change(insert));
        if inserted.is_err() {
            claimed.release(bytes, |claims| state.release(claims, bytes))?;
            let unmap = |piece| {
                owed.iter().skip(mapped).any(|never_mapped| never_mapped == piece)
                    || xen::unmap_range(dom, id, piece).is_ok()
            };
            claimed.give_back(bytes, unmap, || true, |claims| state.swap_claims(claims))?;
        }
        inserted
    }

    /// Takes away what handles bytes, and gives them back to Xen.
    fn release(&mut self, bytes: Bytes, remove: impl FnMut(&mut Routes) -> Result) -> Result {
        let Self { server, state, claimed } = self;
        let (dom, id) = (state.dom(), server.id());
        // First, so that what comes once it is removed is late and not held.
        claimed.release(bytes, |claims| state.release(claims, bytes))?;
        server.change(remove)?;
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
