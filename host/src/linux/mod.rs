//! Xen through Linux: `/dev/xen/privcmd`, `/dev/xen/evtchn` and xenstore.
//!
//! Only stable interfaces are used: device model operations, acquiring a resource, event channels and
//! xenstore. `sys` holds their layouts, `door` calls the drivers, `page` maps shared memory; everything
//! else is safe code. [`eventfd`] is the kernel module of this project, which is optional. [`Devices`] are
//! the descriptors that are passed to a process that may not open devices.

mod devices;
mod door;
pub mod eventfd;
mod evtchn;
mod foreign;
mod page;
mod privcmd;
mod releases;
mod sys;
mod xenstore;

#[cfg(fuzzing)]
pub use xenstore::fuzz as fuzz_xenstore;

pub use devices::{Devices, KnownGuest, confined_privcmd};
pub use xenstore::XenstoreClient;

use crate::guest_ports::GuestPorts;
use crate::memory::{ForeignMemory, GuestMemory};
use crate::{
    Binding, Call, Domain, EventChannels, Host, HostError, IoreqPage, LocalPort, Releases, Result,
};
use evtchn::Evtchn;
use privcmd::Privcmd;
use releases::ReleaseWatch;
use rustix::io::Errno;

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::{IrqOp, Line};
use xen_eventfd_core::wire::dm_op::DmOp;
use xen_eventfd_core::{DomId, IoServerId, PciFunction, Port};
use xenstore::Store;

/// `SHUTDOWN_reboot` of Xen's `public/sched.h`.
const SHUTDOWN_REBOOT: u32 = 1;

/// This machine's Xen.
///
/// # What Xen answers
///
/// Observed with Xen 4.20 and Linux 7.3, the same from a PV and a PVH domain 0; `examples/probe.rs`
/// repeats it. *Gone*: no such domain. *Dying*: destroyed, but its memory is still mapped, for example
/// by an [`IoreqPage`] of this process. To all but event channels and xenstore, Xen answers INVAL for a
/// PV guest and PERM for this domain.
///
/// | call | gone | dying | no such server | otherwise |
/// |---|---|---|---|---|
/// | [`vcpus`](Host::vcpus) | SRCH | ok | | |
/// | [`create_server`](Host::create_server) | SRCH | INVAL, passed on as SRCH | | NOSPC: 8 are there |
/// | [`map_page`](Host::map_page) | SRCH | NOENT | NOENT | may be mapped twice; outlives server and guest |
/// | [`map_range`](Host::map_range) | SRCH | NOENT | NOENT | EXIST: overlaps. NOMEM: the 257th of its kind |
/// | [`unmap_range`](Host::unmap_range) | SRCH | NOENT | NOENT | NOENT: not mapped as a whole. NOMEM: a split would be the 257th |
/// | [`map_function`](Host::map_function), [`unmap_function`](Host::unmap_function) | SRCH | NOENT | NOENT | as ranges, whose kind they are |
/// | [`set_server_state`](Host::set_server_state) | SRCH | NOENT | NOENT | enabling twice is ok |
/// | [`server_alive`](Host::server_alive) | false | false | false | enabled or not: true |
/// | [`destroy_server`](Host::destroy_server) | SRCH | NOENT | NOENT | an enabled one may go; its ports are then closed |
/// | [`inject_msi`](Host::inject_msi), [`set_line`](Host::set_line) | SRCH | ok | | OPNOTSUPP: a line of another architecture |
/// | [`has_lines`](Host::has_lines) | false | as before | | what the toolstack has written for an HVM guest |
/// | [`bind`](EventChannels::bind) | SRCH | INVAL | | INVAL: not unbound, not for us, or no port |
/// | [`binding`](Host::binding) | SRCH | [`Binding::Other`] | | an invalid port is [`Binding::Other`] too |
/// | [`notify`](EventChannels::notify), [`unbind`](EventChannels::unbind) | ok | ok | | NOTCONN: the port is not bound here |
/// | [`eoi`](EventChannels::eoi) | ok | ok | | never refused, whatever the port |
/// | [`domain`](Host::domain) | NOENT | NOENT once the toolstack has cleaned up | | |
#[derive(Debug)]
pub struct LinuxHost {
    privcmd: Privcmd,
    knowledge: Knowledge,
}

/// How this process finds guests and opens event channels.
#[derive(Debug)]
enum Knowledge {
    /// It reads xenstore and opens devices.
    Own(Store),
    /// Guests and event channel devices were passed to it.
    Handed { guests: Vec<KnownGuest>, evtchns: Mutex<Vec<OwnedFd>> },
}

impl LinuxHost {
    /// Opens the devices and connects to xenstore.
    ///
    /// # Errors
    /// [`Call::Open`] names what is missing: [`Errno::NOENT`] without Xen, without the drivers
    /// (`xen-privcmd`, `xen-evtchn`) or without xenstored; [`Errno::ACCESS`] for all but root.
    pub fn open() -> Result<Self> {
        let privcmd = Privcmd::open()?;
        // Opened for each set of channels; opened here so that its absence is an error at once.
        drop(Evtchn::open()?);
        Ok(Self { privcmd, knowledge: Knowledge::Own(Store::open()?) })
    }

