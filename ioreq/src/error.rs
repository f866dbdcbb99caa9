//! What can go wrong, and what to do about it.

use rustix::io::Errno;
use std::path::PathBuf;
use xen_eventfd_core::DomId;
use xen_eventfd_host::HostError;

/// The result of a call.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Xen, Linux or xenstore refused.
    #[error(transparent)]
    Host(#[from] HostError),

    /// No such guest.
    #[error("no domain {0}; `xl list` lists all domains")]
    UnknownDomain(String),

    /// The guest is gone, and its server with it.
    #[error("{0} is gone; drop its registrations")]
    GuestDied(DomId),

    /// Another process serves the guest in this role.
    #[error("{dom} is served by {holder}; stop that first")]
    InUse {
        /// The guest.
        dom: DomId,
        /// The holder: process id, name, what it serves.
        holder: String,
    },

    /// The run directory failed.
    #[error("cannot {what} {}: {errno}; {}", path.display(), advice(*errno))]
    RunDir {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What Linux answered.
        errno: Errno,
    },

    /// The run directory, or a file in it, is one that another user could have made or could change.
    /// It was not followed, read or written.
    #[error("cannot use {}: {why}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },

    /// A thread of this name cannot start.
    #[error("its thread {name} cannot start: {why}")]
    Thread {
        /// The thread.
        name: &'static str,
        /// Why not.
        why: String,
    },

    /// The event loop has stopped, because the host failed.
    #[error("the engine has stopped: {0}")]
    Stopped(HostError),

    /// The handle was made before a fork, and this is the child. Nothing was done.
    #[error("this was opened by a parent of this process, before a fork; open Xen again here")]
    Forked,
}

/// What to do when the run directory fails.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::MFILE | Errno::NFILE => "this process, or the machine, has too many files open",
        Errno::NOSPC | Errno::DQUOT => "there is no room; make some",
        Errno::NOMEM => "there is no memory",
        _ => "it must be a directory that this process may write",
    }
}
