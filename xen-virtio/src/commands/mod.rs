//! The commands that serve real guests, a module for each.

pub(crate) mod check;
pub(crate) mod daemon;
pub(crate) mod list;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod start;
pub(crate) mod top;

use crate::backends::default_mac;
use crate::confinement::Confinement;
use crate::devices::Report;
use crate::error::Error;
use crate::host::Machine;
use crate::layout::Layout;
use crate::memory::GuestRam;
use crate::record::{DeviceRecord, Kept, Whose};
use crate::resume::{Connector, KeptSession, OwnedRegions, Sessions, session_name};
use crate::server::{Connected, Keep, Released, Server};
use crate::spec::DeviceSpec;
use crate::status::{Answering, DeviceStatus, Status};
use crate::types;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xen_eventfd::{DomId, Domain, EngineKind, Guarded, Guardian, kept_descriptors, run_dir};
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::signals::{Caught, Signals};
use xen_eventfd_ioreq::{Role, RunDir};
use xen_eventfd_vhost::Backend;

/// The devices of a guest, on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Devices {
    #[arg(long = "device", value_name = "DEVICE", required = true, help = types::help())]
    devices: Vec<DeviceSpec>,
    /// If this is killed, keep the guest's vCPUs waiting so long at their devices' registers, until `serve` with the same
    /// devices goes on with them. Once the time is over they go on without the devices, and have them again later
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    takeover_time: u16,
}

impl Devices {
    /// Looks at what was given, before this process opens anything: what a number of a descriptor stands for is the
    /// caller's until then.
    ///
    /// # Errors
    /// More devices than fit on a bus; a descriptor that is given twice, or is none of a tap device.
    fn check(&self) -> Result<(), Failure> {
        let refused = |sentence| Err(Failure::new(Exit::Usage, sentence));
        if self.devices.len() > Layout::MOST {
            return refused(too_many(self.devices.len(), Layout::MOST));
        }
        let mut taken = BTreeSet::new();
        let mut descriptors = self.devices.iter().flat_map(DeviceSpec::descriptors);
        if let Some(twice) = descriptors.find(|number| !taken.insert(**number)) {
            return refused(format!(
                "descriptor {twice} stands twice; each pair of a card's queues needs a queue of a tap device \
                 of its own"
            ));
        }
        self.devices.iter().try_for_each(|spec| of_device(spec, spec.check()))
    }

    /// Fails if the guest has fewer places than there are devices. An Arm guest has as many: its driver would find a
    /// device that nothing answers for.
    fn fit(&self, layout: &Layout) -> Result<(), Failure> {
        let (devices, places) = (self.devices.len(), layout.places().len());
        let sentence = match layout {
            Layout::DeviceTree(_) if devices != places => format!(
                "the guest has {places} virtio= lines, and {devices} devices are given; on Arm each device has a line \
                 with transport=mmio, in the same order: virtio = [\"type=virtio,device02,transport=mmio\"] for blk"
            ),
            _ if devices > places => too_many(devices, places),
            _ => return Ok(()),
        };
        Err(Failure::new(Exit::Usage, sentence))
    }

    /// Opens what only root can: backends of this kernel. Those at a socket are not connected to yet.
    ///
    /// # Errors
    /// The first that cannot be opened.
    fn open_kernel_backends(&self, uuid: Option<&str>) -> Result<Vec<MaybeConnected>, Failure> {
        let open = |spec: DeviceSpec| match spec.socket() {
            Some(_) => Ok((spec, None)),
            None => connected(&spec, spec.connect()).map(|(spec, backend)| (spec, Some(backend))),
        };
        self.of_guest(uuid).map(open).collect()
    }

    /// Connects to all backends.
    ///
    /// # Errors
    /// The first backend that cannot be connected to.
    fn connect(&self, uuid: Option<&str>) -> Result<Vec<Connected>, Failure> {
        self.of_guest(uuid).map(|spec| connected(&spec, spec.connect())).collect()
    }

    /// The devices of a guest with this UUID.
    fn of_guest(&self, uuid: Option<&str>) -> impl Iterator<Item = DeviceSpec> {
        let numbered = (0..).zip(&self.devices);
        numbered.map(move |(number, spec)| spec.with_default_mac(default_mac(uuid, number)))
    }

