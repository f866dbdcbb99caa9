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
use crate::session::{Outcome, Session};
use crate::signals::Signals;
use crate::spec::{Call, Kick, check_together};
use clap::Args;
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;
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
#[derive(Debug, Args)]
pub struct Arguments {
    /// The guest, by name or number
    pub dom: String,
    /// A doorbell; its eventfd is signalled when the guest rings
    #[arg(long = "kick", value_name = "KICK")]
    pub kicks: Vec<Kick>,
    /// An interrupt; raised in the guest when COMMAND signals its eventfd
    #[arg(long = "call", value_name = "CALL")]
    pub calls: Vec<Call>,
    /// The backend, and what it is told
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What `--json` prints on a line of its own, beside what COMMAND prints.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Started { domid: u16, ioreq_server: u16, pid: u32, fds: &'a [Passed] },
    Ended { exit: u8, guest_gone: bool, counters: Counters },
}

/// Runs a backend on this machine's Xen.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    check(arguments)?;
    let helper = std::env::current_exe()
        .map_err(|error| Failure::system("find this program's own file", error))?;
    // First, so that the engine's threads leave the signals to us.
    let mut signals = Signals::new()?;
    run_on(&session.open()?, session, arguments, &helper, Some(&mut signals))
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
/// The guest's absence, a registration that is refused, its death ([`Exit::GuestGone`]).
pub fn run_on(
    xen: &Xen,
    session: &Session,
    arguments: &Arguments,
    helper: &Path,
    signals: Option<&mut Signals>,
) -> Result<Exit, Failure> {
    check(arguments)?;
    let guest = xen.guest(xen.find(&arguments.dom)?.id)?;
    let handover = Handover::register(&guest, &arguments.kicks, &arguments.calls)?;
    let backend = Backend::start(helper, handover.passed(), &arguments.command)?;
    tell_start(session, &guest, &handover, &backend)?;
    let end = backend.attend(guest.gone(), signals)?;
    // What the backend signalled last is still raised.
    drop(handover);
    let counters = guest.counters();
    let exit = match end {
        End::Exited(status) => Exit::Backend(code_of(status)),
        End::GuestGone => Exit::GuestGone,
    };
    if session.json {
        let guest_gone = end == End::GuestGone;
        session.print(&Event::Ended { exit: exit.into(), guest_gone, counters }, String::new)?;
    }
    match exit {
        Exit::GuestGone => {
            let program = arguments.command.first().map(OsString::as_os_str).unwrap_or_default();
            let sentence = format!(
                "{} is gone, so its backend {} was ended; start both again",
                guest.dom(),
                program.display()
            );
            Err(Failure::new(exit, sentence))
        }
        exit => Ok(exit),
    }
}

/// For a machine, on standard output; for people, on standard error, as COMMAND has the other.
fn tell_start(session: &Session, guest: &Guest, handover: &Handover, backend: &Backend) -> Outcome {
    let (domid, ioreq_server) = (guest.dom().0, guest.server().0);
    let (pid, fds) = (backend.pid(), handover.passed());
    if session.json {
        return session.print(&Event::Started { domid, ioreq_server, pid, fds }, String::new);
    }
    if session.verbose > 0 {
        eprintln!(
            "xen-eventfd: {} through {}, backend is process {pid}",
            guest.dom(),
            guest.server()
        );
        for Passed { name, fd, what, .. } in fds {
            eprintln!("xen-eventfd: descriptor {fd} is {name}: {what}");
        }
    }
    Ok(())
}
