//! The directory in which the processes that serve guests say what they hold.
//!
//! For each guest and [`Role`] there are two files: a lock, held by the one process that serves the guest
//! in that role, for as long as that process lives; and a record of its server, which outlives the process,
//! so that the next process can tell the server from a foreign one.

mod folder;
mod lock;
mod orphans;
mod process;

pub(crate) use lock::Lock;
pub use orphans::{Orphan, orphans};
#[cfg(fuzzing)]
pub use process::fuzz as fuzz_lock;
pub(crate) use process::is_ending;

use crate::record::Record;
use crate::{Error, Result, Role};
use folder::Folder;
use rustix::io::Errno;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use xen_eventfd_core::{DomId, IoServerId};

/// Where the directory is on a real host.
pub const DEFAULT: &str = "/run/xen-eventfd";

/// How long a reaper is waited for, in steps of [`PATIENCE_STEP`].
pub(crate) const PATIENCE: u32 = 500;
pub(crate) const PATIENCE_STEP: Duration = Duration::from_millis(10);

/// What a guest is locked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To serve it, as this says: `userspace engine`.
    Serve(&'static str),
    /// To recover what a killed process left.
    Reap,
}

/// More than any record is long.
const MAX_RECORD: u64 = 1 << 20;

/// The directory, with the files of one [`Role`]. It stays the same whatever the program does with its
/// working directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    folder: Arc<RwLock<Arc<Folder>>>,
    role: Role,
}

/// A path as it is kept: from the root, unless there is no working directory.
pub fn absolute(path: &Path) -> PathBuf {
    folder::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Who holds a guest's lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The guest.
    pub dom: DomId,
    /// The process, unless it has not said yet who it is.
    pub pid: Option<u32>,
    /// As the process says who it is: `process 412 (backend), userspace engine`. One line, without
    /// control characters.
    pub text: String,
    /// The server that the guest's record names.
    pub server: Option<IoServerId>,
}

impl Holder {
    /// The name of the process.
    ///
    #[doc = example!(r#"
let holders = run_dir::holders(dir.path(), Role::Registers)?;
assert_eq!(holders[0].pid, Some(std::process::id()));
assert!(holders[0].text.contains(holders[0].name().unwrap()));
"#)]
    pub fn name(&self) -> Option<&str> {
        process::name_of(&self.text)
    }

    /// The name of the engine that serves the guest; none, if the process is no engine, or only recovers
    /// what one left that was killed.
    ///
    #[doc = example!(r#"
assert_eq!(run_dir::holders(dir.path(), Role::Registers)?[0].engine(), None);
"#)]
    pub fn engine(&self) -> Option<&str> {
        process::engine_of(&self.text)
    }
}

/// The processes that serve the guests of a run directory in one role, in the order of the guests' numbers;
/// none, if there is no such directory. No process is disturbed, and what a dead one left is not among them.
///
/// # Errors
/// [`Error::RunDir`] if the directory or a lock cannot be read.
///
#[doc = example!(r#"
let holders = run_dir::holders(dir.path(), Role::Registers)?;
assert_eq!((holders.len(), holders[0].dom), (1, dom));
assert_eq!(run_dir::holders(dir.path(), Role::Doorbells)?, []);
"#)]
pub fn holders(path: &Path, role: Role) -> Result<Vec<Holder>> {
    RunDir::of_each_guest(path, role, "lock", RunDir::holder)
}

impl RunDir {
    /// Opens the directory, making it if need be, with mode 0700.
    ///
    /// # Errors
    /// [`Error::RunDir`]; [`Error::Untrusted`] if it is a link, belongs to another user than this one or
    /// root, or can be written to by others.
    pub fn open(path: &Path, role: Role) -> Result<Self> {
        Folder::make(path).map(|folder| Self::of(path, folder, role))
    }

    fn of(path: &Path, folder: Folder, role: Role) -> Self {
        Self { path: absolute(path), folder: Arc::new(RwLock::new(Arc::new(folder))), role }
    }

