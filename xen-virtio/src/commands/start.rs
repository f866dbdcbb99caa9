//! `start`: creates a guest, serves its devices, lets it run, and does so again when it reboots.

use super::serve::{Ended, report_ended, report_served};
use super::{Devices, End, Serving, named};
use crate::host::Machine;
use crate::layout::Layout;
use crate::server::Connected;
use crate::toolstack::{self, Action, Config, Reason, State};
use clap::Args;
use std::path::PathBuf;
use xen_eventfd::Domain;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::output::note;
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::signals::{Caught, Signals};
use xen_eventfd_host::Releases;

/// Create a guest with devices, and serve it until it ends.
///
/// Creates the guest of an `xl` configuration file paused, serves its devices as `serve` does, and lets it run. What
/// the file says for on_poweroff, on_reboot and on_crash is done here (destroy, restart or preserve): a guest that
/// reboots is created again, and served by the same backends.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The guest's configuration, as for `xl create`
    file: PathBuf,
    #[command(flatten)]
    devices: Devices,
}

/// How a guest's time ended.
enum Finished {
    Stopped(Reason),
    Gone,
    Signal(Caught),
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    arguments.devices.check()?;
    let mut signals = Signals::that_end()?;
    let config = toolstack::read(&arguments.file)?;
    let layout = layout_of(&config)?;
    arguments.devices.fit(layout)?;
    let machine = Machine::open(session.open()?)?;
    // Before a guest is there that would have to go again.
    let mut connected = Some(arguments.devices.connect(config.uuid.as_deref())?);
    let mut releases = machine.xen().host().releases().map_err(crate::error::Error::from)?;
    loop {
        toolstack::create_paused(&arguments.file)?;
        let domain = machine.xen().find(&config.name)?;
        let devices = connected.take().unwrap_or_default();
        let begun = begin(session, &machine, &domain, layout, &arguments.devices, devices);
        let serving = match begun {
            Ok(serving) => serving,
            Err(failure) => return Err(undone(&domain, failure)),
        };
        let finished = serve(&serving, &domain, &mut signals, &mut *releases)?;
        let ended = Ended::of(&serving, !matches!(finished, Finished::Signal(_)));
        let backends = serving.stop()?;
        report_ended(session, &domain, &ended)?;
        match finished {
            Finished::Signal(caught) => {
                note(&format!("{} is left as it is, without its devices", named(&domain)));
                return Ok(Exit::Backend(caught.code()));
            }
            Finished::Gone => return Ok(Exit::Success),
            Finished::Stopped(reason) => match after(&config, reason, &domain)? {
                Some(exit) => return Ok(exit),
                None => {
                    connected = Some(arguments.devices.again(backends, config.uuid.as_deref())?)
                }
            },
        }
    }
}

/// Where the devices of a guest of this type are.
fn layout_of(config: &Config) -> Result<Layout, Failure> {
    match &*config.guest_type {
        "pvh" => Ok(Layout::OwnBus),
        "hvm" => Ok(Layout::BesideQemu),
        other => {
            let sentence = format!(
                "{} is of type {other:?}, which has no ioreq servers; only PVH and HVM guests (type=\"pvh\", \
                 type=\"hvm\") are served",
                config.name
            );
            Err(Failure::new(Exit::Usage, sentence))
        }
    }
}

/// Serves the guest and lets it run.
fn begin(
    session: &Session,
    machine: &Machine,
    domain: &Domain,
    layout: Layout,
    given: &Devices,
    connected: Vec<Connected>,
) -> Result<Serving, Failure> {
    let serving = Serving::begin(session, machine, domain, layout, given, connected)?;
    toolstack::unpause(domain.id)?;
    report_served(session, &serving, domain, |name| format!("{name} runs"))?;
    Ok(serving)
}

/// Destroys the guest that was created.
fn undone(domain: &Domain, failure: Failure) -> Failure {
    match toolstack::destroy(domain.id) {
        Ok(()) => failure,
        Err(second) => {
            let sentence = format!("{}; and then: {}", failure.sentence, second.sentence);
            Failure::new(failure.exit, sentence)
        }
    }
}

fn serve(
    serving: &Serving,
    domain: &Domain,
    signals: &mut Signals,
    releases: &mut dyn Releases,
) -> Result<Finished, Failure> {
    loop {
        // It may have stopped before the last report of a domain's end was taken.
        if releases.drain().map_err(crate::error::Error::from)? {
            match toolstack::state(domain.id)? {
                State::New | State::Started => {}
                State::Stopped(reason) => return Ok(Finished::Stopped(reason)),
                State::Gone => return Ok(Finished::Gone),
            }
        }
        match serving.wait(signals, Some(releases.fd()))? {
            End::Signal(caught) => return Ok(Finished::Signal(caught)),
            End::Gone => return Ok(Finished::Gone),
            End::Released => {}
        }
    }
}

/// Does what the configuration says for a guest that stopped. `None`: it is to be created again.
fn after(config: &Config, reason: Reason, domain: &Domain) -> Result<Option<Exit>, Failure> {
    let action = config.action(reason);
    if action == Action::Preserve {
        note(&format!("{} has stopped ({reason:?}) and is preserved", named(domain)));
        return Ok(Some(Exit::Failed));
    }
    toolstack::destroy(domain.id)?;
    Ok(match (action, reason) {
        (Action::Restart, _) => None,
        (_, Reason::Crash) => {
            return Err(Failure::new(Exit::GuestGone, format!("{} has crashed", named(domain))));
        }
        _ => Some(Exit::Success),
    })
}
