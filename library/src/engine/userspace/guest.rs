//! One guest in the hands of the engine.

use super::irq::{Action, Channel, IrqSource};
use super::server::Server;
use super::{Shared, Source, UserspaceEngine};
use crate::engine::doorbells::{Doorbells, Registered, Registration, Unmatched};
use crate::engine::hold::Hold;
use crate::engine::{Attachment, IrqCounts, check_irq, check_space, named};
use crate::eventfd::{self, EventFd};
use crate::sync::{Mutex, MutexGuard};
use crate::{EngineKind, Error, Result, lock};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::{Irq, Raise};
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port, Space};
use xen_eventfd_host::{Binding, Call, Errno, HostError, LocalPort};

/// What the handler of a kick needs. Whoever holds its lock may rely on no handler running.
#[derive(Debug)]
struct DispatchState {
    /// `None` once the guest is let go of or dead.
    server: Option<Server>,
    doorbells: Doorbells,
}

impl DispatchState {
    /// Takes the server away from the handlers. The kicks that came so far are delivered, unless the
    /// guest is dead.
    fn take_server(&mut self, shared: &Shared, dead: bool) -> Option<Server> {
        let server = self.server.take()?;
        if dead {
            return Some(server);
        }
        for slot in server.page.slots().iter().take(server.ports.len()) {
            slot.serve(|request| self.doorbells.act(request, &mut |fd| shared.signal(fd)));
        }
        Some(server)
    }
}

/// How a guest stands with the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Served,
    LetGo,
    Dead,
}

/// A guest, as long as the engine serves it.
#[derive(Debug)]
pub(crate) struct GuestCore {
    pub(crate) dom: DomId,
    pub(crate) server: IoServerId,
    /// The event channel of the server's first vCPU: the guest's end and ours. It ends with the server.
    channel: Option<(Port, LocalPort)>,
    /// Held by whoever changes what is registered, across the host calls that this takes.
    changes: Mutex<Life>,
    dispatch: Mutex<DispatchState>,
    channels: Mutex<BTreeMap<Port, (Arc<Channel>, u32)>>,
    last_error: Mutex<Option<HostError>>,
    /// Readable once the guest is dead or the engine has stopped.
    gone: OwnedFd,
    /// Until it is no longer ours.
    hold: Mutex<Option<Hold>>,
}

/// A guest that is ours; dropping it lets go of it.
#[derive(Debug)]
pub(super) struct UserspaceGuest {
    engine: Arc<UserspaceEngine>,
    core: Arc<GuestCore>,
}

impl UserspaceGuest {
    /// Takes a guest and sets up a doorbell server.
    pub(super) fn new(engine: &Arc<UserspaceEngine>, dom: DomId) -> Result<Self> {
        let shared = &engine.shared;
        shared.alive()?;
        let gone = eventfd::new()?;
        let kind = EngineKind::Userspace;
        let mut hold = Hold::take(&*shared.host, &shared.run_dir, dom, kind)?;
        hold.reserve(&engine.reserve)?;
        let mut doorbells = Doorbells::default();
        hold.record.held().for_each(|kick| doorbells.hold(kick));

        let record = &mut hold.record;
        let server = Server::create(&*shared.host, &*shared.events, &shared.run_dir, record)
            .map_err(|error| match error {
                Error::Host(error) if error.is_gone() => Error::GuestDied(dom),
                other => other,
            })?;
        let ports = server.ports.clone();
        let core = Arc::new(GuestCore {
            dom,
            server: server.id,
            channel: server.channel(),
            changes: Mutex::new(Life::Served),
            dispatch: Mutex::new(DispatchState { server: Some(server), doorbells }),
            channels: Mutex::default(),
            last_error: Mutex::default(),
            gone,
            hold: Mutex::new(Some(hold)),
        });
        for (vcpu, port) in ports.iter().enumerate() {
            let source = Source::Doorbell(Arc::clone(&core), vcpu);
            lock(&shared.sources).ports.insert(*port, source);
        }
        lock(&shared.guests).insert(dom, Arc::clone(&core));
        let attachment = Self { engine: Arc::clone(engine), core };
        // An event that came between a port's binding and its entry above was not for anybody.
        for (vcpu, port) in ports.into_iter().enumerate() {
            attachment.core.serve(shared, port, vcpu);
        }
        // It may have died before it was in the list of those who are looked after.
        attachment.core.reap_if_dead(shared);
        // So may the engine.
        shared.alive()?;
        drop(attachment.core.changes()?);
        Ok(attachment)
    }

