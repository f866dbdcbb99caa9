// SPDX-License-Identifier: GPL-2.0

//! One guest in the hands of the module: what is assigned for it, and who may change that.
//!
//! # Locks, in the order in which they are taken
//! * `Control::assigned`, a mutex: what one file has assigned by the privcmd ABI.
//! * [`Guest::changes`], a mutex: held by the one that changes what is assigned, across the hypercalls
//!   that this takes. Nothing is asked of xenstore under it, or under any other lock.
//! * [`Guest::dispatch`], a spinlock that the handlers take: the one that holds it may rely on no handler
//!   being between a slot and an eventfd. A channel's listener is one more, alone.
//! * An eventfd's own, inside a signal.
//!
//! Alone, and for a moment each: `GUESTS` of `guests.rs`, a spinlock, for the list of guests; the stage
//! of a guest in `taken.rs`, a spinlock.

use crate::channel::Channel;
use crate::claimed::{Claimed, Claims};
use crate::doorbells::{Doorbells, Registration, Room};
use crate::eventfd::{EventFd, OpenEventFd};
use crate::interrupt::Interrupt;
use crate::irqfd::{Attached, IrqFd};
use crate::page::IoreqPage;
use crate::protocol::irq::{Arch, Irq, IrqOp, Line, Owner};
use crate::protocol::status::{DoorbellStatus, IrqStatus};
use crate::protocol::unmatched::UnmatchedKick;
use crate::protocol::{Counters, DomId, Doorbell, IoServerId, Kick, Port};
use crate::server::{self, dead_or, is_dying, Server};
use crate::{task, xen, xenstore};
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::{new_mutex, Arc, Mutex};

/// Irqfds that one guest can have.
pub(crate) const MAX_IRQS: usize = 1024;
/// Event channels of one guest that can be bound for callers, in either direction. Each is an interrupt
/// descriptor, for which no process is charged.
const MAX_CHANNELS: usize = 256;

/// What a handler needs.
struct DispatchState {
    /// `None` until the server has one, and again once it is let go of.
    page: Option<IoreqPage>,
    doorbells: Doorbells,
}

/// How a guest stands with us.
enum Life {
    /// Not yet, or no longer.
    Apart,
    /// Kept for another process's engine.
    Reserved,
    Served(Served),
    Dead,
}

/// Which of a guest's files assigned something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberId(u64);

/// A guest that is served.
pub(crate) struct Served {
    server: Server,
    claimed: Claimed,
    irqs: KVec<Raising>,
    channels: KVec<Bound>,
}

/// An irqfd, and whose it is.
struct Raising {
    by: MemberId,
    irqfd: Attached,
}

/// A channel and how many use it: irqfds that ring it, and an eventfd that receives it.
struct Bound {
    channel: Arc<Channel>,
    users: usize,
    /// Whose the eventfd is.
    heard_by: Option<MemberId>,
}

/// What the one that changes a guest holds.
struct Changes {
    life: Life,
    /// Signalled once when it dies.
    gone: Listeners,
}

/// Eventfds, and whose they are.
pub(crate) type Listeners = KVec<(MemberId, EventFd)>;

impl Changes {
    fn served(&mut self) -> Result<&mut Served> {
        self.life.served()
    }
}

impl Life {
    fn served(&mut self) -> Result<&mut Served> {
        match self {
            Self::Served(served) if served.server.is_lost() => Err(ENODEV),
            Self::Served(served) => {
                // No process can signal these any more.
                served.drop_irqs(|raising| raising.irqfd.is_closed());
                Ok(served)
            }
            Self::Reserved => Err(EOPNOTSUPP),
            Self::Apart | Self::Dead => Err(ENODEV),
        }
    }
}

/// A guest, as long as a file of it is open.
#[pin_data]
pub(crate) struct Guest {
    dom: DomId,
    members: Atomic<u64>,
    #[pin]
    changes: Mutex<Changes>,
    #[pin]
    dispatch: SpinLockIrq<DispatchState>,
}

/// For people who look.
pub(crate) struct Stats {
    pub(crate) server: IoServerId,
    pub(crate) vcpus: usize,
    pub(crate) doorbells: usize,
    pub(crate) counters: Counters,
}

