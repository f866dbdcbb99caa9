//! A guest's servers: who gets what, and what is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::{
    ConfigAccess, DomId, IoServerId, Kick, PciFunction, Request, Space, VcpuId, Width,
};
use xen_eventfd_host::{Errno, Host};
use xen_eventfd_ioreq::{
    Claim, Error, EventLoop, GuestServer, Handler, Ranges, Reaped, Reserve, Role, RunDir,
    ThreadNames, Threads, reap,
};
use xen_eventfd_model::{CallKind, Client, Config, Model, Running, Stopped, Vcpu, Verdict};

const REGISTERS: u64 = 0xFE00_0000;
const DOORBELL: u64 = 0xFE00_0050;
const NAMES: ThreadNames = ThreadNames { ports: "ports", fds: "fds", watch: "watch" };

/// Notes what happens, and answers reads with one value.
#[derive(Debug, Default)]
struct Notes {
    answer: u64,
    requests: Mutex<Vec<(VcpuId, Request)>>,
    held: Mutex<Vec<Kick>>,
    ends: Mutex<Vec<&'static str>>,
    /// A vCPU that waits, and how often it was woken before the handler began.
    waits: Mutex<Option<Vcpu>>,
    woken: Mutex<Option<u64>>,
}

impl Notes {
    fn answering(answer: u64) -> Arc<Self> {
        Arc::new(Self { answer, ..Self::default() })
    }

    fn kicks(&self) -> Vec<Kick> {
        let requests = self.requests.lock().unwrap();
        let kick = |request: &(VcpuId, Request)| match request.1 {
            Request::Kick(kick) => Some(kick),
            _ => None,
        };
        requests.iter().filter_map(kick).collect()
    }

