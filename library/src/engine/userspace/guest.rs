//! One guest in the hands of the engine: its doorbells, interrupts and event channels.

use super::device::DeviceInterrupt;
use super::irq::{Action, Channel, IrqSource};
use super::{Shared, UserspaceEngine};
use crate::engine::doorbells::{Doorbells, Registered, Registration, Unmatched};
use crate::engine::{
    Attachment, IrqCounts, check_irq, check_line, check_space, named, status_named,
};
use crate::eventfd::EventFd;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::{Irq, Line, Raise};
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port, Request, Space, VcpuId};
use xen_eventfd_host::HostError;
use xen_eventfd_ioreq::sync::{Mutex, lock};
use xen_eventfd_ioreq::{Changes, Claim, GuestServer, Handler, Ranges, Role};

/// The guest's doorbells and interrupts, as the engine's threads know them.
#[derive(Debug)]
pub(super) struct GuestCore {
    shared: Arc<Shared>,
    dom: DomId,
    /// While it is locked no kick is acted on.
    doorbells: Mutex<Doorbells<DeviceInterrupt>>,
    channels: Mutex<BTreeMap<Port, (Arc<Channel>, u32)>>,
    irqs: Mutex<BTreeMap<u64, Arc<IrqSource>>>,
}

/// A guest that this engine serves; dropping it lets go of it.
#[derive(Debug)]
pub(super) struct UserspaceGuest {
    /// First, as the engine must not end before it.
    server: GuestServer,
    /// Handles its requests.
    pub(super) core: Arc<GuestCore>,
    engine: Arc<UserspaceEngine>,
}

impl UserspaceGuest {
    /// Takes a guest and sets up a doorbell server.
    pub(super) fn new(engine: &Arc<UserspaceEngine>, dom: DomId) -> Result<Self> {
        let shared = Arc::clone(&engine.shared);
        let (doorbells, channels, irqs) = Default::default();
        let core = Arc::new(GuestCore { shared, dom, doorbells, channels, irqs });
        let shared = &engine.shared;
        let claim =
            Claim { role: Role::Doorbells, serves: "userspace engine", reserve: &shared.reserve };
        let handler = Arc::<GuestCore>::clone(&core);
        let server = GuestServer::take(&shared.event_loop, dom, &claim, handler)?;
        Ok(Self { server, core, engine: Arc::clone(engine) })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.engine.shared
    }

    /// The right to change what is registered.
    fn changes(&self) -> Result<Changes<'_>> {
        self.shared().event_loop.alive()?;
        Ok(self.server.changes()?)
    }

    /// Lets go of bytes, of which some were never mapped.
    fn unclaim(&self, bytes: Bytes, never_mapped: &[Bytes]) {
        let released = lock(&self.core.doorbells).unclaim(bytes);
        let mut room = false;
        for piece in &released {
            room |= never_mapped.contains(piece) || self.unmap(*piece);
            if never_mapped.contains(piece) {
                lock(&self.core.doorbells).forget(*piece);
            }
        }
        // Xen may now be able to take back what it could not before.
        let stuck = lock(&self.core.doorbells).stuck();
        let mut others = stuck.into_iter().filter(|piece| !released.contains(piece));
        while room {
            let Some(piece) = others.next() else { break };
            room = self.unmap(piece);
        }
    }

    /// Has Xen take bytes back. `false`: it does not, as when taking them from the middle of a
    /// range needs one range too many. They are still mapped then, and answered.
    fn unmap(&self, piece: Bytes) -> bool {
        match self.server.ranges().unmap(piece) {
            Ok(()) => {
                lock(&self.core.doorbells).forget(piece);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the bytes are still mapped");
                false
            }
        }
    }

    /// One more user of a guest's port; bound by the first.
    fn channel(&self, changes: &Changes<'_>, port: Port) -> Result<Arc<Channel>> {
        let mut channels = lock(&self.core.channels);
        if let Some((channel, users)) = channels.get_mut(&port) {
            *users += 1;
            return Ok(Arc::clone(channel));
        }
        let bound = Channel::bind(self.shared(), self.core.dom, port);
        let channel = bound.map_err(|error| self.server.died_or(changes, error))?;
        channels.insert(port, (Arc::clone(&channel), 1));
        Ok(channel)
    }

    /// What raises an interrupt: an event channel is bound for it. To be given back by
    /// [`UserspaceGuest::release`].
    fn action(&self, changes: &Changes<'_>, irq: Irq) -> Result<Action> {
        Ok(match irq.raise() {
            Raise::Notify(port) => Action::Notify(self.channel(changes, port)?),
            Raise::Operate(operation, then) => Action::Operate(operation, then),
            Raise::Set(addr, bits) => Action::Set(self.device(changes, addr)?, bits),
        })
    }

    /// Refuses an irqfd's interrupt that a device with InterruptStatus would take back, or the other way round.
    fn check_line(&self, _changes: &Changes<'_>, irq: &Irq) -> Result<()> {
        let devices: Vec<_> = lock(&self.core.doorbells).devices().map(|d| d.irq()).collect();
        check_line(irq, devices)
    }

    /// The same for the interrupt of a device to come.
    fn check_line_of_device(&self, changes: &Changes<'_>, irq: &Irq) -> Result<()> {
        self.check_line(changes, irq)?;
        let others: Vec<_> = lock(&self.core.irqs).values().cloned().collect();
        check_line(irq, others.iter().filter_map(|other| other.irq()))
    }

    /// The device whose InterruptStatus is at an address.
    fn device(&self, _changes: &Changes<'_>, addr: u64) -> Result<Arc<DeviceInterrupt>> {
        let registers = Registers::new(addr).map_err(|why| Error::InvalidStatus { addr, why })?;
        let found = lock(&self.core.doorbells).device(registers).cloned();
        found.ok_or_else(|| Error::NotRegistered { what: status_named(registers) })
    }

    /// Has Xen route bytes to us, of which these are not yet.
    fn map(&self, changes: &Changes<'_>, bytes: Bytes, to_map: &[Bytes]) -> Result<()> {
        let ranges = self.server.ranges();
        for (index, piece) in to_map.iter().enumerate() {
            if let Err(error) = ranges.map(*piece) {
                let unmapped = to_map.get(index..).unwrap_or_default();
                self.unclaim(bytes, unmapped);
                return Err(self.server.died_or(changes, error).into());
            }
        }
        Ok(())
    }

    /// One user less of what raises an interrupt.
    fn release(&self, irq: Option<Irq>) {
        if let Some(Irq::EventChannel(port)) = irq {
            self.release_channel(port);
        }
    }

    /// The irqfd with this serial number.
    fn irq(&self, _changes: &Changes<'_>, serial: u64) -> Result<Arc<IrqSource>> {
        let found = lock(&self.core.irqs).get(&serial).cloned();
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
            channel.close();
        }
    }
}

