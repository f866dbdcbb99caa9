//! A device model: an ioreq server over a whole register page, served in its own process.
//!
//! It emulates a device that answers a read of register R with [`register`]`(R)`, and records every
//! kick that reaches it.

use super::{HelperCommand, HelperReply};
use crate::link::Link;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use xen_eventfd::{DomId, IoServerId, Space};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{Request, ioreq};
use xen_eventfd_host::{EventChannels, Host, IoreqPage, LocalPort};

/// The location of the device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The guest.
    pub dom: u16,
    /// Memory or ports: first address and length in bytes.
    pub ranges: Vec<(Place, u64, u64)>,
}

/// A space, in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Guest physical memory.
    Mmio,
    /// I/O ports.
    Pio,
}

impl From<Place> for Space {
    fn from(place: Place) -> Self {
        match place {
            Place::Mmio => Self::Mmio,
            Place::Pio => Self::Pio,
        }
    }
}

/// What it has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// How often its event channels woke the process for a request.
    pub wakeups: u64,
    /// Reads that it answered.
    pub reads: u64,
    /// Writes: address and value, and how often.
    pub writes: BTreeMap<u64, BTreeMap<u64, u64>>,
    /// Broadcasts of Xen.
    pub broadcasts: u64,
    /// Other requests.
    pub odd: u64,
}

impl Seen {
    /// All writes to one address.
    pub fn writes_to(&self, addr: u64) -> u64 {
        self.writes.get(&addr).map_or(0, |values| values.values().sum())
    }
}

/// The value of the register at an address.
pub fn register(addr: u64) -> u64 {
    0x5EED_0000 | (addr & 0xFFFF)
}

/// A running device model.
#[derive(Debug)]
struct Vmm<'a> {
    host: &'a dyn Host,
    dom: DomId,
    id: IoServerId,
    page: Option<Box<dyn IoreqPage>>,
    events: Box<dyn EventChannels>,
    ports: Vec<LocalPort>,
}

impl<'a> Vmm<'a> {
    fn start(host: &'a dyn Host, spec: &Spec) -> Result<Self> {
        let dom = DomId(spec.dom);
        let vcpus = host.vcpus(dom)? as usize;
        let events = host.event_channels()?;
        let id = host.create_server(dom)?;
        let page = host.map_page(dom, id)?;
        for (place, first, len) in &spec.ranges {
            let bytes = Bytes::new((*place).into(), *first, first + len - 1)?;
            host.map_range(dom, id, bytes)?;
        }
        host.set_server_state(dom, id, true)?;
        let remotes: Vec<_> = page.slots().iter().take(vcpus).map(|s| s.vp_eport()).collect();
        let ports: Result<_, _> = remotes.into_iter().map(|port| events.bind(dom, port)).collect();
        Ok(Self { host, dom, id, page: Some(page), events, ports: ports? })
    }

    /// Serves every slot whose port has an event.
    fn serve(&self, seen: &mut Seen) -> Result<()> {
        let mut pending = Vec::new();
        self.events.pending(&mut pending)?;
        let mut worked = false;
        for port in pending {
            let vcpu = self
                .ports
                .iter()
                .position(|own| *own == port)
                .context("an event of an unknown port")?;
            let page = self.page.as_ref().context("stopped")?;
            let served = page.slots()[vcpu].serve(|request| answer(request, seen));
            if served.is_some() {
                worked = true;
                self.events.notify(port)?;
            }
            self.events.eoi(port)?;
        }
        seen.wakeups += u64::from(worked);
        Ok(())
    }
}

fn answer(request: &Request, seen: &mut Seen) -> u64 {
    match request {
        Request::Kick(kick) => {
            let values = seen.writes.entry(kick.access.addr).or_default();
            *values.entry(kick.value).or_default() += 1;
        }
        Request::Read(access) => {
            seen.reads += 1;
            return register(access.addr);
        }
        Request::Broadcast => seen.broadcasts += 1,
        Request::Config(_) | Request::Odd { .. } => seen.odd += 1,
    }
    0
}

impl Drop for Vmm<'_> {
    /// Answers every vCPU that waits, so that none stays parked.
    fn drop(&mut self) {
        if self.host.set_server_state(self.dom, self.id, false).is_err() {
            return;
        }
        if let Some(page) = self.page.take() {
            for slot in page.slots().iter().take(self.ports.len().min(ioreq::SLOTS)) {
                slot.sweep();
            }
        }
        for port in &self.ports {
            let _ = self.events.notify(*port);
            let _ = self.events.unbind(*port);
        }
        let _ = self.host.destroy_server(self.dom, self.id);
    }
}

pub(super) fn run(host: &dyn Host, link: &Link, spec: &Spec) -> Result<()> {
    let vmm = Vmm::start(host, spec)?;
    link.send(&HelperReply::Ready { server: vmm.id.0 }, &[])?;
    let mut seen = Seen::default();
    loop {
        let (events, commanded) = {
            let mut fds = [
                PollFd::from_borrowed_fd(vmm.events.fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
        };
        if events {
            vmm.serve(&mut seen)?;
        }
        if commanded {
            match link.receive_now::<HelperCommand>()? {
                Some((HelperCommand::Report, _)) => {
                    link.send(&HelperReply::Vmm(seen.clone()), &[])?
                }
                Some((HelperCommand::Stop, _)) | None => return Ok(()),
            }
        }
    }
}
