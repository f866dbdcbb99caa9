//! What looks after the guests when this process ends without letting go of them.
//!
//! A userspace engine that is killed leaves its server enabled and its guests' vCPUs waiting. The
//! guardian is a small process, `xen-eventfd guard`, that waits for this process to end and then reaps what it
//! left. There is one for each process and run directory, for as long as the process has guests.
//!
//! It is tied to this process by a file in memory, its standard input, on which this process holds a
//! record lock (`F_SETLK`). Linux releases that when the process ends, and also when it executes another
//! program, which closes the file. A child that is forked does not inherit the lock, so, unlike the end
//! of a pipe, it cannot hold the guardian back; and unlike a pidfd, the lock is also released by `exec`.

mod descriptors;

pub use descriptors::{keep_descriptors, kept_descriptors};

use crate::eventfd;
use crate::{Error, Result};
use descriptors::Store;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, MemfdFlags, fcntl_lock, memfd_create};
use rustix::io::retry_on_intr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use xen_eventfd_host::process::ProcessTag;
use xen_eventfd_ioreq::run_dir::absolute;
use xen_eventfd_ioreq::{Role, RunDir, Thread};

/// Names the guardian's program.
pub const VARIABLE: &str = "XEN_EVENTFD_GUARDIAN";
/// The program's usual name.
const PROGRAM: &str = "xen-eventfd";

/// What reaps after this process.
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
    /// Nothing, or a supervisor that runs `xen-eventfd reap`.
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

    /// Keeps the guardian of this process for a run directory, for ioreq servers that the process has beside those
    /// of an engine (the crate `xen-eventfd-ioreq`). It recovers them too. An engine of its own keeps one by itself,
    /// unless the kernel module serves. `None` with [`Guardian::None`].
    ///
    /// # Errors
    /// [`Error::NoGuardian`] if its program is not there or cannot be started.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
assert!(Guardian::None.keep(other.path())?.is_none());
let missing = Guardian::Program("/no/such".into()).keep(other.path());
assert!(matches!(missing, Err(Error::NoGuardian(_))));
"#)]
    pub fn keep(&self, run_dir: &Path) -> Result<Option<Guarded>> {
        self.keep_for(run_dir, Duration::ZERO)
    }

    /// The same, and it waits before it recovers anything: as long as this, in whole seconds, another process may take
    /// the servers over (`GuestServer::take_over`). vCPUs that make a request of them wait meanwhile. A guardian
    /// that this process has already stays as it is.
    ///
    /// # Errors
    /// As [`Guardian::keep`].
    ///
    #[doc = example!(r#"
# use std::time::Duration;
# let other = tempfile::tempdir()?;
assert!(Guardian::None.keep_for(other.path(), Duration::from_secs(5))?.is_none());
"#)]
    pub fn keep_for(&self, run_dir: &Path, takeover: Duration) -> Result<Option<Guarded>> {
        let guard = self.clone().absolute().guard(&absolute(run_dir), takeover)?;
        Ok(guard.map(Guarded))
    }

    /// The guardian of this process for a run directory, if there is to be one: the one that runs, or
    /// else a new one.
    pub(crate) fn guard(&self, run_dir: &Path, takeover: Duration) -> Result<Option<Arc<Guard>>> {
        let program = match self {
            Self::None => return Ok(None),
            Self::Program(program) => program.clone(),
            Self::Auto => find().ok_or_else(|| {
                Error::NoGuardian(format!("no {PROGRAM} beside this program or on the PATH"))
            })?,
        };
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of a parent guard the parent.
        running.retain(|guard| guard.process.is_current() && guard.guard.strong_count() > 0);
        let same = |known: &&Known| known.program == program && known.run_dir == run_dir;
        let known = running.iter().find(same).and_then(|known| known.guard.upgrade());
        if let Some(guard) = known.filter(|guard| guard.runs()) {
            return Ok(Some(guard));
        }
        let guard = Arc::new(Guard::start(&program, run_dir, takeover)?);
        running.push(Known {
            process: ProcessTag::current(),
            program,
            run_dir: run_dir.to_owned(),
            guard: Arc::downgrade(&guard),
        });
        Ok(Some(guard))
    }
}