impl Attachment for UserspaceGuest {
    fn dom(&self) -> DomId {
        self.core.dom
    }

    fn server(&self) -> IoServerId {
        self.server.server()
    }

    fn register(
        &self,
        doorbell: Doorbell,
        eventfd: EventFd,
        unmatched: Option<Arc<Mutex<Unmatched>>>,
    ) -> Result<u64> {
        let shared = self.shared();
        shared.event_loop.alive()?;
        check_space(&**shared.host(), &doorbell)?;
        let changes = self.changes()?;
        let bytes = doorbell.bytes();
        let to_map = {
            let mut doorbells = lock(&self.core.doorbells);
            doorbells.check(self.core.dom, &doorbell)?;
            // From here on its kicks are held, so none is lost between the map and the table.
            doorbells.claim(bytes)
        };
        self.map(&changes, bytes, &to_map)?;
        let serial = shared.event_loop.serial();
        let eventfd = Arc::new(eventfd);
        let new = Registration { doorbell, eventfd, serial, unmatched, kicks: 0 };
        lock(&self.core.doorbells).add(new, &mut |eventfd| shared.signal(eventfd))?;
        Ok(serial)
    }

    fn unregister(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Result<()> {
        let _changes = self.changes()?;
        // The handler signals under this lock, so none is on its way once it is released.
        let removed = lock(&self.core.doorbells).remove(doorbell, eventfd, serial);
        if removed.is_none() {
            return Err(Error::NotRegistered { what: named(doorbell) });
        }
        self.unclaim(doorbell.bytes(), &[]);
        Ok(())
    }

    fn find(&self, eventfd: &EventFd, place: Option<(Space, u64)>) -> Result<Option<Doorbell>> {
        let _changes = self.changes()?;
        Ok(lock(&self.core.doorbells).of(eventfd, place))
    }

    fn collect(&self, _: &Doorbell, _: u64, _: &Mutex<Unmatched>) {}

    fn register_irq(&self, eventfd: EventFd, irq: Irq) -> Result<(u64, Arc<IrqCounts>)> {
        let shared = self.shared();
        shared.event_loop.alive()?;
        check_irq(&**shared.host(), self.core.dom, &irq)?;
        let changes = self.changes()?;
        self.check_line(&changes, &irq)?;
        let claim = eventfd.claim()?;
        let action = self.action(&changes, irq)?;
        let source = IrqSource::new(shared, self.core.dom, irq, (eventfd, claim), action);
        let source = Arc::new(source.inspect_err(|_| self.release(Some(irq)))?);
        let serial = shared.event_loop.serial();
        lock(&self.core.irqs).insert(serial, Arc::clone(&source));
        shared.event_loop.add_fd(serial, Arc::<IrqSource>::clone(&source));
        // What was signalled before counts: the descriptor is readable, so the thread comes by.
        if let Err(error) = source.listen(serial) {
            self.unregister_irq(serial)?;
            return Err(error);
        }
        Ok((serial, Arc::clone(&source.counts)))
    }

    fn find_irq(&self, eventfd: &EventFd, irq: &Irq) -> Result<u64> {
        let _changes = self.changes()?;
        let irqs = lock(&self.core.irqs);
        let found = irqs.iter().find(|(_, source)| source.is(eventfd, irq));
        found
            .map(|(serial, _)| *serial)
            .ok_or_else(|| Error::NotRegistered { what: irq.to_string() })
    }

    fn unregister_irq(&self, serial: u64) -> Result<()> {
        let Some(source) = lock(&self.core.irqs).get(&serial).cloned() else { return Ok(()) };
        // It is listed until it has ended: the end of its device, or of the guest, waits for it.
        let ended = self.core.finish(serial, &source);
        lock(&self.core.irqs).remove(&serial);
        self.release(ended);
        Ok(())
    }

    fn set_irq(&self, serial: u64, irq: Irq) -> Result<()> {
        let shared = self.shared();
        shared.event_loop.alive()?;
        check_irq(&**shared.host(), self.core.dom, &irq)?;
        let changes = self.changes()?;
        let source = self.irq(&changes, serial)?;
        self.check_line(&changes, &irq)?;
        let action = self.action(&changes, irq)?;
        let before = source.set(irq, action).inspect_err(|_| self.release(Some(irq)))?;
        self.core.lower_unused(before.leaves_up());
        self.release(Some(before));
        Ok(())
    }

    fn mask_irq(&self, serial: u64, masked: bool) -> Result<()> {
        let changes = self.changes()?;
        self.irq(&changes, serial)?.mask(masked)
    }

    fn is_pending(&self, serial: u64) -> Result<bool> {
        let changes = self.changes()?;
        self.irq(&changes, serial)?.is_pending()
    }

    fn count_irqs(&self, _: u64) {}

    fn lower(&self, serial: u64) -> Result<()> {
        let changes = self.changes()?;
        let lowered = self.irq(&changes, serial)?.lower()?;
        Ok(lowered.map_err(|error| self.server.died_or(&changes, error))?)
    }

    fn register_status(&self, registers: Registers, irq: Irq) -> Result<u64> {
        let shared = self.shared();
        shared.event_loop.alive()?;
        irq.check_of_device()?;
        check_irq(&**shared.host(), self.core.dom, &irq)?;
        let changes = self.changes()?;
        lock(&self.core.doorbells).check_device(self.core.dom, registers)?;
        self.check_line_of_device(&changes, &irq)?;
        let action = self.action(&changes, irq)?;
        let device = DeviceInterrupt::new(shared, self.core.dom, (registers, irq), action);
        let serial = device.serial;
        let bytes = registers.bytes();
        // From here on a write to them is held, until the device is there, which forgets it.
        let to_map = lock(&self.core.doorbells).claim(bytes);
        let registered = self
            .map(&changes, bytes, &to_map)
            .and_then(|()| lock(&self.core.doorbells).add_device(Arc::new(device)));
        registered.inspect_err(|_| self.release(Some(irq)))?;
        Ok(serial)
    }

    fn unregister_status(
        &self,
        registers: Registers,
        irq: Option<Irq>,
        serial: Option<u64>,
    ) -> Result<u32> {
        let changes = self.changes()?;
        let device = self.device(&changes, registers.addr())?;
        if irq.is_some_and(|irq| irq != device.irq())
            || serial.is_some_and(|serial| serial != device.serial)
        {
            return Err(Error::NotRegistered { what: status_named(registers) });
        }
        let all: Vec<_> = lock(&self.core.irqs).iter().map(|(s, i)| (*s, Arc::clone(i))).collect();
        for (serial, _) in all.iter().filter(|(_, source)| source.sets(registers)) {
            self.unregister_irq(*serial)?;
        }
        // No access is being answered once the lock is released.
        lock(&self.core.doorbells).remove_device(registers);
        self.unclaim(registers.bytes(), &[]);
        self.core.lower_unused(device.irq().leaves_up());
        self.release(Some(device.irq()));
        Ok(device.status().bits)
    }

    fn change_status(
        &self,
        registers: Registers,
        serial: u64,
        change: StatusChange,
    ) -> Result<DeviceStatus> {
        let changes = self.changes()?;
        let device = self.device(&changes, registers.addr())?;
        if device.serial != serial {
            return Err(Error::NotRegistered { what: status_named(registers) });
        }
        device.change(change).map_err(|error| self.server.died_or(&changes, error).into())
    }

    fn listen(&self, eventfd: EventFd, port: Port) -> Result<u64> {
        self.shared().event_loop.alive()?;
        Irq::EventChannel(port).check()?;
        let changes = self.changes()?;
        let channel = self.channel(&changes, port)?;
        let mut listener = lock(&channel.listener);
        if listener.eventfd.is_some() {
            drop(listener);
            self.release_channel(port);
            return Err(Error::Busy { what: format!("an eventfd for {port}") });
        }
        if listener.missed {
            self.shared().signal(&eventfd);
            if let Err(error) = self.shared().events().eoi(channel.local) {
                // It waits for the next one.
                drop(listener);
                self.release_channel(port);
                return Err(error.into());
            }
            listener.missed = false;
        }
        let serial = self.shared().event_loop.serial();
        listener.eventfd = Some((serial, eventfd));
        Ok(serial)
    }

    fn find_channel(&self, eventfd: &EventFd, port: Port) -> Result<u64> {
        let _changes = self.changes()?;
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
        Ok(self.server.let_go()?)
    }

    fn counters(&self) -> Counters {
        lock(&self.core.doorbells).counters
    }

    fn held(&self) -> Vec<Kick> {
        lock(&self.core.doorbells).held().to_vec()
    }

    fn registered(&self) -> Vec<Registered> {
        let doorbells = lock(&self.core.doorbells);
        let show = |r: &Registration| Registered { doorbell: r.doorbell, kicks: r.kicks };
        doorbells.table().iter().map(show).collect()
    }

    fn last_error(&self) -> Option<HostError> {
        self.server.last_error()
    }

    fn gone(&self) -> BorrowedFd<'_> {
        self.server.gone()
    }

