//! Where a guest's accesses to its devices go: a PCI bus with functions, or registers at fixed addresses.

use crate::error::Result;
use crate::layout::{At, Layout, MmioPlace, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{PciFunction, Space, Width};
use xen_eventfd_virtio::{
    ADDRESS_PORTS, Bar, Bus, BusState, Description, Effect, Function, FunctionDescription,
    FunctionState, MMIO_SIZE, Mmio, MmioState, REGISTERS_SIZE, Target, Transport,
};

/// All registers of a guest's devices.
#[derive(Debug)]
pub(crate) enum Registers {
    Pci(Box<Bus>),
    /// By their bases, which are [`MMIO_SIZE`] bytes or more apart.
    Mmio(BTreeMap<u64, Mmio>),
}

/// The registers of one device.
#[derive(Debug)]
pub(crate) enum DeviceRegisters {
    Pci(Box<Function>),
    Mmio(Box<Mmio>),
}

/// The same as plain values, and where they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceState {
    Pci { sbdf: u32, function: FunctionState },
    Mmio { place: MmioPlace, registers: MmioState },
}

/// The answer to an access.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What a read returns.
    pub(crate) value: u64,
    /// The device that the access was for.
    pub(crate) device: Option<At>,
    pub(crate) effects: Vec<Effect>,
}

/// What a read needs to know of a device.
pub(crate) trait DeviceView {
    /// Whether calls of a queue wait for its vector to be unmasked.
    fn is_pending(&self, at: At, queue: u16) -> bool;

    /// InterruptStatus of a device on virtio-mmio.
    fn interrupt_status(&self, at: At) -> u32;
}

impl Registers {
    /// Those of a guest without devices.
    pub(crate) fn new(layout: &Layout) -> Self {
        match layout {
            Layout::OwnBus => Self::Pci(Box::new(Bus::with_host_bridge())),
            Layout::BesideQemu => Self::Pci(Box::default()),
            Layout::DeviceTree(_) => Self::Mmio(BTreeMap::new()),
        }
    }

    /// The same of a guest whose devices were these.
    pub(crate) fn restore<'a>(
        bus: &BusState,
        mut devices: impl Iterator<Item = &'a DeviceState>,
    ) -> Result<Self> {
        let is_mmio = devices.any(|device| matches!(device, DeviceState::Mmio { .. }));
        Ok(if is_mmio {
            Self::Mmio(BTreeMap::new())
        } else {
            Self::Pci(Box::new(Bus::restore(bus)?))
        })
    }

    /// What is kept of them beside their devices.
    pub(crate) fn bus(&self) -> BusState {
        match self {
            Self::Pci(bus) => bus.state(),
            Self::Mmio(_) => BusState::default(),
        }
    }

    /// Puts a device there. One of the other transport has no place here.
    pub(crate) fn insert(&mut self, at: At, device: DeviceRegisters) {
        match (self, at, device) {
            (Self::Pci(bus), At::Function(function), DeviceRegisters::Pci(device)) => {
                bus.insert(function, *device);
            }
            (Self::Mmio(devices), At::Address(base), DeviceRegisters::Mmio(device)) => {
                devices.insert(base, *device);
            }
            _ => {}
        }
    }

    /// A device.
    pub(crate) fn device(&mut self, at: At) -> Option<&mut dyn Transport> {
        match (self, at) {
            (Self::Pci(bus), At::Function(function)) => {
                bus.function(function).map(|function| -> &mut dyn Transport { function })
            }
            (Self::Mmio(devices), At::Address(base)) => {
                devices.get_mut(&base).map(|device| -> &mut dyn Transport { device })
            }
            _ => None,
        }
    }

    /// What is kept of a device that is at a place.
    pub(crate) fn state(&mut self, place: Place) -> Option<DeviceState> {
        match (self, place) {
            (Self::Pci(bus), Place::Function { function: at, .. }) => bus
                .function(at)
                .map(|function| DeviceState::Pci { sbdf: at.sbdf(), function: function.state() }),
            (Self::Mmio(devices), Place::Mmio(place)) => devices
                .get(&place.base)
                .map(|device| DeviceState::Mmio { place, registers: device.state() }),
            _ => None,
        }
    }

    /// The functions whose configuration space is answered for.
    pub(crate) fn functions(&self) -> Vec<PciFunction> {
        match self {
            Self::Pci(bus) => bus.functions().collect(),
            Self::Mmio(_) => Vec::new(),
        }
    }

    /// The memory and ports that are answered for.
    pub(crate) fn bytes(&mut self) -> Vec<Bytes> {
        match self {
            Self::Pci(bus) => {
                let (first, last) = (*ADDRESS_PORTS.start(), *ADDRESS_PORTS.end());
                let ports = bus.has_host_bridge().then(|| Bytes::new(Space::Pio, first, last).ok());
                let functions: Vec<PciFunction> = bus.functions().collect();
                let address = |at| bus.function(at)?.address(Bar::Registers).and_then(bar);
                ports
                    .flatten()
                    .into_iter()
                    .chain(functions.into_iter().filter_map(address))
                    .collect()
            }
            Self::Mmio(devices) => {
                let bytes = |base: &u64| {
                    let last = base.checked_add(u64::from(MMIO_SIZE) - 1)?;
                    Bytes::new(Space::Mmio, *base, last).ok()
                };
                devices.keys().filter_map(bytes).collect()
            }
        }
    }

    /// Reads.
    pub(crate) fn read(&mut self, target: Target, width: Width, view: &impl DeviceView) -> Answer {
        match self {
            Self::Pci(bus) => {
                let held = |at, queue| view.is_pending(At::Function(at), queue);
                bus.read(target, width, held).into()
            }
            Self::Mmio(devices) => {
                let read = device_at(devices, target).and_then(|(base, offset, device)| {
                    let at = At::Address(base);
                    Some((at, device.read(offset, width, || view.interrupt_status(at))?))
                });
                let (device, value) =
                    read.map_or((None, width.mask()), |(at, value)| (Some(at), value));
                Answer { value, device, effects: Vec::new() }
            }
        }
    }

    /// Writes.
    pub(crate) fn write(&mut self, target: Target, width: Width, value: u64) -> Answer {
        match self {
            Self::Pci(bus) => bus.write(target, width, value).into(),
            Self::Mmio(devices) => {
                let written = device_at(devices, target).and_then(|(base, offset, device)| {
                    Some((At::Address(base), device.write(offset, width, value)?))
                });
                let (device, effects) =
                    written.map_or((None, Vec::new()), |(at, effects)| (Some(at), effects));
                Answer { value: 0, device, effects }
            }
        }
    }
}

