//! What a device does that is no answer to an access, on whichever transport.

use crate::common::Common;
use crate::effect::Effect;
use alloc::vec::Vec;

/// The registers of a device, as what serves it changes them.
pub trait Transport {
    /// Whether the device does nothing until its driver resets it.
    fn is_broken(&self) -> bool;

    /// Replaces the device configuration, as after [`Effect::ConfigWritten`], without an interrupt. What is
    /// longer than the one before is cut, what is shorter leaves the rest.
    fn set_config(&mut self, config: &[u8]);

    /// The device changed its configuration: replaces it and notifies the driver.
    fn change_config(&mut self, config: &[u8]) -> Vec<Effect>;

    /// The same, if the configuration is another.
    fn change_config_to(&mut self, config: &[u8]) -> Vec<Effect>;

    /// The device cannot go on until the driver resets it (DEVICE_NEEDS_RESET). The queues have stopped for the
    /// caller, but for the driver only a reset ends them.
    fn needs_reset(&mut self) -> Vec<Effect>;

    /// Notifies the driver, if it runs, of a change of the configuration that may have been there: of one its
    /// notification may have been lost with a process.
    fn notify_again(&mut self) -> Vec<Effect>;
}

/// What a transport adds to the device behind it.
pub(crate) trait TransportParts {
    fn common(&self) -> &Common;

    fn common_mut(&mut self) -> &mut Common;

    /// Only a driver that runs is notified.
    fn notify_of_config(&mut self) -> Vec<Effect>;
}

impl<T: TransportParts> Transport for T {
    fn is_broken(&self) -> bool {
        self.common().is_broken()
    }

    fn set_config(&mut self, config: &[u8]) {
        self.common_mut().set_config(config);
    }

    fn change_config(&mut self, config: &[u8]) -> Vec<Effect> {
        self.set_config(config);
        self.notify_of_config()
    }

    fn change_config_to(&mut self, config: &[u8]) -> Vec<Effect> {
        if self.common().differs(config) { self.change_config(config) } else { Vec::new() }
    }

    fn needs_reset(&mut self) -> Vec<Effect> {
        self.common_mut().needs_reset();
        self.notify_of_config()
    }

    fn notify_again(&mut self) -> Vec<Effect> {
        self.notify_of_config()
    }
}
