//! What an engine asks of Xen, and how Linux passes it on.
//!
//! [`Host`] is Xen as a backend domain sees it: guests, ioreq servers, event channels, interrupts,
//! and the news that a guest is gone. Two things implement it: [`linux`], over `/dev/xen/privcmd`,
//! `/dev/xen/evtchn` and xenstore, and the model. Everything above works on either.

pub mod aio;
mod error;
pub mod features;
pub mod linux;
pub mod process;
#[cfg(feature = "vmm-sys-util")]
pub mod vmm_sys_util;

pub use error::{Call, HostError, Result};
pub use rustix::io::Errno;

use core::fmt;
use std::os::fd::BorrowedFd;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::{Arch, Line};
use xen_eventfd_core::slot::Slot;
use xen_eventfd_core::{DomId, IoServerId, Port};

/// Our own end of an event channel. The guest's end is a [`Port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPort(pub u32);

/// What is known of a domain by name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Domain {
    /// Its number, which is used again after it is gone.
    pub id: DomId,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its UUID, which is never used again.
    pub uuid: Option<String>,
}

impl Domain {
    /// A domain of which nothing is known but its number, its name and its UUID.
    pub fn new(id: DomId, name: Option<String>, uuid: Option<String>) -> Self {
        Self { id, name, uuid }
    }
}

/// Who is at the other end of a guest's event channel (`EVTCHNOP_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Nobody yet; this domain may bind it.
    Unbound {
        /// Who may.
        by: DomId,
    },
    /// Bound, by this domain or another.
    Bound {
        /// By whom.
        by: DomId,
        /// Its own end of the channel.
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
/// * Whatever a method returned (a page, event channels) stays valid until it is dropped, also
///   when the guest dies first.
pub trait Host: Send + Sync + fmt::Debug {
    /// The architecture of the machine and its guests. That of this program, unless the host is
    /// none of this machine's.
    fn arch(&self) -> Arch {
        Arch::NATIVE
    }

    /// All domains that xenstore has, this one included, in the order of their numbers; also one without
    /// a name, which is being built or torn down, or has none.
    fn domains(&self) -> Result<Vec<Domain>>;

    /// What is known of one domain. Fails with [`Errno::NOENT`] if there is none.
    fn domain(&self, dom: DomId) -> Result<Domain>;

    /// How many vCPUs a guest has (`XEN_DMOP_nr_vcpus`).
    fn vcpus(&self, dom: DomId) -> Result<u32>;

    /// Creates an ioreq server without a buffered page and returns its id, the lowest that is
    /// free. [`Errno::NOSPC`]: all 8 are taken.
    fn create_server(&self, dom: DomId) -> Result<IoServerId>;

    /// Destroys an ioreq server. A vCPU that is parked on it is *not* woken.
    fn destroy_server(&self, dom: DomId, server: IoServerId) -> Result<()>;

    /// Enables or disables a server; the guest is paused meanwhile.
    ///
    /// Enabling a server whose page nobody has acquired crashes the host at the first access:
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

    /// Takes bytes back. Requests that are under way still arrive.
    fn unmap_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()>;

    /// Injects a message-signalled interrupt (x86).
    fn inject_msi(&self, dom: DomId, addr: u64, data: u32) -> Result<()>;

    /// Whether a guest has lines: interrupt controllers that Xen emulates for it. An HVM guest has
    /// them, a PVH guest has not; one of which it is not known counts as having none.
    fn has_lines(&self, dom: DomId) -> Result<bool>;

    /// Raises or lowers a line.
    ///
    /// The guest must have lines ([`Host::has_lines`]). Xen 4.20 does not check, and setting one that
    /// is not there may end the host.
    fn set_line(&self, dom: DomId, line: Line, up: bool) -> Result<()>;

    /// Opens a set of event channels of our own.
    fn event_channels(&self) -> Result<Box<dyn EventChannels>>;

    /// Who is bound to a guest's port.
    fn binding(&self, dom: DomId, port: Port) -> Result<Binding>;

    /// Rings the other end of an event channel that this domain has bound, by whatever process
    /// (`EVTCHNOP_send`). One who has bound it himself calls [`EventChannels::notify`].
    fn notify_port(&self, port: LocalPort) -> Result<()>;

    /// Watches for domains that go (`@releaseDomain`). One that goes meanwhile may go unreported:
    /// look after a guest once the watch is set.
    ///
    /// This call may wait for xenstored, for seconds. [`Errno::OPNOTSUPP`]: there is no watch on this
    /// host; ask [`Host::server_alive`] now and then.
    fn releases(&self) -> Result<Box<dyn Releases>>;

    /// A way to signal eventfds that never waits. The kernel's asynchronous I/O, on any Linux.
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
    /// Readable while events wait.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Binds a guest's unbound port. An event may be waiting at once, as Xen always rings a
    /// channel that is newly bound.
    fn bind(&self, dom: DomId, remote: Port) -> Result<LocalPort>;

    /// Lets go of a port; the guest's end is unbound again.
    fn unbind(&self, port: LocalPort) -> Result<()>;

    /// Rings the other end.
    fn notify(&self, port: LocalPort) -> Result<()>;

    /// Appends the ports that have an event, each once, and masks them. Never waits.
    ///
    /// A port may be among them without an event, after the queue overflowed or when its number was
    /// another's before: look before acting, and end it like any other.
    fn pending(&self, ports: &mut Vec<LocalPort>) -> Result<()>;

    /// Waits until there is an event or somebody calls [`EventChannels::wake`], and then is as
    /// [`EventChannels::pending`].
    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<()>;

    /// Has a [`EventChannels::wait`] return, the one that is under way or else the next, perhaps
    /// without an event, perhaps with one of a port that nobody has bound: end it like any other.
    fn wake(&self) -> Result<()>;

    /// Ends an event: the next one may come.
    fn eoi(&self, port: LocalPort) -> Result<()>;
}

/// The news that domains went.
pub trait Releases: Send + fmt::Debug {
    /// Readable when there is news.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Takes the news. `true`: some domain is gone or going since the last call. Never waits.
    ///
    /// An error is the last word: no more news comes from here, and [`Releases::fd`] stays readable.
    fn drain(&mut self) -> Result<bool>;
}

/// Signals eventfds, whatever state a backend has left them in.
pub trait Signaller: Send + fmt::Debug {
    /// Adds 1 to the counter of an eventfd. Never waits: not for a full counter, not for a reader.
    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> Result<()>;
}

/// Doors for the fuzzers of `fuzz/`; no program has them.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::linux::fuzz_xenstore as xenstore;
}
