//! One guest's server, from taking the guest to letting go of it.

use crate::event_loop::{EventLoop, PortSource};
use crate::handler::Handler;
use crate::hold::Hold;
use crate::liveness::Liveness;
use crate::ranges::Ranges;
use crate::reservation::Reserve;
use crate::server::Server;
use crate::sync::{Mutex, MutexGuard, lock};
use crate::{Error, Result, Role, new_eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use xen_eventfd_core::{DomId, IoServerId, VcpuId};
use xen_eventfd_host::{Call, Errno, HostError, LocalPort};

/// How a guest is taken.
#[derive(Debug)]
pub struct Claim<'a> {
    /// What the server is for.
    pub role: Role,
    /// The same for those who ask for the holder of the guest: `userspace engine`.
    pub serves: &'static str,
    /// How the guest is kept from programs that would take it in the kernel module.
    pub reserve: &'a Reserve,
}

/// How a guest stands with its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Served,
    LetGo,
    Dead,
}

/// The right to change what a guest's server does: the guest is served, and is not let go of as long as
/// this lives.
#[derive(Debug)]
#[must_use = "the guest may be let go of as soon as this is dropped"]
pub struct Changes<'a> {
    #[expect(dead_code, reason = "held")]
    life: MutexGuard<'a, Life>,
}

/// A guest's server in service. Dropping it lets go of the guest.
#[derive(Debug)]
pub struct GuestServer(Arc<GuestCore>);

/// The same, as the event loop knows it.
#[derive(Debug)]
pub(crate) struct GuestCore {
    event_loop: Arc<EventLoop>,
    dom: DomId,
    role: Role,
    id: IoServerId,
    liveness: Liveness,
    /// Our end of each vCPU's event channel.
    ports: Vec<LocalPort>,
    handler: Arc<dyn Handler>,
    life: Mutex<Life>,
    /// While it is locked no handler runs. `None` once the guest is let go of or dead.
    server: Mutex<Option<Server>>,
    last_error: Mutex<Option<HostError>>,
    /// Readable once the guest is dead or the event loop has stopped.
    gone: OwnedFd,
    /// Until the guest is no longer ours.
    hold: Mutex<Option<Hold>>,
}

/// A vCPU's event channel.
#[derive(Debug)]
struct VcpuPort(Arc<GuestCore>, VcpuId);

impl PortSource for VcpuPort {
    fn event(&self, port: LocalPort) {
        self.0.serve(port, self.1);
    }
}

impl GuestServer {
    /// Takes a guest, creates its server, and serves it.
    ///
    /// # Errors
    /// As [`Hold::take`]; [`Error::Host`] if the guest can have no ioreq server (a PV guest) or no further
    /// one; [`Error::GuestDied`]; [`Error::Stopped`].
    ///
    #[doc = example!(r#"
// A guest reads a register, and the handler answers.
registers.ranges().map(Bytes::new(Space::Mmio, 0xfe00_0000, 0xfe00_0fff)?)?;
assert_eq!(model.vcpu(dom, VcpuId(0)).read(Space::Mmio, 0xfe00_0000, Width::Four)?, 0x7472_6976);
"#)]
    pub fn take(
        event_loop: &Arc<EventLoop>,
        dom: DomId,
        claim: &Claim<'_>,
        handler: Arc<dyn Handler>,
    ) -> Result<Self> {
        event_loop.alive()?;
        let (host, events) = (event_loop.host(), event_loop.events());
        let run_dir = event_loop.run_dir().with_role(claim.role);
        let hold = Hold::take(&**host, Some(events), &run_dir, dom, claim.serves, claim.reserve)?;
        Self::begin(event_loop, dom, claim.role, handler, hold, None)
    }

    /// The same, but a server that a killed process left is not torn down: it is served on with its ranges, and
    /// requests that wait are the handler's. Where it is gone, or cannot be served on, there is a new one without
    /// ranges.
    ///
    /// # Errors
    /// As [`GuestServer::take`].
    ///
    #[doc = example!(r#"
// Its process lives.
let again = GuestServer::take_over(&event_loop, dom, &claim, Arc::new(Magic));
assert!(matches!(again, Err(Error::InUse { .. })));
"#)]
    pub fn take_over(
        event_loop: &Arc<EventLoop>,
        dom: DomId,
        claim: &Claim<'_>,
        handler: Arc<dyn Handler>,
    ) -> Result<Self> {
        event_loop.alive()?;
        let (host, events) = (event_loop.host(), event_loop.events());
        let run_dir = event_loop.run_dir().with_role(claim.role);
        let (hold, server) =
            Hold::take_over(&**host, events, &run_dir, dom, claim.serves, claim.reserve)?;
        Self::begin(event_loop, dom, claim.role, handler, hold, server)
    }