    fn end(&self, what: &'static str) {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

impl Handler for Notes {
    fn begin(&self, _: Ranges, held: Vec<Kick>) {
        *self.woken.lock().unwrap() = self.waits.lock().unwrap().as_ref().map(Vcpu::wakes);
        *self.held.lock().unwrap() = held;
    }

    fn request(&self, vcpu: VcpuId, request: &Request) -> u64 {
        self.requests.lock().unwrap().push((vcpu, *request));
        self.answer
    }

    fn ending(&self) {
        self.end("ending");
    }

    fn left(&self) -> Vec<Kick> {
        self.end("left");
        Vec::new()
    }

    fn ended(&self) {
        self.end("ended");
    }
}

struct Bench {
    model: Model,
    dom: DomId,
    dir: tempfile::TempDir,
}

/// A process of domain 0 that serves guests.
struct Process {
    client: Arc<Client>,
    event_loop: Arc<EventLoop>,
    _threads: Threads,
}

impl Bench {
    fn new(vcpus: u32) -> Self {
        let model = Model::new();
        let dom = model.domain(Config::new("guest").vcpus(vcpus));
        Self { model, dom, dir: tempfile::tempdir().unwrap() }
    }

    fn process(&self, name: &str) -> Process {
        let client = self.model.client(name);
        let run_dir = RunDir::open(self.dir.path(), Role::Doorbells).unwrap();
        let event_loop = EventLoop::new(Arc::<Client>::clone(&client), run_dir).unwrap();
        let threads = Threads::start(&event_loop, NAMES, None).unwrap();
        Process { client, event_loop, _threads: threads }
    }

    fn write(&self, vcpu: u32, addr: u64, value: u64) -> Result<(), Stopped> {
        self.model.vcpu(self.dom, VcpuId(vcpu)).write(Space::Mmio, addr, Width::Four, value)
    }

    fn read(&self, vcpu: u32, addr: u64) -> u64 {
        self.model.vcpu(self.dom, VcpuId(vcpu)).read(Space::Mmio, addr, Width::Four).unwrap()
    }
}

impl Process {
    fn take(&self, dom: DomId, role: Role, handler: &Arc<Notes>) -> Result<GuestServer, Error> {
        let claim = Claim { role, serves: "test", reserve: &Reserve::No };
        GuestServer::take(&self.event_loop, dom, &claim, Arc::<Notes>::clone(handler))
    }
}

fn bytes(first: u64, last: u64) -> Bytes {
    Bytes::new(Space::Mmio, first, last).unwrap()
}

fn kick(value: u64) -> Kick {
    Kick::new(Space::Mmio, DOORBELL, Width::Four, value)
}

/// `first` takes the guest before the other role.
fn doorbells_amid_registers(bench: &Bench, registers: &Process, doorbells: &Process, first: Role) {
    let (values, kicks) = (Notes::answering(0x55), Notes::answering(0));
    let mut servers: Vec<GuestServer> = Vec::new();
    let mut roles = Role::ALL;
    roles.sort_by_key(|role| *role != first);
    for role in roles {
        servers.push(match role {
            Role::Registers => {
                let server = registers.take(bench.dom, role, &values).unwrap();
                server.ranges().map(bytes(REGISTERS, REGISTERS + 0xFFF)).unwrap();
                server
            }
            Role::Doorbells => {
                let server = doorbells.take(bench.dom, role, &kicks).unwrap();
                server.ranges().map(bytes(DOORBELL, DOORBELL + 3)).unwrap();
                server
            }
        });
    }
    bench.write(0, DOORBELL, 3).unwrap();
    assert_eq!(bench.read(1, REGISTERS), 0x55);
    bench.write(1, REGISTERS + 0x70, 1).unwrap();
    assert_eq!(kicks.kicks(), [kick(3)]);
    let written = values.kicks();
    let seen = values.requests.lock().unwrap().clone();
    assert!(matches!(seen[0], (VcpuId(1), Request::Read(access)) if access.addr == REGISTERS));
    assert_eq!((seen.len(), written[0].access.addr), (2, REGISTERS + 0x70));
    let again = doorbells.take(bench.dom, Role::Registers, &values).unwrap_err();
    assert!(matches!(&again, Error::InUse { holder, .. } if holder.contains("test")), "{again}");
    // One may go without the other.
    servers.remove(0).let_go().unwrap();
    assert_eq!(bench.model.servers(bench.dom).len(), 1);
    drop(servers);
    assert_eq!(bench.model.servers(bench.dom), []);
    assert_eq!(*values.ends.lock().unwrap(), ["ending", "left", "ended"]);
}

#[test]
fn doorbells_and_registers_share_a_guest_in_one_process_and_in_two() {
    for first in Role::ALL {
        let bench = Bench::new(2);
        let one = bench.process("one");
        doorbells_amid_registers(&bench, &one, &one, first);
        let two = bench.process("two");
        doorbells_amid_registers(&bench, &one, &two, first);
        assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 0, "files are left");
    }
}

#[test]
fn doorbells_have_the_highest_id_and_registers_the_lowest() {
    let bench = Bench::new(1);
    let process = bench.process("one");
    let notes = Notes::answering(0);
    let doorbells = process.take(bench.dom, Role::Doorbells, &notes).unwrap();
    let registers = process.take(bench.dom, Role::Registers, &notes).unwrap();
    assert_eq!((doorbells.server(), registers.server()), (IoServerId(7), IoServerId(0)));
}

#[test]
fn registers_wait_for_one_that_holds_all_ids_for_a_moment() {
    let bench = Bench::new(1);
    let (process, other) = (bench.process("one"), bench.model.client("other"));
    let all: Vec<_> = (0..8).map(|_| other.create_server(bench.dom).unwrap()).collect();
    let notes = Notes::answering(0);
    let full = process.take(bench.dom, Role::Registers, &notes).unwrap_err();
    assert!(matches!(&full, Error::Host(error) if error.errno == Errno::NOSPC), "{full}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            all[1..].iter().for_each(|id| other.destroy_server(bench.dom, *id).unwrap());
        });
        let registers = process.take(bench.dom, Role::Registers, &notes).unwrap();
        assert!(registers.server() > IoServerId(0));
    });
}

