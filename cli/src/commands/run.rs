//! `run`: hands a guest's doorbells and interrupts to a backend, as eventfds.
//!
//! ```text
//! guest -> engine (this process) -> kick eventfds -> COMMAND
//! guest <- engine (this process) <- call eventfds <- COMMAND
//! ```
//!
//! COMMAND finds the eventfds as systemd passes sockets: descriptors 3 and up, LISTEN_FDS of them,
//! named in LISTEN_FDNAMES (`kick0:kick1:call0`), meant for the process LISTEN_PID.

use crate::backend::{Backend, End, code_of};
use crate::failure::{Exit, Failure};
use crate::handover::{Handover, Passed};
use crate::inherited::close_sockets;
use crate::module_status::serialize;
use crate::output::{PATIENCE, Pushed, STDOUT, note};
use crate::quantity::{TIME, time};
use crate::served;
use crate::session::{Outcome, Session};
use crate::signals::Signals;
use crate::spec::{CallSpec, KickSpec, check_together};
use crate::waiting::{Awaited, Came};
use clap::Args;
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;
use xen_eventfd::{Counters, Guest, Xen};

/// Hand a guest's doorbells and interrupts to a backend, as eventfds.
///
/// Makes an eventfd for each --kick and --call, registers them for the guest DOM, and runs COMMAND
/// with them. The registrations end with COMMAND; COMMAND is ended (SIGTERM) if the guest dies.
///
/// The eventfds are descriptors 3 and up in the order kicks, calls; LISTEN_FDS says how many,
/// LISTEN_FDNAMES what they are (kick0:kick1:call0), as with systemd's socket activation.
///
/// KICK is `mmio:ADDR[:LEN[:DATAMATCH]]` or `pio:PORT[:LEN[:DATAMATCH]]` (a write), or `evtchn:PORT`
/// (an event channel that the guest rings). LEN is 1, 2, 4 or 8 bytes; without it, or as `any` or
/// 0, writes of any width within 4 bytes count. DATAMATCH is VALUE or VALUE/MASK.
///
/// CALL is `evtchn:PORT`, `msi:ADDR:DATA`, `isa:LINE`, `intx:DEVICE:PIN` or `spi:LINE`; lines are
/// pulsed, or raised and left up with `:level`.
///
/// Numbers are decimal, or hexadecimal after 0x.
///
/// With --wait, a guest that is not there yet is waited for, and so are event channels that it has
/// not allocated yet. With --follow, a guest that reboots is served again: COMMAND is ended with the
/// old one, and started afresh with new eventfds when the guest is there again under its name (if DOM
/// is a number, with the UUID that it had).
///
/// Signals: HUP, INT, QUIT, TERM, USR1, USR2 and the others that can be sent on are passed on to
/// COMMAND, once each, also from a terminal whose process group it has left. TSTP, TTIN and TTOU stop
/// COMMAND only: the engine goes on, as vCPUs wait for it. What was ignored at the start, as by
/// nohup, stays ignored by both. While a guest is waited for, a signal that ends a process ends this
/// one, with 128 + n.
///
/// COMMAND does not get what a service manager gave to this process: of LISTEN_*, it has its own;
/// NOTIFY_SOCKET and WATCHDOG_* are removed without --pass-notify, and MAINPID and FDSTORE always.
///
/// That standard output or standard error cannot be written, or is not read, ends nothing: the
/// guest and COMMAND are served on, and what could not be written is lost.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The guest, by name or number
    pub dom: String,
    /// A doorbell; its eventfd is signalled when the guest rings
    #[arg(long = "kick", value_name = "KICK")]
    pub kicks: Vec<KickSpec>,
    /// An interrupt; raised in the guest when COMMAND signals its eventfd
    #[arg(long = "call", value_name = "CALL")]
    pub calls: Vec<CallSpec>,
    /// Wait for the guest if it is not there yet, at most this time if given: 500ms, 2s, 1m; seconds
    /// without a unit
    #[arg(long, value_name = TIME, num_args = 0..=1, require_equals = true, value_parser = time)]
    pub wait: Option<Option<Duration>>,
    /// When the guest is gone, wait until it is there again, and start COMMAND afresh
    #[arg(long)]
    pub follow: bool,
    /// Leave COMMAND the variables NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID
    #[arg(long)]
    pub pass_notify: bool,
    /// The backend, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `--json` prints on a line of its own, beside what COMMAND prints.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Event<'a> {
    Waiting {
        guest: &'a str,
    },
    Started {
        #[serde(flatten)]
        guest: &'a served::Guest,
        backend: Process,
        fds: &'a [Passed],
    },
    Ended {
        domid: u16,
        exit: u8,
        guest_gone: bool,
        #[serde(serialize_with = "serialize::all_counters")]
        counters: Counters,
    },
}

#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
}

impl Event<'_> {
    /// Its type in JSON.
    fn kind(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "run.waiting",
            Self::Started { .. } => "run.started",
            Self::Ended { .. } => "run.ended",
        }
    }
}