/// A guardian of this process, which is there until this is dropped or the guardian is killed.
#[derive(Debug)]
pub struct Guarded(Arc<Guard>);

impl Guarded {
    /// Whether the guardian is there.
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
if let Ok(Some(guarded)) = Guardian::Auto.keep(other.path()) {
    assert!(guarded.is_there());
}
"#)]
    pub fn is_there(&self) -> bool {
        self.0.runs()
    }

    /// Where the process that takes over finds what the guardian keeps ([`kept_descriptors`]). `None` if no other may
    /// take over ([`Guardian::keep`]).
    ///
    #[doc = example!(r#"
# let other = tempfile::tempdir()?;
if let Ok(Some(guarded)) = Guardian::Auto.keep(other.path()) {
    assert!(guarded.descriptors_at().is_none());
}
"#)]
    pub fn descriptors_at(&self) -> Option<&Path> {
        self.0.store.as_ref().map(|store| &*store.path)
    }

    /// Has the guardian keep a descriptor for the process that takes over, in place of the one that it has under this
    /// name. What is open there stays open for as long as the guardian has it.
    ///
    /// # Errors
    /// [`Error::NoGuardian`] if it has ended, or keeps none as no other process may take over.
    ///
    #[doc = example!(r#"
# use std::time::Duration;
# let other = tempfile::tempdir()?;
let (connection, _backend) = std::os::unix::net::UnixStream::pair()?;
if let Ok(Some(guarded)) = Guardian::Auto.keep_for(other.path(), Duration::from_secs(5)) {
    guarded.keep_descriptor("5/0", std::os::fd::AsFd::as_fd(&connection))?;
    guarded.forget_descriptor("5/0")?;
}
"#)]
    pub fn keep_descriptor(&self, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
        self.store()?.keep(name, fd)
    }

    /// Has the guardian close it.
    ///
    /// # Errors
    /// As [`Self::keep_descriptor`].
    pub fn forget_descriptor(&self, name: &str) -> Result<()> {
        self.store()?.forget(name)
    }

    fn store(&self) -> Result<&Store> {
        let none = || Error::NoGuardian("no other process may take over".to_owned());
        self.0.store.as_deref().ok_or_else(none)
    }
}

/// The guardians of this process.
static RUNNING: Mutex<Vec<Known>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Known {
    process: ProcessTag,
    program: PathBuf,
    run_dir: PathBuf,
    guard: Weak<Guard>,
}

/// A guardian that runs. When this is dropped it looks once more for what is left, and ends.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Locked. No other descriptor of this file may be closed in this process: that would release the
    /// lock.
    tie: Option<OwnedFd>,
    /// Signalled when the guardian is no longer needed.
    released: Arc<OwnedFd>,
    /// Whether the guardian is there.
    runs: Arc<AtomicBool>,
    /// Where it keeps descriptors, if another process may take over.
    store: Option<Arc<Store>>,
}

/// Sockets for descriptors that this process has made.
static STORES: AtomicU64 = AtomicU64::new(0);

/// What the file in memory is called; the guardian knows it by this name.
const TIE: &str = "xen-eventfd-process";
/// How long a guardian that is no longer needed may take. It reaps for half a minute at most.
const PATIENCE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

