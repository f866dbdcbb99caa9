//! Offsets of the registers of virtio-mmio (virtio 1.3, section 4.2.2), by Linux's names. The crate `virtio-bindings`, which
//! has them too, is for programs of an operating system.

pub(crate) const VIRTIO_MMIO_MAGIC_VALUE: u32 = 0x000;
pub(crate) const VIRTIO_MMIO_VERSION: u32 = 0x004;
pub(crate) const VIRTIO_MMIO_DEVICE_ID: u32 = 0x008;
pub(crate) const VIRTIO_MMIO_VENDOR_ID: u32 = 0x00c;
pub(crate) const VIRTIO_MMIO_DEVICE_FEATURES: u32 = 0x010;
pub(crate) const VIRTIO_MMIO_DEVICE_FEATURES_SEL: u32 = 0x014;
pub(crate) const VIRTIO_MMIO_DRIVER_FEATURES: u32 = 0x020;
pub(crate) const VIRTIO_MMIO_DRIVER_FEATURES_SEL: u32 = 0x024;
pub(crate) const VIRTIO_MMIO_QUEUE_SEL: u32 = 0x030;
pub(crate) const VIRTIO_MMIO_QUEUE_NUM_MAX: u32 = 0x034;
pub(crate) const VIRTIO_MMIO_QUEUE_NUM: u32 = 0x038;
pub(crate) const VIRTIO_MMIO_QUEUE_READY: u32 = 0x044;
pub(crate) const VIRTIO_MMIO_QUEUE_NOTIFY: u32 = 0x050;
pub(crate) const VIRTIO_MMIO_INTERRUPT_STATUS: u32 = 0x060;
pub(crate) const VIRTIO_MMIO_INTERRUPT_ACK: u32 = 0x064;
pub(crate) const VIRTIO_MMIO_STATUS: u32 = 0x070;
pub(crate) const VIRTIO_MMIO_QUEUE_DESC_LOW: u32 = 0x080;
pub(crate) const VIRTIO_MMIO_QUEUE_AVAIL_LOW: u32 = 0x090;
pub(crate) const VIRTIO_MMIO_QUEUE_USED_LOW: u32 = 0x0a0;
pub(crate) const VIRTIO_MMIO_SHM_SEL: u32 = 0x0ac;
pub(crate) const VIRTIO_MMIO_SHM_LEN_LOW: u32 = 0x0b0;
pub(crate) const VIRTIO_MMIO_QUEUE_RESET: u32 = 0x0c0;
pub(crate) const VIRTIO_MMIO_CONFIG_GENERATION: u32 = 0x0fc;
pub(crate) const VIRTIO_MMIO_CONFIG: u32 = 0x100;
