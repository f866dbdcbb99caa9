//! The library in a program that forks without `exec`, or executes another program.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xen_eventfd::{
    Error, Guardian, Guest, IoEventAddress, Irq, NoDatamatch, Reaped, Space, VcpuId, Width, Xen,
    run_dir,
};
use xen_eventfd_model::{Config, Kind, Model};

const AT: IoEventAddress = IoEventAddress::Mmio(0xFE00_0050);
const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
/// Where a program that a test starts keeps its locks.
const RUN_DIR: &str = "XEN_EVENTFD_TEST_RUN_DIR";

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn signal(fd: &OwnedFd) {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "not in 60 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs something in a forked child. Returns how it ended.
fn in_child(what: impl FnOnce() -> u8) -> WaitStatus {
    let child = start_child(what);
    let mut status = WaitStatus::StillAlive;
    let deadline = Instant::now() + Duration::from_secs(30);
    while status == WaitStatus::StillAlive && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        status = waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap();
    }
    if status == WaitStatus::StillAlive {
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
    }
    status
}

fn start_child(what: impl FnOnce() -> u8) -> Pid {
    // SAFETY: the child has this thread alone. It calls nothing that could wait for another one, but
    // what is tested not to; and the C library's allocator, which is made to be used after a fork.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let what = std::panic::AssertUnwindSafe(what);
            let code = std::panic::catch_unwind(what).unwrap_or(101);
            std::process::exit(code.into());
        }
    }
}

fn machine() -> (Model, xen_eventfd::DomId) {
    let model = Model::new();
    let dom = model.domain(Config::new("guest").kind(Kind::Hvm));
    (model, dom)
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Ticks of processor time that this process has used.
fn busy() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    [11, 12].iter().map(|field| fields[*field].parse::<u64>().unwrap()).sum()
}

/// Neither the calls nor the drops of a child do anything to what its parent has.
#[test]
fn a_child_changes_nothing_of_its_parents() {
    let (model, dom) = machine();
    let dir = tempfile::tempdir().unwrap();
    let vcpu = model.vcpu(dom, VcpuId(0));
    let xen = Xen::builder().run_dir(dir.path()).open_on(model.client("backend")).unwrap();
    let guest = xen.guest(dom).unwrap();
    let (queue, rest, call, rung) = (event(), event(), event(), event());
    let port = vcpu.alloc_unbound().unwrap();
    let ioevent = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    let fallback = guest.register_fallback(&rest, &AT, 4).unwrap();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let channel = guest.register_channel(&rung, port).unwrap();
    let mut all = Some((xen, guest, ioevent, fallback, irqfd, channel));
    let status = in_child(|| {
        let (xen, guest, ioevent, fallback, irqfd, channel) = all.take().unwrap();
        let forked = |error: Option<Error>| matches!(error, Some(Error::Forked));
        let refused = [
            forked(xen.guest(dom).err()),
            forked(xen.find("guest").err()),
            forked(guest.register_ioevent(&queue, &AT, NoDatamatch(8)).err()),
            forked(guest.unregister_ioevent(&queue, &AT, 1_u32).err()),
            forked(guest.register_irqfd(&event(), MSI).err()),
            forked(guest.unregister_irqfd(&call, MSI).err()),
            forked(guest.register_channel(&event(), port).err()),
            forked(guest.clone().close().err()),
        ];
        let silent = !guest.is_served()
            && guest.registered().is_empty()
            && guest.held().is_empty()
            && guest.last_error().is_none()
            && fallback.take().kicks.is_empty()
            && irqfd.raised() == 0
            && guest.counters().delivered == 0
            && guest.dom() == dom;
        let ended = forked(ioevent.end().err());
        drop((channel, irqfd, fallback, guest, xen));
        u8::from(!(ended && silent && refused == [true; 8]))
    });
    assert_eq!(status, WaitStatus::Exited(status.pid().unwrap(), 0));

    let (xen, guest, ioevent, fallback, irqfd, channel) = all.take().unwrap();
    assert_eq!(files(dir.path()), [format!("{}.json", dom.0), format!("{}.lock", dom.0)]);
    assert_eq!(run_dir::holders(dir.path()).unwrap()[0].pid, Some(std::process::id()));
    vcpu.write(Space::Mmio, 0xFE00_0050, Width::Four, 1).unwrap();
    vcpu.write(Space::Mmio, 0xFE00_0050, Width::Four, 9).unwrap();
    assert_eq!((guest.counters().delivered, guest.is_served()), (2, true));
    assert_eq!(fallback.take().kicks.len(), 1);
    for round in 1..=20 {
        signal(&call);
        until("the interrupt is raised", || irqfd.raised() == round);
    }
    until("no thread spins", || {
        let before = busy();
        std::thread::sleep(Duration::from_millis(200));
        // Of 20, if one did. Other tests of this program may be busy.
        busy() - before < 10
    });
    drop((ioevent, fallback, irqfd, channel));
    guest.close().unwrap();
    drop((guest, xen));
    assert_eq!(files(dir.path()), [""; 0]);
    assert!(model.servers(dom).is_empty());
}

