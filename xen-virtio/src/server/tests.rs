//! A guest on the model that uses its disk, while the process that serves it is killed, or its backend is.

use super::{Keep, Server};
use crate::demo::backend::{self, Disk as BackendDisk};
use crate::demo::driver::{Cpu, Disk, Ram, Trouble};
use crate::error::Result;
use crate::layout::{Layout, MmioPlace};
use crate::record::{Record, Whose};
use crate::resume::{Connector, KeptSession, OwnedRegions, Rings, Sessions, session_name};
use crate::spec::DeviceSpec;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use virtio_drivers::transport::Transport;
use xen_eventfd::{Arch, DomId, Host, VcpuId, Xen};
use xen_eventfd_ioreq::{Role, RunDir};
use xen_eventfd_model::{Client, Config, Model, Running, Verdict};

const BLOCK: usize = 4096;
const RAM: u64 = 16 << 20;
const DISK: u64 = 1 << 20;
/// Where libxl puts the first device of an Arm guest.
const PLACE: MmioPlace = MmioPlace { base: 0x200_0000, spi: 33 };
/// A guest that waits longer has lost a request.
const PATIENCE: Duration = Duration::from_secs(60);

impl Rings for Ram {
    fn read(&self, addr: u64) -> Result<u16> {
        let mut bytes = [0; 2];
        rustix::io::pread(self.file(), &mut bytes, addr)?;
        Ok(u16::from_le_bytes(bytes))
    }
}

/// Connections that are kept for the next process, as a guardian does.
#[derive(Debug, Default)]
struct Kept(Mutex<BTreeMap<String, OwnedFd>>);

impl Kept {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.0.lock().unwrap()
    }

    /// Keeps what another has at this moment.
    fn copy(&self, from: &Self) {
        let theirs = from.all();
        let copy = |(name, fd): (&String, &OwnedFd)| (name.clone(), fd.try_clone().unwrap());
        *self.all() = theirs.iter().map(copy).collect();
    }
}

impl Sessions for Kept {
    fn keep(&self, name: &str, connection: BorrowedFd<'_>) -> xen_eventfd::Result<()> {
        let connection = connection.try_clone_to_owned().unwrap();
        self.all().insert(name.to_owned(), connection);
        Ok(())
    }

    fn forget(&self, name: &str) -> xen_eventfd::Result<()> {
        self.all().remove(name);
        Ok(())
    }
}

/// What becomes of the disk's connection after a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It ends with the process.
    Lost,
    /// The next process has it, and ends it: a disk's.
    Ended,
    /// The next process goes on with it, as with those of devices that need that.
    GoneOnWith,
}

/// Where a process keeps what the next one goes on with.
struct Place {
    dir: tempfile::TempDir,
    after: After,
    /// The disk's connection, if that is kept.
    sessions: Option<Arc<Kept>>,
}

impl Place {
    fn new(after: After) -> Self {
        let sessions = (after != After::Lost).then(Arc::default);
        Self { dir: tempfile::tempdir().unwrap(), after, sessions }
    }
}

/// A guest with a disk, whose backend serves one frontend after the other.
struct Machine {
    /// Dropped first, while its socket is there.
    backend: Backend,
    model: Model,
    dom: DomId,
    ram: Arc<Ram>,
    spec: DeviceSpec,
    layout: Layout,
    dir: tempfile::TempDir,
}

struct Backend {
    ends: Arc<AtomicBool>,
    /// Connections that have ended.
    connections: Arc<AtomicU64>,
    socket: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    fn start(socket: PathBuf, disk: PathBuf) -> Self {
        let (ends, connections) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (has_ended, path) = (Arc::clone(&ends), socket.clone());
        let connected = Arc::<AtomicU64>::clone(&connections);
        let serve = move || {
            let disk = || BackendDisk::over(&disk, 1);
            while !has_ended.load(Ordering::Acquire) {
                backend::serve_one(&path, disk().unwrap(), || {}).unwrap();
                connected.fetch_add(1, Ordering::AcqRel);
            }
        };
        Self { ends, connections, socket, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let began = Instant::now();
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            // One that waits for a frontend has one.
            drop(std::os::unix::net::UnixStream::connect(&self.socket));
            std::thread::sleep(Duration::from_millis(2));
            assert!(began.elapsed() < PATIENCE, "the backend does not end");
        }
    }
}

