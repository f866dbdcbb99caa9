//! `daemon`: the devices of guests that `xl create` makes.

use crate::daemon::config::{Config, DEFAULT};
use crate::daemon::guest::Tools;
use crate::daemon::record::{self, StateDir};
use crate::daemon::store::Store;
use crate::daemon::{Daemon, first};
use crate::error::Error;
use crate::toolstack::Xl;
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sd_notify::NotifyState;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::output;
use xen_eventfd_cli::session::Session;
use xen_eventfd_host::linux::{LinuxHost, XenstoreClient};

/// Serve the devices of guests as they are created.
///
/// Follows xenstore. A guest whose configuration for `xl create` has lines `virtio=["type=virtio,deviceNN,..."]`, and
/// that the configuration file names, is paused until its devices are served: one for each line, in their order and of
/// their type. Backends that have a command are started before, each with a socket of its own, and what ends is started
/// again. SIGTERM ends the daemon, and nothing that it has started: the next one takes all of it up.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which devices the guests have; `xen-virtio check` checks it
    #[arg(long, value_name = "FILE", default_value = DEFAULT)]
    config: PathBuf,
    /// Where the sockets of backends are, and what is remembered of guests
    #[arg(long, value_name = "DIR", default_value = record::DEFAULT)]
    state_dir: PathBuf,
}

/// What `--json` prints once guests are followed.
#[derive(Debug, Serialize)]
pub(super) struct Follows {
    pub(super) pid: u32,
    pub(super) config: String,
}

pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let config = Config::read(&arguments.config).map_err(|mistakes| {
        let sentence = first(&arguments.config, &mistakes);
        Failure::new(Exit::Usage, format!("{sentence}; xen-virtio check shows all mistakes"))
    })?;
    let failed = |error| Failure::system(&format!("use {}", arguments.state_dir.display()), error);
    let state = StateDir::open(&arguments.state_dir).map_err(failed)?;
    let _lock = state.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let sentence = format!("process {error} is the daemon already; end it first");
            Failure::new(Exit::InUse, sentence)
        }
        _ => failed(error),
    })?;
    let mut signals = signals().map_err(|error| Failure::system("wait for signals", error))?;
    let client = XenstoreClient::open().map_err(Error::from)?;
    let host = LinuxHost::open().map_err(Error::from)?;
    let reboot = Box::new(move |dom| Ok(host.reboot(dom)?));
    let tools = Tools { xl: Xl::default(), reboot, serve: serve(session)?, state };
    let store = Store::follow(Box::new(client))?;
    let mut daemon = Daemon::new(store, tools, arguments.config.clone(), config)?;
    daemon.turn(Instant::now())?;
    let follows =
        Follows { pid: std::process::id(), config: arguments.config.display().to_string() };
    session.print("virtio.follows", &follows, || {
        format!("guests are served as {} says", arguments.config.display())
    })?;
    // It is not there, or does not answer: both are the service manager's.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    loop {
        for event in daemon.events() {
            let line = session.line("virtio.event", &event, || event.prose())?;
            output::STDOUT.push(line);
        }
        if wait(&daemon, &signals)? {
            break;
        }
        daemon.turn(Instant::now())?;
    }
    // What is read from it is of no matter: each of the signals means the same.
    let _ = signals.read(&mut [0; 16]);
    output::STDOUT.drained(output::PATIENCE);
    Ok(Exit::Success)
}

/// The command that serves a guest, with the options of this one.
fn serve(session: &Session) -> Result<Vec<OsString>, Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Failure::system("find this program", error))?;
    let mut words = vec![program.into_os_string()];
    if let Some(run_dir) = &session.run_dir {
        words.extend(["--run-dir".into(), run_dir.into()]);
    }
    if let Some(engine) = session.engine {
        words.extend(["--engine".into(), engine.to_string().into()]);
    }
    words.extend((0..session.verbose).map(|_| "-v".into()));
    Ok(words)
}

/// What is readable once a signal has come that ends the daemon. No signal is blocked, as what it starts would have it
/// blocked too.
fn signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Waits until the daemon is to have a turn. `true`: until it is to end.
fn wait(daemon: &Daemon, signals: &UnixStream) -> Result<bool, Failure> {
    let now = Instant::now();
    let deadline = daemon.deadline(now).map(|deadline| deadline.saturating_duration_since(now));
    let timeout = deadline.and_then(|left| Timespec::try_from(left).ok());
    let mut polled = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    polled.extend(daemon.fds().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(Failure::system("wait for guests", errno)),
    }
    Ok(polled.first().is_some_and(|signal| !signal.revents().is_empty()))
}
