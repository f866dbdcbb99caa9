//! One process of domain 0, as a [`Host`].

use crate::event_flag::EventFlag;
use crate::fault::{CallKind, CallSite, Faults, Verdict};
use crate::handles::{Channels, Page, ReleaseWatch, Signals, Watch};
use crate::world::{DOM0, Locked, Serial, Shared, World};
use core::fmt;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::{Arch, Line};
use xen_eventfd_core::{DomId, IoServerId, PciFunction, Port};
use xen_eventfd_host::{
    Binding, Call, Domain, EventChannels, Host, HostError, IoreqPage, LocalPort, Releases, Result,
    Signaller, aio,
};

/// The state that the world keeps for a client.
#[derive(Debug, Default)]
pub(crate) struct ClientState {
    pub(crate) name: String,
    /// Shared with the client's own handles.
    pub(crate) killed: Arc<AtomicBool>,
    /// Events queued for it, by the guest's port.
    pub(crate) events: BTreeMap<(DomId, Port), u64>,
    pub(crate) faults: Faults,
}

/// The resources that a client holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Ioreq servers that it created. These outlive it.
    pub servers: Vec<(DomId, IoServerId)>,
    /// Guests' ports that it is bound to.
    pub ports: Vec<(DomId, Port)>,
    /// Mappings of ioreq pages.
    pub pages: usize,
    /// Open sets of event channels.
    pub sets: usize,
    /// Open watches.
    pub watches: usize,
}

impl Leftovers {
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A process of domain 0.
///
/// All calls of one client, including those of its pages, event channels and watches, are counted and
/// can be made to fail. They end with [`Errno::SHUTDOWN`] once the client is killed and with
/// [`Errno::HOSTDOWN`] once the host has crashed.
pub struct Client(pub(crate) Arc<Process>);

/// A forked child of a killed client: it holds copies of the client's descriptors and does nothing else. It
/// ends when this value is dropped.
#[derive(Debug)]
pub struct ForkedChild {
    shared: Arc<Shared>,
    sets: Vec<Serial>,
}

impl Drop for ForkedChild {
    fn drop(&mut self) {
        let mut world = self.shared.lock();
        self.sets.iter().for_each(|set| world.close_set(*set));
    }
}

/// The part of a client that its handles share.
pub(crate) struct Process {
    pub(crate) shared: Arc<Shared>,
    pub(crate) serial: Serial,
    pub(crate) killed: Arc<AtomicBool>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // The hook may hold the model, which holds this client: without this, neither is freed.
        let hook = self.state(|client| client.faults.hook.take());
        drop(hook);
    }
}

impl Client {
    /// Its name.
    pub fn name(&self) -> String {
        self.0.state(|client| client.name.clone())
    }

    /// Kills it as SIGKILL does: its event channels are unbound, its pages unmapped, and every
    /// later call fails. Its ioreq servers stay as they are, and parked vCPUs stay parked.
    pub fn kill(&self) {
        self.0.kill();
    }

    /// Kills it as [`Client::kill`] does, while a child that it forked holds copies of its descriptors: its
    /// event channels stay bound until the child ends.
    pub fn kill_and_leave_child(&self) -> ForkedChild {
        let mut world = self.0.shared.lock();
        let sets = world.sets.iter().filter(|(_, set)| set.client == self.0.serial);
        let sets: Vec<Serial> = sets.map(|(serial, _)| *serial).collect();
        // The copies are sets of their own: dropping the dead client's handles does not close them.
        let kept = sets.into_iter().map(|set| world.inherit_set(set)).collect();
        world.kill(self.0.serial);
        drop(world);
        ForkedChild { shared: Arc::clone(&self.0.shared), sets: kept }
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.0.is_killed()
    }

    /// Makes the `nth` call of a kind from now (1 is the next) fail without being made.
    pub fn fail(&self, kind: CallKind, nth: u64, errno: Errno) {
        self.0.state(|client| client.faults.plan(kind, nth, errno));
    }

