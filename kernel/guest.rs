// SPDX-License-Identifier: GPL-2.0

//! One guest in the hands of the module: its doorbell server, how that comes to be, and how it goes
//! without leaving a vCPU behind.
//!
//! # Locks, in the order in which they are taken
//! * `GUESTS`, a mutex: which guests are served, one server for each. Held while a guest is taken,
//!   so that none is taken twice, nor dies unseen.
//! * [`Guest::changes`], a mutex: held by whoever changes what is registered, across the hypercalls
//!   that this takes. Not together with `GUESTS` but where a guest is new and nobody else's yet.
//! * [`Guest::board`], a spinlock that the handlers take: whoever holds it may rely on no handler
//!   being between a slot and an eventfd.

use crate::death::Watch;
use crate::doorbells::{Counters, Doorbells, Registration, Room};
use crate::eventfd::EventFd;
use crate::page::IoreqPage;
use crate::port::Port;
use crate::protocol::doorbell::Bytes;
use crate::protocol::ioreq::SLOTS;
use crate::protocol::{DomId, Doorbell, IoServerId};
use crate::xen;
use kernel::pr_warn_once;
use kernel::prelude::*;
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::{global_lock, new_mutex, Arc, Mutex};

/// Ioreq servers that one guest can have (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: usize = 8;

/// Every guest that is served, and the watch that tells of their deaths.
struct Guests {
    served: KVec<Arc<Guest>>,
    /// Set with the first guest: xenstore runs by then.
    watch: Option<Watch>,
}

global_lock! {
    // SAFETY: `init` below comes first.
    unsafe(uninit) static GUESTS: Mutex<Guests> = Guests { served: KVec::new(), watch: None };
}

/// The right to take guests. Dropped once no file is open any more.
pub(crate) struct Reception;

impl Reception {
    /// # Safety
    /// To be called once, before any file can be opened.
    pub(crate) unsafe fn open() -> Self {
        // SAFETY: The caller's promise.
        unsafe { GUESTS.init() };
        Self
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let mut guests = GUESTS.lock();
        let watch = guests.watch.take();
        let served = core::mem::replace(&mut guests.served, KVec::new());
        drop(guests);
        // Its callback takes the lock.
        drop(watch);
        drop(served);
    }
}

/// What a handler needs.
struct Board {
    /// `None` until the server is enabled, and again once it is let go of.
    page: Option<IoreqPage>,
    doorbells: Doorbells,
}

/// How a guest stands with us.
enum Life {
    /// Not yet, or no longer.
    Apart,
    Served(Server),
    Dead,
}

impl Life {
    fn server(&self) -> Result<&Server> {
        match self {
            Self::Served(server) => Ok(server),
            Self::Apart | Self::Dead => Err(ENODEV),
        }
    }
}

/// A guest, as long as its file is open.
#[pin_data]
pub(crate) struct Guest {
    dom: DomId,
    #[pin]
    changes: Mutex<Life>,
    #[pin]
    board: SpinLockIrq<Board>,
}

/// For people who look.
pub(crate) struct Stats {
    pub(crate) server: IoServerId,
    pub(crate) doorbells: usize,
    pub(crate) counters: Counters,
}

