//! A PCI bus: which function an access is for, by configuration mechanism 1 and the BARs.

use crate::effect::Effect;
use crate::function::Function;
use crate::host_bridge::HostBridge;
use crate::state::{BusState, StateError};
use crate::value::{gather, low};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use xen_eventfd_core::{Access, Kick, PciFunction, Space, Width};

/// What an access of a guest goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A register in a function's configuration space.
    Config {
        /// The function.
        function: PciFunction,
        /// The register, in bytes.
        register: u16,
    },
    /// Memory or a port.
    Address(Space, u64),
}

/// The answer to an access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What a read returns; all ones of what is not there.
    pub value: u64,
    /// The function that the access was for, if it is a virtio function.
    pub function: Option<PciFunction>,
    /// Its effects.
    pub effects: Vec<Effect>,
}

/// The ports of configuration mechanism 1 that Xen leaves to a device model: the address. The data, ports
/// 0xCFC to 0xCFF, it turns into requests for a function's configuration space.
pub const ADDRESS_PORTS: core::ops::RangeInclusive<u64> = 0xCF8..=0xCFB;

/// Where the host bridge is.
const HOST_BRIDGE: PciFunction = PciFunction::from_sbdf(0);

/// A PCI bus, or some functions of one whose host bridge another device model has.
#[derive(Debug, Clone, Default)]
pub struct Bus {
    bridge: Option<HostBridge>,
    functions: BTreeMap<PciFunction, Function>,
    /// What the guest last wrote to port 0xCF8. Xen has it too, and yet leaves reads of it to the bus.
    config_address: u32,
}

impl Bus {
    /// A bus with a host bridge as 00:00.0, for a guest that has no PCI. It answers reads of port 0xCF8, by
    /// which Linux recognises configuration mechanism 1.
    pub fn with_host_bridge() -> Self {
        Self { bridge: Some(HostBridge::default()), ..Self::default() }
    }

    /// Its whole state, but for its functions'.
    pub fn state(&self) -> BusState {
        let bridge = self.bridge.as_ref().map(HostBridge::state);
        BusState { config_address: self.config_address, bridge }
    }

    /// A bus in a state, without functions.
    ///
    /// # Errors
    /// No bus can be in that state.
    pub fn restore(state: &BusState) -> Result<Self, StateError> {
        let bridge = state.bridge.as_deref().map(HostBridge::restore).transpose()?;
        Ok(Self { bridge, config_address: state.config_address, ..Self::default() })
    }

    /// Whether the bus has its host bridge, and [`ADDRESS_PORTS`].
    pub fn has_host_bridge(&self) -> bool {
        self.bridge.is_some()
    }

    /// Puts a function on the bus. Returns the one that was there.
    pub fn insert(&mut self, at: PciFunction, function: Function) -> Option<Function> {
        self.functions.insert(at, function)
    }

    /// A function.
    pub fn function(&mut self, at: PciFunction) -> Option<&mut Function> {
        self.functions.get_mut(&at)
    }

    /// All functions that are on it, the host bridge too.
    pub fn functions(&self) -> impl Iterator<Item = PciFunction> {
        self.bridge.iter().map(|_| HOST_BRIDGE).chain(self.functions.keys().copied())
    }

    /// Reads. `held` is asked for a function and its queue, as [`Function::read`] has it.
    pub fn read(
        &mut self,
        target: Target,
        width: Width,
        held: impl Fn(PciFunction, u16) -> bool,
    ) -> Answer {
        let (found, function) = match target {
            Target::Config { function: HOST_BRIDGE, register } if self.bridge.is_some() => {
                let bridge = self.bridge.as_ref();
                (bridge.map(|bridge| (bridge.read_config(register, width), Vec::new())), None)
            }
            Target::Config { function: at, register } => {
                let function = self.functions.get_mut(&at);
                let read = function
                    .map(|function| function.read_config(register, width, |queue| held(at, queue)));
                (read, Some(at))
            }
            Target::Address(Space::Pio, port) if self.has_address_register(port, width) => {
                let bytes = self.config_address.to_le_bytes();
                let first = (port & 3) as usize;
                let value = gather(width, |at| bytes[first + usize::from(at)]);
                (Some((value, Vec::new())), None)
            }
            Target::Address(space, addr) => {
                let access = Access { space, addr, width };
                let read = self.functions.iter_mut().find_map(|(at, function)| {
                    Some((function.read(access, |queue| held(*at, queue))?, *at))
                });
                read.map_or((None, None), |(read, at)| (Some(read), Some(at)))
            }
        };
        let (value, effects) = found.unwrap_or((width.mask(), Vec::new()));
        Answer { value, function: function.filter(|at| self.functions.contains_key(at)), effects }
    }

    /// Writes.
    pub fn write(&mut self, target: Target, width: Width, value: u64) -> Answer {
        let mut answer = Answer { value: 0, function: None, effects: Vec::new() };
        match target {
            Target::Config { function: HOST_BRIDGE, register } if self.bridge.is_some() => {
                if let Some(bridge) = &mut self.bridge {
                    bridge.write_config(register, width, value);
                }
            }
            Target::Config { function: at, register } => {
                if let Some(function) = self.functions.get_mut(&at) {
                    answer.effects = function.write_config(register, width, value);
                    answer.function = Some(at);
                }
            }
            Target::Address(Space::Pio, port) if self.has_address_register(port, width) => {
                // Only a whole write is one of the address; others are for what PCs have at these ports.
                if width == Width::Four {
                    self.config_address = low(value);
                }
            }
            Target::Address(space, addr) => {
                let write = Kick::new(space, addr, width, value);
                let written = self
                    .functions
                    .iter_mut()
                    .find_map(|(at, function)| Some((*at, function.write(write)?)));
                if let Some((at, effects)) = written {
                    answer.effects = effects;
                    answer.function = Some(at);
                }
            }
        }
        answer
    }

    fn has_address_register(&self, port: u64, width: Width) -> bool {
        let last = port.checked_add(u64::from(width.bytes()) - 1);
        let all_in = |last| ADDRESS_PORTS.contains(&port) && ADDRESS_PORTS.contains(&last);
        self.bridge.is_some() && last.is_some_and(all_in)
    }
}