    /// What `look` finds for each guest that has a file of this kind, in the order of their numbers; nothing, if
    /// there is no such directory.
    fn of_each_guest<T>(
        path: &Path,
        role: Role,
        kind: &str,
        look: impl Fn(&Self, DomId) -> Result<Option<T>>,
    ) -> Result<Vec<T>> {
        let folder = match Folder::open(path) {
            Err(Error::RunDir { errno: Errno::NOENT, .. }) => return Ok(vec![]),
            folder => folder?,
        };
        let run_dir = Self::of(path, folder, role);
        let found = |dom| match look(&run_dir, dom) {
            // One that no engine made must not hide the others.
            Err(error @ Error::Untrusted { .. }) => {
                tracing::warn!(%error, "a file is passed over");
                None
            }
            found => found.transpose(),
        };
        run_dir.guests_with(kind)?.into_iter().filter_map(found).collect()
    }

    /// The same directory, with the files of another role.
    #[must_use]
    pub fn with_role(&self, role: Role) -> Self {
        Self { role, ..self.clone() }
    }

    /// The role whose files these are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether the directory could be opened and a guest be locked, without making either.
    ///
    /// # Errors
    /// As [`RunDir::open`].
    pub fn check(path: &Path) -> Result<()> {
        use rustix::fs::{Access, access};
        let writable = |dir: &Path| {
            let failed = |errno| Error::RunDir { what: "write to", path: dir.to_owned(), errno };
            access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(failed)
        };
        let absent = match Folder::open(path) {
            // It is made in the nearest one that is there.
            Err(Error::RunDir { errno: Errno::NOENT, path, .. }) => path,
            folder => return folder.and_then(|_| writable(path)),
        };
        writable(absent.ancestors().skip(1).find(|dir| dir.exists()).unwrap_or(&absent))
    }

    /// Its path, from the root.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory; if it was removed, the one that has its place.
    fn folder(&self) -> Result<Arc<Folder>> {
        let folder = Arc::clone(&self.folder.read().unwrap_or_else(PoisonError::into_inner));
        if !folder.is_removed() {
            return Ok(folder);
        }
        let new = Arc::new(Folder::open(&self.path)?);
        *self.folder.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        Ok(new)
    }

    /// Guests that have a record.
    pub(crate) fn recorded(&self) -> Result<Vec<DomId>> {
        self.guests_with("json")
    }

    /// Guests that have a file of this kind, in the order of their numbers.
    fn guests_with(&self, kind: &str) -> Result<Vec<DomId>> {
        let suffix = format!("{}.{kind}", self.role.infix());
        let names = self.folder()?.names()?;
        let mut guests: Vec<DomId> =
            names.iter().filter_map(|name| guest_of(name, &suffix)).collect();
        guests.sort();
        Ok(guests)
    }

    /// A guest's record. A damaged one reads as none: it recognises no server.
    ///
    /// # Errors
    /// When there is one that cannot be read: what it says must not be lost.
    pub(crate) fn read(&self, dom: DomId) -> Result<Option<Record>> {
        let name = self.record_of(dom);
        let Some(file) = self.folder()?.read(&name)? else { return Ok(None) };
        let mut text = Vec::new();
        let read = file.take(MAX_RECORD).read_to_end(&mut text);
        read.map_err(|error| failed("read", &self.path.join(name), &error))?;
        let record = Record::parse(dom, &text);
        if record.is_none() {
            tracing::warn!(%dom, "a record is damaged; it recognises no server");
        }
        Ok(record)
    }

