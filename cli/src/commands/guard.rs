//! `guard`: waits for an engine's process to end, then reaps what it left.
//!
//! The library starts it as `xen-eventfd --run-dir DIR guard`, with a pidfd of its process as
//! standard input, in a process group of its own. It holds nothing of the engine's but that and
//! standard error: no other descriptor, no working directory. All signals are blocked that can be.

use super::reap::Found;
use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::Args;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;
use xen_eventfd::Reaped;

/// Wait for the process behind standard input (a pidfd) to end, then reap.
#[derive(Debug, Args)]
pub struct Arguments {}

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
/// A guest that is still held after this many attempts has a new engine.
const PATIENCE_FOR_HOLDERS: usize = 5;

/// Guards one process.
pub(crate) fn run(session: &Session, _: &Arguments) -> Result<Exit, Failure> {
    detach()?;
    wait_for_end(std::io::stdin().as_fd())?;
    reap_until_done(&PAUSES, || session.reap())
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

/// Waits until the process of a pidfd has ended.
fn wait_for_end(process: impl AsFd) -> Result<(), Failure> {
    let not_a_process = "standard input is no pidfd; the library starts `guard` by itself, and \
                         `xen-eventfd reap` sweeps up by hand";
    let link = std::fs::read_link(format!("/proc/self/fd/{}", process.as_fd().as_raw_fd()));
    if link.is_ok_and(|target| !target.to_string_lossy().contains("pidfd")) {
        return Err(Failure::new(Exit::Usage, not_a_process));
    }
    loop {
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut ended, None) {
            Ok(_) if ended.iter().any(|fd| fd.revents().contains(PollFlags::NVAL)) => {
                return Err(Failure::new(Exit::Usage, not_a_process));
            }
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for the engine's end", errno)),
        }
    }
}

/// Reaps until no guest is left that another attempt might help.
fn reap_until_done(
    pauses: &[Duration],
    mut reap: impl FnMut() -> Result<Found, Failure>,
) -> Result<Exit, Failure> {
    let mut attempt = 0;
    loop {
        let (again, failure) = match reap() {
            Err(failure) => (true, Some(failure)),
            Ok(found) => {
                let held = found.iter().any(|(_, reaped)| matches!(reaped, Ok(Reaped::InUse)));
                let failure = found.into_iter().find_map(|(_, reaped)| reaped.err());
                (
                    failure.is_some() || held && attempt < PATIENCE_FOR_HOLDERS,
                    failure.map(Into::into),
                )
            }
        };
        match (again.then(|| pauses.get(attempt)).flatten(), failure) {
            (Some(pause), _) => std::thread::sleep(*pause),
            (None, Some(failure)) => {
                let sentence = format!("gave up on a dead engine's guests: {}", failure.sentence);
                return Err(Failure::new(failure.exit, sentence));
            }
            (None, None) => return Ok(Exit::Success),
        }
        attempt += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd::{DomId, Error};

    const NO_PAUSES: [Duration; 9] = [Duration::ZERO; 9];

    fn attempts(
        answers: impl Fn(usize) -> Result<Found, Failure>,
    ) -> (usize, Result<Exit, Failure>) {
        let mut made = 0;
        let result = reap_until_done(&NO_PAUSES, || {
            made += 1;
            answers(made)
        });
        (made, result)
    }

    #[test]
    fn one_attempt_is_enough_if_all_goes_well() {
        let swept = |_| Ok(vec![(DomId(1), Ok(Reaped::Swept { kicks: 2 }))]);
        assert_eq!(attempts(swept), (1, Ok(Exit::Success)));
    }

    #[test]
    fn a_guest_that_is_held_is_looked_at_again_but_not_for_ever() {
        let later = |attempt| {
            let reaped = if attempt < 3 { Reaped::InUse } else { Reaped::GuestGone };
            Ok(vec![(DomId(1), Ok(reaped))])
        };
        assert_eq!(attempts(later), (3, Ok(Exit::Success)));
        let never = |_| Ok(vec![(DomId(1), Ok(Reaped::InUse))]);
        assert_eq!(attempts(never), (PATIENCE_FOR_HOLDERS + 1, Ok(Exit::Success)));
    }

    #[test]
    fn an_error_is_tried_again_and_told_in_the_end() {
        let (made, result) = attempts(|_| Ok(vec![(DomId(1), Err(Error::GuestDied(DomId(1))))]));
        assert_eq!(made, NO_PAUSES.len() + 1);
        let failure = result.unwrap_err();
        assert_eq!(failure.exit, Exit::GuestGone);
        assert!(failure.sentence.contains("domain 1 is gone"), "{failure}");
    }

    #[test]
    fn only_a_pidfd_is_guarded() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(wait_for_end(&null).unwrap_err().exit, Exit::Usage);
    }
}
