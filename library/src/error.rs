//! What can go wrong, and what to do about it.

use rustix::io::Errno;
use std::path::PathBuf;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::{Arch, InvalidIrq, Irq};
use xen_eventfd_core::{DomId, Invalid};
use xen_eventfd_host::HostError;
use xen_eventfd_ioreq::Error as Ioreq;

/// What comes of a call.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a call failed. Nothing is half done: what was registered before still is.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Xen, Linux or xenstore refused a call.
    #[error(transparent)]
    Host(#[from] HostError),

    /// No such guest.
    #[error("{}", Ioreq::UnknownDomain(.0.clone()))]
    UnknownDomain(String),

    /// Two domains have this name.
    #[error("{} and {} are both called {name:?}; give the number", doms[0], doms[1])]
    AmbiguousName {
        /// The name.
        name: String,
        /// The first two that have it.
        doms: [DomId; 2],
    },

    /// The guest is gone, and all that was registered for it.
    #[error("{}", Ioreq::GuestDied(*.0))]
    GuestDied(DomId),

    /// One engine serves a guest, and another one does already.
    #[error("{}", Ioreq::InUse { dom: *dom, holder: holder.clone() })]
    InUse {
        /// The guest.
        dom: DomId,
        /// What holds it: process id, name, engine.
        holder: String,
    },

    /// The registration cannot be.
    #[error("cannot register a doorbell at {addr:#x}: {why}")]
    Invalid {
        /// Its address.
        addr: u64,
        /// Which part is wrong.
        why: Invalid,
    },

    /// The interrupt cannot be.
    #[error("cannot register an interrupt: {0}")]
    InvalidIrq(#[from] InvalidIrq),

    /// Some write would belong to two registrations.
    #[error("cannot register a doorbell at {addr:#x}: {why}; unregister that first")]
    Exists {
        /// Its address.
        addr: u64,
        /// What is in its way.
        why: String,
    },

    /// The registers of a device cannot be.
    #[error("cannot register InterruptStatus at {addr:#x}: {why}")]
    InvalidStatus {
        /// Its address.
        addr: u64,
        /// Which part is wrong.
        why: Invalid,
    },

    /// A byte of InterruptStatus or InterruptACK would belong to two registrations.
    #[error(
        "cannot register InterruptStatus at {addr:#x} with InterruptACK behind it: {by} is registered \
         already; unregister that first, or leave InterruptStatus to the VMM"
    )]
    Overlaps {
        /// Its address.
        addr: u64,
        /// What is in its way.
        by: Bytes,
    },

    /// No such registration: address, width, datamatch and eventfd, or interrupt and eventfd, must all
    /// be as they are; and a value that stands for a registration does no longer once that is ended.
    #[error("{what} is not registered, or not with this eventfd")]
    NotRegistered {
        /// What was meant.
        what: String,
    },

    /// An eventfd raises one interrupt of a guest, or stands for one event channel.
    #[error("{what} is registered already; unregister that first")]
    Busy {
        /// The eventfd or the port.
        what: String,
    },

    /// A level-triggered line of a device with InterruptStatus is that device's alone, as it is lowered once
    /// no bit is set.
    #[error(
        "{irq} has another user, and one of the two is level-triggered: each would take back the other's \
         interrupt; give each device a line of its own, or have both pulse it"
    )]
    LineInUse {
        /// The line.
        irq: Irq,
    },

    /// A guest has at most this many registrations.
    #[error("{dom} has {limit} registrations already; unregister some")]
    TooMany {
        /// The guest.
        dom: DomId,
        /// The limit.
        limit: usize,
    },

    /// The descriptor is none, or of another kind.
    #[error("descriptor {fd} is {what}; pass an eventfd")]
    NotAnEventFd {
        /// Its number.
        fd: i32,
        /// What it is instead.
        what: String,
    },

    /// The directory of locks and records failed.
    #[error("{}", Ioreq::RunDir { what, path: path.clone(), errno: *errno })]
    RunDir {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's error.
        errno: Errno,
    },

    /// The directory of locks and records, or a file in it, is one that another user could have
    /// made or could change. Nothing in it was followed, read or written.
    #[error("{}", Ioreq::Untrusted { path: path.clone(), why: why.clone() })]
    Untrusted {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },

    /// There is no guardian, which would reap after this process if it were killed.
    #[error(
        "no guardian: {0}; install the xen-eventfd command, or choose Guardian::None and have a \
         supervisor run `xen-eventfd reap` after a crash"
    )]
    NoGuardian(String),

    /// The handle was made before a fork, and this is the child. Nothing was done.
    #[error("{}", Ioreq::Forked)]
    Forked,

    /// No engine can run here.
    #[error("no engine can run here: {0}; `xen-eventfd doctor` lists what is missing")]
    NoEngine(String),

    /// The guest has no interrupt controller for lines, as far as is known: it is no HVM guest.
    #[error("{0} has no interrupt lines, as it is no HVM guest; use an event channel or an MSI")]
    NoLines(DomId),

    /// No guest of this machine's architecture has such a thing.
    #[error("{arch} guests have no {what}; {advice}")]
    OtherArch {
        /// The interrupt or the address.
        what: String,
        /// The architecture of the machine.
        arch: Arch,
        /// What there is instead.
        advice: &'static str,
    },

    /// The engine's thread has stopped, because the host failed it.
    #[error("{}", Ioreq::Stopped(.0.clone()))]
    EngineStopped(HostError),
}

