//! Why a guest's devices cannot be served.

use crate::acpi::AcpiError;
use rustix::io::Errno;
use std::path::PathBuf;
use xen_eventfd::HostError;
use xen_eventfd_cli::failure::Failure;
use xen_eventfd_virtio::{DescriptionError, StateError};

pub(crate) type Result<T> = core::result::Result<T, Error>;

/// Why a guest's devices cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The engine's, for kicks and calls.
    #[error(transparent)]
    Engine(#[from] xen_eventfd::Error),
    /// The ioreq server's of the registers.
    #[error(transparent)]
    Server(#[from] xen_eventfd_ioreq::Error),
    /// The backend's.
    #[error(transparent)]
    Backend(#[from] xen_eventfd_vhost::Error),
    /// The device is none that a PCI function can present.
    #[error(transparent)]
    Function(#[from] DescriptionError),
    /// What is kept of a device is none of a PCI function.
    #[error("what is kept of a device is damaged: {0}")]
    State(#[from] StateError),
    /// A device of a type that cannot go on over another connection.
    #[error("the driver's session ended with the connection to the backend")]
    SessionEnded,
    /// A device whose backend is of no use any more, and which cannot go on with another.
    #[error("{cause}; {why}")]
    CannotGoOn {
        /// What became of the backend.
        cause: String,
        /// Why it is not enough to have another.
        why: Box<Error>,
    },
    /// A backend ended, and what it had begun is not known.
    #[error(
        "its backend ended with {requests} requests of queue {index} outstanding, and has not noted which of them it had \
         begun (vhost-user's INFLIGHT_SHMFD)"
    )]
    Outstanding {
        /// The queue.
        index: u16,
        /// How many.
        requests: u16,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// A backend that was started again is another.
    #[error(
        "the backend lacks features {0:#x}, which the one before had and the guest was offered; start that one again"
    )]
    Features(u64),
    /// The device's backend has ended.
    #[error("its backend has ended")]
    NoBackend,
    /// The host's.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The guest's memory cannot be mapped.
    #[error("the guest's memory cannot be mapped: {0}")]
    Memory(HostError),
    /// What libxl writes for an HVM guest's firmware is not there.
    #[error(
        "the guest's memory has no table of where it is (HVM INFO at 0x9F800); an HVM guest has it from its creation \
         until it runs: create it paused (xl create -p)"
    )]
    NoMemoryMap,
    /// A device of an Arm guest has no place.
    #[error(
        "device {number} of the guest's virtio= lines has no address and interrupt of its own (base {base:?}, irq {irq:?} in \
         xenstore); give each line transport=mmio, and create the guest anew"
    )]
    NoPlace {
        /// The device's number.
        number: u32,
        /// What libxl has written.
        base: Option<String>,
        /// What libxl has written.
        irq: Option<String>,
    },
    /// The guest gets no PCI root.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The process that serves a guest cannot be asked, or cannot answer.
    #[error("the socket {} cannot be used: {why}", path.display())]
    Status {
        /// The socket.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The backend's, as it signals by [`xen_eventfd_vhost::Backend::errors`].
    #[error("the backend says that a queue is broken")]
    BrokenQueue,
    /// Xen's toolstack has refused it.
    #[error(transparent)]
    Toolstack(#[from] Failure),
    /// The state directory of the daemon cannot be used.
    #[error("the state directory of the daemon cannot be used: {0}")]
    StateDir(#[from] std::io::Error),
    /// This process cannot give up what it does not need.
    #[error("this process cannot be confined: {0}")]
    Confinement(String),
    /// An eventfd could not be made.
    #[error("cannot make an eventfd: {0}")]
    Eventfd(#[from] Errno),
}