    /// Calls `hook` before each call, in the calling thread and with no lock held: it may
    /// wait, inspect the model, kill a client, or destroy a guest. It replaces the previous hook.
    pub fn on_call(&self, hook: Box<dyn Fn(&CallSite) -> Verdict + Send + Sync>) {
        self.0.state(|client| client.faults.hook = Some(Arc::from(hook)));
    }

    /// How many calls it has made.
    pub fn calls(&self) -> u64 {
        self.0.state(|client| client.faults.made)
    }

    /// How many events were queued for it: an upper bound of its wakeups.
    pub fn wakeups(&self) -> u64 {
        self.0.state(|client| client.events.values().sum())
    }

    /// How many of those came from one port of one guest, including the one at binding.
    pub fn events(&self, dom: DomId, port: Port) -> u64 {
        self.0.state(|client| client.events.get(&(dom, port)).copied().unwrap_or(0))
    }

    /// The resources that it holds.
    pub fn leftovers(&self) -> Leftovers {
        let (me, world) = (self.0.serial, self.0.shared.peek());
        let sets = world.sets.iter().filter(|(_, set)| set.client == me);
        let sets: Vec<Serial> = sets.map(|(serial, _)| *serial).collect();
        let servers = world.domains.iter().flat_map(|(dom, domain)| {
            let mine = |server: &crate::server::Server| server.creator == me;
            let slots = (0..).zip(&domain.servers);
            slots.filter_map(move |(id, server)| {
                server.as_ref().filter(|s| mine(s)).map(|_| (*dom, IoServerId(id)))
            })
        });
        Leftovers {
            servers: servers.collect(),
            ports: world
                .ports
                .values()
                .filter(|end| end.connected && sets.contains(&end.set))
                .map(|end| (end.dom, end.remote))
                .collect(),
            pages: world.pages.values().filter(|(client, ..)| *client == me).count(),
            sets: sets.len(),
            watches: world.watches.values().filter(|watch| watch.client == me).count(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.serial)
    }
}

impl World {
    pub(crate) fn kill(&mut self, client: Serial) {
        match self.clients.get(&client) {
            Some(state) if !state.killed.swap(true, Ordering::AcqRel) => {}
            _ => return,
        }
        let sets = self.sets.iter().filter(|(_, set)| set.client == client);
        let sets: Vec<Serial> = sets.map(|(serial, _)| *serial).collect();
        for set in sets {
            if let Some(set) = self.sets.get(&set) {
                set.flag.raise();
            }
            self.close_set(set);
        }
        self.watches.retain(|_, watch| {
            if watch.client == client {
                watch.flag.raise();
            }
            watch.client != client
        });
        let pages = self.pages.iter().filter(|(_, (owner, ..))| *owner == client);
        let pages: Vec<Serial> = pages.map(|(page, _)| *page).collect();
        pages.into_iter().for_each(|page| self.unmap(page));
    }

    /// Removes one mapping of a page. Does nothing if it is removed already.
    pub(crate) fn unmap(&mut self, page: Serial) {
        if let Some((_, key, _)) = self.pages.remove(&page) {
            self.release_page(key);
        }
    }
}

impl Process {
    fn state<T>(&self, with: impl FnOnce(&mut ClientState) -> T) -> T {
        let mut world = self.shared.peek();
        with(world.clients.entry(self.serial).or_default())
    }