    /// As they were given.
    fn lines(&self) -> Vec<String> {
        self.devices.iter().map(ToString::to_string).collect()
    }

    /// The sockets of their backends.
    fn sockets(&self) -> Vec<PathBuf> {
        self.devices.iter().filter_map(|spec| spec.socket().map(Path::to_owned)).collect()
    }

    /// How each of a new guest's backends is connected to again.
    fn connectors(&self, uuid: Option<&str>) -> Vec<Connector> {
        let connector = |spec: DeviceSpec| Connector::new(move || spec.connect());
        self.of_guest(uuid).map(connector).collect()
    }

    /// How each of a guest's backends is connected to after the process that served it. Opens what only root can, once that
    /// process has ended.
    fn connectors_after(&self, domain: &Domain) -> Result<Vec<Connector>, Failure> {
        let specs = self.of_guest(domain.uuid.as_deref());
        specs.map(|spec| of_device(&spec, spec.connector())).collect()
    }

    /// The same, with connections which that process has kept.
    fn going_on(
        &self,
        domain: &Domain,
        mut connectors: Vec<Connector>,
        mut connections: Connections,
        records: &[DeviceRecord],
    ) -> Vec<Connector> {
        let devices = self.of_guest(domain.uuid.as_deref()).zip(records).zip(&mut connectors);
        for (number, ((spec, record), connector)) in devices.enumerate() {
            if let Some(connection) = connections.remove(&session_name(domain.id, number)) {
                let state = record.registers.clone();
                let go_on = move || spec.go_on(connection, &state);
                *connector = connector.clone().going_on(go_on);
            }
        }
        connectors
    }

    /// The connection of each device, if it is to be kept.
    fn sessions(&self, dom: DomId, guarded: Option<&Arc<Guarded>>) -> Vec<Option<KeptSession>> {
        let guarded = guarded.filter(|guarded| guarded.descriptors_at().is_some());
        let session = |(number, spec): (usize, &DeviceSpec)| {
            let sessions: Arc<dyn Sessions> = Arc::<Guarded>::clone(guarded?);
            let name = session_name(dom, number);
            spec.keeps_session().then_some(KeptSession { sessions, name })
        };
        self.devices.iter().enumerate().map(session).collect()
    }

    /// What it takes to go on with a guest that has these devices.
    fn keep(
        &self,
        machine: &Machine,
        domain: &Domain,
        serving: &ToServe<'_, '_>,
        connectors: Vec<Connector>,
        sessions: Vec<Option<KeptSession>>,
    ) -> Result<Keep, Failure> {
        let ToServe { ram, run_dir, guarded } = serving;
        let whose = Whose {
            domid: domain.id.0,
            uuid: domain.uuid.clone(),
            devices: self.lines(),
            memory: ram.ranges().to_vec(),
            guardian: guarded.and_then(|it| it.descriptors_at()).map(Path::to_owned),
        };
        let run_dir = RunDir::open(run_dir, Role::Registers).map_err(Error::from)?;
        Ok(Keep { whose, connectors, rings: machine.rings(domain.id), run_dir, sessions })
    }

    /// The same devices with backends that have served another guest.
    fn again(
        &self,
        backends: Vec<Released>,
        uuid: Option<&str>,
    ) -> Result<Vec<Connected>, Failure> {
        let backends = self.of_guest(uuid).zip(backends);
        backends.map(|(spec, backend)| connected(&spec, backend)).collect()
    }
}

/// A device whose backend may have to be connected to.
type MaybeConnected = (DeviceSpec, Option<Box<dyn Backend>>);

fn too_many(devices: usize, slots: usize) -> String {
    format!("{devices} devices; this guest's bus holds {slots}")
}

/// A device with its backend, or a failure that names the device.
fn connected(
    spec: &DeviceSpec,
    backend: Result<Box<dyn Backend>, Error>,
) -> Result<Connected, Failure> {
    Ok((spec.clone(), of_device(spec, backend)?))
}

/// The same with the device in the failure's sentence.
fn of_device<T>(spec: &DeviceSpec, done: Result<T, Error>) -> Result<T, Failure> {
    done.map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(failure.exit, format!("{spec}: {}", failure.sentence))
    })
}