/// The same where the program's own loop gives the engine its turns.
#[test]
fn a_child_gives_its_parents_engine_no_turns() {
    let (model, dom) = machine();
    let dir = tempfile::tempdir().unwrap();
    let xen = Xen::builder().run_dir(dir.path()).without_threads();
    let xen = xen.open_on(model.client("backend")).unwrap();
    let mut driver = xen.driver();
    let guest = xen.guest(dom).unwrap();
    let call = event();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let status = in_child(|| {
        let mut driver = driver.take().unwrap();
        let refused = matches!(driver.process(), Err(Error::Forked)) && xen.driver().is_none();
        drop(driver);
        u8::from(!refused)
    });
    assert_eq!(status, WaitStatus::Exited(status.pid().unwrap(), 0));
    signal(&call);
    driver.as_mut().unwrap().process().unwrap();
    assert_eq!((irqfd.raised(), guest.is_served()), (1, true));
}

/// A child may open Xen for itself, and serve guests that its parent does not.
#[test]
fn a_child_may_open_xen_for_itself() {
    let (model, dom) = machine();
    let dir = tempfile::tempdir().unwrap();
    let xen = Xen::builder().run_dir(dir.path()).open_on(model.client("backend")).unwrap();
    let _guest = xen.guest(dom).unwrap();
    let status = in_child(|| {
        // The parent's model is no more than memory here.
        let model = Model::new();
        let dom = model.domain(Config::new("parents").kind(Kind::Hvm));
        let other = model.domain(Config::new("childs").kind(Kind::Hvm));
        let xen = Xen::builder().run_dir(dir.path()).open_on(model.client("child")).unwrap();
        let in_use = matches!(xen.guest(dom), Err(Error::InUse { .. }));
        let guest = xen.guest(other).unwrap();
        let queue = event();
        let ioevent = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
        model.vcpu(other, VcpuId(0)).write(Space::Mmio, 0xFE00_0050, Width::Four, 1).unwrap();
        let served = guest.counters().delivered == 1;
        drop((ioevent, guest, xen));
        u8::from(!(in_use && served))
    });
    assert_eq!(status, WaitStatus::Exited(status.pid().unwrap(), 0));
    assert_eq!(run_dir::holders(dir.path()).unwrap().len(), 1);
}

/// This very program, which plays `role` with a run directory.
fn program(role: &str, run_dir: &Path) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", role, "--ignored", "--nocapture"]).env(RUN_DIR, run_dir);
    program.stdin(Stdio::null()).stdout(Stdio::null());
    program
}

/// A guest that a program in a process of its own has taken.
fn taken(guardian: Guardian) -> (Xen, Guest) {
    let run_dir = std::env::var_os(RUN_DIR).expect("started by a test");
    let (model, dom) = machine();
    let xen = Xen::builder().run_dir(run_dir).guardian(guardian);
    let xen = xen.open_on(model.client("backend")).unwrap();
    let guest = xen.guest(dom).unwrap();
    (xen, guest)
}

