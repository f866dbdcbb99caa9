//! Xen in small, made of loom's locks: one guest, one ioreq server, an event channel for each vCPU.
//!
//! The model has the rest of Xen; this has only what threads can meet at. A vCPU waits as
//! `wait_for_io` in `xen/common/ioreq.c` does: it looks at its slot, and looks again only when its
//! event channel rings.

use loom::sync::{Condvar, Mutex, MutexGuard};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::ioreq::{COPY, Ioreq};
use xen_eventfd_core::irq::Line;
use xen_eventfd_core::slot::{Slot, State};
use xen_eventfd_core::{DomId, IoServerId, Port};
use xen_eventfd_host::{
    self as host, Binding, Call, Domain, Errno, EventChannels, Host, HostError, IoreqPage,
    LocalPort, Releases, Signaller,
};
use xen_eventfd_ioreq::sync::lock;

/// The guest.
pub(super) const DOM: DomId = DomId(1);
/// The doorbell that the guest's vCPUs ring.
pub(super) const DOORBELL: u64 = 0xFE00_0050;
/// What the server's id is.
const SERVER: IoServerId = IoServerId(7);

/// How an access ended for its vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Our server answered.
    Answered,
    /// No server of ours was there: the VMM has it.
    ToVmm,
    /// Nothing will ever wake it.
    Hung,
    /// The state of its slot went backwards, and Xen has crashed the domain.
    Crashed,
    /// The guest was destroyed.
    Destroyed,
}

/// Xen, to be shared by the threads of one exploration.
#[derive(Debug, Clone)]
pub(super) struct Xen(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Arc<Vec<Slot>>,
    world: Mutex<World>,
    /// Notified of every change for which a thread may wait.
    changed: Condvar,
    /// Stands for every descriptor that could be polled, and is not polled here.
    fd: OwnedFd,
}

#[derive(Debug)]
struct World {
    exists: bool,
    created: bool,
    enabled: bool,
    ranges: Vec<Bytes>,
    /// The data of the messages that the guest has had.
    msis: Vec<u32>,
    /// Whether its interrupt line is up.
    line: bool,
    channels: Vec<Channel>,
    /// How often the first vCPU has rung, and for how many of these each owner of a shared slot has had an event.
    rung: u64,
    taken: Vec<u64>,
    /// Threads that may still do something. Once there is none, a thread that waits does so for ever.
    busy: usize,
}

#[derive(Debug, Clone, Default)]
struct Channel {
    bound: bool,
    masked: bool,
    to_backend: bool,
    to_vcpu: bool,
    /// The vCPU waits for it.
    parked: bool,
}

impl World {
    /// Some thread is about to wake up.
    fn moves(&self) -> bool {
        self.busy > 0
            || self.channels.iter().any(|channel| channel.event() || channel.wakes())
            || self.taken.iter().any(|taken| *taken < self.rung)
    }
}

impl Channel {
    fn event(&self) -> bool {
        self.bound && self.to_backend && !self.masked
    }

    fn wakes(&self) -> bool {
        self.parked && self.to_vcpu
    }
}

impl Xen {
    /// A guest with so many vCPUs, and so many threads that know of it, each of which will
    /// [`Xen::leave`].
    pub(super) fn new(vcpus: usize, threads: usize) -> Self {
        let world = World {
            exists: true,
            created: false,
            enabled: false,
            ranges: Vec::new(),
            msis: Vec::new(),
            line: false,
            channels: vec![Channel::default(); vcpus],
            rung: 0,
            taken: Vec::new(),
            busy: threads,
        };
        let slots: Vec<Slot> = (0..vcpus).map(|_| Slot::default()).collect();
        for (slot, port) in slots.iter().zip(1..) {
            slot.announce(Port(port));
        }
        Self(Arc::new(Inner {
            slots: Arc::new(slots),
            world: Mutex::new(world),
            changed: Condvar::new(),
            fd: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        }))
    }

