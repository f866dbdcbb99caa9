//! What an access means outside of the registers.

use core::fmt;
use xen_eventfd_core::Width;

/// A message-signalled interrupt, as it stands in the MSI-X table and as `XEN_DMOP_inject_msi` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The address.
    pub addr: u64,
    /// The data.
    pub data: u32,
}

/// How a queue's calls reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Not at all: the driver mapped the queue to no vector, or there are no interrupts.
    Nowhere,
    /// They are pending: the vector is masked, or the function is, or it may not master the bus.
    Masked,
    /// By this message.
    Message(Message),
    /// By the function's interrupt line, as MSI-X is off. Each call goes through
    /// [`Function::signal_queue`](crate::Function::signal_queue), which sets the ISR status.
    Line,
    /// By the bit of a used buffer in the device's InterruptStatus, as virtio-mmio has it, and the interrupt for it.
    InterruptStatus,
}

/// A queue that the driver has set up. The addresses are guest physical and not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSetup {
    /// Its index.
    pub index: u16,
    /// Its entries, at most what the device offers.
    pub size: u16,
    /// The descriptor area.
    pub descriptors: u64,
    /// The driver area: of a split queue, the available ring.
    pub driver: u64,
    /// The device area: of a split queue, the used ring.
    pub device: u64,
    /// How its calls reach the guest.
    pub route: Route,
}

/// A base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bar {
    /// The memory BAR with all registers, 8 KiB.
    Registers,
    /// The I/O BAR with the doorbell, 4 ports. A kick writes the queue's index, 2 bytes wide, to the first.
    Doorbell,
}

/// What the caller has to do, in this order, before the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The driver's features, which the device accepted (FEATURES_OK). They hold until [`Effect::Reset`].
    Features(u64),
    /// The driver is ready (DRIVER_OK). The queues that it has enabled start next.
    DriverOk,
    /// The device is reset: all queues have stopped, no call may reach the guest any more, InterruptStatus is 0.
    Reset,
    /// A queue is to be served from now on. Check it for buffers, as its kick may have come before.
    QueueStarted(QueueSetup),
    /// A queue is not to be touched any more (VIRTIO_F_RING_RESET, or QueueReady of virtio-mmio).
    QueueStopped(u16),
    /// The calls of a queue that has started take another route.
    Rerouted {
        /// The queue.
        queue: u16,
        /// The route from now on.
        route: Route,
    },
    /// A kick that reached these registers, and so no doorbell.
    Kick(u16),
    /// A BAR is at another address. `None`: the function does not decode it.
    Moved {
        /// Which BAR.
        bar: Bar,
        /// Where it was.
        from: Option<u64>,
        /// Where it is.
        to: Option<u64>,
    },
    /// The driver wrote to the device configuration. What is there is kept until
    /// [`Transport::set_config`](crate::Transport::set_config).
    ConfigWritten {
        /// The first byte.
        offset: u32,
        /// How many bytes.
        width: Width,
        /// The value.
        value: u64,
    },
    /// Inject this message now.
    Raise(Message),
    /// The function's interrupt line has this level from now on.
    Line(bool),
    /// These bits of the device's InterruptStatus are to be set, and its interrupt raised for them.
    SetInterruptStatus(u32),
    /// The driver has acknowledged these bits of InterruptStatus: they are to be cleared.
    Acknowledged(u32),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msi:{:#x}:{:#x}", self.addr, self.data)
    }
}