    fn is_served(&self) -> bool {
        self.server.is_served()
    }
}

impl Handler for GuestCore {
    fn begin(&self, _: Ranges, held: Vec<Kick>) {
        let mut doorbells = lock(&self.doorbells);
        held.into_iter().for_each(|kick| doorbells.hold(kick));
    }

    fn request(&self, _: VcpuId, request: &Request) -> u64 {
        lock(&self.doorbells).act(request, &mut |eventfd| self.shared.signal(eventfd))
    }

    fn spurious(&self, _: VcpuId) {
        lock(&self.doorbells).counters.spurious += 1;
    }

    /// Closes every irqfd and every event channel of this guest.
    fn ending(&self) {
        let irqs: Vec<_> = lock(&self.irqs).iter().map(|(s, i)| (*s, Arc::clone(i))).collect();
        for (serial, source) in irqs {
            self.finish(serial, &source);
            lock(&self.irqs).remove(&serial);
        }
        let devices: Vec<_> = lock(&self.doorbells).devices().cloned().collect();
        devices.iter().for_each(|device| self.lower(device.irq().leaves_up()));
        let channels = std::mem::take(&mut *lock(&self.channels));
        channels.values().for_each(|(channel, _)| channel.close());
    }

    fn left(&self) -> Vec<Kick> {
        lock(&self.doorbells).inherited()
    }