impl Guard {
    fn start(program: &Path, run_dir: &Path, takeover: Duration) -> Result<Self> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::NoGuardian(format!("{}: cannot {what}: {error}", program.display()))
        };
        let tie = memfd_create(TIE, MemfdFlags::CLOEXEC)
            .map_err(|errno| failed("make its standard input", &errno))?;
        let stdin = tie.try_clone().map_err(|error| failed("make its standard input", &error))?;
        let released = Arc::new(eventfd::new()?);
        let (store, stdout) = match takeover.is_zero() {
            true => (None, Stdio::piped()),
            false => {
                // It makes the directory if need be.
                let run_dir = RunDir::open(run_dir, Role::Registers)?;
                let number = STORES.fetch_add(1, Ordering::Relaxed);
                let name = format!("guardian-{}-{number}.sock", std::process::id());
                let made = Store::make(run_dir.path().join(name));
                let (store, listener) =
                    made.map_err(|errno| failed("make the socket for what it keeps", &errno))?;
                (Some(Arc::new(store)), Stdio::from(listener))
            }
        };
        // Own process group: what kills the group of this process must not kill it.
        let mut command = Command::new(program);
        command
            .arg("--run-dir")
            .arg(run_dir)
            .arg("guard")
            .args(takeover_words(takeover))
            .stdin(Stdio::from(stdin))
            .stdout(stdout)
            .process_group(0);
        let mut child = command.spawn().map_err(|error| failed("start it", &error))?;
        // Its copy of the file is closed here, which would release the lock. So the lock comes after
        // that, and what is written tells the guardian that it may wait for it.
        drop(command);
        let tied = fcntl_lock(&tie, FlockOperation::NonBlockingLockExclusive)
            .and_then(|()| rustix::io::write(&tie, b"1"));
        if let Err(errno) = tied {
            end(&mut child);
            return Err(failed("tie it to this process", &errno));
        }
        let runs = Arc::new(AtomicBool::new(true));
        let child = Arc::new(Mutex::new(child));
        let watched = (Arc::clone(&child), Arc::clone(&runs), Arc::clone(&released));
        let its_store = store.clone();
        let watch = move || watch(&watched.0, its_store, &watched.1, &watched.2);
        if let Err(error) = Thread::spawn("xen-guardian", watch) {
            end(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
            return Err(failed("watch over it", &error));
        }
        Ok(Self { tie: Some(tie), released, runs, store })
    }
}

impl Guard {
    /// Whether the guardian is there.
    pub(crate) fn runs(&self) -> bool {
        self.runs.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.runs.store(false, Ordering::Release);
        let _ = rustix::io::write(&self.released, &1_u64.to_ne_bytes());
        self.tie.take();
    }
}

/// The guardian's words for so much time; none for none, which every version of it knows.
fn takeover_words(takeover: Duration) -> Vec<String> {
    match takeover.as_secs() {
        0 => vec![],
        seconds => vec!["--takeover-time".to_owned(), seconds.to_string()],
    }
}

/// Waits for the end of a guardian. One that is no longer needed and does not end by itself is ended.
fn watch(child: &Mutex<Child>, store: Option<Arc<Store>>, runs: &AtomicBool, released: &OwnedFd) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    // It writes nothing, and has its end of the one or the other open until it ends.
    let stdout = child.stdout.take();
    let says = store.as_ref().map(|store| store.fd()).or(stdout.as_ref().map(AsFd::as_fd));
    if let Some(says) = says {
        let event = PollFlags::IN | PollFlags::HUP;
        let mut ends = [PollFd::from_borrowed_fd(says, event), PollFd::new(released, event)];
        let _ = retry_on_intr(|| poll(&mut ends, None));
        if ends[0].revents().is_empty() {
            let over = retry_on_intr(|| poll(&mut ends[..1], Some(&PATIENCE)));
            if over.is_ok_and(|ended| ended == 0) {
                tracing::warn!("the guardian does not end; it is killed");
                let _ = child.kill();
            }
        }
    }
    match child.wait() {
        // Guests that are taken from now on get another.
        Ok(status) if runs.swap(false, Ordering::AcqRel) => {
            tracing::warn!(%status, "the guardian has ended; guests are unguarded");
        }
        Ok(status) => tracing::debug!(%status, "the guardian has ended"),
        Err(error) => tracing::warn!(%error, "the guardian cannot be waited for"),
    }
}

/// Ends a guardian that is of no use.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What [`Guardian::Auto`] comes to in a program that does not lie beside the command.
pub(crate) fn find_for_others() -> Option<PathBuf> {
    find_beside(None)
}

fn find() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok();
    find_beside(exe.as_deref().and_then(Path::parent))
}

fn find_beside(folder: Option<&Path>) -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).map(|path| located(Path::new(&path)));
    let beside = folder.map(|folder| folder.join(PROGRAM));
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
