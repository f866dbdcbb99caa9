//! Which of virtio's feature bits are the backend's to offer.

use crate::{Error, Result};
use virtio_bindings::virtio_config::{
    VIRTIO_F_IN_ORDER, VIRTIO_F_NOTIFY_ON_EMPTY, VIRTIO_F_ORDER_PLATFORM, VIRTIO_F_VERSION_1,
    VIRTIO_TRANSPORT_F_END,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Modern virtio, which every device and backend must have.
pub(crate) const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;

/// The bits that are not of one device type (virtio 1.3, 6 "Reserved Feature Bits").
const RESERVED: u64 = (1 << VIRTIO_TRANSPORT_F_END) - (1 << VIRTIO_F_NOTIFY_ON_EMPTY);

/// Those of them that a backend keeps by itself, from what it reads in a queue.
const OF_QUEUES: u64 = VERSION_1
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_F_IN_ORDER
    | 1 << VIRTIO_F_ORDER_PLATFORM;

/// What a device may offer its driver of what a backend offers.
///
/// Left out is what the device decides or this crate does not do: vhost's own bits in the reserved range (the
/// log of migration, protocol features, vhost-net's header), packed queues, an IOMMU, and notifications
/// with data, which an eventfd does not carry.
pub(crate) fn of_device(offered: u64) -> u64 {
    offered & (!RESERVED | OF_QUEUES)
}

/// A driver accepts no more than it was offered.
pub(crate) fn check_accepted(features: u64, offered: u64) -> Result<()> {
    match features & !offered {
        0 => Ok(()),
        strange => Err(Error::NotOffered { features: strange }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_a_device_type_pass_and_reserved_ones_only_if_queues_have_them() {
        assert_eq!(of_device(u64::MAX) & 0x00FF_FFFF, 0x00FF_FFFF);
        assert_eq!(of_device(u64::MAX) >> 50, u64::MAX >> 50);
        let passed: Vec<u32> =
            (24..42).filter(|bit| of_device(u64::MAX) & (1 << bit) != 0).collect();
        assert_eq!(passed, [28, 29, 32, 35, 36]);
        assert_eq!(of_device(0), 0);
    }
}
