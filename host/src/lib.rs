//! The host trait, through which an engine uses Xen, and its implementation on Linux.
//!
//! [`Host`] is Xen as a backend domain sees it: guests, ioreq servers, event channels, interrupts, and
//! a watch on the end of guests. [`linux`] implements it over `/dev/xen/privcmd`, `/dev/xen/evtchn` and
//! xenstore; the model implements it in one process. Everything above works on either.

pub mod aio;
mod error;
pub mod features;
mod guest_ports;
pub mod linux;
pub mod memory;
pub mod process;
#[cfg(feature = "vmm-sys-util")]
pub mod vmm_sys_util;
pub mod xenstore;

pub use error::{Call, HostError, Result};
pub use guest_ports::GuestPorts;
pub use rustix::io::Errno;

use core::fmt;
use std::os::fd::BorrowedFd;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::{Arch, Line};
use xen_eventfd_core::slot::Slot;
use xen_eventfd_core::{DomId, IoServerId, PciFunction, Port};

/// This domain's end of an event channel. The guest's end is a [`Port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPort(pub u32);

/// The identity of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Domain {
    /// Its domain id, which is reused after it is gone.
    pub id: DomId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its UUID, which is not reused.
    pub uuid: Option<String>,
}

impl Domain {
    /// A domain with this id, name and UUID.
    pub fn new(id: DomId, name: Option<String>, uuid: Option<String>) -> Self {
        Self { id, name, uuid }
    }
}

/// The state of a guest's event channel (`EVTCHNOP_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Not bound yet; `by` may bind it.
    Unbound {
        /// The domain that may bind it.
        by: DomId,
    },
    /// Bound, by this domain or another.
    Bound {
        /// The domain that has bound it.
        by: DomId,
        /// That domain's own end of the channel.
        port: LocalPort,
    },
    /// No such channel, or not one between two domains.
    Other,
}

/// Xen, as a backend domain sees it.
///
/// # Contract
/// * Every method may be called from any thread and returns without waiting for a guest.
/// * A method fails with [`Errno::NOENT`] or [`Errno::SRCH`] if the guest or its server is gone
///   ([`HostError::is_gone`]).
/// * A value that a method returned (a page, event channels) stays valid until it is dropped, also
///   when the guest is destroyed first.
pub trait Host: Send + Sync + fmt::Debug {
    /// The architecture of the machine and its guests. The default is that of this program; the model may
    /// have another.
    fn arch(&self) -> Arch {
        Arch::NATIVE
    }

    /// All domains in xenstore, this one included, in the order of their ids; also those without
    /// a name, such as a domain that is being built or torn down.
    fn domains(&self) -> Result<Vec<Domain>>;

    /// One domain. Fails with [`Errno::NOENT`] if there is none.
    fn domain(&self, dom: DomId) -> Result<Domain>;

    /// The number of vCPUs of a guest (`XEN_DMOP_nr_vcpus`).
    fn vcpus(&self, dom: DomId) -> Result<u32>;

    /// Creates an ioreq server without a buffered page and returns its id, the lowest
    /// free one. [`Errno::NOSPC`]: all 8 are in use.
    fn create_server(&self, dom: DomId) -> Result<IoServerId>;

    /// Destroys an ioreq server. A vCPU that is parked on it is *not* woken, and on Arm one that was answered there and
    /// has not taken the answer crashes the host ([`Arch::waits_at_server`]).
    fn destroy_server(&self, dom: DomId, server: IoServerId) -> Result<()>;

    /// Enables or disables a server; the guest is paused meanwhile.
    ///
    /// If no page of the server was acquired, enabling it crashes the host at the first access:
    /// call [`Host::map_page`] first.
    fn set_server_state(&self, dom: DomId, server: IoServerId, enabled: bool) -> Result<()>;

    /// Whether a guest still has a server (`XEN_DMOP_get_ioreq_server_info` with `XEN_DMOP_no_gfns`):
    /// `false` if the server or the guest is gone or dying. Unlike [`Host::set_server_state`], this does
    /// not pause the guest.
    fn server_alive(&self, dom: DomId, server: IoServerId) -> Result<bool>;

    /// Acquires a server's ioreq page and maps it.
    fn map_page(&self, dom: DomId, server: IoServerId) -> Result<Box<dyn IoreqPage>>;

    /// Routes accesses that lie wholly in `bytes` to a server. [`Errno::EXIST`]: some of the bytes
    /// are routed to it already. [`Errno::NOMEM`] or [`Errno::NOSPC`]: it has 256 ranges.
    fn map_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()>;

    /// Removes a range. Requests in flight still arrive.
    fn unmap_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()>;