impl Error {
    /// The error number that KVM or the kernel engine answers for the same mistake.
    ///
    #[doc = example!(r#"
let call = eventfd(0, EventfdFlags::empty())?;
let _first = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;
let second = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x42 });
assert_eq!(second.unwrap_err().errno(), rustix::io::Errno::BUSY);
"#)]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Host(error) | Self::EngineStopped(error) => error.errno,
            Self::UnknownDomain(_) | Self::GuestDied(_) => Errno::SRCH,
            Self::InUse { .. } | Self::Busy { .. } | Self::LineInUse { .. } => Errno::BUSY,
            Self::Invalid { .. } | Self::InvalidStatus { .. } | Self::InvalidIrq(_) => Errno::INVAL,
            Self::Exists { .. } | Self::Overlaps { .. } => Errno::EXIST,
            Self::AmbiguousName { .. } => Errno::NOTUNIQ,
            Self::NotRegistered { .. } => Errno::NOENT,
            Self::TooMany { .. } => Errno::NOSPC,
            Self::NotAnEventFd { what, .. } if what == "not open" => Errno::BADF,
            Self::NotAnEventFd { .. } => Errno::INVAL,
            Self::RunDir { errno, .. } => *errno,
            Self::Untrusted { .. } => Errno::PERM,
            Self::NoGuardian(_) => Errno::CHILD,
            Self::Forked => Errno::STALE,
            Self::NoEngine(_) => Errno::NODEV,
            Self::NoLines(_) | Self::OtherArch { .. } => Errno::OPNOTSUPP,
        }
    }
}

impl From<Ioreq> for Error {
    fn from(error: Ioreq) -> Self {
        match error {
            Ioreq::Host(error) => Self::Host(error),
            Ioreq::UnknownDomain(name) => Self::UnknownDomain(name),
            Ioreq::GuestDied(dom) => Self::GuestDied(dom),
            Ioreq::InUse { dom, holder } => Self::InUse { dom, holder },
            Ioreq::RunDir { what, path, errno } => Self::RunDir { what, path, errno },
            Ioreq::Untrusted { path, why } => Self::Untrusted { path, why },
            Ioreq::Stopped(error) => Self::EngineStopped(error),
            Ioreq::Forked => Self::Forked,
            // What keeps a thread from starting, and what a later version adds.
            other => Self::NoEngine(other.to_string()),
        }
    }
}
