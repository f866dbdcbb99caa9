//! Ioreq servers (`xen/common/ioreq.c`).

use crate::domain::{Life, MAX_SERVERS};
use crate::ranges::Ranges;
use crate::world::{Key, Serial, World};
use core::array;
use rustix::io::Errno;
use std::sync::Arc;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::ioreq::{COPY, Ioreq, PCI_CONFIG, PIO, SLOTS};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::slot::{Slot, State};
use xen_eventfd_core::{DomId, IoServerId, PciFunction, Port, Space, VcpuId};

/// The slots of an ioreq page, shared by Xen and all mappers.
pub(crate) type Slots = [Slot; SLOTS];

pub(crate) fn fresh_slots() -> Slots {
    array::from_fn(|_| Slot::default())
}

#[derive(Debug)]
pub(crate) struct Server {
    /// The client that created it. Xen sees all clients as one domain.
    pub(crate) creator: Serial,
    pub(crate) enabled: bool,
    /// Allocated when it is first acquired.
    pub(crate) page: Option<Arc<Slots>>,
    /// One for each vCPU.
    pub(crate) ports: Vec<Port>,
    pub(crate) mmio: Ranges,
    pub(crate) pio: Ranges,
    /// PCI functions, by their numbers.
    pub(crate) functions: Ranges,
    /// For each vCPU: the last seen state of its request, while one is in flight.
    pub(crate) pending: Vec<Option<State>>,
}

impl Server {
    fn ranges(&mut self, space: Space) -> &mut Ranges {
        match space {
            Space::Mmio => &mut self.mmio,
            Space::Pio => &mut self.pio,
        }
    }

    /// Whether all of an access is claimed. All repetitions of a port access are at one port.
    fn claims(&self, request: &Ioreq) -> bool {
        let function = request.addr >> 32;
        let (ranges, count) = match request.kind {
            PCI_CONFIG => return self.functions.contain(function, function),
            COPY => (&self.mmio, u64::from(request.count)),
            PIO => (&self.pio, 1),
            _ => return false,
        };
        let length = u64::from(request.size).checked_mul(count).and_then(|l| l.checked_sub(1));
        let last = length.and_then(|length| request.addr.checked_add(length));
        last.is_some_and(|last| ranges.contain(request.addr, last))
    }

    /// Writes the ports to the page, for the mapper to bind.
    fn announce_ports(&self) {
        if let Some(page) = &self.page {
            for (slot, port) in page.iter().zip(&self.ports) {
                slot.announce(*port);
            }
        }
    }
}

/// The result of sending a request to a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The vCPU is blocked until an event comes.
    Waiting,
    /// The slot is in an unexpected state.
    Refused,
}

impl World {
    pub(crate) fn server(&mut self, dom: DomId, id: IoServerId) -> Result<&mut Server, Errno> {
        let server = self.target(dom)?.servers.get_mut(usize::from(id.0));
        server.and_then(Option::as_mut).ok_or(Errno::NOENT)
    }

    /// The first free id; ENOSPC if there is none, or no port for one of the vCPUs. In a dying domain,
    /// which gets no ports, Xen's EINVAL becomes ESRCH, as in every implementation of the host trait.
    pub(crate) fn create_server(&mut self, dom: DomId, by: Serial) -> Result<IoServerId, Errno> {
        self.target(dom)?;
        let wanted = self.forced_ids.pop_front();
        let domain = self.target(dom)?;
        let free = |id: &u16| domain.servers.get(usize::from(*id)).is_some_and(Option::is_none);
        let first = || (0..8).find(free);
        let id = wanted.filter(free).or_else(first).ok_or(Errno::NOSPC)?;
        let mut ports = Vec::new();
        for vcpu in 0..u32::try_from(domain.vcpus.len()).unwrap_or(u32::MAX) {
            match domain.allocate_port(Some(VcpuId(vcpu))) {
                Ok(port) => ports.push(port),
                Err(errno) => {
                    domain.ports.retain(|port, _| !ports.contains(&Port(*port)));
                    return Err(if domain.life == Life::Zombie { Errno::SRCH } else { errno });
                }
            }
        }
        domain.servers[usize::from(id)] = Some(Server {
            creator: by,
            enabled: false,
            page: None,
            pending: vec![None; ports.len()],
            ports,
            mmio: Ranges::default(),
            pio: Ranges::default(),
            functions: Ranges::default(),
        });
        Ok(IoServerId(id))
    }

    /// Closes its ports and drops its requests; a vCPU that is parked on one stays parked. On Arm Xen crashes once it runs
    /// on, as it waits with pointers to the server (`wait_for_io`).
    pub(crate) fn destroy_server(&mut self, dom: DomId, id: IoServerId) -> Result<(), Errno> {
        let waiting = self.server(dom, id)?.pending.iter().position(Option::is_some);
        if let (Arch::Arm, Life::Alive, Some(vcpu)) =
            (self.arch(), &self.target(dom)?.life, waiting)
        {
            self.crash_host(format!(
                "{id} of {dom} was destroyed while its vCPU {vcpu} waited there"
            ));
        }
        let server = self.target(dom)?.servers[usize::from(id.0)].take();
        for port in server.into_iter().flat_map(|server| server.ports) {
            self.close_port(dom, port);
        }
        Ok(())
    }