    /// Serves a guest that is held, by this server or a new one.
    fn begin(
        event_loop: &Arc<EventLoop>,
        dom: DomId,
        role: Role,
        handler: Arc<dyn Handler>,
        mut hold: Hold,
        server: Option<Server>,
    ) -> Result<Self> {
        let (host, gone) = (event_loop.host(), new_eventfd()?);
        let run_dir = event_loop.run_dir().with_role(role);
        let create = || Server::create(&**host, event_loop.events(), &run_dir, &mut hold.record);
        let died_or = |error| match error {
            Error::Host(error) if HostError::is_gone(&error) => Error::GuestDied(dom),
            other => other,
        };
        let is_adopted = server.is_some();
        let mut server = server.map_or_else(create, Ok).map_err(died_or)?;
        // The handler may route accesses to it that were not yet, before any vCPU goes on.
        handler.begin(Ranges::new(Arc::clone(host), dom, server.id), hold.held().collect());
        if is_adopted {
            server = server.wake_all(event_loop.events()).map_err(died_or)?;
        }
        let guest = Self(Arc::new(GuestCore {
            event_loop: Arc::clone(event_loop),
            dom,
            role,
            id: server.id,
            liveness: server.liveness(dom),
            ports: server.ports.clone(),
            handler,
            life: Mutex::new(Life::Served),
            server: Mutex::new(Some(server)),
            last_error: Mutex::default(),
            gone,
            hold: Mutex::new(Some(hold)),
        }));
        guest.0.listen();
        event_loop.add_guest(dom, role, &guest.0);
        // An event that came between a port's binding and the call above had no listener.
        guest.0.each_port(|vcpu, port| guest.0.serve(port, vcpu));
        // It may have died before the event loop knew it.
        guest.0.reap_if_dead();
        // So may the event loop.
        event_loop.alive()?;
        drop(guest.changes()?);
        Ok(guest)
    }

    /// The guest.
    pub fn dom(&self) -> DomId {
        self.0.dom
    }

    /// The server's id.
    pub fn server(&self) -> IoServerId {
        self.0.id
    }

    /// The ranges that are routed to it.
    pub fn ranges(&self) -> Ranges {
        Ranges::new(Arc::clone(self.0.event_loop.host()), self.0.dom, self.0.id)
    }

    /// The right to change what the server does.
    ///
    /// # Errors
    /// [`Error::GuestDied`] once the guest is let go of or dead.
    pub fn changes(&self) -> Result<Changes<'_>> {
        let life = lock(&self.0.life);
        match *life {
            Life::Served => Ok(Changes { life }),
            Life::LetGo | Life::Dead => Err(Error::GuestDied(self.0.dom)),
        }
    }

    /// Whether the guest is served: it is not let go of, and not known to be dead.
    pub fn is_served(&self) -> bool {
        *lock(&self.0.life) == Life::Served
    }

    /// What a refusal of the host means: [`Error::GuestDied`] if it is the guest's end. `_changes`: the
    /// guest is served.
    pub fn died_or(&self, _changes: &Changes<'_>, error: HostError) -> Error {
        let died = match error.call {
            // A port of a dead guest is refused like one that never was.
            Call::Bind(..) => self.0.is_dead(),
            _ => error.is_gone(),
        };
        if died { Error::GuestDied(self.0.dom) } else { error.into() }
    }

    /// The last failure to wake a vCPU or to end its event.
    pub fn last_error(&self) -> Option<HostError> {
        lock(&self.0.last_error).clone()
    }

    /// Readable once the guest is dead or the event loop has stopped.
    pub fn gone(&self) -> BorrowedFd<'_> {
        self.0.gone.as_fd()
    }

    /// Lets go of the guest, in the order that leaves none of its vCPUs waiting. When this returns, no
    /// handler runs. Nothing happens if the guest is let go of or dead.
    ///
    /// # Errors
    /// The first failure; the rest was done all the same. What Xen refused is in the record, and the next
    /// process that takes the guest does it.
    pub fn let_go(&self) -> Result<()> {
        self.0.let_go()
    }
}

impl Drop for GuestServer {
    fn drop(&mut self) {
        if let Err(error) = self.let_go() {
            tracing::warn!(%error, dom = %self.0.dom, "a guest was not let go of cleanly");
        }
    }
}

