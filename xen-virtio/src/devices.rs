//! All devices of a guest: their registers, as the handler of an ioreq server.

use crate::device::{Device, Lost, Resumed};
use crate::error::{Error, Result};
use crate::layout::{At, Place};
use crate::reconnect::{self, Waker};
use crate::record::{Record, Whose};
use crate::registers::{DeviceRegisters, DeviceView, Registers, bar};
use crate::resume::Again;
use crate::server::Released;
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use xen_eventfd::{Host, Kick, Registered, VcpuId};
use xen_eventfd_core::{DomId, Request};
use xen_eventfd_ioreq::{EventLoop, FdSource, Handler, Ranges};
use xen_eventfd_vhost::Backend;
use xen_eventfd_virtio::{Bar, Effect, Target, Transport};

/// The devices of a guest.
#[derive(Debug)]
pub(crate) struct Devices {
    host: Arc<dyn Host>,
    dom: DomId,
    state: Mutex<State>,
    requests: AtomicU64,
    /// Wakes what connects to backends that are away.
    waker: Arc<Waker>,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) at: At,
    /// The queues that its backend serves.
    pub(crate) running: Vec<u16>,
    /// The features that its driver has accepted.
    pub(crate) features: u64,
    /// Kicks and interrupts since its driver has started its queues.
    pub(crate) kicks: u64,
    pub(crate) interrupts: u64,
    /// Why it needed a reset first, if it ever did.
    pub(crate) failure: Option<String>,
}

#[derive(Debug)]
struct State {
    registers: Registers,
    devices: BTreeMap<At, Device>,
    places: BTreeMap<At, Place>,
    /// Once the server is there.
    ranges: Option<Ranges>,
    /// Of a guest that is taken over: where functions' registers may still be routed from.
    stale: Option<Vec<u64>>,
    /// How routing to a server that is taken over went.
    routed: Option<Result<()>>,
    /// What looks at the backends, by which numbers.
    events: Weak<EventLoop>,
    sources: BTreeMap<At, Vec<u64>>,
    /// What is kept for the next process, if it is to go on.
    record: Option<Record>,
    /// The devices, once the guest is let go of or dead.
    ended: Vec<Device>,
}

impl Devices {
    /// A guest without devices, and where their registers will be.
    pub(crate) fn new(host: Arc<dyn Host>, dom: DomId, registers: Registers) -> Self {
        let state = Mutex::new(State {
            registers,
            devices: BTreeMap::new(),
            places: BTreeMap::new(),
            ranges: None,
            stale: None,
            routed: None,
            events: Weak::new(),
            sources: BTreeMap::new(),
            record: None,
            ended: Vec::new(),
        });
        Self { host, dom, state, requests: AtomicU64::new(0), waker: Arc::default() }
    }

    /// Where the guest is.
    pub(crate) fn host(&self) -> &dyn Host {
        &*self.host
    }

    /// Keeps the devices from now on, all of which are there, for a process that goes on with them.
    pub(crate) fn keep(&self, mut record: Record, whose: &Whose) {
        let mut state = self.state();
        record.keep_bus(&state.registers.bus());
        state.record = Some(record);
        state.all().into_iter().for_each(|at| state.keep(at, None));
        if let Some(record) = &mut state.record {
            record.is_whose(whose);
        }
        // Without a record, another process begins anew, with a connection of its own.
        state.devices.values().for_each(Device::keep_session);
    }

    /// Puts a device at its place.
    pub(crate) fn add(&self, place: Place, device: Device, registers: DeviceRegisters) {
        let (at, mut state) = (place.at(), self.state());
        state.registers.insert(at, registers);
        state.devices.insert(at, device);
        state.places.insert(at, place);
    }

    /// Has accesses routed to a server that is taken over before any vCPU goes on: the process before may have been killed
    /// while a function's registers moved. `stale` is where they may have been.
    pub(crate) fn route_first(&self, stale: Vec<u64>) {
        self.state().stale = Some(stale);
    }

    /// How that went.
    pub(crate) fn routed(&self) -> Result<()> {
        self.state().routed.take().unwrap_or(Ok(()))
    }

