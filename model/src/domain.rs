//! Guests: how they are made, what they have, how they end.

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

/// What kind of guest it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No emulated devices but a local APIC: event channels and MSI reach it, lines do not.
    Pvh,
    /// Everything a PC has.
    Hvm,
    /// No emulation at all, and no ioreq servers.
    Pv,
}

/// A guest to be made.
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
    /// A PVH guest with one vCPU, as `xl create` makes it.
    pub fn new(name: impl Into<String>) -> Self {
        let (name, kind) = (name.into(), Kind::Pvh);
        Self { name, uuid: None, id: None, vcpus: 1, kind, last_port: 1023 }
    }

    /// With so many vCPUs, 1 to 128.
    #[must_use]
    pub fn vcpus(self, vcpus: u32) -> Self {
        Self { vcpus, ..self }
    }

    /// Of this kind.
    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// With this number, be it one that was used before. Otherwise the next.
    #[must_use]
    pub fn id(self, id: DomId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// With this UUID. Otherwise one that no other guest of the model has.
    #[must_use]
    pub fn uuid(self, uuid: impl Into<String>) -> Self {
        Self { uuid: Some(uuid.into()), ..self }
    }

    /// With this as its highest event channel (`max_event_channels`, 1023 as in libxl).
    #[must_use]
    pub fn last_port(self, last_port: u32) -> Self {
        Self { last_port, ..self }
    }
}

/// Why a vCPU did not get through an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Its domain was destroyed.
    Destroyed,
    /// Its domain crashed, for this reason.
    Crashed(String),
    /// The host crashed, for this reason.
    HostCrashed(String),
    /// Xen refused to send the request and the guest got a fault (`#GP`). The vCPU runs on.
    Fault,
    /// Xen refused the hypercall with this error. The vCPU runs on.
    Refused(rustix::io::Errno),
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destroyed => f.write_str("the domain was destroyed"),
            Self::Crashed(why) => write!(f, "the domain crashed: {why}"),
            Self::HostCrashed(why) => write!(f, "the host crashed: {why}"),
            Self::Fault => f.write_str("the access faulted: its ioreq slot was not in order"),
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
    pub(crate) vcpus: Vec<VcpuState>,
    pub(crate) servers: [Option<Server>; MAX_SERVERS],
    /// Its event channels, by port.
    pub(crate) ports: BTreeMap<u32, Channel>,
    pub(crate) last_port: u32,
    /// How many mappings of its pages there are.
    pub(crate) mappings: usize,
    pub(crate) interrupts: Interrupts,
    /// Rung when an event or an interrupt comes.
    pub(crate) arrival: Arc<Condvar>,
}

impl Domain {
    pub(crate) fn is_pv(&self) -> bool {
        self.kind == Kind::Pv
    }

    /// Whether xenstore has it.
    pub(crate) fn is_listed(&self) -> bool {
        self.life != Life::Zombie
    }

    pub(crate) fn wake_everybody(&self) {
        self.vcpus.iter().for_each(|vcpu| vcpu.woken.notify_all());
        self.arrival.notify_all();
    }
}

impl World {
    /// Makes a guest.
    ///
    /// # Panics
    /// If its number is taken, or it has no vCPU or more than an ioreq page has slots.
    pub(crate) fn create(&mut self, config: Config) -> DomId {
        let slots = 1..=u32::try_from(SLOTS).unwrap_or(u32::MAX);
        assert!(slots.contains(&config.vcpus), "a guest has 1 to {SLOTS} vCPUs: {config:?}");
        let id = config.id.unwrap_or_else(|| {
            self.next_domain += 1;
            DomId(self.next_domain)
        });
        self.next_domain = self.next_domain.max(id.0);
        let free = id.is_guest() && id != DOM0 && !self.domains.contains_key(&id);
        assert!(free, "{id} is taken, perhaps by a zombie");
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
            vcpus: (0..config.vcpus).map(|_| VcpuState::default()).collect(),
            servers: Default::default(),
            ports: BTreeMap::new(),
            last_port: config.last_port,
            mappings: 0,
            interrupts: Interrupts::default(),
            arrival: Arc::default(),
        };
        // The toolstack's: xenstore and the console.
        domain.ports.insert(1, Channel::toolstack());
        domain.ports.insert(2, Channel::toolstack());
        self.domains.insert(id, domain);
        id
    }

    /// The domain stops running, for good; it is still there (`domain_crash`).
    pub(crate) fn crash(&mut self, key: Key, why: &str) {
        let Some(domain) = self.find(key) else { return };
        if domain.life == Life::Alive {
            domain.life = Life::Crashed(why.to_owned());
            domain.wake_everybody();
            self.announce_release();
        }
    }

    /// Ends a domain (`domain_kill`): servers, event channels, and all but the zombie.
    pub(crate) fn soft_reset(&mut self, dom: DomId) -> bool {
        let Some(domain) = self.domains.get_mut(&dom).filter(|d| d.life != Life::Zombie) else {
            return false;
        };
        domain.servers = Default::default();
        let ports = core::mem::take(&mut domain.ports);
        for port in ports.into_keys() {
            self.forget_remote(dom, Port(port));
        }
        true
    }

    pub(crate) fn destroy(&mut self, dom: DomId) -> bool {
        let Some(domain) = self.domains.get_mut(&dom).filter(|d| d.life != Life::Zombie) else {
            return false;
        };
        domain.life = Life::Zombie;
        domain.servers = Default::default();
        domain.wake_everybody();
        let (key, ports) = (domain.key, core::mem::take(&mut domain.ports));
        for port in ports.into_keys() {
            self.forget_remote(dom, Port(port));
        }
        self.reap(key);
        self.announce_release();
        true
    }

    /// Drops a zombie that nobody holds any more.
    pub(crate) fn reap(&mut self, key: Key) {
        if self.find(key).is_some_and(|d| d.life == Life::Zombie && d.mappings == 0) {
            self.domains.remove(&key.id);
        }
    }

    /// The vCPUs' domain, if they still run.
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
