//! An in-process Xen: guests, ioreq servers, event channels and interrupts, for machines without
//! one.
//!
//! [`Model`] is the machine. [`Client`] is one process of domain 0 and implements
//! [`xen_eventfd_host::Host`]; [`Vcpu`] carries out a guest's instructions. The rules are Xen's, each from
//! the source that is named beside it: which server gets an access, what parks a vCPU and what wakes it,
//! when an event is lost, and what crashes a domain or the host. A test that passes here and fails on Xen
//! shows a bug of the model.
//!
//! The model has no threads and does not poll: a vCPU runs in its caller's thread and sleeps on a
//! condition variable while it is parked.
//!
//! # Not modelled
//! * What Xen emulates before it selects a server: local APIC, I/O APIC, HPET, the PC's
//!   timers and clock, port 0xE9.
//! * Buffered ioreqs, `map_mem_type`, legacy pages at a guest frame.
//! * Other device model domains, XSM, a toolstack that destroys a crashed guest by itself.
//! * The steps of a guest's destruction: here it leaves xenstore, loses its servers and is announced in
//!   one step; a real toolstack removes its nodes first.
//! * The guest's own masking of events, its interrupt controllers, pirqs, time.
//! * Linux's delay of spurious events, and the overflow of its event queue.
//! * Arm: an access that no server claims is all ones here, and there are no SPIs.
//!
//! ```
//! use xen_eventfd_core::{Space, VcpuId, Width, doorbell::Bytes};
//! use xen_eventfd_host::Host;
//! use xen_eventfd_model::{Config, Model};
//!
//! let model = Model::new();
//! let dom = model.domain(Config::new("guest"));
//! let host = model.client("engine");
//!
//! // The engine: a server, its page, its range, its port.
//! let server = host.create_server(dom)?;
//! let page = host.map_page(dom, server)?;
//! host.map_range(dom, server, Bytes::new(Space::Mmio, 0x50, 0x53).unwrap())?;
//! host.set_server_state(dom, server, true)?;
//! let channels = host.event_channels()?;
//! let port = channels.bind(dom, page.slots()[0].vp_eport())?;
//!
//! // The guest kicks, and is parked until its request is answered and its vCPU notified.
//! let vcpu = model.vcpu(dom, VcpuId(0));
//! let kick = vcpu.run(|vcpu| vcpu.write(Space::Mmio, 0x50, Width::Four, 3));
//! vcpu.until_parked();
//! page.slots()[0].serve(|_| 0);
//! channels.notify(port)?;
//! assert_eq!(kick.join(), Ok(()));
//! # Ok::<(), xen_eventfd_host::HostError>(())
//! ```
#![forbid(unsafe_code)]

mod access;
mod client;
mod describe;
mod domain;
mod event;
mod event_flag;
mod fault;
mod handles;
mod hypercall;
mod inspect;
mod irq;
mod pci;
mod ranges;
mod running;
mod server;
mod vcpu;
mod world;

pub use client::{Client, ForkedChild, Leftovers};
pub use domain::{Config, Kind, MAX_SERVERS, Stopped};
pub use fault::{CallKind, CallSite, Verdict};
pub use inspect::ServerInfo;
pub use running::Running;
pub use vcpu::Vcpu;

use client::{ClientState, Process};
use std::sync::Arc;
use world::Shared;
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::{DomId, VcpuId};

/// A machine with Xen on it. A clone is another handle to the same machine.
#[derive(Debug, Clone, Default)]
pub struct Model {
    shared: Arc<Shared>,
}

impl Model {
    /// A machine with domain 0 and nothing else.
    pub fn new() -> Self {
        Self::default()
    }

    /// A machine of another architecture than x86. What a guest can have differs ([`Arch`]), and what becomes of memory
    /// that no server claims ([`Stopped::Abort`]): the model does not emulate an Arm guest.
    pub fn on(arch: Arch) -> Self {
        let model = Self::new();
        model.shared.lock().arch = Some(arch);
        model
    }

    /// The machine's architecture.
    pub fn arch(&self) -> Arch {
        self.shared.lock().arch()
    }

    /// Starts a guest. Its id is the next unused one, from 1, unless the configuration names
    /// one.
    ///
    /// # Panics
    /// If the id is in use, by a zombie perhaps, or the number of vCPUs is zero or too large.
    pub fn domain(&self, config: Config) -> DomId {
        self.shared.lock().create(config)
    }

    /// Starts a process in domain 0.
    pub fn client(&self, name: impl Into<String>) -> Arc<Client> {
        let mut world = self.shared.lock();
        let serial = world.serial();
        let client = ClientState { name: name.into(), ..ClientState::default() };
        let killed = Arc::clone(&client.killed);
        world.clients.insert(serial, client);
        drop(world);
        Arc::new(Client(Arc::new(Process { shared: Arc::clone(&self.shared), serial, killed })))
    }

    /// A vCPU of a guest.
    ///
    /// # Panics
    /// If there is no such guest, or it has no such vCPU.
    pub fn vcpu(&self, dom: DomId, id: VcpuId) -> Vcpu {
        let world = self.shared.peek();
        let domain = world.domains.get(&dom);
        let key = domain.filter(|domain| (id.0 as usize) < domain.vcpus.len()).map(|d| d.key);
        let key = key.unwrap_or_else(|| panic!("{dom} has no {id}"));
        Vcpu { model: self.clone(), key, id }
    }

    /// Destroys a guest (`xl destroy`): its vCPUs stop, parked ones too, its servers and event
    /// channels are gone, and it is a zombie while a page of it is mapped. Returns `false` if there is
    /// no such guest or it is a zombie already.
    pub fn destroy(&self, dom: DomId) -> bool {
        self.shared.lock().destroy(dom)
    }

    /// Resets a guest as `XEN_DOMCTL_soft_reset` does (`kexec` in a guest): it loses its event channels
    /// and keeps its id, its memory and its ioreq servers. None of its vCPUs waits: it has shut down
    /// before. Returns `false` if there is no such guest or it is a zombie.
    pub fn soft_reset(&self, dom: DomId) -> bool {
        self.shared.lock().soft_reset(dom)
    }

    /// Pauses a guest (`xl pause`), or lets it run on: what its vCPUs wait for may come meanwhile.
    pub fn pause(&self, dom: DomId, paused: bool) {
        let mut world = self.shared.lock();
        if let Some(domain) = world.domains.get_mut(&dom) {
            domain.is_paused = paused;
            domain.wake_all_vcpus();
        }
    }

    /// Crashes a guest: its vCPUs stop, everything else stays until it is destroyed.
    pub fn crash(&self, dom: DomId, why: &str) {
        let mut world = self.shared.lock();
        if let Some(key) = world.domains.get(&dom).map(|domain| domain.key) {
            world.crash(key, why);
        }
    }

    /// Sets the ids that the next servers get, where they are free; later servers get the first free ids.
    /// Xen assigns such ids when other processes create and destroy servers in between.
    pub fn next_server_ids(&self, ids: impl IntoIterator<Item = u16>) {
        self.shared.lock().forced_ids.extend(ids);
    }
}