impl GuestCore {
    fn each_port(&self, mut act: impl FnMut(VcpuId, LocalPort)) {
        (0..).map(VcpuId).zip(&self.ports).for_each(|(vcpu, port)| act(vcpu, *port));
    }

    fn listen(self: &Arc<Self>) {
        self.each_port(|vcpu, port| {
            let source = Arc::new(VcpuPort(Arc::clone(self), vcpu));
            self.event_loop.add_port(port, source);
        });
    }

    /// Serves the request of one vCPU, if there is one, and ends the event.
    ///
    /// All of it happens under the server's lock, so that while the teardown holds the lock neither
    /// a slot nor a port of the server is in use.
    fn serve(&self, port: LocalPort, vcpu: VcpuId) {
        let server = lock(&self.server);
        let slots = server.as_ref().map(|server| server.page.slots());
        let Some(slot) = slots.and_then(|slots| slots.get(vcpu.0 as usize)) else { return };
        let events = self.event_loop.events();
        let rung = match slot.serve(|request| self.handler.request(vcpu, request)) {
            Some(_) => events.notify(port),
            None => {
                self.handler.spurious(vcpu);
                Ok(())
            }
        };
        if let Err(error) = rung.and(events.eoi(port)) {
            tracing::debug!(%error, dom = %self.dom, "a vCPU was not woken");
            *lock(&self.last_error) = Some(error);
        }
    }

    fn let_go(&self) -> Result<()> {
        let mut life = lock(&self.life);
        if *life != Life::Served {
            return Ok(());
        }
        *life = Life::LetGo;
        self.handler.ending();
        let disabled = match self.is_dead() {
            // Another process's server may have the id.
            true => Err(self.lost()),
            false => self.event_loop.host().set_server_state(self.dom, self.id, false),
        };
        let closed = self.tear_down(disabled).and_then(|()| {
            let mut hold = lock(&self.hold);
            let Some(hold) = &mut *hold else { return Ok(()) };
            hold.settle(&**self.event_loop.host(), self.handler.left())
        });
        self.leave();
        closed
    }

    /// The event loop has stopped: lets go of the guest and notifies those who wait for its end.
    pub(crate) fn give_up(&self) {
        if let Err(error) = self.let_go() {
            tracing::warn!(%error, dom = %self.dom, "a guest was not let go of cleanly");
        }
        self.signal_gone();
    }

    /// Drops everything of a guest that has died.
    pub(crate) fn reap_if_dead(&self) {
        let mut life = lock(&self.life);
        if *life != Life::Served || !self.is_dead() {
            return;
        }
        *life = Life::Dead;
        self.handler.ending();
        let _ = self.tear_down(Err(self.lost()));
        if let Some(hold) = &*lock(&self.hold) {
            hold.forget();
        }
        self.leave();
        self.signal_gone();
        tracing::info!(dom = %self.dom, "a guest died");
    }

    /// Takes the server away from the handler and then from the guest, if it is alive: `disabled` is what
    /// came of disabling it. Requests that came so far are served.
    fn tear_down(&self, disabled: xen_eventfd_host::Result<()>) -> Result<()> {
        let server = {
            // With this lock no handler runs, and without a server none starts.
            let mut server = lock(&self.server);
            if !Server::is_gone(&disabled)
                && let Some(server) = &*server
            {
                self.serve_all(server);
            }
            server.take()
        };
        // Before the ports are unbound, as their numbers are used again.
        self.each_port(|_, port| self.event_loop.remove_port(port));
        let Some(server) = server else { return Ok(()) };
        let (host, events) = (self.event_loop.host(), self.event_loop.events());
        Ok(server.tear_down(disabled, &**host, events, self.dom)?)
    }

    fn serve_all(&self, server: &Server) {
        let slots = server.page.slots().iter().take(self.ports.len());
        for (vcpu, slot) in (0..).map(VcpuId).zip(slots) {
            slot.serve(|request| self.handler.request(vcpu, request));
        }
    }

    /// Gives up what is kept for the guest, and its lock.
    fn leave(&self) {
        self.handler.ended();
        self.event_loop.remove_guest(self.dom, self.role);
        lock(&self.hold).take();
    }

    fn signal_gone(&self) {
        let _ = rustix::io::write(&self.gone, &1_u64.to_ne_bytes());
    }

    fn is_dead(&self) -> bool {
        self.liveness.is_lost(&**self.event_loop.host())
    }

    /// That the guest has lost the server.
    fn lost(&self) -> HostError {
        HostError::new(Call::SetServerState(self.dom, self.id), Errno::NOENT)
    }
}
