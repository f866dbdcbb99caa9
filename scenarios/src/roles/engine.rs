//! An engine in a process of its own, so that it can be killed.

use super::{Actor, Ask, Say};
use crate::roles::kill::{Kill, Mortal};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use xen_eventfd::{DomId, Host, IoEventAddress, Xen};

/// What the engine serves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    /// The guest.
    pub dom: u16,
    /// Doorbells of 4 bytes: address and value, one for each descriptor that comes along.
    pub doorbells: Vec<(u64, u32)>,
    /// Where it dies, if it does.
    pub kill: Option<Kill>,
}

pub(super) fn play(actor: Actor, spec: &Spec, fds: &[OwnedFd]) -> Result<()> {
    let Actor { host, link, run_dir, guardian, die } = actor;
    let host: Arc<dyn Host> = match spec.kill {
        Some(kill) => Arc::new(Mortal::new(host, kill, die.clone())),
        None => host,
    };
    let xen = Xen::builder().run_dir(run_dir).guardian(guardian).open_on(host)?;
    let guest = xen.guest(DomId(spec.dom))?;
    let mut registered = Vec::new();
    for (fd, (addr, value)) in fds.iter().zip(&spec.doorbells) {
        registered.push(guest.register_ioevent(fd, &IoEventAddress::Mmio(*addr), *value)?);
    }
    link.send(&Say::Ready { server: guest.server().0 }, &[])?;
    let asked = link.receive::<Ask>(crate::PATIENCE).context("waiting to be stopped");
    if die.is_dead() {
        // A thread on the model. The dead run no destructors.
        std::mem::forget((registered, guest, xen));
        return Ok(());
    }
    if asked?.is_some() {
        drop(registered);
        guest.close()?;
    }
    Ok(())
}
