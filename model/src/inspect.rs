//! Queries for tests.

use crate::Model;
use crate::domain::Life;
use crate::irq;
use crate::running::PATIENCE;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::Line;
use xen_eventfd_core::{DomId, IoServerId, Port, Space};
use xen_eventfd_host::Binding;

/// An ioreq server, seen from inside Xen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its id.
    pub id: IoServerId,
    /// Whether accesses reach it.
    pub enabled: bool,
    /// Whether its page was ever acquired.
    pub has_page: bool,
    /// The ranges that it claims: memory first, each space in order, adjacent ranges merged.
    pub ranges: Vec<Bytes>,
    /// The guest's port for each vCPU.
    pub ports: Vec<Port>,
}

impl Model {
    /// The ioreq servers of a guest, by id.
    pub fn servers(&self, dom: DomId) -> Vec<ServerInfo> {
        let world = self.shared.peek();
        let servers = world.domains.get(&dom).into_iter().flat_map(|domain| &domain.servers);
        let seen = servers.zip(0..).filter_map(|(server, id)| {
            let server = server.as_ref()?;
            let of = |space, ranges: &crate::ranges::Ranges| -> Vec<Bytes> {
                ranges.iter().filter_map(|(a, b)| Bytes::new(space, a, b).ok()).collect()
            };
            Some(ServerInfo {
                id: IoServerId(id),
                enabled: server.enabled,
                has_page: server.page.is_some(),
                ranges: [of(Space::Mmio, &server.mmio), of(Space::Pio, &server.pio)].concat(),
                ports: server.ports.clone(),
            })
        });
        seen.collect()
    }

    /// The event channels of a guest, by port, including those of the toolstack (1 and 2).
    pub fn ports(&self, dom: DomId) -> Vec<(Port, Binding)> {
        let world = self.shared.peek();
        let ports = world.domains.get(&dom).into_iter().flat_map(|domain| domain.ports.keys());
        ports
            .filter_map(|port| Some((Port(*port), world.binding(dom, Port(*port)).ok()?)))
            .collect()
    }

    /// Destroyed guests of which a page is still mapped.
    pub fn zombies(&self) -> Vec<DomId> {
        let world = self.shared.peek();
        let zombies = world.domains.values().filter(|domain| domain.life == Life::Zombie);
        zombies.map(|domain| domain.key.id).collect()
    }

    /// Why a guest crashed, if it did.
    pub fn crashed(&self, dom: DomId) -> Option<String> {
        match &self.shared.peek().domains.get(&dom)?.life {
            Life::Crashed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Why the host crashed, if it did.
    pub fn host_crashed(&self) -> Option<String> {
        self.shared.peek().host_crash.clone()
    }

    /// How many MSIs of a vector have reached a guest.
    pub fn msis(&self, dom: DomId, vector: u8) -> u64 {
        let world = self.shared.peek();
        let injected = world.domains.get(&dom).map(|domain| &domain.interrupts.injected);
        injected.and_then(|injected| injected.get(&vector)).copied().unwrap_or(0)
    }

    /// How often a line of a guest has risen.
    pub fn edges(&self, dom: DomId, line: Line) -> u64 {
        self.wire(dom, line).edges
    }

    /// Whether a line of a guest is up.
    pub fn is_up(&self, dom: DomId, line: Line) -> bool {
        self.wire(dom, line).up
    }

    fn wire(&self, dom: DomId, line: Line) -> irq::Wire {
        let world = self.shared.peek();
        let lines = world.domains.get(&dom).map(|domain| &domain.interrupts.lines);
        let wire = lines.and_then(|lines| lines.get(&irq::name(line)).copied());
        wire.unwrap_or_default()
    }

    /// A text description of the world: guests, what each vCPU waits for, servers, ports, clients.
    pub fn describe(&self) -> String {
        self.shared.peek().describe()
    }

    /// Waits until a condition holds, and checks it after each change of the model. A write to a
    /// slot is no such change: its notification is.
    ///
    /// # Panics
    /// With a description of the world, if that takes more than 30 s.
    pub fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let met = self.shared.until(PATIENCE, || so(self));
        assert!(met, "not in {} s: {what}\n{}", PATIENCE.as_secs(), self.describe());
    }
}