impl Machine {
    /// With its disk on PCI, or on Arm on virtio-mmio.
    fn on(arch: Arch) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, disk) = (dir.path().join("disk.sock"), dir.path().join("disk.img"));
        std::fs::File::create(&disk).unwrap().set_len(DISK).unwrap();
        let spec = format!("blk,socket={}", socket.display()).parse().unwrap();
        let backend = Backend::start(socket, disk);
        let model = Model::on(arch);
        let dom = model.domain(Config::new("guest"));
        let layout = match arch {
            Arch::X86 => Layout::OwnBus,
            Arch::Arm => Layout::DeviceTree(vec![PLACE]),
        };
        let ram = Arc::new(Ram::new(RAM).unwrap());
        Self { backend, model, dom, ram, spec, layout, dir }
    }

    /// Starts a process, which goes on with what the record in the run directory says. `prepare` is called with its
    /// client first. `None`: it was killed before it served the guest.
    fn process(&self, place: &Place, prepare: impl FnOnce(&Arc<Client>)) -> Option<Server> {
        let client = self.model.client("xen-virtio");
        prepare(&client);
        let server = self.serve(place, &client);
        if let Err(error) = &server {
            assert!(client.is_killed(), "{error}");
        }
        server.ok()
    }

    fn serve(&self, place: &Place, client: &Arc<Client>) -> Result<Server> {
        let run_dir = place.dir.path();
        let host: Arc<dyn Host> = Arc::<Client>::clone(client);
        let xen = Xen::builder().run_dir(run_dir).open_on(host)?;
        let devices = vec![self.spec.to_string()];
        let (domid, memory) = (self.dom.0, Vec::new());
        let whose = Whose { domid, uuid: None, devices, memory, guardian: None };
        let spec = self.spec.clone();
        let mut connectors = vec![Connector::new(move || spec.connect())];
        let registers = RunDir::open(run_dir, Role::Registers)?;
        let kept = Record::read(&registers, self.dom)?;
        let session = place.sessions.as_ref().map(|sessions| {
            let name = session_name(self.dom, 0);
            // The guardian of the process before ends.
            let connection = sessions.all().remove(&name);
            if let Some((connection, kept)) = connection.zip(kept.as_ref()) {
                let (spec, state) = (self.spec.clone(), kept.devices[0].registers.clone());
                let after = place.after;
                let go_on = move || match after {
                    After::GoneOnWith => spec.same_session(connection, &state),
                    After::Ended | After::Lost => spec.go_on(connection, &state),
                };
                connectors[0] = connectors[0].clone().going_on(go_on);
            }
            KeptSession { sessions: Arc::<Kept>::clone(sessions), name }
        });
        let rings: Arc<dyn Rings> = Arc::<Ram>::clone(&self.ram);
        let (run, sessions) = (registers.clone(), vec![session]);
        let keep = Keep { whose, connectors, rings, run_dir: run, sessions };
        let ram = OwnedRegions::open(&mut &*self.ram)?;
        match kept {
            Some(kept) => {
                let specs = std::slice::from_ref(&self.spec);
                Server::take_over(&xen, run_dir, self.dom, specs, ram, &keep, kept)
            }
            None => {
                let began = Instant::now();
                let backend = loop {
                    // The backend may not listen yet.
                    match self.spec.connect() {
                        Err(_) if began.elapsed() < PATIENCE => {
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        connected => break connected?,
                    }
                };
                let connected = vec![(self.spec.clone(), backend)];
                let server = Server::take(&xen, run_dir, self.dom, &self.layout)?;
                server.with_devices(&self.layout, connected, ram, Some(&keep))
            }
        }
    }

    /// The guest writes so many blocks, reads each back, and returns how many were as it wrote them.
    fn guest(
        &self,
        blocks: usize,
        done: &Arc<AtomicU64>,
    ) -> Running<core::result::Result<usize, String>> {
        let (ram, done) = (Arc::clone(&self.ram), Arc::clone(done));
        let is_mmio = self.layout != Layout::OwnBus;
        self.model.vcpu(self.dom, VcpuId(0)).run(move |vcpu| {
            ram.give().unwrap();
            let cpu = Cpu::new(vcpu);
            let work = || match is_mmio {
                false => write_and_read(&mut Disk::find(cpu)?, blocks, &done),
                true => {
                    let mut disk = Disk::at(cpu, PLACE.base, PLACE.spi)?;
                    write_and_read(&mut disk, blocks, &done)
                }
            };
            work().map_err(|error: Trouble| error.to_string())
        })
    }

    fn blocks_on_disk(&self, blocks: usize) -> bool {
        let disk = std::fs::read(self.dir.path().join("disk.img")).unwrap();
        (0..blocks).flat_map(pattern).eq(disk[..blocks * BLOCK].iter().copied())
    }
}

/// Writes so many blocks and reads each back. Returns how many were as they were written.
fn write_and_read<T: Transport>(
    disk: &mut Disk<T>,
    blocks: usize,
    done: &AtomicU64,
) -> core::result::Result<usize, Trouble> {
    let mut equal = 0;
    for number in 0..blocks {
        let written: Vec<u8> = pattern(number).collect();
        disk.write(8 * number, &written)?;
        let mut read = [0; BLOCK];
        disk.read(8 * number, &mut read)?;
        equal += usize::from(read[..] == written[..]);
        done.fetch_add(1, Ordering::AcqRel);
    }
    Ok(equal)
}

fn pattern(number: usize) -> impl Iterator<Item = u8> {
    (0..BLOCK).map(move |at| ((at / 8 + 7 * number) % 251).to_le_bytes()[0])
}