impl Guest {
    /// Takes a guest: sets a doorbell server up in it.
    pub(crate) fn take(dom: DomId) -> Result<Arc<Self>> {
        let mut guests = GUESTS.lock();
        if guests.served.iter().any(|guest| guest.dom == dom) {
            return Err(EBUSY);
        }
        guests.served.reserve(1, GFP_KERNEL_ACCOUNT)?;
        if guests.watch.is_none() {
            guests.watch = Some(Watch::set()?);
        }
        let doorbells = Doorbells::new()?;
        let guest = Arc::pin_init(
            pin_init!(Self {
                dom,
                changes <- new_mutex!(Life::Apart, "Guest::changes"),
                board <- new_spinlock_irq!(Board { page: None, doorbells }, "Guest::board"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let server = Server::create(&guest)?;
        *guest.changes.lock() = Life::Served(server);
        let listed = guests.served.push_within_capacity(guest.clone()).is_ok();
        drop(guests);
        if !listed {
            guest.end(Life::Apart);
            return Err(ENOMEM);
        }
        Ok(guest)
    }

    /// Registers a doorbell.
    pub(crate) fn register(&self, doorbell: Doorbell, eventfd: EventFd) -> Result {
        let changes = self.changes.lock();
        let server = changes.server()?.id;
        let bytes = doorbell.bytes();
        let size = self.board.lock().doorbells.size();
        let (mut room, mut way_back) = (Room::to_grow(size)?, Room::to_shrink(size.grown())?);
        {
            let mut board = self.board.lock();
            board.doorbells.check(&doorbell)?;
            // From here on its kicks are held, so none is lost between the map and the table.
            board.doorbells.claim(bytes, &mut room)?;
        }
        for (index, piece) in room.owed().iter().enumerate() {
            if let Err(error) = xen::map_range(self.dom, server, *piece) {
                let unmapped = room.owed().get(index..).unwrap_or_default();
                self.board.lock().doorbells.unclaim(bytes, &mut way_back)?;
                self.give_back(server, way_back.owed(), unmapped);
                return Err(dead_or(error));
            }
        }
        let new = Registration { doorbell, eventfd };
        let added = self.board.lock().doorbells.add(new, &mut room);
        // Not with the spinlock held, as it would be at the end of the block: this may sleep.
        drop(room);
        added
    }

    /// Takes a registration back. When this returns, its eventfd is not signalled again.
    pub(crate) fn unregister(&self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        let changes = self.changes.lock();
        let server = changes.server()?.id;
        let size = self.board.lock().doorbells.size();
        let mut room = Room::to_shrink(size)?;
        let removed = {
            // The handler signals under this lock, so none is on its way once it is released.
            let mut board = self.board.lock();
            let removed = board.doorbells.remove(doorbell, eventfd)?;
            board.doorbells.unclaim(doorbell.bytes(), &mut room)?;
            removed
        };
        drop(removed);
        self.give_back(server, room.owed(), &[]);
        Ok(())
    }

    /// Gives bytes back to Xen, of which some were never mapped.
    fn give_back(&self, server: IoServerId, owed: &[Bytes], never_mapped: &[Bytes]) {
        for piece in owed {
            // Taking bytes from the middle of a range may need one range too many. They stay ours
            // then, and are answered.
            if never_mapped.contains(piece) || xen::unmap_range(self.dom, server, *piece).is_ok() {
                self.board.lock().doorbells.forget(*piece);
            }
        }
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        let changes = self.changes.lock();
        let server = changes.server()?.id;
        let board = self.board.lock();
        let (doorbells, counters) = (board.doorbells.len(), board.doorbells.counters);
        Ok(Stats { server, doorbells, counters })
    }

    /// Serves the request of one vCPU, if there is one. Returns whether the vCPU is owed an event.
    pub(crate) fn serve(&self, vcpu: usize) -> bool {
        let mut board = self.board.lock();
        let Board { page, doorbells } = &mut *board;
        let Some(slot) = page.as_ref().and_then(|page| page.slots().get(vcpu)) else {
            return false;
        };
        if slot.serve(|request| doorbells.act(request)).is_none() {
            doorbells.counters.spurious = doorbells.counters.spurious.wrapping_add(1);
            return false;
        }
        true
    }

    /// Lets go of the guest.
    pub(crate) fn close(&self) {
        self.end(Life::Apart);
    }

    /// Drops everything of a guest that has died.
    fn bury_if_dead(&self) {
        let alive = match &*self.changes.lock() {
            Life::Served(server) => server.is_alive(self.dom),
            Life::Apart | Life::Dead => true,
        };
        if !alive {
            self.end(Life::Dead);
        }
    }

    /// Ends the service, if there is one.
    fn end(&self, how: Life) {
        let mut changes = self.changes.lock();
        if let Life::Served(server) = core::mem::replace(&mut *changes, how) {
            server.tear_down(self);
            let cleared = self.board.lock().doorbells.clear();
            drop(cleared);
        }
        drop(changes);
        GUESTS.lock().served.retain(|guest| !core::ptr::eq(&**guest, self));
    }
}

/// Some domain went. Looks at each of ours once.
pub(crate) fn bury_the_dead() {
    let mut next = 0;
    loop {
        let guests = GUESTS.lock();
        let later = guests.served.iter().filter(|guest| u32::from(guest.dom.0) >= next);
        let Some(guest) = later.min_by_key(|guest| guest.dom).cloned() else { return };
        drop(guests);
        next = u32::from(guest.dom.0).saturating_add(1);
        guest.bury_if_dead();
    }
}

/// What Xen says of a guest that it does not have, or no longer lets us serve.
fn dead_or(error: Error) -> Error {
    if error == ENOENT || error == ESRCH {
        ENODEV
    } else {
        error
    }
}

/// An enabled server with its page mapped and every vCPU's port bound.
struct Server {
    id: IoServerId,
    /// One for each vCPU, in order.
    ports: KVec<Port>,
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
    fn create(guest: &Arc<Guest>) -> Result<Self> {
        let dom = guest.dom;
        let vcpus = xen::vcpus(dom).map_err(|error| match dead_or(error) {
            EINVAL => EOPNOTSUPP,
            other => other,
        })? as usize;
        if vcpus == 0 || vcpus > SLOTS {
            return Err(EOPNOTSUPP);
        }
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
        // Acquire before enable: Xen does not check, and crashes the host.
        let page = IoreqPage::map(guest.dom, self.id)?;
        guest.board.lock().page = Some(page);
        xen::set_server_state(guest.dom, self.id, true)?;
        for vcpu in 0..vcpus {
            let remote = {
                let board = guest.board.lock();
                let slot = board.page.as_ref().and_then(|page| page.slots().get(vcpu));
                slot.ok_or(EINVAL)?.vp_eport()
            };
            let port = Port::bind(guest.clone(), guest.dom, remote, vcpu)?;
            self.ports.push_within_capacity(port).map_err(|_| ENOMEM)?;
        }
        Ok(())
    }

    /// Whether the guest still has this server.
    fn is_alive(&self, dom: DomId) -> bool {
        // It is enabled, so this changes nothing; a guest that died has lost it.
        !matches!(xen::set_server_state(dom, self.id, true).map_err(dead_or), Err(ENODEV))
    }

    /// Takes the server away from a guest that may be running, in the one order that leaves no vCPU
    /// waiting. A guest that is dead refuses some of it, and needs none of that.
    fn tear_down(self, guest: &Guest) {
        // This pauses the domain: afterwards nothing new is on its way.
        let _ = xen::set_server_state(guest.dom, self.id, false);
        // With this lock no handler runs, and without a page none serves.
        let page = guest.board.lock().page.take();
        if let Some(page) = &page {
            for slot in page.slots() {
                slot.sweep();
            }
        }
        // Every one of them: only an event wakes a parked vCPU, the server's end does not.
        for port in &self.ports {
            port.notify();
        }
        drop(self.ports);
        drop(page);
        if let Err(error) = xen::destroy_server(guest.dom, self.id) {
            if dead_or(error) != ENODEV {
                pr_warn_once!("an ioreq server stays behind, disabled\n");
            }
        }
    }
}