    fn shared(&self) -> &Shared {
        &self.engine.shared
    }

    /// Lets go of bytes, of which some were never mapped.
    fn unclaim(&self, bytes: Bytes, never_mapped: &[Bytes]) {
        let released = lock(&self.core.dispatch).doorbells.unclaim(bytes);
        let mut room = false;
        for piece in &released {
            room |= never_mapped.contains(piece) || self.unmap(*piece);
            if never_mapped.contains(piece) {
                lock(&self.core.dispatch).doorbells.forget(*piece);
            }
        }
        // There may be room now for what Xen could not take back before.
        let stuck = lock(&self.core.dispatch).doorbells.stuck();
        let mut others = stuck.into_iter().filter(|piece| !released.contains(piece));
        while room {
            let Some(piece) = others.next() else { break };
            room = self.unmap(piece);
        }
    }

    /// Has Xen take bytes back. `false`: it does not, as when taking them from the middle of a
    /// range needs one range too many. They stay ours then, and are answered.
    fn unmap(&self, piece: Bytes) -> bool {
        match self.shared().host.unmap_range(self.core.dom, self.core.server, piece) {
            Ok(()) => {
                lock(&self.core.dispatch).doorbells.forget(piece);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the bytes stay claimed");
                false
            }
        }
    }

    /// One more user of a guest's port; bound by the first.
    fn channel(&self, port: Port) -> Result<Arc<Channel>> {
        let shared = self.shared();
        let mut channels = lock(&self.core.channels);
        if let Some((channel, users)) = channels.get_mut(&port) {
            *users += 1;
            return Ok(Arc::clone(channel));
        }
        let mut sources = lock(&shared.sources);
        let bound = Channel::bind(&*shared.events, self.core.dom, port);
        let channel = Arc::new(bound.map_err(|error| self.core.died_or(shared, error))?);
        sources.ports.insert(channel.local, Source::Channel(Arc::clone(&channel)));
        channels.insert(port, (Arc::clone(&channel), 1));
        Ok(channel)
    }

    /// What raises an interrupt: an event channel is bound for it. To be given back by
    /// [`UserspaceGuest::release`].
    fn action(&self, irq: Irq) -> Result<Action> {
        Ok(match irq.raise() {
            Raise::Notify(port) => Action::Notify(self.channel(port)?),
            Raise::Operate(operation, then) => Action::Operate(operation, then),
        })
    }

    /// One user less of what raises an interrupt.
    fn release(&self, irq: Option<Irq>) {
        if let Some(Irq::EventChannel(port)) = irq {
            self.release_channel(port);
        }
    }

    /// The irqfd with this serial number. The caller holds the right to change what is registered.
    fn irq(&self, serial: u64) -> Result<Arc<IrqSource>> {
        let found = lock(&self.shared().sources).irqs.get(&serial).cloned();
        found.ok_or_else(|| Error::NotRegistered { what: "this interrupt".to_owned() })
    }

    /// One user less; unbound by the last.
    fn release_channel(&self, port: Port) {
        let mut channels = lock(&self.core.channels);
        let Some((_, users)) = channels.get_mut(&port) else { return };
        *users -= 1;
        if *users == 0
            && let Some((channel, _)) = channels.remove(&port)
        {
            channel.close(self.shared());
        }
    }
}

impl Attachment for UserspaceGuest {
    fn dom(&self) -> DomId {
        self.core.dom
    }

    fn server(&self) -> IoServerId {
        self.core.server
    }

    fn register(
        &self,
        doorbell: Doorbell,
        eventfd: EventFd,
        unmatched: Option<Arc<Mutex<Unmatched>>>,
    ) -> Result<u64> {
        let shared = self.shared();
        shared.alive()?;
        check_space(&*shared.host, &doorbell)?;
        let _changes = self.core.changes()?;
        let bytes = doorbell.bytes();
        let to_map = {
            let mut dispatch = lock(&self.core.dispatch);
            dispatch.doorbells.check(self.core.dom, &doorbell)?;
            // From here on its kicks are held, so none is lost between the map and the table.
            dispatch.doorbells.claim(bytes)
        };
        for (index, piece) in to_map.iter().enumerate() {
            if let Err(error) = shared.host.map_range(self.core.dom, self.core.server, *piece) {
                let unmapped = to_map.get(index..).unwrap_or_default();
                self.unclaim(bytes, unmapped);
                return Err(self.core.died_or(shared, error));
            }
        }
        let serial = shared.serial();
        let eventfd = Arc::new(eventfd);
        let new = Registration { doorbell, eventfd, serial, unmatched, kicks: 0 };
        lock(&self.core.dispatch).doorbells.add(new, &mut |eventfd| shared.signal(eventfd))?;
        Ok(serial)
    }