#[test]
#[ignore = "a program that another test starts"]
fn forks_and_is_killed() {
    let (_xen, _guest) = taken(Guardian::None);
    start_child(|| {
        // Until the test has seen enough.
        until("the run directory is removed", || {
            !Path::new(&std::env::var_os(RUN_DIR).unwrap()).exists()
        });
        0
    });
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// A lock does not outlive the engine, whatever the engine has forked.
#[test]
fn a_child_does_not_hold_the_guest_of_its_dead_parent() {
    let dir = tempfile::tempdir().unwrap();
    let ended = program("forks_and_is_killed", dir.path()).status().unwrap();
    assert_eq!(ended.signal(), Some(9));
    assert_eq!(files(dir.path()), ["1.json", "1.lock"]);
    assert_eq!(run_dir::holders(dir.path()).unwrap(), [], "a dead one");
    assert_eq!(run_dir::orphans(dir.path()).unwrap().len(), 1);
    // Another machine, but the same guest as far as the lock is concerned.
    let (model, dom) = machine();
    let reaper = model.client("reaper");
    let reaped = Xen::builder().run_dir(dir.path()).reap_on(&*reaper).unwrap();
    assert!(!matches!(reaped[..], [(_, Ok(Reaped::InUse))]), "{reaped:?}");
    let xen = Xen::builder().run_dir(dir.path()).open_on(model.client("next")).unwrap();
    xen.guest(dom).unwrap();
}

/// The guardians for a run directory: processes of ours, or of another.
fn guardians(run_dir: &Path) -> Vec<u32> {
    let run_dir = run_dir.to_str().unwrap().as_bytes();
    let guards = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            words.contains(&run_dir) && words.contains(&&b"guard"[..])
        })
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(guards).collect()
}

fn command() -> PathBuf {
    env!("CARGO_BIN_EXE_xen-eventfd").into()
}

#[test]
#[ignore = "a program that another test starts"]
fn executes_another_program() {
    let (_xen, guest) = taken(Guardian::Program(command()));
    let run_dir = PathBuf::from(std::env::var_os(RUN_DIR).unwrap());
    until("the guardian runs", || guardians(&run_dir).len() == 1);
    start_child(|| {
        until("the run directory is removed", || !run_dir.exists());
        0
    });
    // Nothing is left to reap, so the guardian needs no Xen.
    guest.close().unwrap();
    std::fs::write(run_dir.join("ready"), "").unwrap();
    let error = Command::new("sleep").arg("1000").exec();
    panic!("{error}");
}

/// The pidfd of a process stays the same, and a forked child has all of its descriptors.
#[test]
fn the_guardian_acts_when_the_engine_executes_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = program("executes_another_program", dir.path()).spawn().unwrap();
    until("the engine is about to execute", || dir.path().join("ready").exists());
    until("the guardian has ended", || guardians(dir.path()).is_empty());
    assert!(engine.try_wait().unwrap().is_none(), "the engine's process lives");
    engine.kill().unwrap();
    engine.wait().unwrap();
}

/// Threads of this process with a name.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[test]
fn a_process_has_one_guardian_and_it_ends_with_the_last_guest() {
    let (model, dom) = machine();
    let other = model.domain(Config::new("other").kind(Kind::Hvm));
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let xen = Xen::builder().run_dir(dir.path()).guardian(Guardian::Program(command()));
        xen.open_on(model.client("backend")).unwrap()
    };
    let first = open().guest(other).unwrap();
    let before = guardians(dir.path());
    assert_eq!(before.len(), 1);
    for _ in 0..10 {
        let guest = open().guest(dom).unwrap();
        assert_eq!(guardians(dir.path()), before, "the same one");
        drop(guest);
    }
    assert_eq!((guardians(dir.path()), threads("xen-guardian")), (before, 1));
    first.close().unwrap();
    drop(first);
    until("the guardian has ended", || guardians(dir.path()).is_empty());
    until("its thread too", || threads("xen-guardian") == 0);
    // And there is one again when it is needed.
    let again = open().guest(dom).unwrap();
    until("another guards", || guardians(dir.path()).len() == 1);
    drop(again);
    until("the guardian has ended", || guardians(dir.path()).is_empty());
}

/// A guardian that was killed is replaced for the next guest.
#[test]
fn a_guardian_that_is_killed_is_started_again_for_the_next_guest() {
    let (model, dom) = machine();
    let other = model.domain(Config::new("other").kind(Kind::Hvm));
    let dir = tempfile::tempdir().unwrap();
    let xen = Xen::builder().run_dir(dir.path()).guardian(Guardian::Program(command()));
    let xen = xen.open_on(model.client("backend")).unwrap();
    let _first = xen.guest(other).unwrap();
    let [guardian] = guardians(dir.path())[..] else { panic!("not one guardian") };
    let pid = Pid::from_raw(guardian.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("it is gone", || !Path::new(&format!("/proc/{guardian}")).exists());
    until("another guards", || {
        let guest = xen.guest(dom).unwrap();
        let guarded = !guardians(dir.path()).is_empty();
        drop(guest);
        guarded
    });
}