impl From<xen_eventfd_virtio::Answer> for Answer {
    fn from(answer: xen_eventfd_virtio::Answer) -> Self {
        let xen_eventfd_virtio::Answer { value, function, effects } = answer;
        Self { value, device: function.map(At::Function), effects }
    }
}

/// The device at or below an address: its base, and how far the address is from that.
fn device_at(devices: &mut BTreeMap<u64, Mmio>, target: Target) -> Option<(u64, u64, &mut Mmio)> {
    let Target::Address(Space::Mmio, addr) = target else { return None };
    let (base, device) = devices.range_mut(..=addr).next_back()?;
    Some((*base, addr - *base, device))
}

/// The registers of a function whose BAR is here.
pub(crate) fn bar(at: u64) -> Option<Bytes> {
    Bytes::new(Space::Mmio, at, at + u64::from(REGISTERS_SIZE) - 1).ok()
}

impl DeviceRegisters {
    /// Those of a device at its place.
    pub(crate) fn new(device: Description, place: Place) -> Result<Self> {
        Ok(match place {
            Place::Function { registers, doorbell, .. } => {
                // Calls reach the guest by messages only.
                let function = FunctionDescription { device, has_line: false, registers, doorbell };
                Self::Pci(Box::new(Function::new(&function)?))
            }
            Place::Mmio(_) => Self::Mmio(Box::new(Mmio::new(&device)?)),
        })
    }

    /// The registers in a state, and what has to be done for their device to be in it too.
    pub(crate) fn restore(state: &DeviceState) -> Result<(Self, Vec<Effect>)> {
        Ok(match state {
            DeviceState::Pci { function, .. } => {
                let (function, effects) = Function::restore(function)?;
                (Self::Pci(Box::new(function)), effects)
            }
            DeviceState::Mmio { registers, .. } => {
                let (device, effects) = Mmio::restore(registers)?;
                (Self::Mmio(Box::new(device)), effects)
            }
        })
    }

    pub(crate) fn transport(&mut self) -> &mut dyn Transport {
        match self {
            Self::Pci(function) => &mut **function,
            Self::Mmio(device) => &mut **device,
        }
    }
}

impl DeviceState {
    /// Where the device is. A function's BARs are where its state says.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Pci { sbdf, function: FunctionState { description, .. } } => Place::Function {
                function: PciFunction::from_sbdf(*sbdf),
                registers: description.registers,
                doorbell: description.doorbell,
            },
            Self::Mmio { place, .. } => Place::Mmio(*place),
        }
    }

    /// The features that the device offers.
    pub(crate) fn features(&self) -> u64 {
        match self {
            Self::Pci { function, .. } => function.description.device.features,
            Self::Mmio { registers, .. } => registers.description.features,
        }
    }

    /// Those that its driver has accepted.
    pub(crate) fn accepted(&self) -> Option<u64> {
        match self {
            Self::Pci { function, .. } => function.common.accepted(),
            Self::Mmio { registers, .. } => registers.common.accepted(),
        }
    }
}