    fn change(&self) -> MutexGuard<'_, World> {
        let world = lock(&self.0.world);
        // Before the change, but no thread sees it before the lock is released.
        self.0.changed.notify_all();
        world
    }

    /// The data of the messages that the guest has had.
    pub(super) fn msis(&self) -> Vec<u32> {
        lock(&self.0.world).msis.clone()
    }

    /// Waits until the guest has had one more message than were taken. `false`: none will come.
    pub(super) fn msi(&self, taken: &mut usize) -> bool {
        let came = self.wait(|world| world.msis.len() > *taken);
        *taken += 1;
        came
    }

    /// Waits until the guest's line is up. `false`: it never will be.
    pub(super) fn is_up(&self) -> bool {
        self.wait(|world| world.line)
    }

    /// Whether the guest's line is up.
    pub(super) fn line(&self) -> bool {
        lock(&self.0.world).line
    }

    /// A thread that will do nothing any more.
    pub(super) fn leave(&self) {
        self.change().busy -= 1;
    }

    /// Waits until something is as `ready` says. `false`: it never will be.
    fn wait(&self, mut ready: impl FnMut(&mut World) -> bool) -> bool {
        let mut world = lock(&self.0.world);
        loop {
            if ready(&mut world) {
                return true;
            }
            world.busy -= 1;
            if !world.moves() {
                self.0.changed.notify_all();
                world.busy += 1;
                return false;
            }
            world = self.0.changed.wait(world).unwrap();
            world.busy += 1;
        }
    }

    /// Waits for an event of any vCPU. `false`: none will come.
    pub(super) fn event(&self) -> bool {
        self.wait(|world| world.channels.iter().any(Channel::event))
    }

    /// Gives the server to so many owners that are not the engine, and all of whom get its events.
    pub(super) fn share(&self, owners: usize) {
        let mut world = self.change();
        world.enabled = true;
        world.ranges = vec![doorbell()];
        // They begin with the first one.
        world.taken = vec![1; owners];
    }

    /// Waits until the first vCPU has rung again, for one of those owners.
    pub(super) fn take_event(&self, owner: usize) -> bool {
        self.wait(|world| {
            let news = world.taken[owner] < world.rung;
            world.taken[owner] = world.rung;
            news
        })
    }

    pub(super) fn slot(&self, vcpu: usize) -> &Slot {
        &self.0.slots[vcpu]
    }

    /// Rings a vCPU's own end.
    pub(super) fn notify_vcpu(&self, vcpu: usize) {
        self.change().channels[vcpu].to_vcpu = true;
    }

    /// Destroys the guest.
    pub(super) fn destroy(&self) {
        let mut world = self.change();
        world.exists = false;
        world.enabled = false;
        world.channels.iter_mut().for_each(|channel| channel.to_vcpu = true);
    }

    /// A vCPU writes a value to the doorbell.
    pub(super) fn write(&self, vcpu: usize, value: u64) -> End {
        match self.send(vcpu, value) {
            Ok(()) => self.wait_for_io(vcpu),
            Err(end) => end,
        }
    }

    /// The write goes to the server, or ends here.
    pub(super) fn send(&self, vcpu: usize, value: u64) -> Result<(), End> {
        let mut world = self.change();
        if !world.exists {
            return Err(End::Destroyed);
        }
        if !world.enabled || !world.ranges.contains(&doorbell()) {
            return Err(End::ToVmm);
        }
        let (addr, data) = (DOORBELL, value);
        // Disabling the server pauses the guest, so no vCPU is between the choice of the server and this.
        self.slot(vcpu).publish(&Ioreq {
            addr,
            data,
            count: 1,
            size: 4,
            kind: COPY,
            ..Ioreq::default()
        });
        world.channels[vcpu].to_backend = true;
        world.rung += 1;
        Ok(())
    }

    /// The vCPU waits for the answer.
    pub(super) fn wait_for_io(&self, vcpu: usize) -> End {
        wait_for_io(self.slot(vcpu), || {
            let mut exists = true;
            let rung = self.wait(|world| {
                exists = world.exists;
                let channel = &mut world.channels[vcpu];
                channel.parked = !channel.to_vcpu;
                std::mem::take(&mut channel.to_vcpu)
            });
            match (exists, rung) {
                (false, _) => Err(End::Destroyed),
                (true, false) => Err(End::Hung),
                (true, true) => Ok(()),
            }
        })
    }

    /// What stays on our side.
    pub(super) fn leftovers(&self) -> bool {
        let world = lock(&self.0.world);
        world.enabled || world.channels.iter().any(|channel| channel.bound)
    }

    fn alive(&self, call: impl FnOnce() -> Call) -> host::Result<MutexGuard<'_, World>> {
        let world = self.change();
        if world.exists { Ok(world) } else { Err(HostError::new(call(), Errno::NOENT)) }
    }
}

/// Looks at a slot until it is answered, once for each event.
pub(super) fn wait_for_io(slot: &Slot, mut event: impl FnMut() -> Result<(), End>) -> End {
    let mut before = State::None;
    loop {
        let now = slot.state();
        if now < before {
            return End::Crashed;
        }
        match now {
            State::None => return End::Answered,
            State::Answered => {
                slot.collect();
                return End::Answered;
            }
            _ => before = now,
        }
        if let Err(end) = event() {
            return end;
        }
    }
}

fn doorbell() -> Bytes {
    Bytes::new(xen_eventfd_core::Space::Mmio, DOORBELL, DOORBELL + 3).unwrap()
}

fn not_here(call: Call) -> HostError {
    HostError::new(call, Errno::NOSYS)
}

#[derive(Debug)]
struct Page(Arc<Vec<Slot>>);

impl IoreqPage for Page {
    fn slots(&self) -> &[Slot] {
        &self.0
    }
}

impl Host for Xen {
    fn domains(&self) -> host::Result<Vec<Domain>> {
        Ok(vec![])
    }

    fn domain(&self, id: DomId) -> host::Result<Domain> {
        Ok(Domain::new(id, None, None))
    }