/// A guest in service.
#[derive(Debug)]
struct Serving {
    guest: Arc<ServedGuest>,
    /// Dropped before the guest is let go of.
    answering: Answering,
    /// If this process is killed, it recovers the server.
    guarded: Option<Arc<Guarded>>,
}

/// What a guest is served by.
struct ToServe<'a, 'm> {
    ram: &'a mut GuestRam<'m>,
    run_dir: &'a Path,
    guarded: Option<&'a Arc<Guarded>>,
}

/// Connections that a process has kept, by their names.
type Connections = BTreeMap<String, OwnedFd>;

/// What is shown of a guest in service.
#[derive(Debug)]
struct ServedGuest {
    server: Server,
    name: Option<String>,
    engine: EngineKind,
    /// The devices, as they were given.
    devices: Vec<String>,
    confinement: Option<Confinement>,
}

/// What ended the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Signal(Caught),
    /// The guest is gone.
    Gone,
    /// Something ended or stopped on this host, or the time is over.
    Released,
}

impl Serving {
    /// Serves a guest that was created and has not run.
    fn begin(
        session: &Session,
        machine: &Machine,
        domain: &Domain,
        layout: &Layout,
        given: &Devices,
        backends: Vec<MaybeConnected>,
    ) -> Result<Self, Failure> {
        let xen = machine.xen();
        // First, as it is refused for a PV guest, whose frames are none of its own.
        xen.host().vcpus(domain.id).map_err(Error::from)?;
        let ram = GuestRam::find(machine.foreign(), machine, domain.id, layout)?;
        let serve = |to: ToServe<'_, '_>| {
            let connectors = given.connectors(domain.uuid.as_deref());
            let sessions = given.sessions(domain.id, to.guarded);
            let keep = given.keep(machine, domain, &to, connectors, sessions)?;
            let (memory, sockets) = (OwnedRegions::open(to.ram)?, given.sockets());
            let server = Server::take(xen, to.run_dir, domain.id, layout)?;
            // Before a backend can send anything. The guest has not run.
            let confinement = machine.confine(domain.id, to.run_dir, &sockets)?;
            let backends = backends.into_iter().map(|(spec, backend)| match backend {
                Some(backend) => Ok((spec, backend)),
                None => connected(&spec, spec.connect()),
            });
            let backends = backends.collect::<Result<_, _>>()?;
            let server = server.with_devices(layout, backends, memory, Some(&keep))?;
            if *layout == Layout::OwnBus {
                machine.add_pci_root(domain.id)?;
            }
            Ok((server, confinement))
        };
        Self::with(session, machine, domain, given, ram, serve)
    }

    /// Goes on with a guest whose process was killed.
    fn take_over(
        session: &Session,
        machine: &Machine,
        domain: &Domain,
        given: &Devices,
        kept: Kept,
    ) -> Result<Self, Failure> {
        let (xen, specs) = (machine.xen(), &given.devices);
        let ram = GuestRam::known(machine, domain.id, kept.whose.memory.clone());
        let connectors = given.connectors_after(domain)?;
        // Before the guest is taken: then the guardian of the process before ends.
        let connections = match &kept.whose.guardian {
            Some(guardian) => kept_descriptors(guardian).unwrap_or_else(|error| {
                tracing::warn!(%error, "connections that were kept are lost; their drivers have to reset the devices");
                Connections::new()
            }),
            None => Connections::new(),
        };
        let serve = |to: ToServe<'_, '_>| {
            let sessions = given.sessions(domain.id, to.guarded);
            // For the process that follows if this one is killed meanwhile.
            for session in sessions.iter().flatten() {
                if let Some(connection) = connections.get(&session.name) {
                    session.keep(connection.as_fd());
                }
            }
            let connectors = given.going_on(domain, connectors, connections, &kept.devices);
            let keep = given.keep(machine, domain, &to, connectors, sessions)?;
            let (memory, sockets) = (OwnedRegions::open(to.ram)?, given.sockets());
            // The guest runs and waits for its backends: they come first.
            let server = Server::take_over(xen, to.run_dir, domain.id, specs, memory, &keep, kept)?;
            let confinement = machine.confine(domain.id, to.run_dir, &sockets)?;
            Ok((server, confinement))
        };
        Self::with(session, machine, domain, given, ram, serve)
    }