    /// Writes a guest's record, in one step; removes it if there is nothing in it.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let name = self.record_of(record.dom());
        if record.is_empty() {
            return self.folder()?.remove(&name);
        }
        let text = serde_json::to_vec(record)
            .map_err(|error| failed("write", &self.path.join(&name), &error.into()))?;
        self.folder()?.replace(&name, &self.file_of(record.dom(), "new"), &text)
    }

    fn lock_of(&self, dom: DomId) -> String {
        self.file_of(dom, "lock")
    }

    fn record_of(&self, dom: DomId) -> String {
        self.file_of(dom, "json")
    }

    fn file_of(&self, dom: DomId, kind: &str) -> String {
        format!("{}{}.{kind}", dom.0, self.role.infix())
    }

    /// Removes what is kept of a guest that is gone: its record, and [files](RunDir::kept) for the next process.
    pub(crate) fn remove(&self, dom: DomId) {
        let kept = self.kept_of(dom, "");
        let removed = |folder: Arc<Folder>| {
            // An engine keeps none, and its threads may be forbidden to list a directory.
            let names = if self.role == Role::Registers { folder.names()? } else { vec![] };
            let files = names.into_iter().filter(|name| name.starts_with(&kept));
            files.chain([self.record_of(dom)]).try_for_each(|name| folder.remove(&name))
        };
        if let Err(error) = self.folder().and_then(removed) {
            tracing::warn!(%error, "a record stays");
        }
    }

    /// A file that the process that serves a guest keeps for the next one, to be read and written; `None` if there is
    /// none. It outlives the process and is removed once the guest is gone.
    ///
    /// # Errors
    /// [`Error::RunDir`]; [`Error::Untrusted`].
    ///
    #[doc = example!(r#"
let run_dir = RunDir::open(dir.path(), Role::Registers)?;
assert!(run_dir.kept(dom, "state")?.is_none());
run_dir.keep(dom, "state")?;
assert!(run_dir.kept(dom, "state")?.is_some());
run_dir.remove_kept(dom, "state")?;
"#)]
    pub fn kept(&self, dom: DomId, what: &str) -> Result<Option<File>> {
        self.folder()?.read_and_write(&self.kept_of(dom, what))
    }

    /// A new one, in place of the one before. Only the process that serves the guest makes it.
    ///
    /// # Errors
    /// [`Error::RunDir`].
    pub fn keep(&self, dom: DomId, what: &str) -> Result<File> {
        self.folder()?.new_file(&self.kept_of(dom, what))
    }

    /// Removes it. Nothing happens if there is none.
    ///
    /// # Errors
    /// [`Error::RunDir`].
    pub fn remove_kept(&self, dom: DomId, what: &str) -> Result<()> {
        self.folder()?.remove(&self.kept_of(dom, what))
    }

    fn kept_of(&self, dom: DomId, what: &str) -> String {
        self.file_of(dom, &format!("kept-{what}"))
    }
}

/// The guest whose file this is. `05` and `+5` are no names that we give.
fn guest_of(name: &str, suffix: &str) -> Option<DomId> {
    let number = name.strip_suffix(suffix)?;
    let dom = DomId(number.parse().ok()?);
    (dom.0.to_string() == number).then_some(dom)
}