impl Guest {
    /// A guest that is not served yet.
    pub(crate) fn new(dom: DomId) -> Result<Arc<Self>> {
        let doorbells = Doorbells::new()?;
        let apart = Changes { life: Life::Apart, gone: KVec::new() };
        let guest = pin_init!(Self {
            dom,
            members: Atomic::new(0),
            changes <- new_mutex!(apart, "Guest::changes"),
            dispatch <- new_spinlock_irq!(DispatchState { page: None, doorbells }, "Guest::dispatch"),
        });
        Arc::pin_init(guest, GFP_KERNEL_ACCOUNT)
    }

    /// Sets a doorbell server up in it.
    pub(crate) fn begin(self: &Arc<Self>) -> Result {
        let server = Server::create(self)?;
        let (irqs, channels) = (KVec::new(), KVec::new());
        self.changes.lock().life =
            Life::Served(Served { server, claimed: Claimed::new(), irqs, channels });
        Ok(())
    }

    /// Keeps it for another engine.
    pub(crate) fn reserve(&self) -> Result {
        server::vcpus(self.dom)?;
        if is_dying(self.dom) {
            return Err(ENODEV);
        }
        self.changes.lock().life = Life::Reserved;
        Ok(())
    }

    /// A number for one more file that uses it.
    pub(crate) fn next_member(&self) -> MemberId {
        MemberId(self.members.fetch_add(1, Relaxed))
    }

    /// Has an eventfd signalled when it dies.
    pub(crate) fn tell(&self, member: MemberId, gone: EventFd) -> Result {
        let mut changes = self.changes.lock();
        if matches!(changes.life, Life::Apart | Life::Dead) {
            return Err(ENODEV);
        }
        Ok(changes.gone.push((member, gone), GFP_KERNEL_ACCOUNT)?)
    }

    /// Its number.
    pub(crate) fn dom(&self) -> DomId {
        self.dom
    }

    /// Has the handlers serve the slots of a page.
    pub(crate) fn give_page(&self, page: IoreqPage) {
        self.dispatch.lock().page = Some(page);
    }

    /// Takes the page away from the handlers: when this returns, none serves a slot. The kicks that
    /// came so far are delivered, unless the guest is dead.
    pub(crate) fn take_page(&self, dead: bool) -> Option<IoreqPage> {
        let mut dispatch = self.dispatch.lock();
        let DispatchState { page, doorbells } = &mut *dispatch;
        let page = page.take()?;
        if !dead {
            for (vcpu, slot) in page.slots().iter().enumerate() {
                slot.serve(|request| doorbells.act(self.dom, vcpu, request));
            }
        }
        Some(page)
    }

    /// The guest's port of a vCPU, as Xen wrote it into the slot when the server was enabled.
    pub(crate) fn vp_eport(&self, vcpu: usize) -> Option<Port> {
        let dispatch = self.dispatch.lock();
        Some(dispatch.page.as_ref()?.slots().get(vcpu)?.vp_eport())
    }

    /// Serves the request of one vCPU, if there is one. Returns whether the vCPU is owed an event.
    pub(crate) fn serve(&self, vcpu: usize) -> bool {
        let mut dispatch = self.dispatch.lock();
        let DispatchState { page, doorbells } = &mut *dispatch;
        let Some(slot) = page.as_ref().and_then(|page| page.slots().get(vcpu)) else {
            return false;
        };
        if slot.serve(|request| doorbells.act(self.dom, vcpu, request)).is_none() {
            doorbells.counters.spurious = doorbells.counters.spurious.wrapping_add(1);
            return false;
        }
        true
    }
}