    pub(crate) fn kill(&self) {
        self.shared.lock().kill(self.serial);
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Makes one call: counts it and calls the hook first. The hook, a planned fault, a kill or a
    /// crash of the host can prevent it.
    pub(crate) fn call<T>(
        &self,
        kind: CallKind,
        call: Call,
        make: impl FnOnce(&mut Locked<'_>) -> core::result::Result<T, Errno>,
    ) -> Result<T> {
        match self.try_call(kind, &call, make) {
            Ok(made) => Ok(made),
            Err(errno) => Err(HostError::new(call, errno)),
        }
    }

    fn try_call<T>(
        &self,
        kind: CallKind,
        call: &Call,
        make: impl FnOnce(&mut Locked<'_>) -> core::result::Result<T, Errno>,
    ) -> core::result::Result<T, Errno> {
        let ((index, due), hook) =
            self.state(|client| (client.faults.count(kind), client.faults.hook.clone()));
        let site = || CallSite { index, kind, call: call.clone() };
        let verdict = hook.map_or(Verdict::Proceed, |hook| hook(&site()));
        if verdict == Verdict::KillBefore {
            self.kill();
        }
        let mut world = self.shared.lock();
        if self.is_killed() {
            return Err(Errno::SHUTDOWN);
        }
        if world.host_crash.is_some() {
            return Err(Errno::HOSTDOWN);
        }
        match (verdict, due) {
            (Verdict::Fail(errno), _) | (_, Some(errno)) => return Err(errno),
            _ => {}
        }
        let made = make(&mut world);
        if verdict == Verdict::KillAfter {
            world.kill(self.serial);
            drop(world);
            drop(made);
            return Err(Errno::SHUTDOWN);
        }
        made
    }
}

fn known(domain: &crate::domain::Domain) -> Domain {
    let name = Some(domain.name.clone()).filter(|name| !name.is_empty());
    Domain::new(domain.key.id, name, Some(domain.uuid.clone()))
}

/// Domain 0 has a name in xenstore and no UUID.
fn domain_0() -> Domain {
    Domain::new(DOM0, Some("Domain-0".to_owned()), None)
}

impl Host for Client {
    fn domains(&self) -> Result<Vec<Domain>> {
        let call = Call::Xenstore("/local/domain".to_owned());
        self.0.call(CallKind::Domains, call, |world| {
            let guests = world.domains.values().filter(|domain| domain.is_listed()).map(known);
            Ok([domain_0()].into_iter().chain(guests).collect())
        })
    }

    fn domain(&self, dom: DomId) -> Result<Domain> {
        let call = Call::Xenstore(format!("/local/domain/{}", dom.0));
        self.0.call(CallKind::Domain, call, |world| {
            if dom == DOM0 {
                return Ok(domain_0());
            }
            let domain = world.domains.get(&dom).filter(|domain| domain.is_listed());
            domain.map(known).ok_or(Errno::NOENT)
        })
    }

    fn vcpus(&self, dom: DomId) -> Result<u32> {
        self.0.call(CallKind::Vcpus, Call::Vcpus(dom), |world| {
            u32::try_from(world.target(dom)?.vcpus.len()).map_err(|_| Errno::OVERFLOW)
        })
    }

    fn create_server(&self, dom: DomId) -> Result<IoServerId> {
        self.0.call(CallKind::CreateServer, Call::CreateServer(dom), |world| {
            world.create_server(dom, self.0.serial)
        })
    }

    fn destroy_server(&self, dom: DomId, server: IoServerId) -> Result<()> {
        self.0.call(CallKind::DestroyServer, Call::DestroyServer(dom, server), |world| {
            world.destroy_server(dom, server)
        })
    }

    fn set_server_state(&self, dom: DomId, server: IoServerId, enabled: bool) -> Result<()> {
        self.0.call(CallKind::SetServerState, Call::SetServerState(dom, server), |world| {
            world.set_server_state(dom, server, enabled)
        })
    }

    fn server_alive(&self, dom: DomId, server: IoServerId) -> Result<bool> {
        self.0.call(CallKind::ServerAlive, Call::ServerAlive(dom, server), |world| {
            match world.server(dom, server) {
                Ok(_) => Ok(true),
                Err(Errno::SRCH | Errno::NOENT) => Ok(false),
                Err(errno) => Err(errno),
            }
        })
    }

    fn map_page(&self, dom: DomId, server: IoServerId) -> Result<Box<dyn IoreqPage>> {
        let page = self.0.call(CallKind::MapPage, Call::MapPage(dom, server), |world| {
            let (slots, key) = world.acquire_page(dom, server)?;
            let page = world.serial();
            world.pages.insert(page, (self.0.serial, key, server));
            Ok(Page::new(Arc::clone(&self.0), page, slots))
        });
        Ok(Box::new(page?))
    }

    fn map_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
        self.0.call(CallKind::MapRange, Call::MapRange(dom, server, bytes), |world| {
            world.map_range(dom, server, bytes)
        })
    }

    fn unmap_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
        self.0.call(CallKind::UnmapRange, Call::UnmapRange(dom, server, bytes), |world| {
            world.unmap_range(dom, server, bytes)
        })
    }

    fn map_function(&self, dom: DomId, server: IoServerId, function: PciFunction) -> Result<()> {
        let call = Call::MapFunction(dom, server, function);
        self.0.call(CallKind::MapFunction, call, |world| world.map_function(dom, server, function))
    }

    fn unmap_function(&self, dom: DomId, server: IoServerId, function: PciFunction) -> Result<()> {
        let call = Call::UnmapFunction(dom, server, function);
        self.0.call(CallKind::UnmapFunction, call, |world| {
            world.unmap_function(dom, server, function)
        })
    }

    fn inject_msi(&self, dom: DomId, addr: u64, data: u32) -> Result<()> {
        self.0.call(CallKind::InjectMsi, Call::Interrupt(dom), |world| {
            world.target(dom)?.inject_msi(addr, data)
        })
    }

    fn arch(&self) -> Arch {
        self.0.shared.peek().arch()
    }

    fn has_lines(&self, dom: DomId) -> Result<bool> {
        let call = Call::Xenstore(format!("/libxl/{}/type", dom.0));
        self.0.call(CallKind::HasLines, call, |world| {
            Ok(world.domains.get(&dom).is_some_and(|domain| domain.has_lines()))
        })
    }

    fn set_line(&self, dom: DomId, line: Line, up: bool) -> Result<()> {
        self.0.call(CallKind::SetLine, Call::Interrupt(dom), |world| {
            let arch = world.arch();
            let domain = world.target(dom)?;
            let name = crate::irq::check(arch, line)?;
            if arch == Arch::Arm || domain.has_lines() {
                domain.set_line(name, up);
                return Ok(());
            }
            world.crash_host(format!("a line was set in {dom}, which has none"));
            Err(Errno::HOSTDOWN)
        })
    }

    fn event_channels(&self) -> Result<Box<dyn EventChannels>> {
        let call = Call::Open("/dev/xen/evtchn");
        let set = self.0.call(CallKind::EventChannels, call, |world| {
            let flag = Arc::new(EventFlag::new()?);
            let set = world.open_set(self.0.serial, Arc::clone(&flag));
            Ok(Channels { process: Arc::clone(&self.0), set, flag, alarm: EventFlag::new()? })
        });
        Ok(Box::new(set?))
    }

    fn binding(&self, dom: DomId, port: Port) -> Result<Binding> {
        self.0.call(CallKind::Binding, Call::Binding(dom, port), |world| world.binding(dom, port))
    }

    fn notify_port(&self, port: LocalPort) -> Result<()> {
        self.0.call(CallKind::NotifyPort, Call::Event, |world| world.notify_port(port.0))
    }

    fn releases(&self) -> Result<Box<dyn Releases>> {
        let call = Call::Xenstore("@releaseDomain".to_owned());
        let watch = self.0.call(CallKind::Releases, call, |world| {
            let (flag, watch) = (Arc::new(EventFlag::new()?), world.serial());
            let client = self.0.serial;
            world.watches.insert(watch, Watch { client, news: false, flag: Arc::clone(&flag) });
            Ok(ReleaseWatch { process: Arc::clone(&self.0), watch, flag })
        });
        Ok(Box::new(watch?))
    }

    fn signaller(&self) -> Result<Box<dyn Signaller>> {
        let call = Call::Open("an asynchronous I/O context");
        self.0.call(CallKind::Signaller, call, |_| Ok(()))?;
        Ok(Box::new(Signals { process: Arc::clone(&self.0), context: aio::Context::new()? }))
    }
}