    /// Routes to the server what is ours: functions, with a host bridge the ports by which a guest finds them, and
    /// registers where they are. Of a server that is taken over, all or a part is routed already, and the registers of a function may
    /// be where they were before (`stale`).
    pub(crate) fn route(&self, ranges: &Ranges, stale: &[u64]) -> Result<()> {
        let mut state = self.state();
        for at in stale {
            let unmapped = bar(*at).map_or(Ok(()), |bytes| ranges.unmap(bytes));
            unless(Errno::NOENT, unmapped)?;
        }
        for function in state.registers.functions() {
            unless(Errno::EXIST, ranges.map_function(function))?;
        }
        for bytes in state.registers.bytes() {
            unless(Errno::EXIST, ranges.map(bytes))?;
        }
        Ok(())
    }

    /// Interrupts the guest for what a process that was killed may not have announced. Queues' calls come once their
    /// backends are there.
    pub(crate) fn notify_again(&self) {
        let mut state = self.state();
        for at in state.all() {
            let effects = state.registers.device(at).map(Transport::notify_again);
            self.carry_out(&mut state, at, effects.unwrap_or_default());
        }
    }

    /// Requests of vCPUs so far: as often has the guest had to wait for this process.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries effects out, of a state that is kept already. A device that cannot go on asks its driver for a reset.
    fn carry_out(&self, state: &mut State, at: At, effects: Vec<Effect>) {
        let mut left = VecDeque::from(effects);
        while let Some(effect) = left.pop_front() {
            if let Effect::Moved { bar: Bar::Registers, from, to } = effect {
                state.move_registers(from, to);
            }
            if let Effect::Raise(message) = effect
                && let Err(error) = self.host.inject_msi(self.dom, message.addr, message.data)
            {
                tracing::debug!(%error, device = %at, "an interrupt was not raised");
            }
            let (device, registers) = (state.devices.get_mut(&at), state.registers.device(at));
            let Some((device, registers)) = device.zip(registers) else { return };
            if let Err(error) = device.carry_out(effect, registers) {
                left.extend(self.fails(state, at, &error));
                state.keep(at, None);
            }
        }
        state.keep(at, None);
    }

    /// A device's backend has ended, or does not do what it is asked for.
    fn fails(&self, state: &mut State, at: At, error: &Error) -> Vec<Effect> {
        let has_ended = state.devices.get(&at).is_some_and(Device::has_lost_backend);
        if has_ended {
            state.ignore_backend(at);
        }
        let State { registers, devices, .. } = state;
        let Some((device, registers)) = devices.get_mut(&at).zip(registers.device(at)) else {
            return Vec::new();
        };
        let lost = if has_ended { device.lose_backend() } else { Lost::ForGood };
        match lost {
            Lost::GoesOn => {
                self.waker.wake();
                // A guest can have some backends end at will, and is not to fill a log.
                if device.is_news() {
                    tracing::warn!(%error, device = %at, "a device waits for its backend");
                } else {
                    tracing::debug!(%error, device = %at, "a device waits for its backend again");
                }
                Vec::new()
            }
            Lost::NeedsReset(why) => {
                self.waker.wake();
                let (cause, why) = (error.to_string(), Box::new(why));
                needs_reset(at, device, registers, &Error::CannotGoOn { cause, why })
            }
            Lost::ForGood => needs_reset(at, device, registers, error),
        }
    }

    /// Has an event loop look at the backends, for their end and their requests, and backends that are away connected
    /// to.
    pub(crate) fn watch_backends(self: &Arc<Self>, event_loop: &Arc<EventLoop>) -> Result<()> {
        let mut state = self.state();
        state.events = Arc::downgrade(event_loop);
        for at in state.all() {
            self.watch(&mut state, at)?;
        }
        drop(state);
        reconnect::start(self, &self.waker).map_err(|error| Error::Thread(error.to_string()))?;
        self.waker.wake();
        Ok(())
    }

    fn watch(self: &Arc<Self>, state: &mut State, at: At) -> Result<()> {
        let State { devices, events, sources, .. } = state;
        let (Some(device), Some(event_loop)) = (devices.get(&at), events.upgrade()) else {
            return Ok(());
        };
        for fd in device.backend_fds() {
            let serial = event_loop.serial();
            sources.entry(at).or_default().push(serial);
            let source = BackendOf { at, devices: Arc::downgrade(self) };
            event_loop.add_fd(serial, Arc::new(source));
            event_loop.watch(fd, serial)?;
        }
        Ok(())
    }