    /// Devices that were handed over, for these guests. Nothing is opened, and xenstore is not read. A
    /// confined device cannot query the binding of a port ([`Host::binding`]), there is no watch on the
    /// end of domains ([`Host::releases`]), and there are as many sets of event channels as devices for them.
    pub fn handed(
        privcmd: OwnedFd,
        evtchns: impl IntoIterator<Item = OwnedFd>,
        guests: impl IntoIterator<Item = KnownGuest>,
    ) -> Self {
        let (guests, evtchns) = (guests.into_iter().collect(), evtchns.into_iter().collect());
        let knowledge = Knowledge::Handed { guests, evtchns: Mutex::new(evtchns) };
        Self { privcmd: Privcmd::over(privcmd), knowledge }
    }
}

/// Connects to xenstore and reads this domain's id, to check that the daemon answers.
///
/// # Errors
/// [`Call::Open`] if there is no daemon; [`Errno::TIMEDOUT`] or [`Errno::CONNRESET`] if it does not
/// answer within 5 s.
pub fn check_xenstore() -> Result<()> {
    Store::open()?.answers()
}

impl LinuxHost {
    /// Checks whether this Xen has ioreq servers: on Arm it can be built without.
    ///
    /// # Errors
    /// [`Call::IoreqServers`] with [`Errno::NOSYS`] if it has none.
    pub fn check_ioreq_servers(&self) -> Result<()> {
        // Whether there is a guest with this number, and may be served, does not matter.
        let dom = DomId(DomId::FIRST_RESERVED - 1);
        match self.privcmd.dm_op(dom, DmOp::NrVcpus) {
            Err(Errno::NOSYS) => Err(HostError::new(Call::IoreqServers, Errno::NOSYS)),
            _ => Ok(()),
        }
    }
}

impl Host for LinuxHost {
    fn domains(&self) -> Result<Vec<Domain>> {
        match &self.knowledge {
            Knowledge::Own(store) => store.domains(),
            Knowledge::Handed { guests, .. } => {
                Ok(guests.iter().map(|guest| guest.domain.clone()).collect())
            }
        }
    }

    fn domain(&self, dom: DomId) -> Result<Domain> {
        match &self.knowledge {
            Knowledge::Own(store) => store.domain(dom),
            Knowledge::Handed { guests, .. } => Ok(known(guests, dom)?.domain.clone()),
        }
    }

    fn vcpus(&self, dom: DomId) -> Result<u32> {
        let answer = self.privcmd.dm_op(dom, DmOp::NrVcpus);
        answer.map(|answer| answer.vcpus()).map_err(|errno| HostError::new(Call::Vcpus(dom), errno))
    }

    fn create_server(&self, dom: DomId) -> Result<IoServerId> {
        match self.privcmd.dm_op(dom, DmOp::CreateServer) {
            Ok(answer) => Ok(answer.created_server()),
            // A PV guest and a dying one get the same error, but only for the latter does
            // Xen return a vCPU count.
            Err(Errno::INVAL) if self.vcpus(dom).is_ok() => {
                Err(HostError::new(Call::CreateServer(dom), Errno::SRCH))
            }
            Err(errno) => Err(HostError::new(Call::CreateServer(dom), errno)),
        }
    }

    fn destroy_server(&self, dom: DomId, server: IoServerId) -> Result<()> {
        self.operate(dom, DmOp::DestroyServer(server), || Call::DestroyServer(dom, server))
    }

    fn set_server_state(&self, dom: DomId, server: IoServerId, enabled: bool) -> Result<()> {
        let operation = DmOp::SetServerState { server, enabled };
        self.operate(dom, operation, || Call::SetServerState(dom, server))
    }

    fn server_alive(&self, dom: DomId, server: IoServerId) -> Result<bool> {
        match self.privcmd.dm_op(dom, DmOp::GetServerInfo(server)) {
            Ok(_) => Ok(true),
            Err(Errno::SRCH | Errno::NOENT) => Ok(false),
            Err(errno) => Err(HostError::new(Call::ServerAlive(dom, server), errno)),
        }
    }

    fn map_page(&self, dom: DomId, server: IoServerId) -> Result<Box<dyn IoreqPage>> {
        match self.privcmd.ioreq_page(dom, server) {
            Ok(page) => Ok(Box::new(page)),
            Err(errno) => Err(HostError::new(Call::MapPage(dom, server), errno)),
        }
    }