/// Doorbells.
impl Guest {
    /// Registers a doorbell.
    pub(crate) fn register(&self, doorbell: Doorbell, eventfd: EventFd) -> Result {
        if !Arch::NATIVE.has_space(doorbell.bytes().space()) {
            return Err(EOPNOTSUPP);
        }
        let new = Registration::new(doorbell, eventfd)?;
        let mut changes = self.changes.lock();
        let Served { server, claimed, .. } = changes.served()?;
        let (server, bytes) = (server.id(), doorbell.bytes());
        let size = self.dispatch.lock().doorbells.size();
        let mut room = Room::to_grow(size)?;
        self.dispatch.lock().doorbells.check(&doorbell)?;
        let swap = |claims: &mut Claims| self.dispatch.lock().doorbells.swap_claims(claims);
        claimed.reserve(swap)?;
        // From here on its kicks are held, so none is lost between the map and the table.
        let owed = claimed.acquire(bytes, swap)?;
        let mut mapped: usize = 0;
        let map = |piece| {
            xen::map_range(self.dom, server, piece).map_err(dead_or)?;
            mapped = mapped.saturating_add(1);
            Ok(())
        };
        let registered = owed.iter().try_for_each(map).and_then(|()| {
            self.dispatch.lock().doorbells.add(new, &mut room)
        });
        if registered.is_err() {
            claimed.release(bytes, |claims| {
                let mut dispatch = self.dispatch.lock();
                dispatch.doorbells.swap_claims(claims);
                dispatch.doorbells.forget_held(bytes);
            })?;
            let unmap = |piece| {
                owed.iter().skip(mapped).any(|never_mapped| never_mapped == piece)
                    || xen::unmap_range(self.dom, server, piece).is_ok()
            };
            claimed.give_back(bytes, unmap, || true, swap)?;
        }
        registered
    }

    /// Takes a registration back. When this returns, its eventfd is not signalled again. It needs no
    /// memory.
    pub(crate) fn unregister(&self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        let mut changes = self.changes.lock();
        let Served { server, claimed, .. } = changes.served()?;
        let (server, bytes) = (server.id(), doorbell.bytes());
        self.dispatch.lock().doorbells.has(doorbell, eventfd)?;
        let mut removed = Err(ENOENT);
        claimed.release(bytes, |claims| {
            // The handler signals under this lock, so none is on its way once it is released.
            let mut dispatch = self.dispatch.lock();
            removed = dispatch.doorbells.remove(doorbell, eventfd);
            dispatch.doorbells.swap_claims(claims);
            dispatch.doorbells.forget_held(bytes);
        })?;
        drop(removed?);
        claimed.give_back(
            bytes,
            |piece| xen::unmap_range(self.dom, server, piece).is_ok(),
            task::is_killed,
            |claims| self.dispatch.lock().doorbells.swap_claims(claims),
        )
    }

    /// Takes one kick that a fallback received. What cannot be reported stays.
    pub(crate) fn take_unmatched(
        &self,
        doorbell: &Doorbell,
        eventfd: &EventFd,
        tell: impl FnOnce(&UnmatchedKick) -> Result,
    ) -> Result {
        self.changes.lock().served()?;
        let taken = self.dispatch.lock().doorbells.unmatched(doorbell, eventfd)?.take();
        // Under no lock: it may be as slow as the caller's memory.
        let told = tell(&taken);
        if told.is_err() {
            if let Ok(fallback) = self.dispatch.lock().doorbells.unmatched(doorbell, eventfd) {
                fallback.put_back(&taken);
            }
        }
        told
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        let mut changes = self.changes.lock();
        let server = &changes.served()?.server;
        let dispatch = self.dispatch.lock();
        let (doorbells, counters) = (dispatch.doorbells.len(), dispatch.doorbells.counters);
        Ok(Stats { server: server.id(), vcpus: server.vcpus(), doorbells, counters })
    }

    /// The registration at an index.
    pub(crate) fn shown(&self, index: usize) -> Option<DoorbellStatus> {
        self.dispatch.lock().doorbells.shown(index)
    }

    /// The held kick at an index.
    pub(crate) fn waiting(&self, index: usize) -> Option<Kick> {
        self.dispatch.lock().doorbells.waiting(index)
    }
}

/// Interrupts and event channels.
impl Guest {
    /// Has an eventfd raise an interrupt.
    pub(crate) fn assign_irq(&self, by: MemberId, irq: Irq, eventfd: &OpenEventFd) -> Result {
        self.check_irq(irq)?;
        let mut changes = self.changes.lock();
        let served = changes.served()?;
        let interrupt = served.interrupt(self.dom, irq)?;
        let attached = served.attach(by, interrupt, eventfd);
        if attached.is_err() {
            served.leave(irq);
        }
        attached
    }

