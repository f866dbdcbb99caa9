//! `guard`: waits for an engine's process to end, then reaps what it left.
//!
//! The library starts it as `xen-eventfd --run-dir DIR guard`, in a process group of its own. Its
//! standard input is a file in memory on which the engine's process holds a record lock: Linux releases
//! that when the process ends, and also when it executes another program, whatever children it has
//! forked. A pidfd is taken too, and reports the end alone.
//!
//! If another process may take over, standard output is a socket, at which it keeps descriptors for that process
//! ([`xen_eventfd::Guarded::keep_descriptor`]).
//!
//! It holds nothing else of the engine's but standard error: no other descriptor, no working directory. All
//! signals are blocked that can be.

use super::reap::Found;
use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::Args;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use rustix::process::getppid;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xen_eventfd::{Reaped, run_dir};

/// Wait for the process behind standard input to end, then reap.
///
/// Standard input is what the library passes, which reports the end and an `exec`; or a pidfd.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long another process may take the guests over before this reaps
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    takeover_time: u32,
}

/// The kernel may still hold the dead process's lock or ports for a moment; Xen or xenstore may
/// be restarting: about 25 s in all.
const PAUSES: [Duration; 9] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(10),
];
/// How long the process that starts us may take until it holds standard input.
const PATIENCE_FOR_TIE: Duration = Duration::from_secs(10);

/// Guards one process.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    // Before it ends: then this is another's.
    let engine = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    detach()?;
    let kept = keep_descriptors();
    wait_for_end(std::io::stdin().as_fd())?;
    let path = session.run_dir.as_deref().unwrap_or(Path::new(run_dir::DEFAULT));
    let limit = Duration::from_secs(arguments.takeover_time.into());
    wait_for_takeover(limit, || is_left(path, engine).unwrap_or(true));
    let reap = || session.reap();
    let done =
        reap_until_done(&PAUSES, || attempt(path, engine, reap).unwrap_or_else(Attempt::Failed));
    if let Some(socket) = kept {
        // If it fails, the directory is gone.
        let _ = std::fs::remove_file(socket);
    }
    done
}