#[test]
fn configuration_cycles_of_a_function_come_to_its_server() {
    let bench = Bench::new(1);
    let (process, values) = (bench.process("one"), Notes::answering(0x1AF4));
    let server = process.take(bench.dom, Role::Registers, &values).unwrap();
    let function = PciFunction::new(0, 1, 0).unwrap();
    server.ranges().map_function(function).unwrap();
    server.ranges().map(Bytes::new(Space::Pio, 0xCF8, 0xCFB).unwrap()).unwrap();
    let vcpu = bench.model.vcpu(bench.dom, VcpuId(0));
    let config = |device: u64, register: u64| {
        let address = 1 << 31 | device << 11 | register & !3;
        vcpu.write(Space::Pio, 0xCF8, Width::Four, address).unwrap();
        0xCFC + (register & 3)
    };
    let port = config(1, 2);
    assert_eq!(vcpu.read(Space::Pio, port, Width::Two).unwrap(), 0x1AF4);
    let port = config(1, 4);
    vcpu.write(Space::Pio, port, Width::Four, 0x6).unwrap();
    let port = config(2, 0);
    assert_eq!(vcpu.read(Space::Pio, port, Width::Four).unwrap(), 0xFFFF_FFFF, "no server's");
    let seen: Vec<_> = {
        let requests = values.requests.lock().unwrap();
        let config = |request: &(VcpuId, Request)| match request.1 {
            Request::Config(access) => Some(access),
            _ => None,
        };
        requests.iter().filter_map(config).collect()
    };
    let read = ConfigAccess { function, register: 2, width: Width::Two, write: None };
    let write = ConfigAccess { function, register: 4, width: Width::Four, write: Some(6) };
    assert_eq!(seen, [read, write]);
    assert_eq!(values.kicks().len(), 3, "writes to port 0xCF8 come too");
    server.ranges().unmap_function(function).unwrap();
    let port = config(1, 2);
    assert_eq!(vcpu.read(Space::Pio, port, Width::Two).unwrap(), 0xFFFF);
}

#[test]
fn what_a_killed_process_left_is_recovered_in_its_role() {
    let bench = Bench::new(2);
    let (killed, kicks) = (bench.process("killed"), Notes::answering(0));
    let server = killed.take(bench.dom, Role::Registers, &kicks).unwrap();
    server.ranges().map(bytes(DOORBELL, DOORBELL + 3)).unwrap();
    let records = tempfile::tempdir().unwrap();
    copy(bench.dir.path(), records.path());
    killed.client.kill();
    let vcpu = bench.model.vcpu(bench.dom, VcpuId(1));
    let running = vcpu.run(|vcpu| vcpu.write(Space::Mmio, DOORBELL, Width::Four, 9));
    vcpu.until_parked();
    let reaper = bench.model.client("reaper");
    let reaped = reap(&*reaper, records.path()).unwrap();
    let swept = matches!(reaped[..], [(_, Ok(Reaped::Swept { kicks: 1 }))]);
    assert!(swept, "{reaped:?}");
    running.join().unwrap();
    assert_eq!(bench.model.servers(bench.dom), []);

    // The next one of the role acts on the write, and the other role knows nothing of it.
    let run_dir = RunDir::open(records.path(), Role::Doorbells).unwrap();
    let event_loop = EventLoop::new(bench.model.client("next"), run_dir).unwrap();
    for (role, held) in [(Role::Doorbells, vec![]), (Role::Registers, vec![kick(9)])] {
        let notes = Notes::answering(0);
        let claim = Claim { role, serves: "test", reserve: &Reserve::No };
        let handler = Arc::<Notes>::clone(&notes);
        let _server = GuestServer::take(&event_loop, bench.dom, &claim, handler).unwrap();
        assert_eq!(*notes.held.lock().unwrap(), held, "{role:?}");
    }
}

