//! Sets the ways up for one guest.

use crate::device::Device;
use crate::floor::Floor;
use crate::switches::Role;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use xen_eventfd::{DomId, Guardian, IoEventAddress, NoDatamatch, Xen};
use xen_eventfd_bench::{Filter, Kicks, Space, Way};
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::roles::vmm::Place;
use xen_eventfd_scenarios::test_context::Vmm;

/// The device's registers.
const BASE: u64 = 0xFE00_0000;
const SIZE: u64 = 0x1000;
/// The same in I/O space.
const PORTS: u64 = 0xC000;
const NOTIFY: u64 = 0x50;

/// The address of the doorbell.
pub(crate) fn doorbell(space: Space) -> u64 {
    match space {
        Space::Mmio => BASE + NOTIFY,
        Space::Pio => PORTS + NOTIFY,
    }
}

/// The value that the guest writes: that of the last registration.
pub(crate) fn value(kicks: &Kicks) -> u32 {
    kicks.registrations.saturating_sub(1)
}

/// A way that is set up, until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    program: Option<Program>,
    _module: Option<Device>,
    _floor: Option<Floor>,
}

impl Serving {
    /// Its process with its role, if it has one.
    pub(crate) fn process(&self) -> Option<(u32, Role)> {
        self.program.as_ref().map(Program::process)
    }
}

/// A process that prints `ready`, and ends cleanly on SIGTERM.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    role: Role,
}

impl Program {
    /// Standard input is the eventfd.
    pub(crate) fn start(command: &mut Command, role: Role, eventfd: &OwnedFd) -> Result<Self> {
        let name = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::from(eventfd.try_clone()?))
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot be started", name.display()))?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        let program = Self { child, role };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "{} prints {line:?}", name.display());
        Ok(program)
    }

    /// Its process with its role.
    pub(crate) fn process(&self) -> (u32, Role) {
        (self.child.id(), self.role)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A device model that sleeps beside the way: its registers contain the doorbell, and no kick must wake
/// it.
pub(crate) fn vmm(test: &TestContext<'_>, dom: DomId, way: Way) -> Result<Option<Vmm>> {
    match way {
        Way::Vmm | Way::Upstream => Ok(None),
        _ => {
            let claimed = [(Place::Mmio, BASE, SIZE), (Place::Pio, PORTS, 0x100)];
            test.vmm(
                dom,
                &claimed[..if test.arch().has_space(xen_eventfd::Space::Pio) { 2 } else { 1 }],
            )
            .map(Some)
        }
    }
}

/// Sets a way up, so that the last registration signals `kick`.
pub(crate) fn serve(kicks: &Kicks, dom: DomId, run_dir: &Path, kick: &OwnedFd) -> Result<Serving> {
    let at = doorbell(kicks.space);
    let program = |command: &mut Command, role| -> Result<_> {
        let program = Some(Program::start(command, role, kick)?);
        Ok(Serving { program, ..Serving::default() })
    };
    match kicks.way {
        _ if kicks.filter == Filter::None => Ok(Serving::default()),
        Way::Vmm => {
            let mut command = Command::new("bench-vmm");
            program(command.arg("alone").arg(dom.0.to_string()), Role::Vmm)
        }
        Way::Upstream => {
            let mut command = Command::new("bench-vmm");
            command.args(["upstream", &dom.0.to_string(), &kicks.registrations.to_string()]);
            program(&mut command, Role::Vmm)
        }
        Way::Engine => {
            let mut command = Command::new("/proc/self/exe");
            command.arg("engine").arg(run_dir).arg(serde_json::to_string(kicks)?);
            program(command.arg(dom.0.to_string()), Role::Engine)
        }
        Way::Module => {
            let device = Device::of(dom)?;
            let others = eventfd(0, EventfdFlags::CLOEXEC)?;
            for queue in 0..value(kicks) {
                device.assign((kicks.space, at), kicks.filter, queue, &others)?;
            }
            device.assign((kicks.space, at), kicks.filter, value(kicks), kick)?;
            Ok(Serving { _module: Some(device), ..Serving::default() })
        }
        Way::Floor | Way::FloorSilent => {
            ensure!(kicks.space == Space::Mmio, "the floor supports doorbells in memory only");
            let mut floor = Floor::open()?;
            floor.serve(dom, at, kicks.way.signals().then_some(kick))?;
            Ok(Serving { _floor: Some(floor), ..Serving::default() })
        }
    }
}

/// The code of the userspace engine in a process of its own; standard input is the eventfd.
pub(crate) fn run_engine(run_dir: &Path, kicks: &Kicks, dom: DomId) -> Result<()> {
    // The library keeps a descriptor for each registration.
    let most = u64::from(kicks.registrations) + 64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })?;
    let kick = std::io::stdin().as_fd().try_clone_to_owned()?;
    let host = Arc::new(LinuxHost::open()?);
    let xen = Xen::builder().run_dir(run_dir).guardian(Guardian::None).open_on(host)?;
    let guest = xen.guest(dom)?;
    let at = doorbell(kicks.space);
    let addr = match kicks.space {
        Space::Mmio => IoEventAddress::Mmio(at),
        Space::Pio => IoEventAddress::Pio(at),
    };
    let mut registered = Vec::new();
    match kicks.filter {
        Filter::Datamatch => {
            let others = eventfd(0, EventfdFlags::CLOEXEC)?;
            for queue in 0..value(kicks) {
                registered.push(guest.register_ioevent(&others, &addr, queue)?);
            }
            registered.push(guest.register_ioevent(&kick, &addr, value(kicks))?);
        }
        Filter::Wildcard => {
            registered.push(guest.register_ioevent(&kick, &addr, NoDatamatch(4))?)
        }
        Filter::None => bail!("there is no filter to register"),
    }
    println!("ready");
    loop {
        std::thread::park();
    }
}
