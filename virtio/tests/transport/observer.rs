//! What a caller may rely on, whatever a guest does: it follows the effects of one function.

#[path = "../shared/observer.rs"]
mod device;

use device::DeviceObserver;
use xen_eventfd_virtio::{Bar, Effect, Function, FunctionDescription};

pub(crate) struct Observer {
    device: DeviceObserver,
    registers: Option<u64>,
    doorbell: Option<u64>,
    has_line: bool,
    line: bool,
}

impl Observer {
    pub(crate) fn new(description: FunctionDescription) -> Self {
        let FunctionDescription { device, has_line, .. } = description;
        let device = DeviceObserver::new(device);
        Self { device, registers: None, doorbell: None, has_line, line: false }
    }

    /// Follows the effects of one access, after which `function` is as it is.
    ///
    /// # Panics
    /// If they contradict one another or the function.
    pub(crate) fn follow(&mut self, effects: &[Effect], function: &Function) {
        for effect in effects {
            self.see(*effect);
        }
        let addresses = [Bar::Registers, Bar::Doorbell].map(|bar| function.address(bar));
        assert_eq!([self.registers, self.doorbell], addresses);
    }

    fn see(&mut self, effect: Effect) {
        if let Effect::QueueStopped(_) = effect {
            assert_ne!(self.device.features.unwrap() & 1 << 40, 0);
        }
        match effect {
            Effect::Moved { bar, from, to } => {
                let (known, size) = match bar {
                    Bar::Registers => (&mut self.registers, 0x2000),
                    Bar::Doorbell => (&mut self.doorbell, 4),
                };
                assert!(*known == from && from != to);
                assert!(to.is_none_or(|to| to.is_multiple_of(size)));
                *known = to;
            }
            Effect::Raise(_) => assert!(self.device.is_live),
            Effect::Line(line) => {
                assert!(self.line != line && self.has_line);
                self.line = line;
            }
            // What is left is of virtio-mmio.
            _ => assert!(self.device.sees(effect), "{effect:?}"),
        }
    }
}
