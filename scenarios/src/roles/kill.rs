//! A host that kills its caller's process at one chosen step of serving a kick.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xen_eventfd::{DomId, Domain, Host, IoServerId, Line, Port};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_host::{Binding, EventChannels, IoreqPage, LocalPort, Releases, Result, Signaller};

/// A step of serving a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The event has arrived, the request is not read yet.
    Woken,
    /// The eventfd is signalled, the request not answered.
    Signalled,
    /// The answer is stored, the vCPU not notified.
    Answered,
    /// The vCPU is notified, the event not ended.
    Notified,
    /// The event has ended.
    Ended,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 5] =
        [Self::Woken, Self::Signalled, Self::Answered, Self::Notified, Self::Ended];
}

/// When to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// At this step …
    pub step: Step,
    /// … of this kick, counted from 1.
    pub kick: u64,
}

/// Ends the caller's process.
#[derive(Clone)]
pub struct Die {
    how: Arc<dyn Fn() + Send + Sync>,
    dead: Arc<AtomicBool>,
}

impl Die {
    /// Creates it from a function that ends the process.
    pub fn new(how: impl Fn() + Send + Sync + 'static) -> Self {
        Self { how: Arc::new(how), dead: Arc::new(AtomicBool::new(false)) }
    }

    /// Ends the process. Does not return in a process that dies.
    pub fn now(&self) {
        self.mark();
        (self.how)();
    }

    /// Records that the process was ended from outside.
    pub fn mark(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// Whether it has ended: on the model its other threads still run.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Die {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Die")
    }
}

#[derive(Debug)]
struct KillPoint {
    kill: Kill,
    /// Kicks signalled so far.
    signals: AtomicU64,
    die: Die,
}

impl KillPoint {
    fn at(&self, step: Step) {
        let signals = self.signals.load(Ordering::SeqCst);
        let due = if step == Step::Woken { self.kill.kick - 1 } else { self.kill.kick };
        if step == self.kill.step && signals >= due {
            self.die.now();
        }
    }
}

/// A host that kills its caller.
#[derive(Debug)]
pub struct KillPointHost {
    host: Arc<dyn Host>,
    kill_point: Arc<KillPoint>,
}

impl KillPointHost {
    /// Wraps a host.
    pub fn new(host: Arc<dyn Host>, kill: Kill, die: Die) -> Self {
        Self { host, kill_point: Arc::new(KillPoint { kill, signals: AtomicU64::new(0), die }) }
    }
}

impl Host for KillPointHost {
    fn domains(&self) -> Result<Vec<Domain>> {
        self.host.domains()
    }
    fn domain(&self, dom: DomId) -> Result<Domain> {
        self.host.domain(dom)
    }
    fn vcpus(&self, dom: DomId) -> Result<u32> {
        self.host.vcpus(dom)
    }
    fn create_server(&self, dom: DomId) -> Result<IoServerId> {
        self.host.create_server(dom)
    }
    fn destroy_server(&self, dom: DomId, server: IoServerId) -> Result<()> {
        self.host.destroy_server(dom, server)
    }
    fn set_server_state(&self, dom: DomId, server: IoServerId, enabled: bool) -> Result<()> {
        self.host.set_server_state(dom, server, enabled)
    }
    fn server_alive(&self, dom: DomId, server: IoServerId) -> Result<bool> {
        self.host.server_alive(dom, server)
    }
    fn map_page(&self, dom: DomId, server: IoServerId) -> Result<Box<dyn IoreqPage>> {
        self.host.map_page(dom, server)
    }
    fn map_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
        self.host.map_range(dom, server, bytes)
    }
    fn unmap_range(&self, dom: DomId, server: IoServerId, bytes: Bytes) -> Result<()> {
        self.host.unmap_range(dom, server, bytes)
    }
    fn inject_msi(&self, dom: DomId, addr: u64, data: u32) -> Result<()> {
        self.host.inject_msi(dom, addr, data)
    }
    fn has_lines(&self, dom: DomId) -> Result<bool> {
        self.host.has_lines(dom)
    }
    fn set_line(&self, dom: DomId, line: Line, up: bool) -> Result<()> {
        self.host.set_line(dom, line, up)
    }
    fn event_channels(&self) -> Result<Box<dyn EventChannels>> {
        let channels = self.host.event_channels()?;
        Ok(Box::new(KillPointChannels { channels, kill_point: Arc::clone(&self.kill_point) }))
    }
    fn binding(&self, dom: DomId, port: Port) -> Result<Binding> {
        self.host.binding(dom, port)
    }
    fn notify_port(&self, port: LocalPort) -> Result<()> {
        self.host.notify_port(port)
    }
    fn releases(&self) -> Result<Box<dyn Releases>> {
        self.host.releases()
    }
    fn signaller(&self) -> Result<Box<dyn Signaller>> {
        let signaller = self.host.signaller()?;
        Ok(Box::new(KillPointSignaller { signaller, kill_point: Arc::clone(&self.kill_point) }))
    }
}

#[derive(Debug)]
struct KillPointChannels {
    channels: Box<dyn EventChannels>,
    kill_point: Arc<KillPoint>,
}

impl EventChannels for KillPointChannels {
    fn fd(&self) -> BorrowedFd<'_> {
        self.channels.fd()
    }
    fn bind(&self, dom: DomId, remote: Port) -> Result<LocalPort> {
        self.channels.bind(dom, remote)
    }
    fn unbind(&self, port: LocalPort) -> Result<()> {
        self.channels.unbind(port)
    }
    fn notify(&self, port: LocalPort) -> Result<()> {
        self.kill_point.at(Step::Answered);
        self.channels.notify(port)?;
        self.kill_point.at(Step::Notified);
        Ok(())
    }
    fn pending(&self, ports: &mut Vec<LocalPort>) -> Result<()> {
        self.channels.pending(ports)?;
        if !ports.is_empty() {
            self.kill_point.at(Step::Woken);
        }
        Ok(())
    }
    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<()> {
        self.channels.wait(ports)?;
        if !ports.is_empty() {
            self.kill_point.at(Step::Woken);
        }
        Ok(())
    }
    fn wake(&self) -> Result<()> {
        self.channels.wake()
    }
    fn eoi(&self, port: LocalPort) -> Result<()> {
        self.channels.eoi(port)?;
        self.kill_point.at(Step::Ended);
        Ok(())
    }
}

#[derive(Debug)]
struct KillPointSignaller {
    signaller: Box<dyn Signaller>,
    kill_point: Arc<KillPoint>,
}

impl Signaller for KillPointSignaller {
    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.signaller.signal(eventfd)?;
        self.kill_point.signals.fetch_add(1, Ordering::SeqCst);
        self.kill_point.at(Step::Signalled);
        Ok(())
    }
}
