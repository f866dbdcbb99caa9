//! Servers whose engine was killed.
//!
//! Such a server is still enabled, and every vCPU that rings it waits for an answer that nobody
//! gives. Any process of this domain can destroy any server, so nothing is guessed: a server is
//! taken for an orphan only if its guest, its page, its ports and their bindings are all as the
//! record says.

use crate::Result;
use crate::run_dir::{Record, RunDir, ServerRecord};
use std::time::Duration;
use xen_eventfd_core::{DomId, Kick, Port, Request};
use xen_eventfd_host::{Binding, Errno, Host, IoreqPage};

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reaped {
    /// The server was an orphan. Its vCPUs are answered and woken, and it is gone.
    Swept {
        /// Kicks that were answered, and wait for the guest's next engine.
        kicks: usize,
    },
    /// The guest is gone, and the server with it.
    GuestGone,
    /// There is a server with that id, but it is not the one of the record. It was left alone.
    NotOurs,
    /// A living engine holds the guest.
    InUse,
}

/// How long the kernel may take to let go of a dead process's ports, in steps of [`PATIENCE_STEP`].
const PATIENCE: u32 = 100;
const PATIENCE_STEP: Duration = Duration::from_millis(10);

/// Recovers what the record names. The caller holds the guest's lock.
///
/// Afterwards the record names no server; kicks that were answered here are held in it.
pub(crate) fn recover(host: &dyn Host, run_dir: &RunDir, record: &mut Record) -> Result<Reaped> {
    let dom = DomId(record.domid);
    let same_guest = match host.domain(dom) {
        Ok(domain) => domain.uuid == record.uuid,
        Err(error) if error.is_gone() => false,
        Err(error) => return Err(error.into()),
    };
    if !same_guest {
        run_dir.remove(dom);
        record.server = None;
        record.held.clear();
        return Ok(Reaped::GuestGone);
    }
    let Some(server) = record.server.take() else {
        return Ok(Reaped::Swept { kicks: 0 });
    };
    let reaped = match recognise(host, dom, &server) {
        Ok(Some((page, ports))) => {
            let kicks = sweep(host, dom, &server, page, &ports)?;
            record.held.extend(kicks.iter().copied().map(Into::into));
            Reaped::Swept { kicks: kicks.len() }
        }
        Ok(None) => Reaped::NotOurs,
        Err(error) if error.is_gone() => Reaped::NotOurs,
        Err(error) => return Err(error.into()),
    };
    if record.held.is_empty() {
        run_dir.remove(dom);
    } else {
        run_dir.write(record)?;
    }
    Ok(reaped)
}

type Recognised = (Box<dyn IoreqPage>, Vec<Port>);

fn recognise(
    host: &dyn Host,
    dom: DomId,
    server: &ServerRecord,
) -> xen_eventfd_host::Result<Option<Recognised>> {
    let vcpus = host.vcpus(dom)? as usize;
    let page = host.map_page(dom, server.server())?;
    let shown: Vec<Port> = page.slots().iter().take(vcpus).map(|slot| slot.vp_eport()).collect();
    if server.ports().is_some_and(|recorded| recorded != shown) {
        return Ok(None);
    }
    // Never enabled, or killed between that and the record: then there may be no ports yet.
    let ports: Vec<Port> = shown.into_iter().filter(|port| *port != Port(0)).collect();
    for port in &ports {
        let mut patience = PATIENCE;
        loop {
            match host.binding(dom, *port)? {
                Binding::Unbound { .. } => break,
                Binding::Bound { .. } if patience > 0 => {
                    patience -= 1;
                    std::thread::sleep(PATIENCE_STEP);
                }
                Binding::Bound { .. } | Binding::Other => return Ok(None),
            }
        }
    }
    Ok(Some((page, ports)))
}

/// Adopts an orphan, answers and wakes its vCPUs, and destroys it.
fn sweep(
    host: &dyn Host,
    dom: DomId,
    server: &ServerRecord,
    page: Box<dyn IoreqPage>,
    ports: &[Port],
) -> Result<Vec<Kick>> {
    let gone_is_fine = |result: xen_eventfd_host::Result<()>| match result {
        Err(error) if !error.is_gone() => Err(error),
        _ => Ok(()),
    };
    let events = host.event_channels()?;
    gone_is_fine(host.set_server_state(dom, server.server(), false))?;
    let mut kicks = Vec::new();
    for slot in page.slots().iter().take(ports.len()) {
        if let Some(Request::Kick(kick)) = slot.sweep() {
            kicks.push(kick);
        }
    }
    for port in ports {
        let bound = match events.bind(dom, *port) {
            Ok(bound) => bound,
            Err(error) if matches!(error.errno, Errno::SRCH | Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        gone_is_fine(events.notify(bound))?;
        gone_is_fine(events.unbind(bound))?;
    }
    drop(page);
    gone_is_fine(host.destroy_server(dom, server.server()))?;
    Ok(kicks)
}