    /// Has an assigned eventfd raise another interrupt. When this returns, the one before is not
    /// raised again, and no signal was lost. If it fails, nothing has changed.
    pub(crate) fn set_irq(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
        new: Irq,
    ) -> Result {
        self.changes.lock().served()?.irq(by, Some(irq), eventfd)?;
        self.check_irq(new)?;
        let mut changes = self.changes.lock();
        let served = changes.served()?;
        served.irq(by, Some(irq), eventfd)?;
        let interrupt = served.interrupt(self.dom, new)?;
        let before = served.irq(by, Some(irq), eventfd)?.set(interrupt);
        let left_up = before.leaves_up();
        drop(before);
        served.leave(irq);
        served.lower_unused(left_up);
        Ok(())
    }

    /// Keeps an assigned eventfd from raising its interrupt until it is unmasked.
    pub(crate) fn mask_irq(&self, by: MemberId, irq: Irq, eventfd: &EventFd) -> Result {
        let mut changes = self.changes.lock();
        changes.served()?.irq(by, Some(irq), eventfd).map(IrqFd::mask)
    }

    /// Takes that back, and raises the interrupt once if it is pending.
    pub(crate) fn unmask_irq(&self, by: MemberId, irq: Irq, eventfd: &EventFd) -> Result {
        let mut changes = self.changes.lock();
        changes.served()?.irq(by, Some(irq), eventfd).map(IrqFd::unmask)
    }

    /// Whether an assigned eventfd is masked, and whether it was signalled since.
    pub(crate) fn irq_state(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
    ) -> Result<(bool, bool)> {
        let mut changes = self.changes.lock();
        changes.served()?.irq(by, Some(irq), eventfd).map(IrqFd::is_masked)
    }

    /// Whether the guest, which is served, can have such an interrupt. It may have to ask xenstore:
    /// not to be called under a lock.
    fn check_irq(&self, irq: Irq) -> Result {
        irq.check().map_err(|_| EINVAL)?;
        self.changes.lock().served()?;
        match Arch::NATIVE.owner(&irq) {
            Some(Owner::EveryGuest) => Ok(()),
            Some(Owner::GuestsWithLines) if xenstore::has_lines(self.dom)? => Ok(()),
            Some(Owner::GuestsWithLines) | None => Err(EOPNOTSUPP),
        }
    }

    /// The same for an operation of the privcmd ABI.
    pub(crate) fn assign_operation(
        &self,
        by: MemberId,
        operation: IrqOp,
        eventfd: &OpenEventFd,
    ) -> Result {
        self.check_irq(operation.irq())?;
        self.changes.lock().served()?.attach(by, Interrupt::privcmd(self.dom, operation), eventfd)
    }

    /// Takes that back: of this eventfd, and this interrupt if one is given. When this returns, it
    /// is not raised again.
    pub(crate) fn deassign_irq(
        &self,
        by: MemberId,
        irq: Option<Irq>,
        eventfd: &EventFd,
    ) -> Result {
        let mut changes = self.changes.lock();
        let served = changes.served()?;
        served.irq(by, irq, eventfd)?;
        served.drop_irqs(|raising| raising.is_of(by, eventfd));
        Ok(())
    }

    /// Whether an eventfd raises an interrupt of this guest.
    pub(crate) fn has_irq(&self, by: MemberId, eventfd: &EventFd) -> bool {
        self.changes.lock().served().is_ok_and(|served| served.irq(by, None, eventfd).is_ok())
    }

    /// Interrupts raised and refused.
    pub(crate) fn irq_counts(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
    ) -> Result<(u64, u64)> {
        let mut changes = self.changes.lock();
        changes.served()?.irq(by, Some(irq), eventfd).map(|irqfd| irqfd.counts())
    }

    /// Lowers a line.
    pub(crate) fn lower(&self, by: MemberId, irq: Irq, eventfd: &EventFd) -> Result {
        let mut changes = self.changes.lock();
        let irqfd = changes.served()?.irq(by, Some(irq), eventfd)?;
        irqfd.lower().map_err(dead_or)
    }