    fn look_at_backend(&self, at: At) {
        let mut state = self.state();
        // A reply makes it readable too, until that is read.
        let State { registers, devices, .. } = &mut *state;
        let Some((device, registers)) = devices.get_mut(&at).zip(registers.device(at)) else {
            return;
        };
        let checked = device.check_backend().and_then(|()| device.take_requests(registers));
        let effects = checked.unwrap_or_else(|error| {
            state.ignore_backend(at);
            self.fails(&mut state, at, &error)
        });
        state.keep(at, None);
        self.carry_out(&mut state, at, effects);
    }

    /// The devices whose backends are away.
    pub(crate) fn away(&self) -> Vec<(At, Again)> {
        let state = self.state();
        let away = |(at, device): (&At, &Device)| Some((*at, device.is_away()?.clone()));
        state.devices.iter().filter_map(away).collect()
    }

    /// Goes on with a backend that is there again.
    ///
    /// # Errors
    /// It is away again, or is not what it was.
    pub(crate) fn resume(self: &Arc<Self>, at: At, backend: Box<dyn Backend>) -> Result<()> {
        let mut state = self.state();
        let State { registers, devices, .. } = &mut *state;
        let Some((device, registers)) = devices.get_mut(&at).zip(registers.device(at)) else {
            return Ok(());
        };
        let effects = match device.resume(backend, registers)? {
            Resumed::GoesOn(effects) => effects,
            // The driver put its queue where it has no memory.
            Resumed::NeedsReset(error) => needs_reset(at, device, registers, &error),
        };
        tracing::info!(device = %at, "a device has its backend");
        self.watch(&mut state, at)?;
        state.keep(at, None);
        self.carry_out(&mut state, at, effects);
        Ok(())
    }

    /// The backends of a guest that is let go of or dead, in the order of the devices.
    pub(crate) fn take_backends(&self) -> Vec<Released> {
        core::mem::take(&mut self.state().ended).into_iter().map(Device::into_backend).collect()
    }

    /// How each device is, in their order, with what the engine has registered.
    pub(crate) fn report(&self, registered: &[Registered]) -> Vec<Report> {
        let report = |(at, device): (&At, &Device)| {
            let [kicks, interrupts] = device.traffic(registered);
            Report {
                at: *at,
                running: device.running(),
                features: device.features(),
                kicks,
                interrupts,
                failure: device.failure().map(str::to_owned),
            }
        };
        self.state().devices.iter().map(report).collect()
    }

    /// Why a device needed a reset, if one ever did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state().devices.values().find_map(|device| device.failure().map(str::to_owned))
    }
}

/// What a host was asked for, which was done already if this is the error.
fn unless(done: Errno, asked: xen_eventfd_host::Result<()>) -> Result<()> {
    match asked {
        Err(error) if error.errno == done => Ok(()),
        asked => Ok(asked?),
    }
}

/// A device cannot go on.
fn needs_reset(
    at: At,
    device: &mut Device,
    registers: &mut dyn Transport,
    error: &Error,
) -> Vec<Effect> {
    // A guest can repeat it at will, and is not to fill a log.
    if device.fails(error) {
        tracing::warn!(%error, device = %at, "a device needs a reset");
    } else {
        tracing::debug!(%error, device = %at, "a device needs a reset again");
    }
    registers.needs_reset()
}

/// The backend of a device, as a source of the event loop.
#[derive(Debug)]
struct BackendOf {
    at: At,
    devices: Weak<Devices>,
}

impl FdSource for BackendOf {
    fn ready(&self) {
        if let Some(devices) = self.devices.upgrade() {
            devices.look_at_backend(self.at);
        }
    }
}

impl State {
    /// Where the devices are.
    fn all(&self) -> Vec<At> {
        self.devices.keys().copied().collect()
    }

