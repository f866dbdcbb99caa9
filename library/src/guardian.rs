//! Who looks after the guests when this process is killed.
//!
//! A userspace engine that is killed leaves its server enabled and its guests' vCPUs waiting. The
//! guardian is a small process of its own, `xen-eventfd guard`, that waits for ours to end and then
//! reaps what it left. It is given a pidfd of this process as its standard input: unlike a pipe's
//! end, that cannot be held open by a forked child.

use crate::run_dir::absolute;
use crate::{Error, Result};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xen_eventfd_host::features::Feature;
use xen_eventfd_host::{Call, HostError};

/// Names the guardian's program.
pub const VARIABLE: &str = "XEN_EVENTFD_GUARDIAN";
/// The program's usual name.
const PROGRAM: &str = "xen-eventfd";

/// Who reaps after this process.
///
#[doc = example!(r#"
# let other = tempfile::tempdir()?;
// A supervisor runs `xen-eventfd reap` after a crash.
let xen = Xen::builder().run_dir(other.path()).guardian(Guardian::None).open_on(host)?;
"#)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guardian {
    /// The `xen-eventfd` command: the one that `XEN_EVENTFD_GUARDIAN` names, or that lies beside
    /// this program, or on the PATH.
    #[default]
    Auto,
    /// This program, called as `PROGRAM --run-dir DIR guard`. A relative path is one of the working
    /// directory in which [`crate::Builder::guardian`] is called; a name alone is looked for on the
    /// PATH.
    Program(PathBuf),
    /// Nobody, or a supervisor that runs `xen-eventfd reap`.
    None,
}

impl Guardian {
    /// The same whatever the working directory will be.
    pub(crate) fn absolute(self) -> Self {
        match self {
            Self::Program(path) => Self::Program(located(&path)),
            Self::Auto | Self::None => self,
        }
    }

    /// The same with the program found, if it is there: the working directory, of which the
    /// environment may speak, may be another when the program is needed.
    pub(crate) fn found(self) -> Self {
        match self {
            Self::Auto => find().map_or(Self::Auto, Self::Program),
            Self::Program(_) | Self::None => self,
        }
    }

    /// Starts the guardian, if there is to be one. It ends by itself after this process.
    pub(crate) fn start(&self, run_dir: &Path) -> Result<()> {
        let program = match self {
            Self::None => return Ok(()),
            Self::Program(program) => program.clone(),
            Self::Auto => find().ok_or_else(|| {
                Error::NoGuardian(format!("no {PROGRAM} beside this program or on the PATH"))
            })?,
        };
        let failed = |why: String| Error::NoGuardian(format!("{}: {why}", program.display()));
        let me: OwnedFd = pidfd_open(getpid(), PidfdFlags::empty()).map_err(|errno| {
            failed(HostError::new(Call::Kernel(Feature::PidFd), errno).to_string())
        })?;
        // Own process group: what kills the group of this process must not kill it.
        let mut child = Command::new(&program)
            .arg("--run-dir")
            .arg(run_dir)
            .arg("guard")
            .stdin(Stdio::from(me))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("cannot start it: {error}")))?;
        // It says nothing and ends after us; if it ends before, nobody is left in its place.
        let watch = move || match child.wait() {
            Ok(status) => tracing::warn!(%status, "the guardian has ended; guests are unguarded"),
            Err(error) => tracing::warn!(%error, "the guardian cannot be waited for"),
        };
        let name = "xen-eventfd-guardian".to_owned();
        std::thread::Builder::new()
            .name(name)
            .spawn(watch)
            .map_err(|error| failed(format!("cannot watch over it: {error}")))?;
        Ok(())
    }
}

fn find() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(|path| located(Path::new(&path)));
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let on_path = on_path(Path::new(PROGRAM));
    named.or_else(|| beside.into_iter().chain(on_path).find(|program| program.is_file()))
}

/// A program as a shell finds it: on the PATH if it is a name alone.
fn located(path: &Path) -> PathBuf {
    if path.as_os_str().as_encoded_bytes().contains(&b'/') {
        return absolute(path);
    }
    on_path(path).find(|program| program.is_file()).unwrap_or_else(|| path.to_owned())
}

fn on_path(name: &Path) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.into_iter().map(move |dir| absolute(&dir.join(name)))
}