/// Keeps descriptors for the process that takes over, if standard output is a socket for that, whose path this returns.
fn keep_descriptors() -> Option<PathBuf> {
    let address = rustix::net::getsockname(std::io::stdout()).ok()?;
    let path = SocketAddrUnix::try_from(address).ok()?.path_bytes()?.to_vec();
    std::thread::spawn(|| {
        if let Err(error) = xen_eventfd::keep_descriptors(std::io::stdout().as_fd()) {
            tracing::warn!(%error, "descriptors are not kept any more");
        }
    });
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// How often a guardian looks whether all guests are taken over.
const TAKEOVER_STEP: Duration = Duration::from_millis(50);

/// Waits until another process has taken over what the engine left, but no longer than this.
fn wait_for_takeover(limit: Duration, is_left: impl Fn() -> bool) {
    let since = Instant::now();
    while since.elapsed() < limit && is_left() {
        std::thread::sleep(TAKEOVER_STEP);
    }
}

/// Whether a guest is the engine's still, as it is about to end, or no process has it since.
fn is_left(path: &Path, engine: Option<u32>) -> Result<bool, Failure> {
    let is_engine = |holder: run_dir::Holder| holder.pid.is_some() && holder.pid == engine;
    Ok(!run_dir::orphans(path)?.is_empty() || run_dir::holders(path)?.into_iter().any(is_engine))
}

/// What one attempt came to.
#[derive(Debug)]
enum Attempt {
    /// Nothing is left for a reaper.
    Done,
    /// The engine's process still holds a guest: it is about to end, or has executed a program that
    /// took the guest again.
    Held,
    Failed(Failure),
}

/// Reaps, if anything is left.
fn attempt(
    path: &Path,
    engine: Option<u32>,
    reap: impl FnOnce() -> Result<Found, Failure>,
) -> Result<Attempt, Failure> {
    let is_held = || -> Result<bool, Failure> {
        let holders = run_dir::holders(path)?;
        Ok(holders.iter().any(|holder| holder.pid.is_some() && holder.pid == engine))
    };
    let end = |held: bool| if held { Attempt::Held } else { Attempt::Done };
    // After an engine that let go of its guests there is nothing to ask Xen for.
    if run_dir::orphans(path)?.is_empty() {
        return Ok(end(is_held()?));
    }
    let (mut in_use, mut failure) = (Vec::new(), None);
    for (dom, reaped) in reap()? {
        match reaped {
            Ok(Reaped::InUse) => in_use.push(dom),
            Ok(_) => {}
            Err(error) => failure = Some(error.into()),
        }
    }
    if let Some(failure) = failure {
        return Ok(Attempt::Failed(failure));
    }
    // A guest that a living engine has taken meanwhile has a guardian of its own.
    let living = run_dir::holders(path)?;
    match in_use.iter().find(|dom| !living.iter().any(|holder| holder.dom == **dom)) {
        None => Ok(end(is_held()?)),
        Some(dom) => {
            let sentence = format!("{dom} is locked, and not by a process that is known to live");
            Ok(Attempt::Failed(Failure::new(Exit::InUse, sentence)))
        }
    }
}

/// Lets go of all that belongs to the engine.
fn detach() -> Result<(), Failure> {
    SigSet::all().thread_block().map_err(|errno| Failure::system("block signals", errno))?;
    std::env::set_current_dir("/").map_err(|error| Failure::system("go to /", error))?;
    inherited().into_iter().for_each(|fd| {
        // Nothing of this process is open yet but what it was given.
        let _ = nix::unistd::close(fd);
    });
    Ok(())
}

/// Descriptors beyond the standard ones.
fn inherited() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The directory's own descriptor is among them, and closed again by now.
    numbers.filter(|fd| *fd > 2).collect()
}

/// Waits until the process of standard input has ended, or has executed another program.
fn wait_for_end(stdin: impl AsFd) -> Result<(), Failure> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", stdin.as_fd().as_raw_fd()));
    let what = link.as_deref().map(Path::to_string_lossy).unwrap_or_default();
    if what.contains("memfd:xen-eventfd-process") {
        wait_for_tie(stdin)
    } else if what.contains("pidfd") {
        wait_for_pidfd(stdin)
    } else {
        Err(Failure::new(
            Exit::Usage,
            "standard input is no pidfd, nor what the library passes, which starts `guard` by itself; \
             `xen-eventfd reap` sweeps up by hand",
        ))
    }
}

