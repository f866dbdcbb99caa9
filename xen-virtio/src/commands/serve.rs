//! `serve`: a guest's devices, until the guest is gone.

use super::{Devices, End, Serving, named, run_dir_of};
use crate::error::Error;
use crate::host::Machine;
use crate::layout::Layout;
use crate::record::{Kept, Record};
use crate::status::Status;
use crate::toolstack::{self, State};
use clap::Args;
use serde::Serialize;
use xen_eventfd::Domain;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::signals::Signals;
use xen_eventfd_ioreq::{Role, RunDir};

/// Serve a guest that was created paused, until it is gone.
///
/// The guest is a PVH or HVM guest that `xl create -p` has created. On x86 a PVH guest gets a PCI bus, on which the devices
/// are from 00:01.0 on, in the order in which they are given; an HVM guest has them on QEMU's, from 00:10.0 on. On Arm
/// they are where libxl has put them, a device for each line `virtio=["type=virtio,deviceNN,transport=mmio"]` of the
/// guest's configuration, in their order. Once this says that the guest is served, `xl unpause` lets it run.
/// `xen-virtio start` does all three, and follows reboots.
///
/// If this is killed, the same command again, with the same devices, goes on with the guest that runs, which does not
/// notice (see --takeover-time).
///
/// A backend that does not map a guest's memory by itself (vhost-user's protocol feature XEN_MMAP) needs the kernel
/// module of xen-eventfd. It can read and write all of the guest's memory.
///
/// Before it connects to a backend, or right after if it goes on with a guest that runs, the process is confined to this
/// guest: its descriptors of Xen's devices act on no other, it has no connection to xenstore, and it has given up other
/// capabilities, files, programs, sockets and system calls than it needs.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The guest, by name or number
    dom: String,
    #[command(flatten)]
    devices: Devices,
}

/// What `--json` prints on a line of its own.
#[derive(Debug, Serialize)]
pub(super) struct Served<'a> {
    #[serde(flatten)]
    pub(super) status: &'a Status,
}

#[derive(Debug, Serialize)]
pub(super) struct Ended {
    pub(super) domid: u16,
    pub(super) guest_gone: bool,
    pub(super) register_accesses: u64,
    pub(super) kicks: u64,
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    arguments.devices.check()?;
    // Before there are threads, so that all of them leave the signals to this one.
    let mut signals = Signals::that_end()?;
    let (machine, domain) = Machine::open_for(session.builder(), &arguments.dom)?;
    let given = &arguments.devices;
    let state = toolstack::state(domain.id)?;
    let serving = match left(session, &domain, state, given)? {
        Some(kept) => Serving::take_over(session, &machine, &domain, given, kept)?,
        None => {
            check_new(&domain, state)?;
            let layout = layout_of(&machine, &domain)?;
            given.fit(&layout)?;
            let backends = given.open_kernel_backends(domain.uuid.as_deref())?;
            Serving::begin(session, &machine, &domain, &layout, given, backends)?
        }
    };
    report_served(session, &serving, &domain, |name| {
        format!("{name} is served; let it run: xl unpause {name}")
    })?;
    let end = serving.wait(&mut signals, None, None)?;
    let ended = Ended::of(&serving, end == End::Gone);
    serving.stop()?;
    report_ended(session, &domain, &ended)?;
    match end {
        End::Signal(caught) => Ok(Exit::Backend(caught.code())),
        End::Gone | End::Released => Ok(Exit::Success),
    }
}

/// Where a guest's devices are. A PV guest has no place for any, which is refused later.
fn layout_of(machine: &Machine, domain: &Domain) -> Result<Layout, Failure> {
    let is_hvm = machine.xen().host().has_lines(domain.id).map_err(Error::from)?;
    let of_x86 = if is_hvm { Layout::BesideQemu } else { Layout::OwnBus };
    Ok(machine.layout(domain.id, of_x86)?)
}

/// What a process that was killed has left of a guest that runs.
fn left(
    session: &Session,
    domain: &Domain,
    state: State,
    given: &Devices,
) -> Result<Option<Kept>, Failure> {
    if state != State::Started {
        return Ok(None);
    }
    let run_dir = RunDir::open(&run_dir_of(session), Role::Registers).map_err(Error::from)?;
    let kept = Record::read(&run_dir, domain.id)?;
    let kept = kept.filter(|kept| kept.whose.uuid == domain.uuid);
    match kept.as_ref().map(|kept| &kept.whose.devices) {
        Some(devices) if *devices != given.lines() => {
            let devices: Vec<String> =
                devices.iter().map(|line| format!("--device {line}")).collect();
            let sentence = format!(
                "{} runs with other devices; give those that it has, in their order ({}), or have it reboot",
                named(domain),
                devices.join(" ")
            );
            Err(Failure::new(Exit::Usage, sentence))
        }
        _ => Ok(kept),
    }
}

/// A guest that runs has looked for its devices already.
fn check_new(domain: &Domain, state: State) -> Result<(), Failure> {
    let name = named(domain);
    let (exit, why) = match state {
        State::New => return Ok(()),
        State::Started => (
            Exit::Usage,
            "runs already, and a guest looks for its devices when it starts; create it paused (xl create -p), \
             or have `xen-virtio start` create it",
        ),
        State::Stopped(_) => (Exit::GuestGone, "has stopped; destroy it, and create it anew"),
        State::Gone => (Exit::GuestGone, "is gone"),
    };
    Err(Failure::new(exit, format!("{name} {why}")))
}

/// Says that a guest is served.
pub(super) fn report_served(
    session: &Session,
    serving: &Serving,
    domain: &Domain,
    sentence: impl FnOnce(&str) -> String,
) -> Result<(), Failure> {
    let status = serving.guest.status();
    session.print("virtio.served", &Served { status: &status }, || {
        let name = named(domain);
        let lines = status.devices.iter().map(|device| {
            format!("{} {}: {}\n", name, device.function.trim_start_matches("0000:"), device.device)
        });
        lines.collect::<String>() + &sentence(&name)
    })
}

/// Says that its service has ended.
pub(super) fn report_ended(
    session: &Session,
    domain: &Domain,
    ended: &Ended,
) -> Result<(), Failure> {
    session.print("virtio.ended", ended, || {
        let why = if ended.guest_gone { "is gone" } else { "is not served any more" };
        format!(
            "{} {why}: {} kicks were passed on, {} accesses to registers answered",
            named(domain),
            ended.kicks,
            ended.register_accesses
        )
    })
}

impl Ended {
    pub(super) fn of(serving: &Serving, guest_gone: bool) -> Self {
        let Status { domid, register_accesses, kicks, .. } = serving.guest.status();
        Self { domid, guest_gone, register_accesses, kicks }
    }
}
