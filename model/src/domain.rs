//! Guests: creation, state, destruction.

use crate::event::Channel;
use crate::irq::Interrupts;
use crate::server::Server;
use crate::vcpu::VcpuState;
use crate::world::{DOM0, Key, World};
use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar};
use xen_eventfd_core::ioreq::SLOTS;
use xen_eventfd_core::{DomId, Port};

/// Ioreq servers of one guest (`MAX_NR_IOREQ_SERVERS`).
pub const MAX_SERVERS: usize = 8;

/// The kind of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No emulated devices except a local APIC: event channels and MSI reach it, lines do not.
    Pvh,
    /// All emulated devices of a PC.
    Hvm,
    /// No emulation and no ioreq servers.
    Pv,
}

/// The configuration of a guest.
#[derive(Debug, Clone)]
pub struct Config {
    name: String,
    uuid: Option<String>,
    id: Option<DomId>,
    vcpus: u32,
    kind: Kind,
    last_port: u32,
}

impl Config {
    /// A PVH guest with one vCPU, as `xl create` creates it.
    pub fn new(name: impl Into<String>) -> Self {
        let (name, kind) = (name.into(), Kind::Pvh);
        Self { name, uuid: None, id: None, vcpus: 1, kind, last_port: 1023 }
    }

    /// Sets the number of vCPUs, 1 to 128.
    #[must_use]
    pub fn vcpus(self, vcpus: u32) -> Self {
        Self { vcpus, ..self }
    }

    /// Sets the kind.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Sets the domain id, which may have been used before. The default is the next unused one.
    #[must_use]
    pub fn id(self, id: DomId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Sets the UUID. The default is one that no other guest of the model has.
    #[must_use]
    pub fn uuid(self, uuid: impl Into<String>) -> Self {
        Self { uuid: Some(uuid.into()), ..self }
    }

    /// Sets the highest event channel (`max_event_channels`; the default is 1023 as in libxl).
    #[must_use]
    pub fn last_port(self, last_port: u32) -> Self {
        Self { last_port, ..self }
    }
}

/// Why a vCPU could not complete an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Its domain was destroyed.
    Destroyed,
    /// Its domain crashed, for this reason.
    Crashed(String),
    /// The host crashed, for this reason.
    HostCrashed(String),
    /// Xen refused to send the request and injected a fault (`#GP`). The vCPU runs on.
    Fault,
    /// On Arm: no server claims this memory, or Xen refused to send the request, and injected a data abort. The vCPU runs on.
    Abort,
    /// Xen refused the hypercall with this error. The vCPU runs on.
    Refused(rustix::io::Errno),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destroyed => f.write_str("the domain was destroyed"),
            Self::Crashed(why) => write!(f, "the domain crashed: {why}"),
            Self::HostCrashed(why) => write!(f, "the host crashed: {why}"),
            Self::Fault => {
                f.write_str("the access faulted: its ioreq slot was in an unexpected state")
            }
            Self::Abort => f.write_str("the access was aborted: no ioreq server has answered it"),
            Self::Refused(errno) => write!(f, "Xen refused: {errno}"),
        }
    }
}

impl core::error::Error for Stopped {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    Crashed(String),
    /// Destroyed, and kept by a mapping of one of its pages.
    Zombie,
}

#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) key: Key,
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) kind: Kind,
    pub(crate) life: Life,
    /// Its vCPUs neither begin nor go on.
    pub(crate) is_paused: bool,
    /// Its vCPUs have shut it down, or are about to, and it will run again.
    pub(crate) is_shut_down: bool,
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) servers: [Option<Server>; MAX_SERVERS],
    /// Its event channels, by port.
    pub(crate) ports: BTreeMap<u32, Channel>,
    pub(crate) last_port: u32,
    /// What its vCPUs wrote to port 0xCF8 last.
    pub(crate) cf8: u32,
    /// The number of mappings of its pages.
    pub(crate) mappings: usize,
    pub(crate) interrupts: Interrupts,
    /// Notified when an event or an interrupt arrives.
    pub(crate) arrival: Arc<Condvar>,
}

impl Domain {
    pub(crate) fn is_pv(&self) -> bool {
        self.kind == Kind::Pv
    }

    /// Whether xenstore lists it.
    pub(crate) fn is_listed(&self) -> bool {
        self.life != Life::Zombie
    }

    /// Whether none of its vCPUs begins an instruction.
    pub(crate) fn is_halted(&self) -> bool {
        self.is_paused || self.is_shut_down
    }

    pub(crate) fn wake_all_vcpus(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.woken.notify_all());
        self.arrival.notify_all();
    }
}

