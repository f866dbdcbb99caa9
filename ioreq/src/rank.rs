//! Creating a server at the rank of its role, and giving one back that never served.

use crate::record::Record;
use crate::run_dir::RunDir;
use crate::{Error, Result, Role};
use std::time::Duration;
use xen_eventfd_core::IoServerId;
use xen_eventfd_host::{Call, Errno, Host, HostError};

/// Ioreq servers that one guest can have (`MAX_NR_IOREQ_SERVERS`).
const MAX_SERVERS: usize = 8;

/// How long another process may hold all free ids while it takes the highest, in steps of
/// [`PATIENCE_STEP`].
const PATIENCE: u32 = 20;
const PATIENCE_STEP: Duration = Duration::from_millis(10);

/// Creates a server at the rank of the role. It is in the record as created.
///
/// # Errors
/// The host's, if none could be created.
pub(crate) fn create(host: &dyn Host, run_dir: &RunDir, record: &mut Record) -> Result<IoServerId> {
    match run_dir.role() {
        Role::Doorbells => create_highest(host, run_dir, record),
        Role::Registers => create_lowest(host, run_dir, record),
    }
}

/// Creates the server with the lowest id that is free.
fn create_lowest(host: &dyn Host, run_dir: &RunDir, record: &mut Record) -> Result<IoServerId> {
    let mut patience = PATIENCE;
    let id = loop {
        match host.create_server(record.dom()) {
            Err(error) if error.errno == Errno::NOSPC && patience > 0 => patience -= 1,
            created => break created?,
        }
        std::thread::sleep(PATIENCE_STEP);
    };
    let known = record.created.len();
    record.created.push(id.0);
    match run_dir.write(record) {
        Ok(()) => Ok(id),
        Err(error) => Err(give_all_back(host, run_dir, record, known, error)),
    }
}

/// Creates the server with the highest id that is free.
///
/// Xen hands out the lowest free id and asks the highest first, so a server created later would
/// outrank one that took the lowest. All free ids are taken, the highest kept, the others given
/// back before any is enabled. All of them are in the record meanwhile, but for one that Xen has
/// just created or is just destroying: if we are killed at that very moment it stays, without a
/// page and without a vCPU that would wait for it.
fn create_highest(host: &dyn Host, run_dir: &RunDir, record: &mut Record) -> Result<IoServerId> {
    let dom = record.dom();
    let known = record.created.len();
    let mut refused = HostError::new(Call::CreateServer(dom), Errno::NOSPC);
    while record.created.len() - known < MAX_SERVERS {
        match host.create_server(dom) {
            Ok(id) => {
                record.created.push(id.0);
                if let Err(error) = run_dir.write(record) {
                    return Err(give_all_back(host, run_dir, record, known, error));
                }
            }
            // Each costs the guest some ports, so it may end sooner than at the eighth.
            Err(error) => {
                refused = error;
                break;
            }
        }
    }
    let created = record.created[known..].to_vec();
    let highest = created.iter().copied().max();
    for id in created.into_iter().filter(|id| Some(*id) != highest).map(IoServerId) {
        if let Err(error) = give_back(host, run_dir, record, id) {
            tracing::warn!(%error, "a spare ioreq server stays");
        }
    }
    highest.map(IoServerId).ok_or(refused.into())
}

/// Gives back what was created just now, as the last of it could not be recorded. Returns why.
fn give_all_back(
    host: &dyn Host,
    run_dir: &RunDir,
    record: &mut Record,
    known: usize,
    why: Error,
) -> Error {
    let mut created = record.created.split_off(known);
    // One with nothing in it needs no room. If others cannot be forgotten, they stay.
    if run_dir.write(record).is_err() {
        let unrecorded = created.pop();
        record.created.append(&mut created);
        created.extend(unrecorded);
    }
    for id in created {
        if let Err(error) = host.destroy_server(record.dom(), IoServerId(id)) {
            tracing::warn!(%error, "an ioreq server stays");
        }
    }
    why
}

/// Destroys a server that is in the record as created and was never enabled.
///
/// # Errors
/// The server stays then, and so does the record of it.
pub(crate) fn give_back(
    host: &dyn Host,
    run_dir: &RunDir,
    record: &mut Record,
    id: IoServerId,
) -> Result<()> {
    // First, as its id may be another's a moment later.
    record.created.retain(|created| *created != id.0);
    let given_back =
        run_dir.write(record).and_then(|()| match host.destroy_server(record.dom(), id) {
            Err(error) if !error.is_gone() => Err(error.into()),
            _ => Ok(()),
        });
    if given_back.is_err() {
        record.created.push(id.0);
        // What cannot be written is still there from before.
        let _ = run_dir.write(record);
    }
    given_back
}
