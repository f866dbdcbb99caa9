//! A machine, a guest and an engine, so that a test reads like the rule that it checks.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tempfile::TempDir;
use xen_eventfd::IoEventAddress::{self, Mmio};
use xen_eventfd::{Arch, DomId, Guest, Host, Reaped, Result, Space, VcpuId, Width, Xen};
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_model::{
    CallKind, CallSite, Client, Config, Kind, Model, Running, ServerInfo, Stopped, Vcpu, Verdict,
};

/// A doorbell's address.
pub(crate) const DOORBELL: u64 = 0xFE00_0050;
/// The same, as one registers it.
pub(crate) const AT: IoEventAddress = Mmio(DOORBELL);
/// How long anything may take: a machine under load is no failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine with one HVM guest of two vCPUs, and one process that serves it.
pub(crate) struct Bench {
    pub(crate) model: Model,
    pub(crate) dom: DomId,
    pub(crate) backend: Arc<Client>,
    pub(crate) run_dir: TempDir,
    /// The servers of others.
    foreign: Vec<ServerInfo>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::of(Model::new(), config)
    }

    fn of(model: Model, config: Config) -> Self {
        let dom = model.domain(config);
        let backend = model.client("backend");
        let run_dir = new_run_dir();
        Self { model, dom, backend, run_dir, foreign: Vec::new() }
    }

    /// With a VMM that has created its server and not come so far as to enable it: nothing but the
    /// id tells it from one that an engine left in the same state.
    pub(crate) fn beside_a_vmm() -> Self {
        Self::beside_a_vmm_on(Arch::X86)
    }

    pub(crate) fn beside_a_vmm_on(arch: Arch) -> Self {
        let mut bench = Self::of(Model::on(arch), config());
        let vmm = bench.model.client("vmm");
        let server = vmm.create_server(bench.dom).unwrap();
        let page = Bytes::new(Space::Mmio, DOORBELL & !0xFFF, DOORBELL | 0xFFF).unwrap();
        vmm.map_range(bench.dom, server, page).unwrap();
        bench.foreign = bench.model.servers(bench.dom);
        bench
    }

    /// An engine of the backend.
    pub(crate) fn xen(&self) -> Xen {
        self.try_xen().unwrap()
    }

    pub(crate) fn try_xen(&self) -> Result<Xen> {
        self.xen_of(&self.backend, self.run_dir.path())
    }

    /// An engine of another process.
    pub(crate) fn xen_of(&self, client: &Arc<Client>, run_dir: &Path) -> Result<Xen> {
        Xen::builder().run_dir(run_dir).open_on(Arc::clone(client) as Arc<_>)
    }

    /// The guest in the hands of an engine of its own.
    pub(crate) fn attach(&self) -> Guest {
        self.xen().guest(self.dom).unwrap()
    }

    pub(crate) fn vcpu(&self, id: u32) -> Vcpu {
        self.model.vcpu(self.dom, VcpuId(id))
    }

    /// Has a vCPU write to the doorbell, in this thread.
    pub(crate) fn kick(&self, vcpu: u32, value: u64) {
        kick(&self.vcpu(vcpu), value).unwrap();
    }

    /// Has another process destroy the one server that the guest has.
    pub(crate) fn destroy_server(&self) -> xen_eventfd::IoServerId {
        let server = self.model.servers(self.dom)[0].id;
        self.model.client("another").destroy_server(self.dom, server).unwrap();
        server
    }

    /// Sweeps up in another process, and returns what became of the guest's record.
    pub(crate) fn reap(&self, run_dir: &Path) -> Option<Result<Reaped>> {
        let reaper = self.model.client("reaper");
        let reaped = Xen::builder().run_dir(run_dir).reap_on(&*reaper).unwrap();
        let left = reaper.leftovers();
        assert!(left.is_empty(), "the reaper left {left:?}");
        reaped.into_iter().find(|(dom, _)| *dom == self.dom).map(|(_, reaped)| reaped)
    }

    /// The records as they are now, in a directory without locks: a process that is
    /// killed on the model keeps those that it has.
    pub(crate) fn inherit(&self) -> TempDir {
        inherit(self.run_dir.path())
    }

    /// Nothing of an engine is left but what it needs for the next guest.
    pub(crate) fn assert_let_go(&self) {
        let left = self.backend.leftovers();
        let nothing = left.servers.is_empty() && left.ports.is_empty() && left.pages == 0;
        assert!(nothing, "{left:?}\n{}", self.model.describe());
        self.assert_no_server();
        assert!(self.model.zombies().is_empty());
        let files: Vec<_> = std::fs::read_dir(self.run_dir.path()).unwrap().collect();
        assert!(files.is_empty(), "{files:?}");
    }

    /// The guest has the servers of others, as they were, and none of ours.
    pub(crate) fn assert_no_server(&self) {
        let mut servers = self.model.servers(self.dom);
        // A page may have been looked at.
        servers.iter_mut().for_each(|server| server.has_page = false);
        let alive = self.backend.domain(self.dom).is_ok() || self.backend.is_killed();
        assert!(!alive || servers == self.foreign, "{}", self.model.describe());
    }

    /// The guest can be taken, kicked and let go of.
    pub(crate) fn assert_usable(&self) {
        let queue = event();
        let guest = self.attach();
        let registered = guest.register_ioevent(&queue, &AT, 99_u32).unwrap();
        self.kick(0, 99);
        self.kick(1, 99);
        assert_eq!(count(&queue), 2);
        drop(registered);
        guest.close().unwrap();
        self.assert_let_go();
    }
}

