//! An engine in a process of its own, so that it can be killed.

use super::{Helper, HelperCommand, HelperReply};
use crate::Engine;
use crate::link::Link;
use crate::roles::kill::{Die, Kill, KillPointHost};
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use xen_eventfd::{DomId, Guest, IoEventAddress, Xen};

/// What the engine serves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Spec {
    /// The guest.
    pub dom: u16,
    /// Doorbells of 4 bytes: address and value, one for each descriptor of the message.
    pub doorbells: Vec<(u64, u32)>,
    /// The kind of engine, on this machine's Xen.
    pub engine: Option<Engine>,
    /// Where it dies, if it does.
    pub kill: Option<Kill>,
}

pub(super) fn run(helper: Helper, spec: &Spec, fds: &[OwnedFd]) -> Result<()> {
    let Helper { host, link, run_dir, guardian, die } = helper;
    let builder = Xen::builder().run_dir(run_dir).guardian(guardian);
    let in_module = matches!(spec.engine, Some(Engine::Kernel | Engine::Privcmd));
    let xen = match (spec.engine, spec.kill) {
        // The steps of a userspace engine are calls of its host.
        (_, Some(kill)) if !in_module => {
            builder.open_on(Arc::new(KillPointHost::new(host, kill, die.clone())))?
        }
        (Some(engine), _) => engine.open(builder)?,
        (None, _) => builder.open_on(host)?,
    };
    let guest = xen.guest(DomId(spec.dom))?;
    let mut registered = Vec::new();
    for (fd, (addr, value)) in fds.iter().zip(&spec.doorbells) {
        registered.push(guest.register_ioevent(fd, &IoEventAddress::Mmio(*addr), *value)?);
    }
    link.send(&HelperReply::Ready { server: guest.server().0 }, &[])?;
    if let (true, Some(kill)) = (in_module, spec.kill) {
        die_amid_kicks(&guest, kill, &die, &link)?;
    }
    let command = link.receive::<HelperCommand>(crate::PATIENCE).context("waiting to be stopped");
    if die.is_dead() {
        // On the model the process is a thread. A killed process runs no destructors.
        std::mem::forget((registered, guest, xen));
        return Ok(());
    }
    if command?.is_some() {
        drop(registered);
        guest.close()?;
    }
    Ok(())
}

/// Dies once a number of kicks have been delivered, unless the test sends a message first. The module
/// serves a kick in the kernel whatever happens to its owner, so there is no step to choose.
fn die_amid_kicks(guest: &Guest, kill: Kill, die: &Die, link: &Link) -> Result<()> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(link, PollFlags::IN)], Some(&at_once))? == 0 {
        if guest.counters().delivered >= kill.kick {
            die.now();
        }
    }
    Ok(())
}
