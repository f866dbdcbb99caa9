//! What a device type is, whatever its backend.

use crate::error::Result;
use xen_eventfd_vhost::Backend;

/// What a device type has, whatever its backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The virtio device ID.
    pub(crate) device_type: u16,
    /// Request queues.
    pub(crate) queues: u16,
    /// Entries of each queue, at most.
    pub(crate) queue_size: u16,
    pub(crate) features: Features,
    pub(crate) config: DeviceConfig,
}

/// Which features a device offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// Of those that the backend offers, these at most.
    pub(crate) of_backend: u64,
    /// These too, which are not the backend's affair.
    pub(crate) own: u64,
}

impl Features {
    /// All that the backend offers.
    pub(crate) const OF_BACKEND: Self = Self { of_backend: u64::MAX, own: 0 };

    /// What the device offers with this backend.
    pub(crate) fn offered(self, backend: &dyn Backend) -> u64 {
        backend.features() & self.of_backend | self.own
    }
}

/// Where the bytes of a device's configuration come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceConfig {
    size: usize,
    is_of_backend: bool,
    /// What is `xen-virtio`'s own, and where.
    own: Vec<(usize, Vec<u8>)>,
}

impl DeviceConfig {
    /// As many bytes, which the backend has.
    pub(crate) fn of_backend(size: usize) -> Self {
        Self { size, is_of_backend: true, own: Vec::new() }
    }

    /// As many bytes, which begin with these. The backend is not asked.
    pub(crate) fn fixed(size: usize, bytes: Vec<u8>) -> Self {
        Self { size, is_of_backend: false, own: vec![(0, bytes)] }
    }

    /// The same with these bytes, whatever the backend has there.
    #[must_use]
    pub(crate) fn with(mut self, at: usize, bytes: Vec<u8>) -> Self {
        self.own.push((at, bytes));
        self
    }

    /// Whether the backend has it.
    pub(crate) fn is_of_backend(&self) -> bool {
        self.is_of_backend
    }

    /// Puts in what is not the backend's.
    fn complete(&self, config: &mut [u8]) {
        for (at, bytes) in &self.own {
            if let Some(place) = config.get_mut(*at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        }
    }

    /// All of it, as it is now.
    pub(crate) fn read(&self, backend: &mut dyn Backend) -> Result<Vec<u8>> {
        let mut config = vec![0; self.size];
        if self.is_of_backend {
            backend.read_config(0, &mut config)?;
        }
        self.complete(&mut config);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_backends_is_put_in() {
        let config = DeviceConfig::of_backend(8).with(2, vec![7, 8]).with(7, vec![9, 9]);
        let mut bytes = [1; 8];
        config.complete(&mut bytes);
        // What would reach beyond the end is left out.
        assert_eq!(bytes, [1, 1, 7, 8, 1, 1, 1, 1]);
    }
}