    fn vcpus(&self, _: DomId) -> host::Result<u32> {
        Ok(u32::try_from(self.0.slots.len()).unwrap())
    }

    fn create_server(&self, dom: DomId) -> host::Result<IoServerId> {
        let mut world = self.alive(|| Call::CreateServer(dom))?;
        match std::mem::replace(&mut world.created, true) {
            false => Ok(SERVER),
            true => Err(HostError::new(Call::CreateServer(dom), Errno::NOSPC)),
        }
    }

    fn destroy_server(&self, dom: DomId, id: IoServerId) -> host::Result<()> {
        let mut world = self.alive(|| Call::DestroyServer(dom, id))?;
        world.enabled = false;
        Ok(())
    }

    fn set_server_state(&self, dom: DomId, id: IoServerId, enabled: bool) -> host::Result<()> {
        self.alive(|| Call::SetServerState(dom, id))?.enabled = enabled;
        Ok(())
    }

    fn server_alive(&self, _: DomId, _: IoServerId) -> host::Result<bool> {
        Ok(self.change().exists)
    }

    fn map_page(&self, _: DomId, _: IoServerId) -> host::Result<Box<dyn IoreqPage>> {
        Ok(Box::new(Page(Arc::clone(&self.0.slots))))
    }

    fn map_range(&self, dom: DomId, id: IoServerId, bytes: Bytes) -> host::Result<()> {
        self.alive(|| Call::MapRange(dom, id, bytes))?.ranges.push(bytes);
        Ok(())
    }

    fn unmap_range(&self, dom: DomId, id: IoServerId, bytes: Bytes) -> host::Result<()> {
        self.alive(|| Call::UnmapRange(dom, id, bytes))?.ranges.retain(|range| *range != bytes);
        Ok(())
    }

    fn has_lines(&self, _: DomId) -> host::Result<bool> {
        Ok(true)
    }

    fn inject_msi(&self, dom: DomId, _: u64, data: u32) -> host::Result<()> {
        self.alive(|| Call::Interrupt(dom))?.msis.push(data);
        Ok(())
    }

    fn set_line(&self, dom: DomId, _: Line, up: bool) -> host::Result<()> {
        self.alive(|| Call::Interrupt(dom))?.line = up;
        Ok(())
    }

    fn event_channels(&self) -> host::Result<Box<dyn EventChannels>> {
        Ok(Box::new(self.clone()))
    }

    fn binding(&self, dom: DomId, port: Port) -> host::Result<Binding> {
        Err(not_here(Call::Binding(dom, port)))
    }

    fn notify_port(&self, port: LocalPort) -> host::Result<()> {
        self.notify(port)
    }

    fn releases(&self) -> host::Result<Box<dyn Releases>> {
        Err(not_here(Call::Open("releases")))
    }

    fn signaller(&self) -> host::Result<Box<dyn Signaller>> {
        Ok(Box::new(Plain))
    }
}

fn vcpu(port: LocalPort) -> usize {
    port.0 as usize - 1
}

impl EventChannels for Xen {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    fn bind(&self, dom: DomId, remote: Port) -> host::Result<LocalPort> {
        let mut world = self.alive(|| Call::Bind(dom, remote))?;
        let port = LocalPort(remote.0);
        world.channels[vcpu(port)].bound = true;
        Ok(port)
    }

    fn unbind(&self, port: LocalPort) -> host::Result<()> {
        let mut world = self.change();
        let channel = &mut world.channels[vcpu(port)];
        (channel.bound, channel.masked, channel.to_backend) = (false, false, false);
        Ok(())
    }

    fn notify(&self, port: LocalPort) -> host::Result<()> {
        let mut world = self.change();
        let channel = &mut world.channels[vcpu(port)];
        if !channel.bound {
            return Err(HostError::new(Call::Event, Errno::NOTCONN));
        }
        channel.to_vcpu = true;
        Ok(())
    }

    fn pending(&self, ports: &mut Vec<LocalPort>) -> host::Result<()> {
        let mut world = self.change();
        for (channel, port) in world.channels.iter_mut().zip(1..) {
            if channel.event() {
                channel.to_backend = false;
                channel.masked = true;
                ports.push(LocalPort(port));
            }
        }
        Ok(())
    }

    fn wait(&self, ports: &mut Vec<LocalPort>) -> host::Result<()> {
        self.pending(ports)
    }

    fn wake(&self) -> host::Result<()> {
        Ok(())
    }

    fn eoi(&self, port: LocalPort) -> host::Result<()> {
        self.change().channels[vcpu(port)].masked = false;
        Ok(())
    }
}

/// Writes to eventfds, none of which is ever full here.
#[derive(Debug)]
struct Plain;

impl Signaller for Plain {
    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> host::Result<()> {
        rustix::io::write(eventfd, &1_u64.to_ne_bytes())
            .map(|_| ())
            .map_err(|errno| HostError::new(Call::EventFd, errno))
    }
}
