//! What a caller may rely on, whatever a guest does: it follows the effects of one function.

use xen_eventfd_virtio::{Bar, Description, Effect, Function, FunctionDescription, Route};

pub(crate) struct Observer {
    description: Description,
    registers: Option<u64>,
    doorbell: Option<u64>,
    queues: Vec<Option<Route>>,
    has_line: bool,
    line: bool,
    features: Option<u64>,
    is_live: bool,
}

impl Observer {
    pub(crate) fn new(description: FunctionDescription) -> Self {
        let FunctionDescription { device: description, has_line, .. } = description;
        let queues = vec![None; description.queue_sizes.len()];
        Self {
            description,
            registers: None,
            doorbell: None,
            queues,
            has_line,
            line: false,
            features: None,
            is_live: false,
        }
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
                assert_ne!(self.features.unwrap() & 1 << 40, 0);
            }
            Effect::Rerouted { queue, route } => {
                let before = self.queues[usize::from(queue)].replace(route);
                assert!(before.is_some_and(|before| before != route));
            }
            Effect::Kick(queue) => assert!(self.queues[usize::from(queue)].is_some()),
            Effect::Moved { bar, from, to } => {
                let (known, size) = match bar {
                    Bar::Registers => (&mut self.registers, 0x2000),
                    Bar::Doorbell => (&mut self.doorbell, 4),
                };
                assert!(*known == from && from != to);
                assert!(to.is_none_or(|to| to.is_multiple_of(size)));
                *known = to;
            }
            Effect::ConfigWritten { offset, width, .. } => {
                let end = offset as usize + usize::from(width.bytes());
                assert!(end <= self.description.config.len());
            }
            Effect::Raise(_) => assert!(self.is_live),
            Effect::Line(line) => {
                assert!(self.line != line && self.has_line);
                self.line = line;
            }
            // Of virtio-mmio.
            Effect::SetInterruptStatus(_) | Effect::Acknowledged(_) => unreachable!("{effect:?}"),
        }
    }
}
