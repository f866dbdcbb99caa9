//! What a caller may rely on, whatever a guest does: it follows the effects of one device.

use xen_eventfd_virtio::{Description, Effect, Route};

pub(crate) struct Observer {
    description: Description,
    started: Vec<bool>,
    features: Option<u64>,
    is_live: bool,
}

impl Observer {
    pub(crate) fn new(description: Description) -> Self {
        let started = vec![false; description.queue_sizes.len()];
        Self { description, started, features: None, is_live: false }
    }

    /// Follows the effects of one access.
    ///
    /// # Panics
    /// If they contradict one another.
    pub(crate) fn follow(&mut self, effects: &[Effect]) {
        effects.iter().for_each(|effect| self.see(*effect));
    }

    fn see(&mut self, effect: Effect) {
        match effect {
            Effect::Features(features) => {
                assert!(self.features.replace(features).is_none());
                assert_eq!(features & !self.description.features, 0);
                assert_ne!(features & 1 << 32, 0);
            }
            Effect::DriverOk => {
                assert!(self.features.is_some() && !self.is_live);
                self.is_live = true;
            }
            Effect::Reset => {
                self.features = None;
                self.is_live = false;
                self.started.fill(false);
            }
            Effect::QueueStarted(setup) => {
                let index = usize::from(setup.index);
                assert!(self.is_live && !self.started[index]);
                assert!((1..=self.description.queue_sizes[index]).contains(&setup.size));
                assert_eq!(setup.route, Route::InterruptStatus);
                self.started[index] = true;
            }
            Effect::QueueStopped(queue) => {
                let was_started = core::mem::take(&mut self.started[usize::from(queue)]);
                assert!(was_started);
            }
            Effect::Kick(queue) => assert!(self.started[usize::from(queue)]),
            Effect::ConfigWritten { offset, width, .. } => {
                let end = offset as usize + usize::from(width.bytes());
                assert!(end <= self.description.config.len());
            }
            Effect::SetInterruptStatus(bits) => assert!(self.is_live && bits == 2),
            Effect::Acknowledged(_) => {}
            // Of PCI.
            Effect::Rerouted { .. } | Effect::Moved { .. } | Effect::Raise(_) | Effect::Line(_) => {
                unreachable!("{effect:?}")
            }
        }
    }
}