    fn unregister(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Result<()> {
        self.shared().alive()?;
        let _changes = self.core.changes()?;
        // The handler signals under this lock, so none is on its way once it is released.
        let removed = lock(&self.core.dispatch).doorbells.remove(doorbell, eventfd, serial);
        if removed.is_none() {
            return Err(Error::NotRegistered { what: named(doorbell) });
        }
        self.unclaim(doorbell.bytes(), &[]);
        Ok(())
    }

    fn find(&self, eventfd: &EventFd, place: Option<(Space, u64)>) -> Result<Option<Doorbell>> {
        self.shared().alive()?;
        let _changes = self.core.changes()?;
        Ok(lock(&self.core.dispatch).doorbells.of(eventfd, place))
    }

    fn collect(&self, _: &Doorbell, _: u64, _: &Mutex<Unmatched>) {}

    fn register_irq(&self, eventfd: EventFd, irq: Irq) -> Result<(u64, Arc<IrqCounts>)> {
        let shared = self.shared();
        shared.alive()?;
        check_irq(&*shared.host, self.core.dom, &irq)?;
        let _changes = self.core.changes()?;
        let claim = eventfd.claim()?;
        let action = self.action(irq)?;
        let source = IrqSource::new(self.core.dom, irq, (eventfd, claim), action);
        let source = Arc::new(source.inspect_err(|_| self.release(Some(irq)))?);
        let serial = shared.serial();
        lock(&shared.sources).irqs.insert(serial, Arc::clone(&source));
        // What was signalled before counts: the descriptor is readable, so the thread comes by.
        if let Err(error) = source.listen(shared, serial) {
            self.unregister_irq(serial)?;
            return Err(error);
        }
        Ok((serial, Arc::clone(&source.counts)))
    }

    fn find_irq(&self, eventfd: &EventFd, irq: &Irq) -> Result<u64> {
        self.shared().alive()?;
        let _changes = self.core.changes()?;
        let sources: Vec<_> = {
            let sources = lock(&self.shared().sources);
            let irqs = sources.irqs.iter().filter(|(_, source)| source.dom == self.core.dom);
            irqs.map(|(serial, source)| (*serial, Arc::clone(source))).collect()
        };
        let found = sources.iter().find(|(_, source)| source.is(eventfd, irq));
        found
            .map(|(serial, _)| *serial)
            .ok_or_else(|| Error::NotRegistered { what: irq.to_string() })
    }

    fn unregister_irq(&self, serial: u64) -> Result<()> {
        let Some(source) = lock(&self.shared().sources).irqs.remove(&serial) else {
            return Ok(());
        };
        self.release(source.finish(self.shared()));
        Ok(())
    }

    fn set_irq(&self, serial: u64, irq: Irq) -> Result<()> {
        let shared = self.shared();
        shared.alive()?;
        check_irq(&*shared.host, self.core.dom, &irq)?;
        let _changes = self.core.changes()?;
        let source = self.irq(serial)?;
        let action = self.action(irq)?;
        let before = source.set(shared, irq, action).inspect_err(|_| self.release(Some(irq)))?;
        self.release(Some(before));
        Ok(())
    }

    fn mask_irq(&self, serial: u64, masked: bool) -> Result<()> {
        self.shared().alive()?;
        let _changes = self.core.changes()?;
        self.irq(serial)?.mask(self.shared(), masked)
    }

    fn is_pending(&self, serial: u64) -> Result<bool> {
        self.shared().alive()?;
        let _changes = self.core.changes()?;
        self.irq(serial)?.is_pending(self.shared())
    }

    fn count_irqs(&self, _: u64) {}

    fn lower(&self, serial: u64) -> Result<()> {
        let shared = self.shared();
        shared.alive()?;
        let _changes = self.core.changes()?;
        self.irq(serial)?.lower(shared)?.map_err(|error| self.core.died_or(shared, error))
    }

    fn listen(&self, eventfd: EventFd, port: Port) -> Result<u64> {
        self.shared().alive()?;
        Irq::EventChannel(port).check()?;
        let _changes = self.core.changes()?;
        let channel = self.channel(port)?;
        let mut listener = lock(&channel.listener);
        if listener.eventfd.is_some() {
            drop(listener);
            self.release_channel(port);
            return Err(Error::Busy { what: format!("an eventfd for {port}") });
        }
        if listener.missed {
            self.shared().signal(&eventfd);
            if let Err(error) = self.shared().events.eoi(channel.local) {
                // It waits for the next one.
                drop(listener);
                self.release_channel(port);
                return Err(error.into());
            }
            listener.missed = false;
        }
        let serial = self.shared().serial();
        listener.eventfd = Some((serial, eventfd));
        Ok(serial)
    }

    fn find_channel(&self, eventfd: &EventFd, port: Port) -> Result<u64> {
        self.shared().alive()?;
        let _changes = self.core.changes()?;
        let channel = lock(&self.core.channels).get(&port).map(|(channel, _)| Arc::clone(channel));
        let serial = channel.and_then(|channel| {
            let listener = lock(&channel.listener);
            let (serial, ours) = listener.eventfd.as_ref()?;
            ours.is(eventfd).then_some(*serial)
        });
        serial.ok_or_else(|| Error::NotRegistered { what: port.to_string() })
    }

    fn stop_listening(&self, port: Port, serial: u64) -> Result<()> {
        let channel = lock(&self.core.channels).get(&port).map(|(channel, _)| Arc::clone(channel));
        let listened = channel.is_some_and(|channel| {
            lock(&channel.listener).eventfd.take_if(|(theirs, _)| *theirs == serial).is_some()
        });
        if listened {
            self.release_channel(port);
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.core.let_go(self.shared())
    }

    fn counters(&self) -> Counters {
        lock(&self.core.dispatch).doorbells.counters
    }

    fn held(&self) -> Vec<Kick> {
        lock(&self.core.dispatch).doorbells.held().to_vec()
    }

    fn registered(&self) -> Vec<Registered> {
        let dispatch = lock(&self.core.dispatch);
        let show = |r: &Registration| Registered { doorbell: r.doorbell, kicks: r.kicks };
        dispatch.doorbells.table().iter().map(show).collect()
    }

    fn last_error(&self) -> Option<HostError> {
        lock(&self.core.last_error).clone()
    }

    fn gone(&self) -> BorrowedFd<'_> {
        self.core.gone.as_fd()
    }

    fn is_served(&self) -> bool {
        *lock(&self.core.changes) == Life::Served
    }
}

impl Drop for UserspaceGuest {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, dom = %self.core.dom, "a guest was not let go of cleanly");
        }
    }
}

