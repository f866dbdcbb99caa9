//! How a command ends.

use std::process::ExitCode;
use xen_eventfd::{Error, HostError};
use xen_eventfd_host::{Call, Errno};

/// The command's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Success,
    /// 1: failed for a reason that has no code of its own.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: there is no Xen here, or no engine can run.
    NoXen,
    /// 4: the guest was there, and is gone.
    GuestGone,
    /// 5: it is in use: by another engine, or device models all 8 ioreq servers.
    InUse,
    /// 6: not permitted.
    NotPermitted,
    /// 7: there is no such guest. It may come.
    NoGuest,
    /// Whatever a command ended with that `run` started; 128 + n for signal n.
    Backend(u8),
}

/// The table of exit codes, for `--help` and the man pages of both commands.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line is wrong
  3  no Xen here, or no engine can run (see `xen-eventfd doctor`)
  4  the guest is gone: it was there, and died or was destroyed
  5  in use: another engine serves the guest, or all its ioreq servers are taken
  6  not permitted
  7  no such guest; it may not be there yet
  141  standard output has no reader any more";

/// The same for `xen-eventfd`, which has `run`.
pub(crate) fn exit_codes() -> String {
    format!(
        "{EXIT_CODES}\n`run` ends with the exit code of its COMMAND, or 128 + n if signal n ended it."
    )
}

impl Exit {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NoXen => "no-xen",
            Self::GuestGone => "guest-gone",
            Self::InUse => "in-use",
            Self::NotPermitted => "not-permitted",
            Self::NoGuest => "no-guest",
            Self::Backend(_) => "command",
        }
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoXen => 3,
            Exit::GuestGone => 4,
            Exit::InUse => 5,
            Exit::NotPermitted => 6,
            Exit::NoGuest => 7,
            Exit::Backend(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        u8::from(exit).into()
    }
}

/// A command's bad end: one sentence that says what failed, on what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The sentence.
    pub sentence: String,
}

impl Failure {
    /// A bad end.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into() }
    }

    /// Standard output leads nowhere any more. Nothing is said; the code is SIGPIPE's.
    pub fn reader_gone() -> Self {
        Self::new(Exit::Backend(128 + 13), "")
    }

    /// What the operating system refused.
    pub fn system(what: &str, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        Self::new(exit, format!("cannot {what}: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Host(error) | Error::EngineStopped(error) => of_host(error),
            Error::UnknownDomain(_) => Exit::NoGuest,
            Error::GuestDied(_) => Exit::GuestGone,
            Error::InUse { .. } | Error::Busy { .. } | Error::LineInUse { .. } => Exit::InUse,
            Error::Invalid { .. } | Error::InvalidIrq(_) | Error::Exists { .. } => Exit::Usage,
            Error::NoEngine(_) => Exit::NoXen,
            Error::RunDir { errno, .. } if matches!(*errno, Errno::ACCESS | Errno::PERM) => {
                Exit::NotPermitted
            }
            _ => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

fn of_host(error: &HostError) -> Exit {
    match (&error.call, error.errno) {
        (_, Errno::ACCESS | Errno::PERM) => Exit::NotPermitted,
        (_, Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Exit::Failed,
        (Call::Open(_) | Call::Kernel(_), _) => Exit::NoXen,
        (Call::CreateServer(_), Errno::NOSPC) => Exit::InUse,
        // Of a guest that is served, the library says that it died.
        _ if error.is_gone() => Exit::NoGuest,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd::DomId;

    #[test]
    fn each_error_has_the_code_that_is_documented() {
        let code = |error: Error| u8::from(Failure::from(error).exit);
        let host = |call, errno| Error::Host(HostError::new(call, errno));
        let dom = DomId(7);
        assert_eq!(code(host(Call::Open("/dev/xen/privcmd"), Errno::NOENT)), 3);
        assert_eq!(code(host(Call::Open("/dev/xen/privcmd"), Errno::ACCESS)), 6);
        assert_eq!(code(host(Call::Open("/dev/xen/privcmd"), Errno::MFILE)), 1);
        assert_eq!(code(Error::NoEngine("none".into())), 3);
        assert_eq!(code(Error::UnknownDomain("x".into())), 7);
        assert_eq!(code(host(Call::CreateServer(dom), Errno::SRCH)), 7);
        assert_eq!(code(Error::GuestDied(dom)), 4);
        assert_eq!(code(host(Call::CreateServer(dom), Errno::NOSPC)), 5);
        assert_eq!(code(Error::InUse { dom, holder: "process 1".into() }), 5);
        assert_eq!(code(host(Call::CreateServer(dom), Errno::INVAL)), 1);
        let (what, path) = ("open", "/run".into());
        assert_eq!(code(Error::RunDir { what, path, errno: Errno::ACCESS }), 6);
    }
}
