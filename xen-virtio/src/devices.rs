//! All devices of a guest: its PCI bus, as the handler of an ioreq server.

use crate::device::Device;
use crate::error::Result;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xen_eventfd::{Host, Kick, Space, VcpuId};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{DomId, PciFunction, Request};
use xen_eventfd_ioreq::{Handler, Ranges};
use xen_eventfd_virtio::{ADDRESS_PORTS, Bar, Bus, Effect, Function, REGISTERS_SIZE, Target};

/// The devices of a guest.
#[derive(Debug)]
pub(crate) struct Devices {
    host: Arc<dyn Host>,
    dom: DomId,
    state: Mutex<State>,
    requests: AtomicU64,
}

#[derive(Debug)]
struct State {
    bus: Bus,
    devices: BTreeMap<PciFunction, Device>,
    /// Once the server is there.
    ranges: Option<Ranges>,
}

impl Devices {
    /// A guest without devices, but for a host bridge.
    pub(crate) fn new(host: Arc<dyn Host>, dom: DomId) -> Self {
        let (bus, devices) = (Bus::with_host_bridge(), BTreeMap::new());
        let state = Mutex::new(State { bus, devices, ranges: None });
        Self { host, dom, state, requests: AtomicU64::new(0) }
    }

    /// Puts a device on the bus.
    pub(crate) fn add(&self, at: PciFunction, device: Device, function: Function) {
        let mut state = self.state();
        state.bus.insert(at, function);
        state.devices.insert(at, device);
    }

    /// Routes to the server what is the bus's own: its functions, and the ports by which a guest finds them.
    pub(crate) fn route(&self, ranges: &Ranges) -> Result<()> {
        for function in self.state().bus.functions() {
            ranges.map_function(function)?;
        }
        if let Ok(ports) = Bytes::new(Space::Pio, *ADDRESS_PORTS.start(), *ADDRESS_PORTS.end()) {
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
                // A guest can repeat it at will, and is not to fill a log.
                if device.fails_first() {
                    tracing::warn!(%error, device = %at, "a device needs a reset");
                } else {
                    tracing::debug!(%error, device = %at, "a device needs a reset again");
                }
                left.extend(function.needs_reset());
            }
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
        self.state().devices.clear();
    }
}

#[cfg(test)]
mod tests;
