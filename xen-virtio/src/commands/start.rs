//! `start`: creates a guest, serves its devices, lets it run, and does so again when it reboots.

use super::serve::{Ended, report_ended, report_served};
use super::{Devices, End, Serving, named};
use crate::host::Machine;
use crate::layout::Layout;
use crate::server::Connected;
use crate::toolstack::{self, Action, Config, Reason, State};
use clap::Args;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd::{Arch, Domain};
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

/// How often xenstored is tried that is away.
const AGAIN: Duration = Duration::from_secs(1);

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
    let machine = Machine::open(session.open()?)?;
    if machine.xen().host().arch() != Arch::Arm {
        arguments.devices.fit(&layout)?;
    }
    // Before a guest is there that would have to go again.
    let mut connected = Some(arguments.devices.connect(config.uuid.as_deref())?);
    let mut ends = Ends::watch(|| machine.xen().host().releases())?;
    loop {
        toolstack::create_paused(&arguments.file)?;
        let domain = machine.xen().find(&config.name)?;
        let devices = connected.take().unwrap_or_default();
        let begun =
            machine.layout(domain.id, layout.clone()).map_err(Failure::from).and_then(|layout| {
                arguments.devices.fit(&layout)?;
                begin(session, &machine, &domain, &layout, &arguments.devices, devices)
            });
        let serving = match begun {
            Ok(serving) => serving,
            Err(failure) => return Err(undone(&domain, failure)),
        };
        let finished = serve(&serving, &domain, &mut signals, &mut ends)?;
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
    layout: &Layout,
    given: &Devices,
    connected: Vec<Connected>,
) -> Result<Serving, Failure> {
    let backends = connected.into_iter().map(|(spec, backend)| (spec, Some(backend))).collect();
    let serving = Serving::begin(session, machine, domain, layout, given, backends)?;
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

fn serve<W: Watch>(
    serving: &Serving,
    domain: &Domain,
    signals: &mut Signals,
    ends: &mut Ends<W>,
) -> Result<Finished, Failure> {
    loop {
        // It may have stopped before the last report of a domain's end was taken.
        if ends.reported() {
            match toolstack::state(domain.id) {
                Ok(State::New | State::Started) => ends.is_said = false,
                Ok(State::Stopped(reason)) => return Ok(Finished::Stopped(reason)),
                Ok(State::Gone) => return Ok(Finished::Gone),
                // xenstored has ended meanwhile.
                Err(failure) => _ = ends.lose(&failure.sentence),
            }
        }
        match serving.wait(signals, ends.fd(), ends.timeout())? {
            End::Signal(caught) => return Ok(Finished::Signal(caught)),
            End::Gone => return Ok(Finished::Gone),
            End::Released => {}
        }
    }
}

/// How a watch on the end of domains is set.
trait Watch: Fn() -> xen_eventfd_host::Result<Box<dyn Releases>> {}

impl<F: Fn() -> xen_eventfd_host::Result<Box<dyn Releases>>> Watch for F {}

/// Reports that some domain has ended or stopped. xenstored may end meanwhile, and be there again: no guest loses its
/// devices by that.
struct Ends<W> {
    watch: W,
    /// `None`: xenstored is away.
    releases: Option<Box<dyn Releases>>,
    /// It was said that xenstored is away, since a guest's state was last known.
    is_said: bool,
}

impl<W: Watch> Ends<W> {
    fn watch(watch: W) -> Result<Self, crate::error::Error> {
        let releases = Some(watch()?);
        Ok(Self { watch, releases, is_said: false })
    }

    /// Whether a domain has ended or stopped since this was asked before, or may have.
    fn reported(&mut self) -> bool {
        match &mut self.releases {
            Some(releases) => match releases.drain() {
                Ok(reported) => reported,
                Err(error) => {
                    self.lose(&error.to_string());
                    false
                }
            },
            None => {
                self.releases = (self.watch)().ok();
                self.releases.is_some()
            }
        }
    }

    /// xenstored is away. Returns whether that is news, and was said.
    fn lose(&mut self, why: &str) -> bool {
        self.releases = None;
        let is_news = !std::mem::replace(&mut self.is_said, true);
        if is_news {
            note(&format!(
                "xenstored is away ({why}): devices are served on, and whether the guest reboots is looked at once it is \
                 there again"
            ));
        }
        is_news
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.releases.as_ref().map(|releases| releases.fd())
    }

    /// When to ask again, if nothing says so.
    fn timeout(&self) -> Option<Duration> {
        self.releases.is_none().then_some(AGAIN)
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
        (_, Reason::SoftReset) => {
            let sentence = format!(
                "{} has asked for a soft reset, as Linux does to execute another kernel (kexec), and was destroyed, as `xl` \
                 does with PVH guests; have it reboot instead",
                named(domain)
            );
            return Err(Failure::new(Exit::GuestGone, sentence));
        }
        _ => Some(Exit::Success),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::cell::RefCell;
    use std::os::fd::{AsFd, OwnedFd};
    use xen_eventfd_host::{Call, Errno, HostError};

    type Drained = xen_eventfd_host::Result<bool>;

    /// A watch that answers so, one after the other.
    #[derive(Debug)]
    struct Answers(OwnedFd, Vec<Drained>);

    impl Releases for Answers {
        fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn drain(&mut self) -> Drained {
            self.1.remove(0)
        }
    }

    #[test]
    fn a_guest_outlives_xenstored() {
        let reset = HostError::new(Call::Xenstore("@releaseDomain".to_owned()), Errno::CONNRESET);
        let refused =
            || Err(HostError::new(Call::Open("/run/xenstored/socket"), Errno::CONNREFUSED));
        let answers = |answers: &[Drained]| -> Box<dyn Releases> {
            let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
            Box::new(Answers(fd, answers.to_vec()))
        };
        let first = answers(&[Ok(false), Ok(true), Err(reset)]);
        let set = RefCell::new(vec![Ok(first), refused(), Ok(answers(&[Ok(false)]))]);
        let mut ends = Ends::watch(|| set.borrow_mut().remove(0)).unwrap();
        assert_eq!((ends.reported(), ends.reported()), (false, true));
        assert!(ends.fd().is_some() && ends.timeout().is_none());
        // xenstored ends, is away, and comes again: the guest may have stopped meanwhile.
        assert!(!ends.reported());
        assert!(ends.fd().is_none() && ends.timeout().is_some());
        assert!(!ends.lose("it is away"), "it is said once");
        assert_eq!((ends.reported(), ends.reported(), ends.reported()), (false, true, false));
        assert!(ends.fd().is_some() && ends.timeout().is_none());
    }
}