    /// Drops the registrations, with their references to eventfds.
    fn ended(&self) {
        lock(&self.doorbells).clear();
    }
}

impl GuestCore {
    /// Ends an irqfd, which is listed meanwhile. Returns which interrupt it was, to the first that ends it.
    fn finish(&self, serial: u64, source: &IrqSource) -> Option<Irq> {
        let ended = source.finish();
        self.shared.event_loop.remove_fd(serial);
        self.lower_unused(ended.and_then(|irq| irq.leaves_up()));
        ended
    }

    /// A line is up for as long as an irqfd or a device is there that can lower it.
    fn lower_unused(&self, left_up: Option<Line>) {
        let Some(line) = left_up else { return };
        let others: Vec<_> = lock(&self.irqs).values().cloned().collect();
        let device = |device: &Arc<DeviceInterrupt>| device.irq().leaves_up() == Some(line);
        if !others.iter().any(|other| other.can_lower() == Some(line))
            && !lock(&self.doorbells).devices().any(device)
        {
            self.lower(Some(line));
        }
    }

    fn lower(&self, line: Option<Line>) {
        if let Some(line) = line
            && let Err(error) = self.shared.host().set_line(self.dom, line, false)
        {
            tracing::debug!(%error, "a line was not lowered");
        }
    }
}