impl GuestCore {
    /// Serves the request of one vCPU, if there is one, and ends the event.
    ///
    /// All of it happens under the dispatch's lock, so that while the teardown holds the lock neither
    /// a slot nor a port of the server is in use.
    pub(super) fn serve(&self, shared: &Shared, port: LocalPort, vcpu: usize) {
        let mut dispatch = lock(&self.dispatch);
        let DispatchState { server, doorbells } = &mut *dispatch;
        let Some(slot) = server.as_ref().and_then(|server| server.page.slots().get(vcpu)) else {
            return;
        };
        let served = slot.serve(|request| doorbells.act(request, &mut |fd| shared.signal(fd)));
        let rung = match served {
            Some(_) => shared.events.notify(port),
            None => {
                doorbells.counters.spurious += 1;
                Ok(())
            }
        };
        if let Err(error) = rung.and(shared.events.eoi(port)) {
            tracing::debug!(%error, dom = %self.dom, "a vCPU was not woken");
            *lock(&self.last_error) = Some(error);
        }
    }

    /// Lets go of the guest, in the order that leaves none of its vCPUs waiting.
    pub(super) fn let_go(&self, shared: &Shared) -> Result<()> {
        let mut life = lock(&self.changes);
        if *life != Life::Served {
            return Ok(());
        }
        *life = Life::LetGo;
        self.drop_irqs(shared);
        let disabled = match self.is_dead(shared) {
            // Another engine's server may have the id.
            true => Err(HostError::new(Call::SetServerState(self.dom, self.server), Errno::NOENT)),
            false => shared.host.set_server_state(self.dom, self.server, false),
        };
        // With this lock no handler runs, and without a server none starts.
        let server = lock(&self.dispatch).take_server(shared, Server::is_gone(&disabled));
        self.forget_ports(shared);
        let torn_down = match server {
            Some(server) => server.tear_down(disabled, &*shared.host, &*shared.events, self.dom),
            None => Ok(()),
        };
        let closed = torn_down.map_err(Into::into).and_then(|()| self.settle(shared));
        self.leave(shared);
        closed
    }