/// A guest whose server of registers was left by a process that was killed, and what that process recorded.
fn left(bench: &Bench) -> (IoServerId, tempfile::TempDir) {
    let killed = bench.process("killed");
    let server = killed.take(bench.dom, Role::Registers, &Notes::answering(0)).unwrap();
    server.ranges().map(bytes(REGISTERS, REGISTERS + 0xFFF)).unwrap();
    let records = tempfile::tempdir().unwrap();
    copy(bench.dir.path(), records.path());
    killed.client.kill();
    (server.server(), records)
}

/// As of one whose devices were handed over, and confined to the guest.
#[test]
fn a_process_that_can_open_no_event_channels_but_its_own_recovers_what_another_left() {
    let bench = Bench::new(1);
    let (_, records) = left(&bench);
    let client = bench.model.client("next");
    let run_dir = RunDir::open(records.path(), Role::Registers).unwrap();
    let event_loop = EventLoop::new(Arc::<Client>::clone(&client), run_dir).unwrap();
    client.fail(CallKind::EventChannels, 1, Errno::BUSY);
    let claim = Claim { role: Role::Registers, serves: "test", reserve: &Reserve::No };
    let server = GuestServer::take(&event_loop, bench.dom, &claim, Notes::answering(0)).unwrap();
    let servers: Vec<IoServerId> =
        bench.model.servers(bench.dom).iter().map(|server| server.id).collect();
    assert_eq!(servers, [server.server()]);
}

/// A vCPU that waits for the answer to a read.
fn waiting(bench: &Bench, id: u32) -> (Vcpu, Running<u64>) {
    let vcpu = bench.model.vcpu(bench.dom, VcpuId(id));
    let waits = vcpu.run(|vcpu| vcpu.read(Space::Mmio, REGISTERS, Width::Four).unwrap());
    vcpu.until_parked();
    (vcpu, waits)
}

/// A process that takes a guest over with these records, whose client this changes before.
fn take_over(
    bench: &Bench,
    records: &std::path::Path,
    handler: &Arc<Notes>,
    prepare: impl FnOnce(&Arc<Client>),
) -> Result<(Process, GuestServer), Error> {
    let client = bench.model.client("next");
    prepare(&client);
    let run_dir = RunDir::open(records, Role::Registers)?;
    let event_loop = EventLoop::new(Arc::<Client>::clone(&client), run_dir)?;
    let threads = Threads::start(&event_loop, NAMES, None)?;
    let process = Process { client, event_loop, _threads: threads };
    let claim = Claim { role: Role::Registers, serves: "test", reserve: &Reserve::No };
    let handler = Arc::<Notes>::clone(handler);
    let server = GuestServer::take_over(&process.event_loop, bench.dom, &claim, handler)?;
    Ok((process, server))
}

#[test]
fn a_server_that_is_taken_over_answers_who_waits_and_keeps_its_ranges() {
    let bench = Bench::new(2);
    let (id, records) = left(&bench);
    let (_, waits) = waiting(&bench, 1);
    let notes = Notes::answering(0x77);
    let (_process, server) = take_over(&bench, records.path(), &notes, |_| {}).unwrap();
    assert_eq!((waits.join(), server.server()), (0x77, id));
    assert_eq!((bench.read(0, REGISTERS + 4), bench.model.servers(bench.dom).len()), (0x77, 1));
    server.let_go().unwrap();
    assert_eq!(bench.model.servers(bench.dom), []);
}

/// The process before may have been killed while it routed accesses elsewhere.
#[test]
fn no_vcpu_goes_on_before_the_handler_could_route_accesses() {
    let bench = Bench::new(1);
    let (_, records) = left(&bench);
    let (vcpu, waits) = waiting(&bench, 0);
    let notes = Notes::answering(0x77);
    *notes.waits.lock().unwrap() = Some(vcpu);
    let (_process, _server) = take_over(&bench, records.path(), &notes, |_| {}).unwrap();
    assert_eq!((*notes.woken.lock().unwrap(), waits.join()), (Some(0), 0x77));
}

