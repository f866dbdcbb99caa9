//! What a caller may rely on, whatever a guest does: it follows the effects of one device.

#[path = "../shared/observer.rs"]
mod device;

use device::DeviceObserver;
use xen_eventfd_virtio::{Description, Effect, Route};

pub(crate) struct Observer(DeviceObserver);

impl Observer {
    pub(crate) fn new(description: Description) -> Self {
        Self(DeviceObserver::new(description))
    }

    /// Follows the effects of one access.
    ///
    /// # Panics
    /// If they contradict one another.
    pub(crate) fn follow(&mut self, effects: &[Effect]) {
        effects.iter().for_each(|effect| self.see(*effect));
    }

    fn see(&mut self, effect: Effect) {
        if let Effect::QueueStarted(setup) = effect {
            assert_eq!(setup.route, Route::InterruptStatus);
        }
        match effect {
            Effect::SetInterruptStatus(bits) => assert!(self.0.is_live && bits == 2),
            Effect::Acknowledged(_) => {}
            // Of PCI.
            Effect::Rerouted { .. } => unreachable!("{effect:?}"),
            _ => assert!(self.0.sees(effect), "{effect:?}"),
        }
    }
}