    /// Serves a guest by what `serve` makes of its memory and the run directory.
    fn with(
        session: &Session,
        machine: &Machine,
        domain: &Domain,
        given: &Devices,
        mut ram: GuestRam<'_>,
        serve: impl FnOnce(ToServe<'_, '_>) -> Result<(Server, Option<Confinement>), Failure>,
    ) -> Result<Self, Failure> {
        let xen = machine.xen();
        tracing::info!(bytes = ram.size(), "the guest's memory was found");
        let run_dir = run_dir_of(session);
        // What only root can open is open. Threads begin from here on.
        machine.give_up_capabilities(&given.sockets())?;
        let takeover = Duration::from_secs(given.takeover_time.into());
        let guarded = Guardian::Auto.keep_for(&run_dir, takeover)?.map(Arc::new);
        let to_serve = ToServe { ram: &mut ram, run_dir: &run_dir, guarded: guarded.as_ref() };
        // Nothing asks for the state before the process is confined.
        let (server, confinement) = serve(to_serve)?;
        let (name, engine, devices) = (domain.name.clone(), xen.engine(), given.lines());
        let guest = Arc::new(ServedGuest { server, name, engine, devices, confinement });
        let shown = Arc::downgrade(&guest);
        let status = move || shown.upgrade().map(|guest| guest.status());
        let answering = Answering::start(&run_dir, domain.id, status)?;
        Ok(Self { guest, answering, guarded })
    }

    /// Waits until the guest is gone, a signal comes, or `other` is readable or the time is over.
    fn wait(
        &self,
        signals: &mut Signals,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> Result<End, Failure> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            let gone = self.guest.server.gone();
            let signal_fd = signals.as_fd();
            let mut polled = vec![
                PollFd::from_borrowed_fd(signal_fd, PollFlags::IN),
                PollFd::from_borrowed_fd(gone, PollFlags::IN),
            ];
            polled.extend(other.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            match poll(&mut polled, timeout.as_ref()) {
                Ok(0) => return Ok(End::Released),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Failure::system("wait for the guest", errno)),
            }
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            if let Some(caught) = signals.take_end() {
                return Ok(End::Signal(caught));
            }
            if ready[1] {
                return Ok(End::Gone);
            }
            if ready.get(2) == Some(&true) {
                return Ok(End::Released);
            }
        }
    }

    /// Lets go of the guest.
    fn stop(self) -> Result<Vec<Released>, Failure> {
        drop(self.answering);
        // No other thread has it any more.
        let guest = Arc::try_unwrap(self.guest);
        let guest = guest.map_err(|_| Failure::new(Exit::Failed, "the guest is still in use"))?;
        let backends = guest.server.stop()?;
        drop(self.guarded);
        Ok(backends)
    }
}

impl ServedGuest {
    fn status(&self) -> Status {
        let Self { server, name, engine, devices, confinement } = self;
        let device = |(report, device): (Report, &String)| DeviceStatus {
            function: report.at.to_string(),
            device: device.clone(),
            running: report.running,
            features: format!("{:#x}", report.features),
            kicks: report.kicks,
            interrupts: report.interrupts,
            failure: report.failure,
        };
        let reports = server.devices().report(&server.guest().registered());
        Status {
            domid: server.guest().dom().0,
            name: name.clone(),
            pid: std::process::id(),
            engine: engine.to_string(),
            register_accesses: server.devices().requests(),
            kicks: server.guest().counters().delivered,
            confinement: *confinement,
            devices: reports.into_iter().zip(devices).map(device).collect(),
        }
    }
}

/// A guest, by its name if it has one.
fn named(domain: &Domain) -> String {
    domain.name.clone().unwrap_or_else(|| domain.id.to_string())
}

fn run_dir_of(session: &Session) -> PathBuf {
    session.run_dir.clone().unwrap_or_else(|| Path::new(run_dir::DEFAULT).to_owned())
}

#[cfg(test)]
mod tests;