/// Runs a backend on this machine's Xen.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    check(arguments)?;
    close_sockets();
    // First, so that the engine's threads leave the signals to us.
    let mut signals = Signals::new()?;
    // By whatever name this program goes by then, and also if another version has replaced it.
    let helper = Path::new("/proc/self/exe");
    let end = run_on(&session.open()?, session, arguments, helper, Some(&mut signals));
    STDOUT.drained(PATIENCE);
    end
}

/// What no guest could ever carry out.
fn check(arguments: &Arguments) -> Outcome {
    if arguments.kicks.is_empty() && arguments.calls.is_empty() {
        let sentence = "there is nothing to hand over; give a --kick or a --call";
        return Err(Failure::new(Exit::Usage, sentence));
    }
    check_together(&arguments.kicks).map_err(|why| Failure::new(Exit::Usage, why.to_string()))
}

/// Runs a backend for a guest of any Xen. `helper` is the `xen-eventfd` program.
///
/// # Errors
/// The guest's absence ([`Exit::NoGuest`]), a registration that is refused, its death
/// ([`Exit::GuestGone`]).
pub fn run_on(
    xen: &Xen,
    session: &Session,
    arguments: &Arguments,
    helper: &Path,
    mut signals: Option<&mut Signals>,
) -> Result<Exit, Failure> {
    check(arguments)?;
    let Arguments { dom, kicks, calls, wait, follow, .. } = arguments;
    let mut awaited = Awaited::new(dom, *wait, *follow);
    loop {
        let waits = || tell_wait(session, dom);
        let came = awaited.take(xen, kicks, calls, signals.as_deref_mut(), waits)?;
        let (guest, handover) = match came {
            Came::Guest(guest, handover) => (guest, handover),
            Came::Signal(caught) => return Ok(Exit::Backend(caught.code())),
        };
        let dom = guest.dom();
        match serve(xen, guest, handover, session, arguments, helper, signals.as_deref_mut())? {
            End::Exited(status) => return Ok(Exit::Backend(code_of(status))),
            End::GuestGone { asked: Some(caught) } => return Ok(Exit::Backend(caught.code())),
            End::GuestGone { asked: None } => {
                let program =
                    arguments.command.first().map(OsString::as_os_str).unwrap_or_default();
                let program = program.display();
                let sentence = format!("{dom} is gone, so its backend {program} was ended");
                if !follow {
                    let sentence = sentence + "; start both again";
                    return Err(Failure::new(Exit::GuestGone, sentence));
                }
                note(&sentence);
            }
        }
    }
}

/// Runs the backend once.
fn serve(
    xen: &Xen,
    guest: Guest,
    handover: Handover,
    session: &Session,
    arguments: &Arguments,
    helper: &Path,
    signals: Option<&mut Signals>,
) -> Result<End, Failure> {
    let Arguments { command, pass_notify, .. } = arguments;
    let backend = Backend::start(helper, handover.passed(), command, *pass_notify, session.json)?;
    tell_start(session, xen, &guest, &handover, &backend);
    let end = backend.attend(guest.gone(), signals)?;
    // What the backend signalled last is still raised.
    drop(handover);
    let (domid, counters) = (guest.dom().0, guest.counters());
    // Before anything is reported: no reader keeps the guest.
    drop(guest);
    let (exit, guest_gone) = match end {
        End::Exited(status) => (Exit::Backend(code_of(status)), false),
        End::GuestGone { .. } => (Exit::GuestGone, true),
    };
    report(session, &Event::Ended { domid, exit: exit.into(), guest_gone, counters });
    Ok(end)
}

/// For a machine, on standard output. Whether it can be written makes no difference to the backend.
fn report(session: &Session, event: &Event<'_>) {
    if !session.json {
        return;
    }
    let Ok(line) = session.line(event.kind(), event, String::new) else { return };
    match STDOUT.push(line) {
        // Without a reader there is nothing to say.
        Pushed::Taken | Pushed::Failed(Errno::PIPE) => {}
        Pushed::Failed(errno) => note(&format!("cannot write events: {errno}")),
        Pushed::Full => note("an event is lost, as standard output is not read"),
    }
}

fn tell_wait(session: &Session, guest: &str) {
    report(session, &Event::Waiting { guest });
    if session.verbose > 0 {
        note(&format!("waiting for the guest {guest}"));
    }
}

/// For people, on standard error, as COMMAND has the other.
fn tell_start(session: &Session, xen: &Xen, guest: &Guest, handover: &Handover, backend: &Backend) {
    let (pid, fds) = (backend.pid(), handover.passed());
    if session.json {
        let (guest, backend) = (&served::Guest::of_engine(xen, guest), Process { pid });
        report(session, &Event::Started { guest, backend, fds });
    }
    if session.verbose > 0 && !session.json {
        note(&format!("{} through {}, backend is process {pid}", guest.dom(), guest.server()));
        for Passed { name, fd, what, .. } in fds {
            note(&format!("descriptor {fd} is {name}: {what}"));
        }
    }
}