    /// A backend is looked at no more. Closing our descriptors is not enough: it has one of them too.
    fn ignore_backend(&mut self, at: At) {
        let sources = self.sources.remove(&at).unwrap_or_default();
        let Some(events) = self.events.upgrade() else { return };
        if let Some(device) = self.devices.get(&at) {
            device.backend_fds().for_each(|fd| events.ignore(fd));
        }
        sources.into_iter().for_each(|serial| events.remove_fd(serial));
    }

    /// Keeps a device as it is now. `moved_from`: its registers may still be routed from there.
    fn keep(&mut self, at: At, moved_from: Option<u64>) {
        let Some(record) = &mut self.record else { return };
        let number = self.devices.keys().position(|known| *known == at);
        let registers = self.places.get(&at).and_then(|place| self.registers.state(*place));
        let (device, registers) = (self.devices.get(&at), registers);
        if let (Some(number), Some((device, registers))) = (number, device.zip(registers)) {
            let mut kept = device.record(registers);
            kept.registers_before = moved_from;
            record.keep_device(number, &kept);
        }
    }

    /// Keeps what an access has changed, before it is carried out.
    fn keep_access(&mut self, at: Option<At>, effects: &[Effect]) {
        let moved_from = effects.iter().find_map(|effect| match effect {
            Effect::Moved { bar: Bar::Registers, from, .. } => *from,
            _ => None,
        });
        match (at, &mut self.record) {
            (Some(at), _) => self.keep(at, moved_from),
            (None, Some(record)) => record.keep_bus(&self.registers.bus()),
            (None, None) => {}
        }
    }

    fn move_registers(&self, from: Option<u64>, to: Option<u64>) {
        let Some(ranges) = &self.ranges else { return };
        let unmapped = from.and_then(bar).map_or(Ok(()), |bytes| ranges.unmap(bytes));
        let mapped = to.and_then(bar).map_or(Ok(()), |bytes| ranges.map(bytes));
        if let Err(error) = unmapped.and(mapped) {
            // Two functions at one address, if it is the guest's fault.
            tracing::debug!(%error, "a device's registers are not where its guest put them");
        }
    }
}

impl DeviceView for BTreeMap<At, Device> {
    fn is_pending(&self, at: At, queue: u16) -> bool {
        self.get(&at).is_some_and(|device| device.is_pending(queue))
    }

    fn interrupt_status(&self, at: At) -> u32 {
        self.get(&at).map_or(0, Device::interrupt_status)
    }
}

impl Handler for Devices {
    fn begin(&self, ranges: Ranges, _: Vec<Kick>) {
        let stale = self.state().stale.take();
        if let Some(stale) = stale {
            let routed = self.route(&ranges, &stale);
            self.state().routed = Some(routed);
        }
        self.state().ranges = Some(ranges);
    }

    fn request(&self, _: VcpuId, request: &Request) -> u64 {
        self.requests.fetch_add(1, Ordering::AcqRel);
        let (target, width, value) = match *request {
            Request::Kick(kick) => (
                Target::Address(kick.access.space, kick.access.addr),
                kick.access.width,
                Some(kick.value),
            ),
            Request::Read(access) => {
                (Target::Address(access.space, access.addr), access.width, None)
            }
            Request::Config(access) => {
                let target =
                    Target::Config { function: access.function, register: access.register };
                (target, access.width, access.write.map(u64::from))
            }
            // No register is written or read by what is left.
            Request::Broadcast | Request::Odd { .. } => return u64::MAX,
        };
        let mut state = self.state();
        let State { registers, devices, .. } = &mut *state;
        let answer = match value {
            Some(value) => registers.write(target, width, value),
            None => registers.read(target, width, devices),
        };
        if value.is_some() {
            state.keep_access(answer.device, &answer.effects);
        }
        if let Some(at) = answer.device.filter(|_| !answer.effects.is_empty()) {
            self.carry_out(&mut state, at, answer.effects);
        }
        answer.value
    }

    fn ended(&self) {
        let mut state = self.state();
        state.all().into_iter().for_each(|at| state.ignore_backend(at));
        let State { devices, ended, record, .. } = &mut *state;
        ended.extend(core::mem::take(devices).into_values().map(Device::ended));
        if let Some(record) = record {
            record.remove();
        }
        self.waker.end();
    }
}

#[cfg(test)]
mod tests;