pub(crate) fn config() -> Config {
    Config::new("guest").vcpus(2).kind(Kind::Hvm)
}

/// In memory, as `/run` is.
fn new_run_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn inherit(run_dir: &Path) -> TempDir {
    let heir = new_run_dir();
    for entry in std::fs::read_dir(run_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            std::fs::copy(&path, heir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    heir
}

/// Writes to the doorbell.
pub(crate) fn kick(vcpu: &Vcpu, value: u64) -> core::result::Result<(), Stopped> {
    vcpu.write(Space::Mmio, DOORBELL, Width::Four, value)
}

/// Has a vCPU give memory back, in a thread of its own; returns once it waits, or is through.
pub(crate) fn balloon(vcpu: &Vcpu) -> Running<core::result::Result<(), Stopped>> {
    let ballooning = vcpu.run(|vcpu| vcpu.balloon(1));
    while !vcpu.is_parked() && !ballooning.is_finished() {
        pause();
    }
    ballooning
}

/// An eventfd, as a backend makes one.
pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

pub(crate) fn signal(fd: &OwnedFd) {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
}

/// Takes what an eventfd has counted.
pub(crate) fn count(fd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match rustix::io::read(fd, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(Errno::AGAIN) => 0,
        Err(errno) => panic!("{errno}"),
    }
}

pub(crate) fn is_readable(fd: impl AsFd) -> bool {
    wait(fd, Duration::ZERO)
}

/// Waits until a descriptor is readable.
pub(crate) fn until_readable(fd: impl AsFd, what: &str) {
    assert!(wait(fd, PATIENCE), "not in {PATIENCE:?}: {what}");
}

fn wait(fd: impl AsFd, patience: Duration) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(patience).unwrap())).unwrap() > 0
}

/// Waits until something is so that no change of the model tells of.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        pause();
    }
}

/// Lets others go first: before one looks again.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_micros(100));
}

/// Whether this is the engine's own thread.
pub(crate) fn is_engine() -> bool {
    std::thread::current().name() == Some("xen-ioeventfd")
}

/// An engine's thread that does nothing until it is thawed, or its process killed.
#[derive(Default)]
pub(crate) struct Frozen {
    on: AtomicBool,
    reached: AtomicBool,
}

impl Frozen {
    /// Stops the thread where it holds no lock, by a hook that calls [`Self::hold`]. Kicks that come from
    /// now on wait.
    pub(crate) fn freeze(&self, bench: &Bench, guest: &Guest) {
        self.on.store(true, SeqCst);
        // An event makes the thread come by, when it is through with all that came before.
        let port = bench.vcpu(0).alloc_unbound().unwrap();
        guest.register_channel(&event(), port).unwrap().keep();
        bench.vcpu(0).send(port).unwrap();
        until("the engine is frozen", || self.reached.load(SeqCst));
    }

    /// Stays here while the thread is frozen.
    pub(crate) fn hold(&self, site: &CallSite, over: impl Fn() -> bool) {
        while self.on.load(SeqCst) && is_engine() && site.kind == CallKind::Pending && !over() {
            self.reached.store(true, SeqCst);
            pause();
        }
    }

    pub(crate) fn thaw(&self) {
        self.on.store(false, SeqCst);
    }
}

/// An engine that is frozen until this is dropped, also by a test that fails: else nothing would ever
/// end its thread.
pub(crate) struct Frost(Arc<Frozen>);

impl Frost {
    /// Freezes it by a hook that does nothing else.
    pub(crate) fn new(bench: &Bench, client: &Arc<Client>, guest: &Guest) -> Self {
        let frozen = Arc::new(Frozen::default());
        client.on_call(Box::new({
            let (frozen, client) = (Arc::clone(&frozen), Arc::downgrade(client));
            move |site| {
                frozen.hold(site, || client.upgrade().is_none_or(|client| client.is_killed()));
                Verdict::Proceed
            }
        }));
        frozen.freeze(bench, guest);
        Self(frozen)
    }
}

impl Drop for Frost {
    fn drop(&mut self) {
        self.0.thaw();
    }
}
