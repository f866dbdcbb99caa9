//! A guest's lock: two locks of Linux on one file.
//!
//! * A *record lock* (`F_SETLK`) belongs to the process. It ends with the process, also when that
//!   executes another program, and no child that is forked has it: who has it serves the guest.
//! * A `flock` belongs to the open file. A forked child has that too, so it lasts until the last process
//!   has closed it: with it the engine's other descriptors, above all its event channels.
//!
//! A file with the second and without the first is a dead engine's whose child lives. Its guest is free,
//! and the record says from then on that its ports may still be bound.
//!
//! Linux drops a record lock when the process closes *any* descriptor of the file. So a process never
//! opens a file that it has locked: [`HELD`] knows them.

use super::folder::Folder;
use super::{Holder, PATIENCE, PATIENCE_STEP, Purpose, RunDir, failed, process};
use crate::{Error, Result};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xen_eventfd_core::{DomId, IoServerId};
use xen_eventfd_host::process::ProcessTag;

/// How long a `flock` may outlast the record lock of a process that ends, in steps of
/// [`PATIENCE_STEP`].
const PATIENCE_FOR_END: u32 = 100;

/// Which file it is: its device and its number there.
pub(super) type FileId = (u64, u64);

/// The files that this process has locked, and what it says in them.
#[derive(Debug)]
struct Held {
    process: ProcessTag,
    files: BTreeMap<FileId, String>,
}

static HELD: Mutex<Option<Held>> = Mutex::new(None);

/// Locked for as long as a file may be opened or closed.
struct HeldGuard(MutexGuard<'static, Option<Held>>);

impl HeldGuard {
    fn lock() -> Self {
        Self(HELD.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn files(&mut self) -> &mut BTreeMap<FileId, String> {
        let process = ProcessTag::current();
        // What a parent holds is the parent's.
        if self.0.as_ref().is_some_and(|held| held.process != process) {
            *self.0 = None;
        }
        &mut self.0.get_or_insert_with(|| Held { process, files: BTreeMap::new() }).files
    }
}

/// A guest that is ours: as long as this lives, no other engine serves it.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<File>,
    id: FileId,
    folder: Arc<Folder>,
    name: String,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = HeldGuard::lock();
        if held.files().remove(&self.id).is_none() {
            // A parent's.
            return;
        }
        let Some(file) = self.file.take() else { return };
        // While still locked: a process that waits for this very file sees that it is no longer the one.
        if self.folder.has(&self.name, &file)
            && let Err(error) = self.folder.remove(&self.name)
        {
            tracing::debug!(%error, "a lock's file stays");
        }
        // A forked child may have the descriptor too.
        let _ = flock(&file, FlockOperation::Unlock);
    }
}

/// What came of one look at a lock.
enum Look {
    Locked(Lock),
    /// It is held, by a process that says this.
    Held(String),
    /// The process that had it is no more, and a child of it has the descriptors.
    Orphaned,
}

impl RunDir {
    /// Locks a guest for this process. A reaper is waited for: it is done in a moment. So is one
    /// that has not said yet who it is: then the file still names a process that is dead.
    ///
    /// # Errors
    /// [`Error::InUse`] names who holds it.
    pub(crate) fn lock(&self, dom: DomId, purpose: Purpose) -> Result<Lock> {
        let (mut patience, mut orphaned) = (PATIENCE, 0);
        loop {
            match self.look(dom, purpose, orphaned >= PATIENCE_FOR_END)? {
                Look::Locked(lock) => return Ok(lock),
                Look::Orphaned => orphaned += 1,
                Look::Held(holder) => {
                    let leaves = holder.is_empty()
                        || process::is_reaper(&holder)
                        || process::is_dead(&holder);
                    if patience == 0 || !leaves {
                        return Err(Error::InUse { dom, holder });
                    }
                    patience -= 1;
                    orphaned = 0;
                }
            }
            std::thread::sleep(PATIENCE_STEP);
        }
    }

    fn look(&self, dom: DomId, purpose: Purpose, take_over: bool) -> Result<Look> {
        let (folder, name) = (self.folder()?, self.lock_of(dom));
        let failed = |what| {
            let path = self.path.join(&name);
            move |errno| Error::RunDir { what, path: path.clone(), errno }
        };
        let mut held = HeldGuard::lock();
        loop {
            if let Some(said) = folder.id(&name).and_then(|id| held.files().get(&id).cloned()) {
                return Ok(Look::Held(said));
            }
            let Some(mut file) = folder.write(&name)? else { continue };
            let unreadable = |error| super::failed("read", &self.path.join(&name), &error);
            match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => {
                    return Ok(Look::Held(process::said(file).map_err(unreadable)?.text));
                }
                Err(errno) => return Err(failed("lock")(errno)),
            }
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN) => {
                    let said = process::said(&file).map_err(unreadable)?;
                    if !said.has_record_lock && !process::is_dead(&said.text) {
                        return Ok(Look::Held(said.text));
                    }
                    if !take_over {
                        return Ok(Look::Orphaned);
                    }
                    // No other process may replace the file: the record lock of the old one is ours.
                    if folder.has(&name, &file) {
                        self.record_heir(dom)?;
                        folder.remove(&name)?;
                    }
                    continue;
                }
                Err(errno) => return Err(failed("lock")(errno)),
            }
            // Its last holder may have removed it between our open and our lock.
            if !folder.has(&name, &file) {
                continue;
            }
            let id = Folder::id_of(&file).map_err(failed("look at"))?;
            let text = process::this(purpose);
            file.set_len(0)
                .and_then(|()| write!(file, "{text}\n{}\n", process::RECORD_LOCK))
                .map_err(|error| super::failed("write", &self.path.join(&name), &error))?;
            held.files().insert(id, text);
            return Ok(Look::Locked(Lock { file: Some(file), id, folder, name }));
        }
    }

    /// Notes that a child of the guest's dead engine has its descriptors.
    fn record_heir(&self, dom: DomId) -> Result<()> {
        tracing::warn!(%dom, "the engine is dead, and a child that it forked has its descriptors");
        let Some(mut record) = self.read(dom)? else { return Ok(()) };
        record.inherited = true;
        self.write(&record)
    }

    /// Who holds a guest; `None`: no process does.
    pub(super) fn holder(&self, dom: DomId) -> Result<Option<Holder>> {
        let (folder, name) = (self.folder()?, self.lock_of(dom));
        let mut held = HeldGuard::lock();
        let ours = folder.id(&name).and_then(|id| held.files().get(&id).cloned());
        let text = match ours {
            Some(text) => text,
            None => {
                let Some(file) = folder.read(&name)? else { return Ok(None) };
                let said = process::said(&file)
                    .map_err(|error| failed("read", &self.path.join(&name), &error))?;
                // Its number may have become another's. A process that wants the lock while we try it reads
                // the name of a process that is dead, and waits.
                let shared = FlockOperation::NonBlockingLockShared;
                let free = || {
                    said.has_record_lock && fcntl_lock(&file, shared).is_ok()
                        || flock(&file, shared).is_ok()
                };
                if process::is_dead(&said.text) || free() {
                    return Ok(None);
                }
                said.text
            }
        };
        drop(held);
        let pid = process::pid_of(&text);
        let record = match self.read(dom) {
            Err(Error::Untrusted { .. }) => None,
            record => record?,
        };
        let server = record.and_then(|record| record.server);
        let server = server.map(|server| IoServerId(server.id));
        Ok(Some(Holder { dom, pid, text, server }))
    }
}