/// Waits for the record lock that the engine's process holds on a file.
fn wait_for_tie(file: impl AsFd) -> Result<(), Failure> {
    let failed = |errno| Failure::system("wait for the engine's end", errno);
    // It writes into the file once it has the lock.
    let (parent, since) = (getppid(), Instant::now());
    while rustix::fs::fstat(&file).map_err(failed)?.st_size == 0
        && getppid() == parent
        && since.elapsed() < PATIENCE_FOR_TIE
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    loop {
        match fcntl_lock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
}

/// Waits until the process of a pidfd has ended.
fn wait_for_pidfd(process: impl AsFd) -> Result<(), Failure> {
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    loop {
        match poll(&mut ended, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for the engine's end", errno)),
        }
    }
}

/// Reaps until no guest is left that another attempt might help.
fn reap_until_done(
    pauses: &[Duration],
    mut attempt: impl FnMut() -> Attempt,
) -> Result<Exit, Failure> {
    let mut pauses = pauses.iter();
    loop {
        let attempt = attempt();
        match (attempt, pauses.next()) {
            (Attempt::Done, _) | (Attempt::Held, None) => return Ok(Exit::Success),
            (Attempt::Held | Attempt::Failed(_), Some(pause)) => std::thread::sleep(*pause),
            (Attempt::Failed(failure), None) => {
                let sentence = format!("gave up on a dead engine's guests: {}", failure.sentence);
                return Err(Failure::new(failure.exit, sentence));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd::{DomId, Error};

    const NO_PAUSES: [Duration; 9] = [Duration::ZERO; 9];

    fn attempts(answers: impl Fn(usize) -> Attempt) -> (usize, Result<Exit, Failure>) {
        let mut made = 0;
        let result = reap_until_done(&NO_PAUSES, || {
            made += 1;
            answers(made)
        });
        (made, result)
    }

    #[test]
    fn another_process_has_so_much_time_to_take_over_and_no_more() {
        let looks = std::cell::Cell::new(0);
        let taken_at_the_third = || {
            looks.set(looks.get() + 1);
            looks.get() < 3
        };
        wait_for_takeover(Duration::from_secs(60), taken_at_the_third);
        assert_eq!(looks.get(), 3);
        // None, unless it is asked for.
        wait_for_takeover(Duration::ZERO, || panic!("it is looked at"));
        wait_for_takeover(TAKEOVER_STEP, || true);
    }

    #[test]
    fn a_record_without_a_holder_is_left_for_a_successor() {
        let dir = recorded();
        assert!(is_left(dir.path(), None).unwrap());
        let empty = tempfile::tempdir().unwrap();
        assert!(!is_left(empty.path(), None).unwrap());
    }

    #[test]
    fn one_attempt_is_enough_if_all_goes_well() {
        assert_eq!(attempts(|_| Attempt::Done), (1, Ok(Exit::Success)));
    }

    #[test]
    fn a_guest_that_the_engine_still_holds_is_looked_at_again_but_not_for_ever() {
        let later = |attempt| if attempt < 3 { Attempt::Held } else { Attempt::Done };
        assert_eq!(attempts(later), (3, Ok(Exit::Success)));
        assert_eq!(attempts(|_| Attempt::Held), (NO_PAUSES.len() + 1, Ok(Exit::Success)));
    }

    #[test]
    fn an_error_is_tried_again_and_told_in_the_end() {
        let error = || Error::GuestDied(DomId(1)).into();
        let (made, result) = attempts(|_| Attempt::Failed(error()));
        assert_eq!(made, NO_PAUSES.len() + 1);
        let failure = result.unwrap_err();
        assert_eq!(failure.exit, Exit::GuestGone);
        assert!(failure.sentence.contains("domain 1 is gone"), "{failure}");
    }

    /// A run directory with the record of a guest's server.
    fn recorded() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let record = r#"{"domid":5,"uuid":null,"server":{"id":7,"ports":[1]}}"#;
        std::fs::write(dir.path().join("5.json"), record).unwrap();
        dir
    }

    #[test]
    fn where_nothing_is_left_xen_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let asked = attempt(dir.path(), None, || panic!("it was asked")).unwrap();
        assert!(matches!(asked, Attempt::Done), "{asked:?}");
    }

    /// As when a child of the dead engine keeps the lock's descriptor open.
    #[test]
    fn a_lock_that_no_living_process_holds_is_no_success() {
        let dir = recorded();
        let in_use = || Ok(vec![(DomId(5), Ok(Reaped::InUse))]);
        let tried = attempt(dir.path(), None, in_use).unwrap();
        let Attempt::Failed(failure) = tried else { panic!("{tried:?}") };
        assert_eq!(failure.exit, Exit::InUse);
        let swept = || Ok(vec![(DomId(5), Ok(Reaped::Swept { kicks: 2 }))]);
        assert!(matches!(attempt(dir.path(), None, swept).unwrap(), Attempt::Done));
    }

    #[test]
    fn only_a_process_is_guarded() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(wait_for_end(&null).unwrap_err().exit, Exit::Usage);
    }
}