impl World {
    /// Creates a guest.
    ///
    /// # Panics
    /// If its id is in use, or it has no vCPU or more than an ioreq page has slots.
    pub(crate) fn create(&mut self, config: Config) -> DomId {
        let slots = 1..=u32::try_from(SLOTS).unwrap_or(u32::MAX);
        assert!(slots.contains(&config.vcpus), "a guest has 1 to {SLOTS} vCPUs: {config:?}");
        let id = config.id.unwrap_or_else(|| {
            self.next_domain += 1;
            DomId(self.next_domain)
        });
        self.next_domain = self.next_domain.max(id.0);
        let free = id.is_guest() && id != DOM0 && !self.domains.contains_key(&id);
        assert!(free, "{id} is in use, perhaps by a zombie");
        let key = Key { id, incarnation: self.serial() };
        let uuid = config
            .uuid
            .unwrap_or_else(|| format!("00000000-0000-4000-8000-{:012x}", key.incarnation));
        let mut domain = Domain {
            key,
            name: config.name,
            uuid,
            kind: config.kind,
            life: Life::Alive,
            is_paused: false,
            is_shut_down: false,
            vcpus: (0..config.vcpus).map(|_| VcpuState::default()).collect(),
            servers: Default::default(),
            ports: BTreeMap::new(),
            last_port: config.last_port,
            cf8: 0,
            mappings: 0,
            interrupts: Interrupts::default(),
            arrival: Arc::default(),
        };
        // The toolstack's ports: xenstore and the console.
        domain.ports.insert(1, Channel::toolstack());
        domain.ports.insert(2, Channel::toolstack());
        self.domains.insert(id, domain);
        id
    }

    /// Stops a domain for good; it still exists (`domain_crash`).
    pub(crate) fn crash(&mut self, key: Key, why: &str) {
        let Some(domain) = self.find(key) else { return };
        if domain.life == Life::Alive {
            domain.life = Life::Crashed(why.to_owned());
            domain.wake_all_vcpus();
            self.announce_release();
        }
    }

    /// Closes the domain's own event channels (`domain_soft_reset`). Everything else stays, ioreq servers
    /// with their channels included, as in Xen from 4.14 on.
    pub(crate) fn soft_reset(&mut self, dom: DomId) -> bool {
        let Some(domain) = self.domains.get_mut(&dom).filter(|d| d.life != Life::Zombie) else {
            return false;
        };
        let of_servers: Vec<Port> =
            domain.servers.iter().flatten().flat_map(|server| server.ports.clone()).collect();
        let (kept, closed): (BTreeMap<_, _>, BTreeMap<_, _>) = core::mem::take(&mut domain.ports)
            .into_iter()
            .partition(|(port, _)| of_servers.contains(&Port(*port)));
        domain.ports = kept;
        // The toolstack allocates its own channels again.
        domain.ports.insert(1, Channel::toolstack());
        domain.ports.insert(2, Channel::toolstack());
        for port in closed.into_keys() {
            self.forget_remote(dom, Port(port));
        }
        true
    }

    /// Ends a domain (`domain_kill`): its servers and event channels are gone. A zombie stays while one
    /// of its pages is mapped.
    pub(crate) fn destroy(&mut self, dom: DomId) -> bool {
        let Some(domain) = self.domains.get_mut(&dom).filter(|d| d.life != Life::Zombie) else {
            return false;
        };
        domain.life = Life::Zombie;
        domain.servers = Default::default();
        domain.wake_all_vcpus();
        let (key, ports) = (domain.key, core::mem::take(&mut domain.ports));
        for port in ports.into_keys() {
            self.forget_remote(dom, Port(port));
        }
        self.reap(key);
        self.announce_release();
        true
    }

    /// Drops a zombie once no page of it is mapped.
    pub(crate) fn reap(&mut self, key: Key) {
        if self.find(key).is_some_and(|d| d.life == Life::Zombie && d.mappings == 0) {
            self.domains.remove(&key.id);
        }
    }

    /// The domain, if its vCPUs still run.
    pub(crate) fn running(&mut self, key: Key) -> Result<&mut Domain, Stopped> {
        if let Some(why) = &self.host_crash {
            return Err(Stopped::HostCrashed(why.clone()));
        }
        let domain = self.find(key).ok_or(Stopped::Destroyed)?;
        match &domain.life {
            Life::Alive => Ok(domain),
            Life::Crashed(why) => Err(Stopped::Crashed(why.clone())),
            Life::Zombie => Err(Stopped::Destroyed),
        }
    }
}