    /// Leaves in the record what the next engine needs, once the server is gone.
    fn settle(&self, shared: &Shared) -> Result<()> {
        let mut hold = lock(&self.hold);
        let Some(hold) = &mut *hold else { return Ok(()) };
        let inherited = lock(&self.dispatch).doorbells.inherited();
        hold.settle(&*shared.host, &shared.run_dir, inherited)
    }

    /// The engine has stopped: lets go of the guest and tells whoever watches it.
    pub(super) fn give_up(&self, shared: &Shared) {
        if let Err(error) = self.let_go(shared) {
            tracing::warn!(%error, dom = %self.dom, "a guest was not let go of cleanly");
        }
        let _ = rustix::io::write(&self.gone, &1_u64.to_ne_bytes());
    }

    /// Drops everything of a guest that has died.
    pub(super) fn reap_if_dead(&self, shared: &Shared) {
        let mut life = lock(&self.changes);
        if *life != Life::Served || !self.is_dead(shared) {
            return;
        }
        *life = Life::Dead;
        self.drop_irqs(shared);
        let server = lock(&self.dispatch).take_server(shared, true);
        self.forget_ports(shared);
        if let Some(server) = server {
            let gone =
                Err(HostError::new(Call::SetServerState(self.dom, self.server), Errno::NOENT));
            let _ = server.tear_down(gone, &*shared.host, &*shared.events, self.dom);
        }
        shared.run_dir.remove(self.dom);
        self.leave(shared);
        let _ = rustix::io::write(&self.gone, &1_u64.to_ne_bytes());
        tracing::info!(dom = %self.dom, "a guest died");
    }

    /// Closes every irqfd and every event channel of this guest.
    fn drop_irqs(&self, shared: &Shared) {
        let mut closed = Vec::new();
        lock(&shared.sources).irqs.retain(|_, source| {
            let ours = source.dom == self.dom;
            if ours {
                closed.push(Arc::clone(source));
            }
            !ours
        });
        closed.iter().for_each(|source| _ = source.finish(shared));
        let channels = std::mem::take(&mut *lock(&self.channels));
        channels.values().for_each(|(channel, _)| channel.close(shared));
    }

    /// Events of our vCPUs' ports mean nothing any more. Before the ports are unbound, as their
    /// numbers are used again.
    fn forget_ports(&self, shared: &Shared) {
        let ours = |source: &Source| match source {
            Source::Doorbell(guest, _) => guest.dom == self.dom,
            Source::Channel(_) => false,
        };
        lock(&shared.sources).ports.retain(|_, source| !ours(source));
    }

    /// Gives up the registrations, with their references to eventfds, and the guest's lock.
    fn leave(&self, shared: &Shared) {
        lock(&self.dispatch).doorbells.clear();
        lock(&shared.guests).remove(&self.dom);
        lock(&self.hold).take();
    }

    /// The right to change what is registered; fails if the guest is no longer served.
    fn changes(&self) -> Result<MutexGuard<'_, Life>> {
        let life = lock(&self.changes);
        match *life {
            Life::Served => Ok(life),
            Life::LetGo | Life::Dead => Err(Error::GuestDied(self.dom)),
        }
    }

    /// What a refusal means. The caller holds the right to change what is registered.
    fn died_or(&self, shared: &Shared, error: HostError) -> Error {
        let died = match error.call {
            // A port of a dead guest is refused like one that never was.
            Call::Bind(..) => self.is_dead(shared),
            _ => error.is_gone(),
        };
        if died { Error::GuestDied(self.dom) } else { error.into() }
    }

    /// Whether the guest has lost our server. One of which Xen does not say so is alive.
    ///
    /// A server with its id may be another engine's: once ours was destroyed, its id is free. Ours is there
    /// as long as the event channel that came with it leads to our end. An engine that is confined to its
    /// guest may not ask for that.
    fn is_dead(&self, shared: &Shared) -> bool {
        let host = &*shared.host;
        let is_foreign = |(remote, local)| {
            host.binding(self.dom, remote).is_ok_and(|binding| match binding {
                Binding::Bound { port, .. } => port != local,
                Binding::Unbound { .. } | Binding::Other => true,
            })
        };
        matches!(host.server_alive(self.dom, self.server), Ok(false))
            || self.channel.is_some_and(is_foreign)
    }
}
