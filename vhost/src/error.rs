//! What can go wrong with a backend, with advice.

use crate::user::wire::Request;
use core::fmt;
use core::time::Duration;
use rustix::io::Errno;
use std::path::PathBuf;

/// The result of a call of a backend.
pub type Result<T> = core::result::Result<T, Error>;

/// A failed call of a backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection to the backend's socket.
    #[error("cannot connect to {}: {errno}{}", path.display(), advice_on_connecting(*errno))]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The operating system refuses something that is not the backend's.
    #[error("cannot {what}: {errno}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// A device of the kernel cannot be opened.
    #[error("cannot open {path}: {errno}{}", advice_on_device(path, *errno))]
    Device {
        /// The device.
        path: &'static str,
        /// Why.
        errno: Errno,
    },
    /// A tap device cannot be had.
    #[error("cannot use {name} as a tap device: {errno}{}", advice_on_tap(*errno))]
    Tap {
        /// The network interface.
        name: String,
        /// Why.
        errno: Errno,
    },
    /// A context identifier of sockets cannot be had.
    #[error("cannot give a guest's sockets the context identifier {cid}: {errno}{}", advice_on_cid(*errno))]
    Cid {
        /// The identifier.
        cid: u64,
        /// Why.
        errno: Errno,
    },
    /// There is no such target for vhost-scsi, or another guest has it.
    #[error(
        "there is no free target {wwpn} for vhost-scsi; make one in /sys/kernel/config/target/vhost (with \
         targetcli: /vhost create {wwpn}), with a nexus and a disk, and give it to one guest only"
    )]
    Target {
        /// Its name.
        wwpn: String,
    },
    /// The kernel refuses a request to its vhost.
    #[error("Linux's vhost refuses {request}: {errno}")]
    Kernel {
        /// The request, without `VHOST_`.
        request: &'static str,
        /// Why.
        errno: Errno,
    },
    /// The backend has closed the connection.
    #[error(
        "the backend has closed the connection{}; see its own output",
        request.map(|request| format!(" at {request}")).unwrap_or_default()
    )]
    Ended {
        /// The request that found it out, if one did.
        request: Option<Request>,
    },
    /// The backend does not answer.
    #[error(
        "the backend does not answer {request} within {limit:?}; it hangs, or serves another \
         frontend: one socket serves one device"
    )]
    Silent {
        /// The request.
        request: Request,
        /// The time limit.
        limit: Duration,
    },
    /// The backend goes on after the end of its session.
    #[error(
        "the backend has not closed its connection {limit:?} after the session's end; it hangs, and what it has begun may \
         not be complete: end it and start it again"
    )]
    Open {
        /// The time limit.
        limit: Duration,
    },
    /// The backend has sent a reply that breaks the protocol.
    #[error("the backend's reply to {request} {wrong}; this is not vhost-user as specified")]
    Reply {
        /// The request.
        request: Request,
        /// What is wrong.
        wrong: Wrong,
    },
    /// The backend has sent what no request asked for.
    #[error("the backend sends without a request; this is not vhost-user as specified")]
    Unsolicited,
    /// The backend has made a request that breaks the protocol.
    #[error("a request of the backend {wrong}; this is not vhost-user as specified")]
    Request {
        /// What is wrong.
        wrong: Wrong,
    },
    /// The backend makes more requests than a device has reason for, or takes no replies to them.
    #[error(
        "the backend requests more than a device that changes: over 64 at once and 10 a second after that"
    )]
    Flood,
    /// The backend reports that a request failed.
    #[error("the backend refuses {request}; {}", advice_on_refusal(*request))]
    Refused {
        /// The request.
        request: Request,
    },
    /// The backend lacks what the device needs.
    #[error("the backend {lack}")]
    Lacks {
        /// What it lacks.
        lack: Lack,
    },
    /// Features are to be accepted that the backend does not offer.
    #[error("the backend does not offer the features {features:#x}")]
    NotOffered {
        /// The features.
        features: u64,
    },
    /// The backend has no configuration.
    #[error(
        "the backend has no configuration of the device (protocol feature CONFIG); give the \
         device its configuration otherwise"
    )]
    NoConfiguration,
    /// The backend notes no requests in flight.
    #[error(
        "the backend does not note which requests it has begun (protocol feature INFLIGHT_SHMFD)"
    )]
    NoInflight,
    /// The configuration is not as long as that.
    #[error("a configuration has no bytes {offset} to {offset} + {length}")]
    BeyondConfiguration {
        /// Where the bytes begin.
        offset: u32,
        /// As many bytes.
        length: usize,
    },
    /// The backend has no such queue.
    #[error("the backend has no queue {index}: it has {queues}")]
    NoQueue {
        /// The queue's index.
        index: u16,
        /// As many queues as it has.
        queues: u16,
    },
    /// A part of a queue is where the guest has no memory, or not aligned.
    #[error(
        "the {part} of a queue at {at:#x} is not in the guest's memory, or not aligned; its driver is wrong"
    )]
    Ring {
        /// Which part.
        part: &'static str,
        /// Where it is, as the guest counts.
        at: u64,
    },
    /// The backend cannot have this memory.
    #[error("the backend cannot have this memory: {why}")]
    Memory {
        /// Why.
        why: &'static str,
    },
}

impl Error {
    /// Whether the caller asked for what is not there, and the backend is as it was before.
    pub fn is_callers(&self) -> bool {
        matches!(
            self,
            Self::NotOffered { .. }
                | Self::NoConfiguration
                | Self::NoInflight
                | Self::BeyondConfiguration { .. }
                | Self::NoQueue { .. }
                | Self::Ring { .. }
                | Self::Memory { .. }
        )
    }

