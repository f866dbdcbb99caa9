//! The host bridge, in which Linux recognises that there is a PCI bus.

use crate::config_space::{ConfigSpace, Identity};
use crate::state::StateError;
use alloc::vec::Vec;
use xen_eventfd_core::Width;

/// A function of class 0600 with nothing but its header. Its IDs are those of the generic bridge of virtual
/// machines, for which no operating system needs a driver.
#[derive(Debug, Clone)]
pub(crate) struct HostBridge {
    space: ConfigSpace,
}

impl Default for HostBridge {
    fn default() -> Self {
        let identity = Identity {
            vendor: 0x1B36,
            device: 0x0008,
            revision: 0,
            class: [0x06, 0x00],
            has_line: false,
        };
        Self { space: ConfigSpace::new(identity) }
    }
}

impl HostBridge {
    /// Reads its configuration space.
    pub(crate) fn read_config(&self, register: u16, width: Width) -> u64 {
        self.space.read(register, width)
    }

    /// Writes to it.
    pub(crate) fn write_config(&mut self, register: u16, width: Width, value: u64) {
        self.space.write(register, width, value);
    }

    /// What a guest may change of it.
    pub(crate) fn state(&self) -> Vec<u8> {
        self.space.state()
    }

    /// A bridge in this state.
    pub(crate) fn restore(state: &[u8]) -> Result<Self, StateError> {
        let mut bridge = Self::default();
        bridge.space.restore(state)?;
        Ok(bridge)
    }
}
