//! Errors of the host, with advice.

use crate::features::Feature;
use core::fmt;
use rustix::io::Errno;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{DomId, IoServerId, PciFunction, Port};

/// The result of a host call.
pub type Result<T> = core::result::Result<T, HostError>;

/// A host call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Open a device or a socket.
    Open(&'static str),
    /// Confine a device to a guest.
    Confine(&'static str, DomId),
    /// Serve a guest that is not among those the launcher passed.
    UnknownGuest(DomId),
    /// Read a path of xenstore, or set a watch on it.
    Xenstore(String),
    /// Use ioreq servers, of any guest.
    IoreqServers,
    /// Count the vCPUs of a guest.
    Vcpus(DomId),
    /// Have a guest reboot.
    Reboot(DomId),
    /// Create an ioreq server.
    CreateServer(DomId),
    /// Destroy one.
    DestroyServer(DomId, IoServerId),
    /// Enable or disable one.
    SetServerState(DomId, IoServerId),
    /// Check whether one exists.
    ServerAlive(DomId, IoServerId),
    /// Map its page.
    MapPage(DomId, IoServerId),
    /// Claim a range.
    MapRange(DomId, IoServerId, Bytes),
    /// Release a range.
    UnmapRange(DomId, IoServerId, Bytes),
    /// Claim a PCI function.
    MapFunction(DomId, IoServerId, PciFunction),
    /// Release one.
    UnmapFunction(DomId, IoServerId, PciFunction),
    /// Raise an interrupt.
    Interrupt(DomId),
    /// Bind a guest's port.
    Bind(DomId, Port),
    /// Map a frame of a guest's memory.
    MapMemory(DomId, u64),
    /// Allocate a port in a guest's name.
    AllocatePort(DomId),
    /// Query the binding of a port.
    Binding(DomId, Port),
    /// Notify an event channel, or read or end an event.
    Event,
    /// Signal an eventfd, or read it.
    EventFd,
    /// Use a feature that not every kernel has.
    Kernel(Feature),
    /// Take a guest in the kernel module.
    Take(DomId),
    /// Change a registration in the module.
    Assign(DomId),
    /// Change how the module answers InterruptStatus.
    Status(DomId),
    /// Make a part of a guest's memory an object of the module.
    Memory(DomId),
    /// Query the module.
    Query(DomId),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(path) => write!(f, "open {path}"),
            Self::Confine(path, dom) => write!(f, "confine {path} to {dom}"),
            Self::UnknownGuest(dom) => write!(f, "serve {dom}"),
            Self::Xenstore(path) if path.is_empty() => write!(f, "follow xenstore"),
            Self::Xenstore(path) => write!(f, "read {path} from xenstore"),
            Self::IoreqServers => f.write_str("use ioreq servers of guests"),
            Self::Vcpus(dom) => write!(f, "count the vCPUs of {dom}"),
            Self::Reboot(dom) => write!(f, "have {dom} reboot"),
            Self::CreateServer(dom) => write!(f, "create an ioreq server for {dom}"),
            Self::DestroyServer(dom, id) => write!(f, "destroy {id} of {dom}"),
            Self::SetServerState(dom, id) => write!(f, "enable or disable {id} of {dom}"),
            Self::ServerAlive(dom, id) => write!(f, "check whether {id} of {dom} exists"),
            Self::MapPage(dom, id) => write!(f, "map the page of {id} of {dom}"),
            Self::MapRange(dom, id, b) => {
                write!(f, "claim {:#x}-{:#x} for {id} of {dom}", b.first(), b.last())
            }
            Self::UnmapRange(dom, id, b) => {
                write!(f, "release {:#x}-{:#x} of {id} of {dom}", b.first(), b.last())
            }
            Self::MapFunction(dom, id, function) => {
                write!(f, "claim PCI {function} for {id} of {dom}")
            }
            Self::UnmapFunction(dom, id, function) => {
                write!(f, "release PCI {function} of {id} of {dom}")
            }
            Self::Interrupt(dom) => write!(f, "raise an interrupt in {dom}"),
            Self::Bind(dom, port) => write!(f, "bind {port} of {dom}"),
            Self::Binding(dom, port) => write!(f, "query the binding of {port} of {dom}"),
            Self::MapMemory(dom, frame) => write!(f, "map frame {frame:#x} of {dom}"),
            Self::AllocatePort(dom) => write!(f, "allocate an event channel of {dom}"),
            Self::Event => f.write_str("use an event channel"),
            Self::EventFd => f.write_str("signal or read an eventfd"),
            Self::Kernel(what) => write!(f, "use {what}"),
            Self::Take(dom) => write!(f, "take {dom} in the kernel module"),
            Self::Assign(dom) => write!(f, "change what the kernel module does for {dom}"),
            Self::Status(dom) => {
                write!(f, "change how the kernel module answers InterruptStatus of {dom}")
            }
            Self::Memory(dom) => write!(f, "have the kernel module map memory of {dom}"),
            Self::Query(dom) => write!(f, "query the kernel module about {dom}"),
        }
    }
}

