//! Servers whose process was killed.
//!
//! Such a server is still enabled, and every vCPU that makes a request of it waits for ever. Any process of this domain can destroy any server, so nothing is guessed: a server is
//! taken for an orphan only if its guest, its page, its ports and their bindings are all as the
//! record says. Its ports are unbound; or, if a child that the dead process forked has its descriptors,
//! bound to the very ends that the process had.

use crate::rank::give_back;
use crate::record::{Record, ServerRecord};
use crate::run_dir::{Purpose, RunDir};
use crate::server::Server;
use crate::{Error, Result, Role};
use std::path::Path;
use std::time::Duration;
use xen_eventfd_core::{DomId, IoServerId, Port, Request};
use xen_eventfd_host::{Binding, EventChannels, Host, IoreqPage, LocalPort};

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaped {
    /// The server was an orphan. Its vCPUs are answered and woken, and it is gone.
    Swept {
        /// Writes that were answered, and wait for the guest's next engine.
        kicks: usize,
    },
    /// The guest is gone, and the server with it.
    GuestGone,
    /// There is a server with that id, but it is not the one of the record. It was left alone.
    NotOurs,
    /// A living process holds the guest.
    InUse,
}

/// Recovers the servers of all guests that have a record and no living process: a guest is named once for
/// each [`Role`] in which it has a record.
///
/// # Errors
/// The first failure of each guest stands beside it; the call itself fails only if the directory cannot be
/// read.
///
#[doc = example!(r#"
// A guest that a living process holds is left alone.
let reaped = reap(&*model.client("reaper"), dir.path())?;
assert!(matches!(reaped[..], [(_, Ok(Reaped::InUse))]));
"#)]
pub fn reap(host: &dyn Host, path: &Path) -> Result<Vec<(DomId, Result<Reaped>)>> {
    let mut reaped = Vec::new();
    for role in Role::ALL {
        let run_dir = RunDir::open(path, role)?;
        let guests = run_dir.recorded()?.into_iter();
        reaped.extend(guests.map(|dom| (dom, reap_guest(host, &run_dir, dom))));
    }
    Ok(reaped)
}

fn reap_guest(host: &dyn Host, run_dir: &RunDir, dom: DomId) -> Result<Reaped> {
    let _lock = match run_dir.lock(dom, Purpose::Reap) {
        Err(Error::InUse { .. }) => return Ok(Reaped::InUse),
        lock => lock?,
    };
    match run_dir.read(dom)? {
        Some(mut record) => recover(host, None, run_dir, &mut record),
        None => Ok(Reaped::NotOurs),
    }
}

/// How long the kernel may take to let go of a dead process's ports, in steps of [`PATIENCE_STEP`].
const PATIENCE: u32 = 100;
const PATIENCE_STEP: Duration = Duration::from_millis(10);

/// Recovers what the record names. The caller holds the guest's lock.
///
/// `events`: the event channels of a process that has some already, as it may be able to have no others.
///
/// Afterwards the record names no server; kicks that were answered here are held in it.
pub(crate) fn recover(
    host: &dyn Host,
    events: Option<&dyn EventChannels>,
    run_dir: &RunDir,
    record: &mut Record,
) -> Result<Reaped> {
    let reaped = match find(host, run_dir, record)? {
        Sought::Orphan(server, found) => {
            Reaped::Swept { kicks: sweep(host, events, run_dir, record, &server, found)? }
        }
        Sought::Nothing => Reaped::Swept { kicks: 0 },
        Sought::GuestGone => return Ok(Reaped::GuestGone),
        Sought::NotOurs => Reaped::NotOurs,
    };
    forget_server(run_dir, record)?;
    Ok(reaped)
}

/// Takes the server that the record names into service again, as it is, so that requests that wait are not answered
/// for a dead process. `None`, after recovering what can be recovered, if there is none, or its process left a child
/// that keeps its ports. The caller holds the guest's lock.
pub(crate) fn adopt(
    host: &dyn Host,
    events: &dyn EventChannels,
    run_dir: &RunDir,
    record: &mut Record,
) -> Result<Option<Server>> {
    let (server, found) = match find(host, run_dir, record)? {
        Sought::Orphan(server, found) if found.kept.iter().all(Option::is_none) => (server, found),
        Sought::Orphan(server, found) => {
            sweep(host, Some(events), run_dir, record, &server, found)?;
            forget_server(run_dir, record)?;
            return Ok(None);
        }
        Sought::GuestGone => return Err(Error::GuestDied(record.dom())),
        Sought::Nothing | Sought::NotOurs => {
            forget_server(run_dir, record)?;
            return Ok(None);
        }
    };
    let adopted = Server::orphan(&server, found.page, found.kept);
    adopted.serve_again(host, events, run_dir, record).map(Some)
}

fn forget_server(run_dir: &RunDir, record: &mut Record) -> Result<()> {
    if record.server.is_some() || record.inherited {
        record.server = None;
        record.inherited = false;
        run_dir.write(record)?;
    }
    Ok(())
}

/// What a record's server turned out to be.
enum Sought {
    /// An orphan.
    Orphan(ServerRecord, Found),
    /// The record names none.
    Nothing,
    GuestGone,
    NotOurs,
}