    /// Whether what is asked for is there, and another has it.
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Device { errno, .. }
            | Self::Tap { errno, .. }
            | Self::Cid { errno, .. }
            | Self::Kernel { errno, .. } => matches!(*errno, Errno::BUSY | Errno::ADDRINUSE),
            Self::Target { .. } => true,
            _ => false,
        }
    }
}

fn advice_on_connecting(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "; start the backend first, with this path as its socket",
        Errno::CONNREFUSED => {
            "; no process listens there: the backend has ended, or makes the connection itself \
             (it must listen, as with qemu-storage-daemon's addr.type=unix)"
        }
        Errno::ACCESS | Errno::PERM => "; run as the socket's owner, or let its group write to it",
        Errno::NOTSOCK | Errno::PROTOTYPE => "; it is no socket of a vhost-user backend",
        Errno::TIMEDOUT => "; the backend accepts no connection: it hangs, or serves another one",
        _ => "",
    }
}

fn advice_on_device(path: &str, errno: Errno) -> String {
    let module = path.trim_start_matches("/dev/").trim_start_matches("net/");
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => {
            format!("; load its module: modprobe {module}")
        }
        Errno::ACCESS | Errno::PERM => {
            "; run as root, or as a member of the device's group".to_owned()
        }
        _ => String::new(),
    }
}

fn advice_on_refusal(request: Request) -> &'static str {
    match request {
        Request::SetVringNum => {
            "its queues are shorter than the device's: give these fewer entries (queue-size=N)"
        }
        _ => "see its own output",
    }
}

fn advice_on_cid(errno: Errno) -> &'static str {
    match errno {
        Errno::ADDRINUSE => "; another guest has it: each needs one of its own",
        Errno::INVAL => "; a guest's is 3 to 4294967294",
        _ => "",
    }
}

fn advice_on_tap(errno: Errno) -> &'static str {
    match errno {
        Errno::BUSY => "; another process has it, or it has fewer queues: take another name",
        Errno::PERM | Errno::ACCESS => {
            "; run as root, or make it beforehand for your user (ip tuntap add NAME mode tap user \
             USER vnet_hdr)"
        }
        Errno::INVAL => {
            "; it is another kind of interface, or was made without vnet_hdr (IFF_VNET_HDR), or without \
             multi_queue (IFF_MULTI_QUEUE) for several queues"
        }
        Errno::BADFD | Errno::NOTTY => "; it is no open tap device",
        Errno::NODEV => {
            "; it was removed, and is made again, without addresses and outside of a bridge: at once by a process that \
             may, else by the next one that serves the device"
        }
        Errno::BADF => {
            "; it is not open: what starts this program must leave it open (no close-on-exec)"
        }
        Errno::XDEV => "; it is another tap device than the first: all queues of a card are of one",
        Errno::NAMETOOLONG => "; a name has 1 to 15 bytes",
        _ => "",
    }
}

/// What a backend lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// `VIRTIO_F_VERSION_1`.
    Version1,
    /// `VHOST_USER_F_PROTOCOL_FEATURES`.
    ProtocolFeatures,
    /// Queues.
    Queues {
        /// As many as the device needs.
        needed: u16,
        /// As many as the backend has; `None` if it does not report it.
        found: Option<u16>,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version1 => f.write_str(
                "is for legacy virtio only (it does not offer VIRTIO_F_VERSION_1); take a newer one",
            ),
            Self::ProtocolFeatures => f.write_str(
                "does not negotiate protocol features (it does not offer \
                 VHOST_USER_F_PROTOCOL_FEATURES, bit 30); take a newer one",
            ),
            Self::Queues { needed, found: Some(found) } => write!(
                f,
                "has {found} queues, and the device needs {needed}; start the backend with more \
                 (qemu-storage-daemon: num-queues={needed}), or give the device fewer"
            ),
            Self::Queues { needed, found: None } => write!(
                f,
                "does not say how many queues it has (protocol feature MQ), and the device needs \
                 {needed}; give the device the number that its type has without MQ"
            ),
        }
    }
}

/// What is wrong with a reply, or with a request of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// It is to another request.
    Request(u32),
    /// Its flags are not those of a reply of version 1.
    Flags(u32),
    /// Its payload has a size that it cannot have, in bytes.
    Size(u32),
    /// It brings descriptors.
    Descriptors,
    /// It ends before its time.
    Cut,
    /// Its number is out of range.
    Number(u64),
    /// It is about another queue.
    Queue(u32),
    /// It has other bytes of the configuration than those that were asked for.
    Configuration {
        /// Where they begin.
        offset: u32,
        /// As many as the header has.
        size: u32,
    },
    /// It lacks features that were offered before, and accepted.
    Features(u64),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(number) => write!(f, "is one to request {number}"),
            Self::Flags(flags) => write!(f, "has the flags {flags:#x}, which it cannot have"),
            Self::Size(size) => write!(f, "has a payload of {size} bytes"),
            Self::Descriptors => f.write_str("brings descriptors"),
            Self::Cut => f.write_str("ends in its middle"),
            Self::Number(number) => write!(f, "has {number:#x}, which is out of range"),
            Self::Queue(index) => write!(f, "is about queue {index}"),
            Self::Configuration { offset, size } => {
                write!(f, "has {size} bytes of the configuration from {offset} on instead")
            }
            Self::Features(features) => {
                write!(f, "lacks the features {features:#x}, which were offered and accepted")
            }
        }
    }
}