/// A failed host call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {call}: {errno}{}", self.advice().map(|a| format!("; {a}")).unwrap_or_default())]
#[non_exhaustive]
pub struct HostError {
    /// The call.
    pub call: Call,
    /// The error.
    pub errno: Errno,
}

impl HostError {
    /// An error of a call.
    pub fn new(call: Call, errno: Errno) -> Self {
        Self { call, errno }
    }

    /// Whether the error means that the guest, or this engine's server in it, no longer exists.
    pub fn is_gone(&self) -> bool {
        match self.call {
            Call::Open(_) | Call::Kernel(_) | Call::UnmapRange(..) | Call::UnmapFunction(..) => {
                false
            }
            Call::Take(_)
            | Call::Assign(_)
            | Call::Status(_)
            | Call::Memory(_)
            | Call::Query(_) => self.errno == Errno::NODEV,
            // Xen's error, or the module's.
            Call::Bind(..) | Call::Interrupt(_) => {
                matches!(self.errno, Errno::NOENT | Errno::SRCH | Errno::NODEV)
            }
            _ => matches!(self.errno, Errno::NOENT | Errno::SRCH),
        }
    }

    /// The next step for the user, where there is one.
    pub fn advice(&self) -> Option<&'static str> {
        use Errno as E;
        Some(match (&self.call, self.errno) {
            (Call::Open("/dev/xen/evtchn"), E::BUSY) => {
                "a descriptor that was handed over serves one engine; hand over another one"
            }
            (Call::Confine(..), E::INVAL | E::ACCESS) => {
                "it is confined already, or no guest has that id; open it again"
            }
            (Call::UnknownGuest(_), _) => "this process was handed devices for other guests",
            (Call::Binding(..), E::PERM) => {
                "a confined process cannot recover what a dead engine left; have its launcher run \
                 `xen-eventfd reap` with the same --run-dir first"
            }
            (_, E::MFILE) => {
                "this process has as many descriptors as it may; raise its limit (`ulimit -n`, \
                 `LimitNOFILE=`), or find out who leaves them open"
            }
            (_, E::NFILE) => "the machine has as many open files as it may; raise `fs.file-max`",
            (Call::EventFd, E::NOSPC) => "raise `fs.epoll.max_user_watches`",
            (Call::Kernel(what), E::NOSYS | E::OPNOTSUPP) => what.since(),
            (Call::Open(_), E::ACCESS | E::PERM) => "run as root",
            (Call::Open("/dev/xen/eventfd"), E::NOENT | E::NODEV | E::NXIO) => {
                "the module is not loaded: `modprobe xen-eventfd`, or use the userspace engine"
            }
            (Call::Open("/dev/xen/eventfd"), E::PROTO) => {
                "this is another version of the module; install the one that belongs to this program"
            }
            (Call::Open(_), E::NOENT | E::NODEV | E::NXIO | E::CONNREFUSED) => {
                "is this a Xen domain with its devices and xenstore up? see `xen-eventfd doctor`"
            }
            (Call::Open(_), E::TIMEDOUT) => {
                "the driver may be waiting for xenstore; is xenstored alive?"
            }
            (Call::CreateServer(_) | Call::Vcpus(_), E::INVAL) | (Call::Take(_), E::OPNOTSUPP) => {
                "a PV guest has no ioreq servers; use a PVH or HVM guest"
            }
            (
                Call::IoreqServers | Call::CreateServer(_) | Call::Vcpus(_) | Call::Take(_),
                E::NOSYS,
            )
            | (Call::CreateServer(_) | Call::Vcpus(_), E::OPNOTSUPP) => {
                "this Xen has no ioreq servers: it was built without CONFIG_IOREQ_SERVER, as \
                 Debian's for arm64 is. Boot one that was built with CONFIG_EXPERT, \
                 CONFIG_UNSUPPORTED and CONFIG_IOREQ_SERVER"
            }
            (Call::DestroyServer(..), E::BUSY) => {
                "a vCPU has not taken the answer to its last access, as the guest is paused or has crashed: let \
                 it run (`xl unpause`) or destroy it, then run `xen-eventfd reap`"
            }
            (Call::Take(_), E::BUSY) => "another engine serves it; stop that first",
            (Call::CreateServer(_) | Call::Take(_), E::NOSPC) => {
                "all 8 ioreq servers of the guest are taken; stop a device model, \
                 or run `xen-eventfd reap` if one died"
            }
            (Call::Assign(_) | Call::Status(_), E::NOMEM) => {
                "Xen has no room for another of the server's 256 separate ranges: register fewer, or \
                 adjacent, addresses; or memory has run out, perhaps that of this process's control \
                 group: raise its memory.max"
            }
            (Call::Interrupt(_) | Call::Bind(..) | Call::Take(_), E::NOMEM) => {
                "memory has run out, perhaps that of this process's control group: raise its memory.max"
            }
            (Call::Bind(..), E::NOSPC) => {
                "too many event channels are bound: unregister some. The kernel module binds 256 of a \
                 guest, and of all guests as many as its parameter max_channels says; the userspace \
                 engine as many as this domain has free ports"
            }
            (Call::Status(_), E::NOTTY) => {
                "the kernel module is older than this program; install the one that belongs to it, or \
                 use the userspace engine"
            }
            (Call::Status(_), E::NOSPC) => {
                "the kernel module answers 256 devices of a guest; unregister some, or leave \
                 InterruptStatus to the VMM. Or too many event channels are bound"
            }
            (Call::Assign(_), E::NOSPC) => {
                "the kernel module has as many doorbells of the guest as it keeps; unregister some"
            }
            (Call::MapRange(..), E::NOMEM | E::NOSPC) => {
                "a server has at most 256 separate ranges; register fewer, or adjacent, addresses"
            }
            (Call::Memory(_), E::OPNOTSUPP) => {
                "the module does not map the memory of a PV guest; use a PVH or HVM guest"
            }
            (Call::Memory(_), E::NOENT) => {
                "the module is not loaded: `modprobe xen-eventfd`. Without it, only a backend that maps guest \
                 memory itself (XEN_MMAP) can be used"
            }
            (Call::Memory(_), E::INVAL) => {
                "ask for whole pages of 4096 bytes, and none beyond the guest's last"
            }
            (Call::Memory(_), E::NOTTY) => {
                "the module that is loaded is older than this program; load the one that belongs to it"
            }
            (Call::Memory(_), E::NOSPC) => {
                "the guest has as many memory objects as the module makes; end processes that have some"
            }
            (Call::Memory(_), E::NODEV) => {
                "no such domain, or it is dying; `xl list` lists all domains"
            }
            (_, E::PERM) => "this domain may not control that guest",
            (Call::Take(_) | Call::Assign(_) | Call::Query(_), E::NODEV) => {
                "the guest is gone; drop its registrations"
            }
            (_, E::SRCH) => "no such domain; `xl list` lists all domains",
            (Call::Xenstore(_), E::NOENT) => "no such domain; `xl list` lists all domains",
            (Call::Xenstore(_), E::STALE) => "it was opened before a fork; open it again",
            (Call::Xenstore(_), E::TIMEDOUT | E::CONNRESET) => "is xenstored alive?",
            (Call::Bind(..), E::INVAL | E::NOENT) => {
                "the guest must have allocated the port for this domain, and no other process may have bound it"
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enomem_of_the_module_names_both_possible_causes() {
        let error = |errno| HostError::new(Call::Assign(DomId(3)), errno).to_string();
        let why = error(Errno::NOMEM);
        assert!(why.contains("256 separate ranges") && why.contains("memory.max"), "{why}");
        assert!(!error(Errno::NOSPC).contains("memory.max"));
    }

    #[test]
    fn what_the_module_has_no_room_for_is_named() {
        let dom = DomId(3);
        let error = |call, errno| HostError::new(call, errno).to_string();
        assert!(error(Call::Bind(dom, Port(7)), Errno::NOSPC).contains("max_channels"));
        // More ranges than a server may have are ENOMEM there.
        assert!(!error(Call::Assign(dom), Errno::NOSPC).contains("256"));
        for call in [Call::Interrupt(dom), Call::Bind(dom, Port(7)), Call::Take(dom)] {
            let why = error(call, Errno::NOMEM);
            assert!(why.contains("memory.max") && !why.contains("ranges"), "{why}");
        }
    }
}