/// Looks for the server that the record names, and gives back what was created and never enabled.
fn find(host: &dyn Host, run_dir: &RunDir, record: &mut Record) -> Result<Sought> {
    let dom = record.dom();
    let same_guest = match host.domain(dom) {
        Ok(domain) => domain.uuid == record.uuid,
        Err(error) if error.is_gone() => false,
        Err(error) => return Err(error.into()),
    };
    if !same_guest {
        *record = Record::new(dom, record.uuid.take());
        run_dir.write(record)?;
        return Ok(Sought::GuestGone);
    }
    for id in record.created.clone() {
        recover_created(host, run_dir, record, IoServerId(id))?;
    }
    let Some(server) = record.server.clone() else { return Ok(Sought::Nothing) };
    match recognise(host, dom, &server, record.inherited) {
        Ok(Some(found)) => Ok(Sought::Orphan(server, found)),
        Ok(None) => Ok(Sought::NotOurs),
        Err(error) if error.is_gone() => Ok(Sought::NotOurs),
        Err(error) => Err(error.into()),
    }
}

/// The ports that the page of a server shows.
fn ports(host: &dyn Host, dom: DomId, page: &dyn IoreqPage) -> xen_eventfd_host::Result<Vec<u32>> {
    let vcpus = host.vcpus(dom)? as usize;
    Ok(page.slots().iter().take(vcpus).map(|slot| slot.vp_eport().0).collect())
}

/// Recovers a server whose process did not come so far as to record its ports. A record of such a
/// server ends before it does, so it is the one that was created.
fn recover_created(
    host: &dyn Host,
    run_dir: &RunDir,
    record: &mut Record,
    id: IoServerId,
) -> Result<()> {
    let dom = record.dom();
    let seen = host.map_page(dom, id).and_then(|page| ports(host, dom, &*page));
    match seen {
        Ok(shown) if shown.iter().all(|port| *port == 0) => {
            return give_back(host, run_dir, record, id);
        }
        // Enabled: from here on like any other.
        Ok(ports) => record.server = Some(ServerRecord { id: id.0, ports, local: vec![] }),
        // Whatever has that id a moment later is another's.
        Err(error) if error.is_gone() => {}
        Err(error) => return Err(error.into()),
    }
    record.created.retain(|created| *created != id.0);
    run_dir.write(record)
}

/// An orphan.
struct Found {
    page: Box<dyn IoreqPage>,
    /// For each vCPU, our domain's end of its channel if a child of the dead process keeps it bound.
    kept: Vec<Option<LocalPort>>,
}

/// Looks whether this is the server of the record. `inherited`: a child that the dead process forked
/// has its descriptors, so a port may be bound, to the very end that the process had bound.
fn recognise(
    host: &dyn Host,
    dom: DomId,
    server: &ServerRecord,
    inherited: bool,
) -> xen_eventfd_host::Result<Option<Found>> {
    let page = host.map_page(dom, IoServerId(server.id))?;
    if ports(host, dom, &*page)? != server.ports {
        return Ok(None);
    }
    let mut kept = Vec::with_capacity(server.ports.len());
    for (index, port) in server.ports.iter().enumerate() {
        let ours = server.local.get(index).filter(|_| inherited).map(|local| LocalPort(*local));
        let mut patience = PATIENCE;
        loop {
            match host.binding(dom, Port(*port))? {
                Binding::Unbound { .. } => {
                    kept.push(None);
                    break;
                }
                Binding::Bound { port, .. } if Some(port) == ours => {
                    kept.push(ours);
                    break;
                }
                Binding::Bound { .. } if patience > 0 => {
                    patience -= 1;
                    std::thread::sleep(PATIENCE_STEP);
                }
                Binding::Bound { .. } | Binding::Other => return Ok(None),
            }
        }
    }
    Ok(Some(Found { page, kept }))
}

/// Takes an orphan, answers and wakes its vCPUs, and destroys it. Returns how many kicks were
/// answered.
fn sweep(
    host: &dyn Host,
    events: Option<&dyn EventChannels>,
    run_dir: &RunDir,
    record: &mut Record,
    server: &ServerRecord,
    found: Found,
) -> Result<usize> {
    let Found { page, kept } = found;
    let (dom, id) = (record.dom(), IoServerId(server.id));
    let opened;
    let events = match events {
        Some(events) => events,
        None => {
            opened = host.event_channels()?;
            &*opened
        }
    };
    let disabled = host.set_server_state(dom, id, false);
    if Server::is_gone(&disabled) {
        return Ok(0);
    }
    // The writes to a server that goes on are not put down while they come.
    disabled?;
    let slots = page.slots().iter().take(server.ports.len());
    let kicks: Vec<_> = slots
        .filter_map(|slot| match slot.waiting() {
            Some(Request::Kick(kick)) => Some(kick),
            _ => None,
        })
        .collect();
    // Before they are answered: if this process is killed as well, they are known only here.
    record.hold(kicks.iter().copied());
    run_dir.write(record)?;
    Server::orphan(server, page, kept).tear_down(Ok(()), host, events, dom)?;
    Ok(kicks.len())
}