fn until(what: impl Fn() -> String, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {}", what());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a process has left in its run directory.
fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(core::result::Result::unwrap) {
        let name = file.file_name();
        let is_kept =
            [".json", ".kept-state"].iter().any(|end| name.to_string_lossy().ends_with(end));
        // A record is replaced by another; one that is gone has a successor.
        if is_kept && let Ok(bytes) = std::fs::read(file.path()) {
            std::fs::write(to.join(name), bytes).unwrap();
        }
    }
}

/// The end of a process.
#[derive(Default)]
struct Kill {
    begins: AtomicBool,
    is_done: AtomicBool,
    /// The call at which it was killed.
    call: OnceLock<String>,
}

/// Has the process killed at its call of this number, and what it leaves kept in `left`.
fn kill_at(client: &Arc<Client>, step: u64, from: &Place, left: &Place) -> Arc<Kill> {
    let kill = Arc::new(Kill::default());
    let sessions = from.sessions.clone().zip(left.sessions.clone());
    let (from, left) = (from.dir.path().to_owned(), left.dir.path().to_owned());
    let done = Arc::clone(&kill);
    let weak = Arc::downgrade(client);
    client.on_call(Box::new(move |site| {
        let Some(client) = weak.upgrade() else { return Verdict::Proceed };
        if site.index == step {
            done.begins.store(true, Ordering::Release);
            let _ = done.call.set(format!("{:?}", site.call));
            copy(&from, &left);
            if let Some((from, left)) = &sessions {
                left.copy(from);
            }
            client.kill();
            done.is_done.store(true, Ordering::Release);
        }
        // No other thread does anything meanwhile that a vCPU hears of, and none cleans up first.
        while done.begins.load(Ordering::Acquire) && !client.is_killed() {
            std::thread::sleep(Duration::from_micros(100));
        }
        Verdict::Proceed
    }));
    kill
}

/// Runs a guest, and kills the process that serves it at a step. Returns whether it came so far.
fn round(arch: Arch, step: u64, after: After) -> bool {
    const BLOCKS: usize = 2;
    let machine = Machine::on(arch);
    let [first, second] = [(); 2].map(|()| Place::new(after));
    let mut kill = Arc::default();
    let process = machine.process(&first, |client| {
        kill = kill_at(client, step, &first, &second);
    });
    let done = Arc::new(AtomicU64::new(0));
    // A process that is being killed lets no guest run.
    let runs = process.is_some() && !kill.begins.load(Ordering::Acquire);
    let guest = runs.then(|| machine.guest(BLOCKS, &done));
    until(
        || "the guest ends, or the process is killed".to_owned(),
        || kill.is_done.load(Ordering::Acquire) || guest.as_ref().is_some_and(Running::is_finished),
    );
    let was_killed = kill.is_done.load(Ordering::Acquire);
    let goes_on = second.sessions.as_ref().is_some_and(|kept| !kept.all().is_empty());
    let next = was_killed.then(|| {
        drop(process);
        machine.process(&second, |_| {})
    });
    let guest = guest.unwrap_or_else(|| machine.guest(BLOCKS, &done));
    let state = || {
        let report = next
            .as_ref()
            .and_then(Option::as_ref)
            .map(|server| server.devices().report(&server.guest().registered()));
        format!(
            "the guest ends, after a kill at step {step}, {:?}: {report:?}\n{}",
            kill.call.get(),
            machine.model.describe()
        )
    };
    until(state, || guest.is_finished());
    assert_eq!(guest.join(), Ok(BLOCKS), "killed at step {step}");
    assert!(machine.blocks_on_disk(BLOCKS));
    if let Some(next) = next {
        if goes_on {
            let connections = machine.backend.connections.load(Ordering::Acquire);
            let ended = u64::from(after == After::Ended);
            assert_eq!(connections, ended, "sessions that ended, killed at step {step}");
        }
        // For one more process, once its queues are started.
        until(
            || format!("its session is kept, killed at step {step}"),
            || second.sessions.as_ref().is_none_or(|kept| !kept.all().is_empty()),
        );
        assert!(next.is_some_and(|server| server.stop().is_ok()));
        // Nothing is left for another process.
        assert!(std::fs::read_dir(second.dir.path()).unwrap().next().is_none());
    }
    was_killed
}

/// One after the other, as each keeps a machine busy.
#[test]
fn a_guest_notices_nothing_of_a_kill_at_any_step() {
    kill_at_every_step(Arch::X86, After::Ended);
    kill_at_every_step(Arch::Arm, After::Lost);
    // Drivers whose session with the backend ends with the connection.
    kill_at_every_step(Arch::X86, After::GoneOnWith);
}

fn kill_at_every_step(arch: Arch, after: After) {
    // Rounds wait more than they work.
    let (next, ends) = (AtomicU64::new(1), AtomicBool::new(false));
    let rounds = || {
        while !ends.load(Ordering::Acquire) {
            if !round(arch, next.fetch_add(1, Ordering::AcqRel), after) {
                ends.store(true, Ordering::Release);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(rounds);
        }
    });
    let steps = next.load(Ordering::Acquire);
    assert!(steps > 100, "{steps} steps");
}