    /// Routes accesses to the configuration space of a PCI function to a server (x86). Errors as
    /// [`Host::map_range`]. The default refuses: a host without PCI.
    fn map_function(&self, dom: DomId, server: IoServerId, function: PciFunction) -> Result<()> {
        Err(HostError::new(Call::MapFunction(dom, server, function), Errno::OPNOTSUPP))
    }

    /// Takes a PCI function back from a server.
    fn unmap_function(&self, dom: DomId, server: IoServerId, function: PciFunction) -> Result<()> {
        Err(HostError::new(Call::UnmapFunction(dom, server, function), Errno::OPNOTSUPP))
    }

    /// Injects a message-signalled interrupt (x86).
    fn inject_msi(&self, dom: DomId, addr: u64, data: u32) -> Result<()>;

    /// Whether a guest has lines, that is, interrupt controllers that Xen emulates. An HVM guest has
    /// them, a PVH guest has not; a guest of unknown type counts as having none.
    fn has_lines(&self, dom: DomId) -> Result<bool>;

    /// Raises or lowers a line.
    ///
    /// The guest must have lines ([`Host::has_lines`]). Xen 4.20 does not check, and setting a line that
    /// does not exist may crash the host.
    fn set_line(&self, dom: DomId, line: Line, up: bool) -> Result<()>;

    /// Opens a set of event channels.
    fn event_channels(&self) -> Result<Box<dyn EventChannels>>;

    /// The state of a guest's port.
    fn binding(&self, dom: DomId, port: Port) -> Result<Binding>;

    /// Notifies the other end of an event channel that any process of this domain has bound
    /// (`EVTCHNOP_send`). The process that has bound it calls [`EventChannels::notify`].
    fn notify_port(&self, port: LocalPort) -> Result<()>;

    /// Watches for the end of domains (`@releaseDomain`). The end of a domain while the watch is being
    /// set may go unreported: check a guest once the watch is set.
    ///
    /// This call may wait for xenstored, for seconds. [`Errno::OPNOTSUPP`]: this host has no watch;
    /// call [`Host::server_alive`] periodically.
    fn releases(&self) -> Result<Box<dyn Releases>>;

    /// A way to signal eventfds that never waits. The default is the kernel's asynchronous I/O, on any
    /// Linux.
    fn signaller(&self) -> Result<Box<dyn Signaller>> {
        Ok(Box::new(aio::Context::new()?))
    }
}

/// A mapped ioreq page.
pub trait IoreqPage: Send + Sync + fmt::Debug {
    /// The slots, one for each vCPU; [`xen_eventfd_core::ioreq::SLOTS`] of them.
    fn slots(&self) -> &[Slot];
}

/// A set of event channels and the queue of their events (`/dev/xen/evtchn`).
///
/// An event masks its port until [`EventChannels::eoi`]. Dropping the set unbinds all of it. One
/// thread at a time takes events, by [`EventChannels::wait`] or by [`EventChannels::pending`].
pub trait EventChannels: Send + Sync + fmt::Debug {
    /// Readable while events are pending.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Binds a guest's unbound port. An event may be pending at once, as Xen always notifies a
    /// newly bound channel.
    fn bind(&self, dom: DomId, remote: Port) -> Result<LocalPort>;

    /// Unbinds a port; the guest's end is unbound again.
    fn unbind(&self, port: LocalPort) -> Result<()>;

    /// Notifies the other end.
    fn notify(&self, port: LocalPort) -> Result<()>;

    /// Appends the ports that have an event, each once, and masks them. Never waits.
    ///
    /// A port may be among them without an event, after the queue overflowed or when its number belonged to
    /// another port before: check before acting, and end it like any other.
    fn pending(&self, ports: &mut Vec<LocalPort>) -> Result<()>;

    /// Waits until there is an event or another thread calls [`EventChannels::wake`], and then returns as
    /// [`EventChannels::pending`] does.
    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<()>;

    /// Makes a [`EventChannels::wait`] return, the current one or else the next, with or
    /// without an event, possibly with that of a port that the caller has not bound: end it like any other.
    fn wake(&self) -> Result<()>;

    /// Ends an event: the port can deliver the next one.
    fn eoi(&self, port: LocalPort) -> Result<()>;
}

/// A watch on the end of domains.
pub trait Releases: Send + fmt::Debug {
    /// Readable when a report is pending.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Takes all reports. `true`: some domain has ended or is ending since the last call. Never waits.
    ///
    /// An error is final: no more reports arrive, and [`Releases::fd`] stays readable.
    fn drain(&mut self) -> Result<bool>;
}

/// Signals eventfds, whatever state a backend has left them in.
pub trait Signaller: Send + fmt::Debug {
    /// Adds 1 to the counter of an eventfd. Never waits: not for a full counter, not for a reader.
    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> Result<()>;
}

/// Entry points for the fuzzers of `fuzz/`; no program uses them.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::linux::fuzz_xenstore as xenstore;
}