    /// The irqfd at an index.
    pub(crate) fn shown_irq(&self, index: usize) -> Option<IrqStatus> {
        let mut changes = self.changes.lock();
        let irqfd = &changes.served().ok()?.irqs.get(index)?.irqfd;
        let (raised, failed) = irqfd.counts();
        let (masked, pending) = irqfd.is_masked();
        Some(IrqStatus { irq: irqfd.irq(), raised, failed, masked, pending })
    }

    /// Has a guest's event channel signal an eventfd.
    pub(crate) fn assign_channel(&self, by: MemberId, port: Port, eventfd: OpenEventFd) -> Result {
        Irq::EventChannel(port).check().map_err(|_| EINVAL)?;
        let mut changes = self.changes.lock();
        let served = changes.served()?;
        let listening = served.use_channel(self.dom, port)?.listen(eventfd);
        if listening.is_err() {
            served.leave_channel(port);
        } else if let Some(bound) = served.bound(port) {
            bound.heard_by = Some(by);
        }
        listening
    }

    /// Takes that back. When this returns, the eventfd is not signalled again.
    pub(crate) fn deassign_channel(&self, by: MemberId, port: Port, eventfd: &EventFd) -> Result {
        let mut changes = self.changes.lock();
        let served = changes.served()?;
        let found = served.bound(port).filter(|bound| bound.heard_by == Some(by));
        if !found.is_some_and(|bound| bound.channel.stop_listening(Some(eventfd))) {
            return Err(ENOENT);
        }
        served.leave_heard(port);
        Ok(())
    }

    /// The channel at an index, and how often its eventfd was signalled if it has one.
    pub(crate) fn shown_channel(&self, index: usize) -> Option<(Port, Option<u64>)> {
        let mut changes = self.changes.lock();
        let bound = changes.served().ok()?.channels.get(index)?;
        Some((bound.channel.remote(), bound.channel.signals()))
    }
}

impl Served {
    fn attach(&mut self, by: MemberId, interrupt: Interrupt, eventfd: &OpenEventFd) -> Result {
        if self.irqs.len() >= MAX_IRQS {
            return Err(ENOSPC);
        }
        self.irqs.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let irqfd = IrqFd::attach(eventfd, interrupt)?;
        self.irqs.push_within_capacity(Raising { by, irqfd }).map_err(|_| ENOMEM)
    }

    fn irq(&self, by: MemberId, irq: Option<Irq>, eventfd: &EventFd) -> Result<&IrqFd> {
        let wanted = |raising: &&Raising| {
            raising.is_of(by, eventfd) && irq.is_none_or(|irq| raising.irqfd.irq() == irq)
        };
        self.irqs.iter().find(wanted).map(|raising| &*raising.irqfd).ok_or(ENOENT)
    }

    fn drop_irqs(&mut self, which: impl Fn(&Raising) -> bool) {
        while let Some(index) = self.irqs.iter().position(&which) {
            let Ok(Raising { irqfd, .. }) = self.irqs.remove(index) else { return };
            let (irq, left_up) = (irqfd.irq(), irqfd.leaves_up());
            drop(irqfd);
            self.leave(irq);
            self.lower_unused(left_up);
        }
    }

    /// A line stays up for as long as an assignment is there that can lower it.
    fn lower_unused(&self, left_up: Option<(DomId, Line)>) {
        let Some((dom, line)) = left_up else { return };
        if !self.irqs.iter().any(|raising| raising.irqfd.leaves_up() == left_up) {
            let _ = xen::set_line(dom, line, false);
        }
    }

    /// An interrupt that is ready to be raised: an event channel is bound for it. To be given back
    /// by [`Served::leave`].
    fn interrupt(&mut self, dom: DomId, irq: Irq) -> Result<Interrupt> {
        match irq {
            Irq::EventChannel(port) => Ok(Interrupt::channel(dom, self.use_channel(dom, port)?)),
            irq => Interrupt::plain(dom, irq),
        }
    }

    /// One user less of what an interrupt needs.
    fn leave(&mut self, irq: Irq) {
        if let Irq::EventChannel(port) = irq {
            self.leave_channel(port);
        }
    }