    pub(crate) fn set_server_state(
        &mut self,
        dom: DomId,
        id: IoServerId,
        enabled: bool,
    ) -> Result<(), Errno> {
        let server = self.server(dom, id)?;
        if enabled && !server.enabled {
            server.announce_ports();
        }
        server.enabled = enabled;
        Ok(())
    }

    /// Allocates the page at the first call. It is empty: enabling the server writes the ports.
    pub(crate) fn acquire_page(
        &mut self,
        dom: DomId,
        id: IoServerId,
    ) -> Result<(Arc<Slots>, Key), Errno> {
        let key = self.target(dom)?.key;
        let is_mapped = self.pages.values().any(|(_, whose, its)| (*whose, *its) == (key, id));
        let server = self.server(dom, id)?;
        let page = server.page.get_or_insert_with(|| Arc::new(fresh_slots()));
        // No process is killed for real here: a thread of one that was may be about to write to a slot, and keeps the page
        // that it has for itself.
        if !is_mapped {
            *page = Arc::new(page.each_ref().map(Slot::duplicate));
        }
        let page = Arc::clone(page);
        let domain = self.target(dom)?;
        domain.mappings += 1;
        Ok((page, domain.key))
    }

    pub(crate) fn release_page(&mut self, key: Key) {
        if let Some(domain) = self.find(key) {
            domain.mappings = domain.mappings.saturating_sub(1);
        }
        self.reap(key);
    }

    pub(crate) fn map_range(&mut self, dom: DomId, id: IoServerId, b: Bytes) -> Result<(), Errno> {
        self.server(dom, id)?.ranges(b.space()).add(b.first(), b.last())
    }

    pub(crate) fn unmap_range(
        &mut self,
        dom: DomId,
        id: IoServerId,
        b: Bytes,
    ) -> Result<(), Errno> {
        self.server(dom, id)?.ranges(b.space()).remove(b.first(), b.last())
    }

    /// The server that gets a request, the highest enabled id that claims all of it, and the request as it
    /// gets it.
    pub(crate) fn select(&mut self, key: Key, request: &Ioreq) -> Option<(usize, Ioreq)> {
        let domain = self.find(key).filter(|domain| domain.life == Life::Alive)?;
        domain.remember_cf8(request);
        let routed = domain.routed(request);
        let claims = |s: &Server| s.enabled && s.claims(&routed);
        let ids = (0..MAX_SERVERS).rev();
        let id = { ids }.find(|id| domain.servers[*id].as_ref().is_some_and(claims))?;
        Some((id, routed))
    }

    pub(crate) fn map_function(
        &mut self,
        dom: DomId,
        id: IoServerId,
        function: PciFunction,
    ) -> Result<(), Errno> {
        let sbdf = function.sbdf().into();
        self.server(dom, id)?.functions.add(sbdf, sbdf)
    }

    pub(crate) fn unmap_function(
        &mut self,
        dom: DomId,
        id: IoServerId,
        function: PciFunction,
    ) -> Result<(), Errno> {
        let sbdf = function.sbdf().into();
        self.server(dom, id)?.functions.remove(sbdf, sbdf)
    }

    /// The servers that get a broadcast, the highest id first.
    pub(crate) fn enabled(&mut self, key: Key) -> Vec<usize> {
        let Some(domain) = self.find(key) else { return Vec::new() };
        let enabled = |id: &usize| domain.servers[*id].as_ref().is_some_and(|s| s.enabled);
        (0..MAX_SERVERS).rev().filter(enabled).collect()
    }

    /// Sends a request to a server and blocks the vCPU (`ioreq_send`). A server without a page
    /// crashes the host.
    pub(crate) fn request(&mut self, key: Key, vcpu: VcpuId, id: usize, request: &Ioreq) -> Sent {
        let index = vcpu.0 as usize;
        let Some(domain) = self.find(key) else { return Sent::Refused };
        let Some(server) = domain.servers[id].as_mut() else { return Sent::Refused };
        let port = server.ports[index];
        let Some(page) = &server.page else {
            self.crash_host(format!(
                "{vcpu} of {} sent a request to ioreq server {id}, which is enabled without a page",
                key.id
            ));
            return Sent::Refused;
        };
        let slot = &page[index];
        if slot.state() != State::None || slot.vp_eport() != port {
            return Sent::Refused;
        }
        slot.publish(request);
        server.pending[index] = Some(State::None);
        domain.vcpus[index].blocked = true;
        self.notify_from_xen(key.id, port);
        Sent::Waiting
    }
}
