//! What a service manager gave to this process, and what of it a backend is given.
//!
//! The variables of systemd's `sd_listen_fds(3)`, `sd_notify(3)` and `sd_watchdog_enabled(3)` are
//! meant for one process, which most of them name. A backend has variables of its own in their place.

use rustix::fs::{fstat, fstatfs};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use std::ffi::OsStr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
pub const FIRST: RawFd = 3;
/// No service manager gives more; LISTEN_FDS may say anything.
const MOST: RawFd = 1 << 16;
/// `statfs` of a pidfd on a kernel that numbers processes for good (6.9 and later).
const PID_FS_MAGIC: i64 = 0x5049_4446;

/// Variables that name one process or what it alone may use. A new one begins like its elders:
/// LISTEN_PIDFDID came long after LISTEN_PID.
const FOR_ONE_PROCESS: [&str; 6] =
    ["LISTEN_FD", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_", "MAINPID", "FDSTORE"];
/// Those by which a backend notifies for itself.
const FOR_NOTIFYING: [&str; 2] = ["NOTIFY_SOCKET", "WATCHDOG_"];

/// Whether a variable was meant for this process and not for its backend. `notifies`: the backend
/// notifies the service manager.
pub fn is_for_us(name: &OsStr, notifies: bool) -> bool {
    let begins = |prefix: &&str| name.as_bytes().starts_with(prefix.as_bytes());
    FOR_ONE_PROCESS.iter().any(begins) && !(notifies && FOR_NOTIFYING.iter().any(begins))
}

/// Closes the sockets that a service manager opened for this process, which uses none. Call it
/// before anything is opened.
pub fn close_sockets() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    let for_us = number("LISTEN_PID") == Some(getpid().as_raw_nonzero().get());
    let count = number("LISTEN_FDS").filter(|_| for_us).unwrap_or(0);
    for fd in FIRST..FIRST.saturating_add(count).min(MOST) {
        // One that is not open was not given.
        let _ = nix::unistd::close(fd);
    }
}

/// The number of this process that no other has had or will have (LISTEN_PIDFDID), on kernels that
/// give such numbers.
pub fn pidfd_id() -> Option<u64> {
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let numbered = fstatfs(&pidfd).ok()?.f_type == PID_FS_MAGIC;
    // The number has 64 bits; `stat` of a machine of 32 does not have all of it.
    let whole = cfg!(target_pointer_width = "64") && numbered;
    whole.then(|| fstat(&pidfd).map(|stat| stat.st_ino)).and_then(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_apart_by_how_they_begin() {
        for name in ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "MAINPIDFDID", "FDSTORE"] {
            assert!(
                is_for_us(OsStr::new(name), false) && is_for_us(OsStr::new(name), true),
                "{name}"
            );
        }
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            assert!(
                is_for_us(OsStr::new(name), false) && !is_for_us(OsStr::new(name), true),
                "{name}"
            );
        }
        for name in ["LISTEN_ADDR", "NOTIFY_URL", "PATH", "INVOCATION_ID", "JOURNAL_STREAM"] {
            assert!(!is_for_us(OsStr::new(name), false), "{name}");
        }
    }
}