fn failed(what: &'static str, path: &Path, error: &std::io::Error) -> Error {
    // What the standard library refuses by itself has no number.
    let own = if error.kind() == ErrorKind::InvalidInput { Errno::INVAL } else { Errno::IO };
    let errno = error.raw_os_error().map_or(own, Errno::from_raw_os_error);
    Error::RunDir { what, path: path.to_owned(), errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ServerRecord;
    use rustix::fs::FlockOperation;
    use std::io::Write;
    use xen_eventfd_core::{Kick, Space, Width};

    const ENGINE: Purpose = Purpose::Serve("userspace engine");

    #[test]
    fn a_second_engine_is_told_who_is_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        let first = run.lock(DomId(5), ENGINE).unwrap();
        let Err(Error::InUse { holder, .. }) = run.lock(DomId(5), ENGINE) else {
            panic!("two engines hold one guest")
        };
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        drop(first);
        assert!(run.lock(DomId(5), ENGINE).is_ok());
    }

    #[test]
    fn a_holder_that_has_not_said_who_it_is_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        // No process has a number like this.
        std::fs::write(dir.path().join("5.lock"), "process 4294967295 (dead), userspace engine")
            .unwrap();
        let mut silent = File::options().write(true).open(dir.path().join("5.lock")).unwrap();
        rustix::fs::flock(&silent, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| run.lock(DomId(5), ENGINE));
            std::thread::sleep(PATIENCE_STEP * 5);
            assert!(!second.is_finished(), "it believed the dead");
            silent.set_len(0).unwrap();
            writeln!(silent, "{}", process::this(ENGINE)).unwrap();
            let Err(Error::InUse { holder, .. }) = second.join().unwrap() else {
                panic!("two engines hold one guest")
            };
            assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        });
    }

    #[test]
    fn the_living_hold_what_they_have_locked() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        let _engine = run.lock(DomId(5), ENGINE).unwrap();
        let _reaper = run.lock(DomId(7), Purpose::Reap).unwrap();
        let mut record = Record::new(DomId(5), None);
        record.server = Some(ServerRecord { id: 6, ports: vec![], local: vec![] });
        run.write(&record).unwrap();
        let holders = holders(dir.path(), Role::Doorbells).unwrap();
        let listed: Vec<_> = holders.iter().map(|h| (h.dom, h.server, h.engine())).collect();
        let engine = (DomId(5), Some(IoServerId(6)), Some("userspace"));
        assert_eq!(listed, [engine, (DomId(7), None, None)]);
        assert!(holders.iter().all(|holder| holder.pid == Some(std::process::id())));
    }

    #[test]
    fn a_guest_is_held_once_and_by_whoever_has_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let hold = |name: &str| {
            let path = dir.path().join(name);
            let text = format!("process {} (caf", std::process::id()).into_bytes();
            std::fs::write(&path, [&text[..], b"\xc3), userspace engine\n"].concat()).unwrap();
            let file = File::open(&path).unwrap();
            rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
            file
        };
        let _files = ["5.lock", "+5.lock", "05.lock"].map(hold);
        let holders = holders(dir.path(), Role::Doorbells).unwrap();
        assert_eq!(holders.iter().map(Holder::name).collect::<Vec<_>>(), [Some("caf\u{fffd}")]);
    }

    #[test]
    fn what_the_dead_left_is_held_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let lock = |dom: u16, pid: u32| {
            let text = format!("process {pid} (gone), userspace engine\n");
            std::fs::write(dir.path().join(format!("{dom}.lock")), text).unwrap();
        };
        // No process has a number like the first; the second is another's by now.
        lock(5, u32::MAX);
        lock(6, std::process::id());
        assert_eq!(holders(dir.path(), Role::Doorbells).unwrap(), []);
        assert_eq!(holders(&dir.path().join("none"), Role::Doorbells).unwrap(), []);
    }

    #[test]
    fn records_come_back_as_they_went() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        let kick = Kick::new(Space::Pio, 0x50, Width::Two, 3);
        let mut record = Record::new(DomId(5), Some("u".to_owned()));
        record.created = vec![3];
        record.server = Some(ServerRecord { id: 7, ports: vec![4, 5], local: vec![1, 2] });
        record.hold([kick, kick]);
        run.write(&record).unwrap();
        assert_eq!(run.recorded().unwrap(), [DomId(5)]);
        assert_eq!(run.read(DomId(5)).unwrap(), Some(record.clone()));
        assert_eq!(record.held().collect::<Vec<_>>(), [kick]);
        run.write(&Record::new(DomId(5), None)).unwrap();
        assert_eq!(run.recorded().unwrap(), [], "one with nothing in it is none");
        run.write(&record).unwrap();
        run.remove(DomId(5));
        assert_eq!(run.read(DomId(5)).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_recognises_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        std::fs::write(dir.path().join("5.json"), b"{\"domid\": 6").unwrap();
        assert_eq!(run.read(DomId(5)).unwrap(), None);
    }
}
