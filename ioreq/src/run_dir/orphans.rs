//! What killed processes left, and no process has recovered yet.

use super::RunDir;
use crate::record::Record;
use crate::{Result, Role};
use std::path::Path;
use xen_eventfd_core::{DomId, IoServerId};

/// A guest whose record names a server, and that no living process holds in that role: the process that
/// served it was killed, and a vCPU waits as soon as it makes a request of that server. [`crate::reap`] or
/// the next process that takes the guest recovers it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// The guest.
    pub dom: DomId,
    /// The server that serves it still; `None` if the engine died before it was enabled.
    pub server: Option<IoServerId>,
}

/// The orphans of a run directory in one role, in the order of their numbers. No file is changed, and no
/// process disturbed.
///
/// # Errors
/// [`crate::Error::RunDir`] if the directory or a lock cannot be read.
///
#[doc = example!(r#"
// The guest is held by a process that lives.
assert_eq!(run_dir::orphans(dir.path(), Role::Registers)?, []);
"#)]
pub fn orphans(path: &Path, role: Role) -> Result<Vec<Orphan>> {
    RunDir::of_each_guest(path, role, "json", RunDir::orphan)
}

impl RunDir {
    /// What a guest's dead engine left, if there is a dead one.
    fn orphan(&self, dom: DomId) -> Result<Option<Orphan>> {
        // In this order: an engine removes its record before it lets go of the lock.
        if self.holder(dom)?.is_some() {
            return Ok(None);
        }
        let left = |record: &Record| record.server.is_some() || !record.created.is_empty();
        let record = self.read(dom)?.filter(left);
        let server = |record: Record| record.server.map(|server| IoServerId(server.id));
        Ok(record.map(|record| Orphan { dom, server: server(record) }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Purpose;
    use super::*;
    use crate::record::ServerRecord;
    use xen_eventfd_core::{Kick, Space, Width};

    fn record(run: &RunDir, dom: u16, change: impl FnOnce(&mut Record)) {
        let mut record = Record::new(DomId(dom), None);
        change(&mut record);
        run.write(&record).unwrap();
    }

    #[test]
    fn a_record_without_a_living_holder_is_an_orphan() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path(), Role::Doorbells).unwrap();
        let serves = |id| {
            move |record: &mut Record| {
                record.server = Some(ServerRecord { id, ports: vec![4], local: vec![] });
            }
        };
        record(&run, 5, serves(7));
        record(&run, 6, serves(7));
        record(&run, 8, |record| record.created = vec![3]);
        let kick = Kick::new(Space::Pio, 0x50, Width::Two, 3);
        record(&run, 9, |record| record.hold([kick]));
        let _living = run.lock(DomId(6), Purpose::Serve("userspace engine")).unwrap();
        let found = orphans(dir.path(), Role::Doorbells).unwrap();
        let found: Vec<_> = found.iter().map(|orphan| (orphan.dom, orphan.server)).collect();
        assert_eq!(found, [(DomId(5), Some(IoServerId(7))), (DomId(8), None)]);
    }

    #[test]
    fn without_a_directory_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(orphans(&dir.path().join("none"), Role::Doorbells).unwrap(), []);
    }
}
