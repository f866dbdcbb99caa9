//! What a caller may rely on of a device on each transport, whatever a guest does.

use xen_eventfd_virtio::{Description, Effect, Route};

/// Follows the effects that a device has on each transport.
pub(crate) struct DeviceObserver {
    description: Description,
    /// The route of each queue that has started.
    queues: Vec<Option<Route>>,
    pub(crate) features: Option<u64>,
    pub(crate) is_live: bool,
}

impl DeviceObserver {
    pub(crate) fn new(description: Description) -> Self {
        let queues = vec![None; description.queue_sizes.len()];
        Self { description, queues, features: None, is_live: false }
    }

    /// Whether the effect is one of these; others are a transport's own.
    ///
    /// # Panics
    /// If it contradicts those before.
    pub(crate) fn sees(&mut self, effect: Effect) -> bool {
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
                self.queues.fill(None);
            }
            Effect::QueueStarted(setup) => {
                let index = usize::from(setup.index);
                assert!(self.is_live && self.queues[index].is_none());
                assert!((1..=self.description.queue_sizes[index]).contains(&setup.size));
                self.queues[index] = Some(setup.route);
            }
            Effect::QueueStopped(queue) => {
                assert!(self.queues[usize::from(queue)].take().is_some());
            }
            Effect::Rerouted { queue, route } => {
                let before = self.queues[usize::from(queue)].replace(route);
                assert!(before.is_some_and(|before| before != route));
            }
            Effect::Kick(queue) => assert!(self.queues[usize::from(queue)].is_some()),
            Effect::ConfigWritten { offset, width, .. } => {
                let end = offset as usize + usize::from(width.bytes());
                assert!(end <= self.description.config.len());
            }
            _ => return false,
        }
        true
    }
}