    fn map_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
        self.operate(dom, DmOp::MapRange(server, bytes), || Call::MapRange(dom, server, bytes))
    }

    fn unmap_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
        self.operate(dom, DmOp::UnmapRange(server, bytes), || Call::UnmapRange(dom, server, bytes))
    }

    fn map_function(&self, dom: DomId, server: IoServerId, function: PciFunction) -> Result<()> {
        let call = || Call::MapFunction(dom, server, function);
        self.operate(dom, DmOp::MapFunction(server, function), call)
    }

    fn unmap_function(&self, dom: DomId, server: IoServerId, function: PciFunction) -> Result<()> {
        let call = || Call::UnmapFunction(dom, server, function);
        self.operate(dom, DmOp::UnmapFunction(server, function), call)
    }

    fn inject_msi(&self, dom: DomId, addr: u64, data: u32) -> Result<()> {
        self.operate(dom, DmOp::Irq(IrqOp::Msi { addr, data }), || Call::Interrupt(dom))
    }

    fn has_lines(&self, dom: DomId) -> Result<bool> {
        match &self.knowledge {
            Knowledge::Own(store) => store.has_lines(dom),
            Knowledge::Handed { guests, .. } => Ok(known(guests, dom)?.has_lines),
        }
    }

    fn set_line(&self, dom: DomId, line: Line, up: bool) -> Result<()> {
        self.operate(dom, DmOp::Irq(IrqOp::Set { line, up }), || Call::Interrupt(dom))
    }

    fn event_channels(&self) -> Result<Box<dyn EventChannels>> {
        let Knowledge::Handed { evtchns, .. } = &self.knowledge else {
            return Ok(Box::new(Evtchn::open()?));
        };
        let handed = evtchns.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let used = HostError::new(Call::Open(evtchn::DEVICE), Errno::BUSY);
        Ok(Box::new(Evtchn::handed(handed.ok_or(used)?)?))
    }

    fn binding(&self, dom: DomId, port: Port) -> Result<Binding> {
        self.privcmd
            .binding(dom, port)
            .map_err(|errno| HostError::new(Call::Binding(dom, port), errno))
    }

    fn notify_port(&self, port: LocalPort) -> Result<()> {
        self.privcmd.notify_port(port).map_err(|errno| HostError::new(Call::Event, errno))
    }

    fn releases(&self) -> Result<Box<dyn Releases>> {
        match &self.knowledge {
            Knowledge::Own(_) => Ok(Box::new(ReleaseWatch::open()?)),
            Knowledge::Handed { .. } => {
                Err(HostError::new(Call::Xenstore("@releaseDomain".to_owned()), Errno::OPNOTSUPP))
            }
        }
    }
}

impl ForeignMemory for LinuxHost {
    fn map(&self, dom: DomId, frames: &[u64]) -> Result<Box<dyn GuestMemory>> {
        Ok(Box::new(self.privcmd.map_memory(dom, frames)?))
    }
}

impl GuestPorts for LinuxHost {
    fn allocate_port(&self, dom: DomId) -> Result<Port> {
        let allocated = self.privcmd.allocate_port(dom);
        allocated.map_err(|errno| HostError::new(Call::AllocatePort(dom), errno))
    }
}

fn known(guests: &[KnownGuest], dom: DomId) -> Result<&KnownGuest> {
    let known = guests.iter().find(|guest| guest.domain.id == dom);
    known.ok_or_else(|| HostError::new(Call::UnknownGuest(dom), Errno::PERM))
}

impl LinuxHost {
    /// Shuts a guest down as if it had asked for a reboot: the toolstack creates it anew, if its configuration says
    /// so. It may be paused.
    ///
    /// # Errors
    /// [`Call::Reboot`]: there is no such guest.
    pub fn reboot(&self, dom: DomId) -> Result<()> {
        let asked = self.privcmd.shut_down(dom, SHUTDOWN_REBOOT);
        asked.map_err(|errno| HostError::new(Call::Reboot(dom), errno))
    }

    /// An operation without a result.
    #[inline]
    fn operate(&self, dom: DomId, operation: DmOp, call: impl FnOnce() -> Call) -> Result<()> {
        match self.privcmd.dm_op(dom, operation) {
            Ok(_) => Ok(()),
            Err(errno) => Err(HostError::new(call(), errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_xen_the_error_names_the_device_and_the_next_step() {
        match LinuxHost::open() {
            Ok(host) => assert!(host.domain(DomId(0)).is_ok()),
            Err(error) => {
                assert!(matches!(error.call, Call::Open(_)), "{error}");
                assert!(error.advice().is_some() || error.errno == Errno::NODEV, "{error}");
            }
        }
    }

    #[test]
    fn with_devices_that_were_handed_over_only_the_passed_guests_are_known() {
        let null = || {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).unwrap()
        };
        let domain = Domain { id: DomId(5), name: Some("guest".into()), uuid: None };
        let guest = KnownGuest::new(domain.clone(), true);
        let host = LinuxHost::handed(null(), [null()], [guest.clone()]);
        assert_eq!(host.domains(), Ok(vec![domain]));
        assert_eq!(KnownGuest::ask(&host, DomId(5)), Ok(guest));
        let other = host.domain(DomId(6)).unwrap_err();
        assert_eq!(other, HostError::new(Call::UnknownGuest(DomId(6)), Errno::PERM));
        assert!(!other.is_gone() && other.to_string().contains("handed"), "{other}");
        assert_eq!(host.releases().unwrap_err().errno, Errno::OPNOTSUPP);
        let _first = host.event_channels().unwrap();
        let second = host.event_channels().unwrap_err();
        assert_eq!(second.errno, Errno::BUSY, "{second}");
        assert!(second.to_string().contains("one engine"), "{second}");
    }
}
