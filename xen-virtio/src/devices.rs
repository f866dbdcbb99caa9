//! All devices of a guest: its PCI bus, as the handler of an ioreq server.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::server::Released;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use xen_eventfd::{Host, Kick, Space, VcpuId};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{DomId, PciFunction, Request};
use xen_eventfd_ioreq::{EventLoop, FdSource, Handler, Ranges};
use xen_eventfd_virtio::{ADDRESS_PORTS, Bar, Bus, Effect, Function, REGISTERS_SIZE, Target};

/// The devices of a guest.
#[derive(Debug)]
pub(crate) struct Devices {
    host: Arc<dyn Host>,
    dom: DomId,
    state: Mutex<State>,
    requests: AtomicU64,
}

/// How a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) function: PciFunction,
    /// The queues that its backend serves.
    pub(crate) running: Vec<u16>,
    /// The features that its driver has accepted.
    pub(crate) features: u64,
    /// Why it needed a reset first, if it ever did.
    pub(crate) failure: Option<String>,
}

#[derive(Debug)]
struct State {
    bus: Bus,
    devices: BTreeMap<PciFunction, Device>,
    /// Once the server is there.
    ranges: Option<Ranges>,
    /// What looks at the backends.
    events: Weak<EventLoop>,
    /// The devices, once the guest is let go of or dead.
    ended: Vec<Device>,
}

impl Devices {
    /// A guest without devices, and what of its bus is ours.
    pub(crate) fn new(host: Arc<dyn Host>, dom: DomId, bus: Bus) -> Self {
        let state = Mutex::new(State {
            bus,
            devices: BTreeMap::new(),
            ranges: None,
            events: Weak::new(),
            ended: Vec::new(),
        });
        Self { host, dom, state, requests: AtomicU64::new(0) }
    }

    /// Puts a device on the bus.
    pub(crate) fn add(&self, at: PciFunction, device: Device, function: Function) {
        let mut state = self.state();
        state.bus.insert(at, function);
        state.devices.insert(at, device);
    }

    /// Routes to the server what of the bus is ours: its functions and, with a host bridge, the ports by which a guest
    /// finds them.
    pub(crate) fn route(&self, ranges: &Ranges) -> Result<()> {
        let state = self.state();
        for function in state.bus.functions() {
            ranges.map_function(function)?;
        }
        if state.bus.has_host_bridge()
            && let Ok(ports) = Bytes::new(Space::Pio, *ADDRESS_PORTS.start(), *ADDRESS_PORTS.end())
        {
            ranges.map(ports)?;
        }
        Ok(())
    }

    /// Requests of vCPUs so far: as often has the guest had to wait for this process.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries effects out. A device that cannot go on asks its driver for a reset.
    fn carry_out(&self, state: &mut State, at: PciFunction, effects: Vec<Effect>) {
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
            let (device, function) = (state.devices.get_mut(&at), state.bus.function(at));
            let Some((device, function)) = device.zip(function) else { return };
            if let Err(error) = device.carry_out(effect, function) {
                left.extend(needs_reset(at, device, function, &error));
            }
        }
    }

    /// Has an event loop look at the backends: the device of one that ends needs a reset, and what one requests is done.
    pub(crate) fn watch_backends(self: &Arc<Self>, event_loop: &Arc<EventLoop>) -> Result<()> {
        let mut state = self.state();
        state.events = Arc::downgrade(event_loop);
        for (at, device) in &state.devices {
            for fd in device.backend_fds() {
                let serial = event_loop.serial();
                let source = BackendOf { at: *at, devices: Arc::downgrade(self) };
                event_loop.add_fd(serial, Arc::new(source));
                event_loop.watch(fd, serial)?;
            }
        }
        Ok(())
    }

    fn look_at_backend(&self, at: PciFunction) {
        let mut state = self.state();
        let State { bus, devices, events, .. } = &mut *state;
        let Some((device, function)) = devices.get_mut(&at).zip(bus.function(at)) else { return };
        // A reply makes it readable too, until that is read.
        let checked = device.check_backend().and_then(|()| device.take_requests(function));
        let effects = checked.unwrap_or_else(|error| {
            ignore_backend(events, device);
            needs_reset(at, device, function, &error)
        });
        self.carry_out(&mut state, at, effects);
    }

    /// The backends of a guest that is let go of or dead, in the order of the devices.
    pub(crate) fn take_backends(&self) -> Vec<Released> {
        core::mem::take(&mut self.state().ended).into_iter().map(Device::into_backend).collect()
    }

    /// How each device is, in their order.
    pub(crate) fn report(&self) -> Vec<Report> {
        let report = |(function, device): (&PciFunction, &Device)| Report {
            function: *function,
            running: device.running(),
            features: device.features(),
            failure: device.failure().map(str::to_owned),
        };
        self.state().devices.iter().map(report).collect()
    }

    /// Why a device needed a reset, if one ever did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state().devices.values().find_map(|device| device.failure().map(str::to_owned))
    }
}

/// A backend is looked at no more. Closing our descriptors is not enough: it has one of them too.
fn ignore_backend(events: &Weak<EventLoop>, device: &Device) {
    if let Some(events) = events.upgrade() {
        device.backend_fds().for_each(|fd| events.ignore(fd));
    }
}

/// A device cannot go on.
fn needs_reset(
    at: PciFunction,
    device: &mut Device,
    function: &mut Function,
    error: &Error,
) -> Vec<Effect> {
    // A guest can repeat it at will, and is not to fill a log.
    if device.fails(error) {
        tracing::warn!(%error, device = %at, "a device needs a reset");
    } else {
        tracing::debug!(%error, device = %at, "a device needs a reset again");
    }
    function.needs_reset()
}

/// The backend of a device, as a source of the event loop.
#[derive(Debug)]
struct BackendOf {
    at: PciFunction,
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
    fn move_registers(&self, from: Option<u64>, to: Option<u64>) {
        let Some(ranges) = &self.ranges else { return };
        let bytes = |at: u64| Bytes::new(Space::Mmio, at, at + u64::from(REGISTERS_SIZE) - 1).ok();
        let unmapped = from.and_then(bytes).map_or(Ok(()), |bytes| ranges.unmap(bytes));
        let mapped = to.and_then(bytes).map_or(Ok(()), |bytes| ranges.map(bytes));
        if let Err(error) = unmapped.and(mapped) {
            // Two functions at one address, if it is the guest's fault.
            tracing::debug!(%error, "a device's registers are not where its guest put them");
        }
    }
}

impl Handler for Devices {
    fn begin(&self, ranges: Ranges, _: Vec<Kick>) {
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
        let State { bus, devices, .. } = &mut *state;
        let answer = match value {
            Some(value) => bus.write(target, width, value),
            None => {
                let pending = |at, queue| {
                    devices.get(&at).is_some_and(|device: &Device| device.is_pending(queue))
                };
                bus.read(target, width, pending)
            }
        };
        if let Some(at) = answer.function {
            self.carry_out(&mut state, at, answer.effects);
        }
        answer.value
    }

    fn ended(&self) {
        let mut state = self.state();
        let State { devices, events, ended, .. } = &mut *state;
        devices.values().for_each(|device| ignore_backend(events, device));
        ended.extend(core::mem::take(devices).into_values().map(Device::ended));
    }
}

#[cfg(test)]
mod tests;