#[test]
fn a_server_that_was_swept_before_it_could_be_taken_over_is_made_anew() {
    let bench = Bench::new(1);
    let (_, records) = left(&bench);
    assert_eq!(reap(&*bench.model.client("reaper"), records.path()).unwrap().len(), 1);
    assert_eq!(bench.model.servers(bench.dom), []);
    let notes = Notes::answering(0x77);
    let (_process, server) = take_over(&bench, records.path(), &notes, |_| {}).unwrap();
    server.ranges().map(bytes(REGISTERS, REGISTERS + 3)).unwrap();
    assert_eq!(bench.read(0, REGISTERS), 0x77);
}

#[test]
fn a_foreign_server_with_the_id_of_the_record_is_not_taken_over() {
    let bench = Bench::new(1);
    let (id, records) = left(&bench);
    let foreign = bench.model.client("vmm");
    foreign.destroy_server(bench.dom, id).unwrap();
    assert_eq!(foreign.create_server(bench.dom).unwrap(), id);
    let page = foreign.map_page(bench.dom, id).unwrap();
    foreign.set_server_state(bench.dom, id, true).unwrap();
    let events = foreign.event_channels().unwrap();
    events.bind(bench.dom, page.slots()[0].vp_eport()).unwrap();
    let notes = Notes::answering(0x77);
    let (_process, server) = take_over(&bench, records.path(), &notes, |_| {}).unwrap();
    assert_ne!(server.server(), id);
}

#[test]
fn a_process_that_is_killed_at_any_step_of_taking_over_is_taken_over_itself() {
    for step in 1.. {
        let bench = Bench::new(2);
        let (id, records) = left(&bench);
        let (_, waits) = waiting(&bench, 1);
        let kept = Arc::new(tempfile::tempdir().unwrap());
        let (from, to) = (records.path().to_owned(), Arc::clone(&kept));
        let (notes, reached) = (Notes::answering(0x77), Arc::new(AtomicBool::new(false)));
        let seen = Arc::clone(&reached);
        let begun = take_over(&bench, records.path(), &notes, |client| {
            client.on_call(Box::new(move |site| {
                if site.index != step {
                    return Verdict::Proceed;
                }
                copy(&from, to.path());
                seen.store(true, Ordering::Release);
                Verdict::KillBefore
            }));
        });
        if !reached.load(Ordering::Acquire) {
            assert!(step > 10 && begun.is_ok(), "{step} steps");
            assert_eq!(waits.join(), 0x77);
            return;
        }
        let again = take_over(&bench, kept.path(), &notes, |_| {}).unwrap();
        assert_eq!((waits.join(), again.1.server()), (0x77, id), "killed at step {step}");
        assert_eq!(bench.read(0, REGISTERS), 0x77);
        drop(begun);
    }
}

/// The records, as a process that is killed leaves them.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.path().extension().is_some_and(|kind| kind == "json") {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn a_guest_that_dies_ends_its_servers_and_no_zombie_is_left() {
    let bench = Bench::new(1);
    let process = bench.process("one");
    let notes = Role::ALL.map(|_| Notes::answering(0));
    let servers = [0, 1].map(|at| process.take(bench.dom, Role::ALL[at], &notes[at]).unwrap());
    bench.model.destroy(bench.dom);
    for server in &servers {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
        let gone = server.gone();
        let ready = poll(&mut [PollFd::new(&gone, PollFlags::IN)], Some(&patience));
        assert_eq!(ready, Ok(1));
        assert!(!server.is_served());
        assert!(matches!(server.changes(), Err(Error::GuestDied(dom)) if dom == bench.dom));
    }
    assert_eq!(bench.model.zombies(), []);
    for notes in notes {
        assert_eq!(*notes.ends.lock().unwrap(), ["ending", "ended"]);
    }
    assert_eq!(std::fs::read_dir(bench.dir.path()).unwrap().count(), 0);
}