    fn bound(&mut self, port: Port) -> Option<&mut Bound> {
        self.channels.iter_mut().find(|bound| bound.channel.remote() == port)
    }

    /// One more user of a guest's port; bound by the first.
    fn use_channel(&mut self, dom: DomId, port: Port) -> Result<Arc<Channel>> {
        if let Some(bound) = self.bound(port) {
            bound.users = bound.users.saturating_add(1);
            return Ok(bound.channel.clone());
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(ENOSPC);
        }
        self.channels.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let channel = Channel::bind(dom, port).map_err(|error| {
            // A port of a dead guest is refused like one that never was.
            if self.server.is_alive(dom) {
                // Xen's words for one that is not the guest's, or not for us.
                if error == ENOENT || error == ESRCH { EINVAL } else { error }
            } else {
                ENODEV
            }
        })?;
        let channel = Arc::new(channel, GFP_KERNEL_ACCOUNT)?;
        let bound = Bound { channel: channel.clone(), users: 1, heard_by: None };
        self.channels.push_within_capacity(bound).map_err(|_| ENOMEM)?;
        Ok(channel)
    }

    /// One user less; unbound by the last.
    fn leave_channel(&mut self, port: Port) {
        self.channels.retain(|bound| {
            if bound.channel.remote() == port {
                bound.users = bound.users.saturating_sub(1);
            }
            bound.users > 0
        });
    }

    /// No process receives a channel any more.
    fn leave_heard(&mut self, port: Port) {
        if let Some(bound) = self.bound(port) {
            bound.heard_by = None;
        }
        self.leave_channel(port);
    }

    /// Ends what one file assigned.
    fn end_of(&mut self, member: MemberId) {
        self.drop_irqs(|raising| raising.by == member);
        while let Some(bound) = self.channels.iter().find(|bound| bound.heard_by == Some(member)) {
            let port = bound.channel.remote();
            bound.channel.stop_listening(None);
            self.leave_heard(port);
        }
    }
}

impl Raising {
    fn is_of(&self, by: MemberId, eventfd: &EventFd) -> bool {
        self.by == by && self.irqfd.is_of(eventfd)
    }
}

/// The end.
impl Guest {
    /// Lets go of the guest: none of its vCPUs waits for us afterwards, and nothing of ours is left.
    pub(crate) fn close(&self) {
        self.end(Life::Apart);
    }

    /// Ends the interrupts and channels that one file assigned; others serve it still.
    pub(crate) fn end_of(&self, member: MemberId) {
        let mut changes = self.changes.lock();
        if let Ok(served) = changes.served() {
            served.end_of(member);
        }
        changes.gone.retain(|(theirs, _)| *theirs != member);
    }

    /// Drops everything of a guest that has died. Returns whom to notify then, once.
    pub(crate) fn reap_if_dead(&self) -> Option<Listeners> {
        let dead = match &self.changes.lock().life {
            Life::Served(served) => !served.server.is_alive(self.dom),
            Life::Reserved => is_dying(self.dom),
            Life::Apart | Life::Dead => false,
        };
        dead.then(|| self.end(Life::Dead)).flatten()
    }

    /// Whether it has died.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.changes.lock().life, Life::Dead)
    }

    /// Whether it is kept for another engine.
    pub(crate) fn is_reserved(&self) -> bool {
        matches!(self.changes.lock().life, Life::Reserved)
    }

    /// Returns who wants to know of its death, if this was the end of it.
    fn end(&self, how: Life) -> Option<Listeners> {
        let mut changes = self.changes.lock();
        if matches!(changes.life, Life::Apart | Life::Dead) {
            return None;
        }
        let before = core::mem::replace(&mut changes.life, how);
        let gone = core::mem::replace(&mut changes.gone, KVec::new());
        if let Life::Served(mut served) = before {
            // What was signalled until now is still raised.
            served.drop_irqs(|_| true);
            let Served { server, channels, .. } = served;
            drop(channels);
            server.tear_down(self);
            let cleared = self.dispatch.lock().doorbells.clear();
            drop(cleared);
        }
        Some(gone)
    }
}
