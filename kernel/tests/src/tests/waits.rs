//! Which caller waits for what: the end of a guest does not wait for callers on other guests, and a
//! wait for xenstore can be interrupted by a signal.

use super::common::{DOORBELL, IDLE, until};
use super::module::{load, unload};
use super::processes::Process;
use crate::device::structs::{Create, Doorbell, Irq};
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use xen_eventfd_scenarios::test_context::{new_eventfd, readable};
use xen_eventfd_scenarios::{PATIENCE, TestContext};

/// A line for which the module has to read xenstore.
const LINE: u32 = 4;

/// Stops xenstored while this exists, at most for a time limit.
struct Silence {
    xenstored: Pid,
    over: Option<Sender<()>>,
    watchdog: Option<JoinHandle<bool>>,
}

impl Silence {
    fn begin() -> Result<Self> {
        let pid = fs::read_to_string("/run/xen/xenstored.pid")?.trim().parse()?;
        let xenstored = Pid::from_raw(pid).context("a process")?;
        kill_process(xenstored, Signal::STOP)?;
        let (over, ended) = channel();
        let watchdog = thread::spawn(move || {
            let in_time = ended.recv_timeout(PATIENCE).is_ok();
            let _ = kill_process(xenstored, Signal::CONT);
            in_time
        });
        let silence = Self { xenstored, over: Some(over), watchdog: Some(watchdog) };
        until("xenstored is stopped", || silence.is_stopped())?;
        Ok(silence)
    }

    fn is_stopped(&self) -> Result<bool> {
        Ok(state(&format!("/proc/{}", self.xenstored.as_raw_nonzero()))? == 'T')
    }

    /// Checks that it is not over yet: what was done meanwhile did not wait for its end.
    fn lasts(&self, what: &str) -> Result<()> {
        ensure!(self.is_stopped()?, "the time limit ended first: {what} waited for xenstored");
        Ok(())
    }

    /// Whether it lasted until now.
    fn end(mut self) -> Result<()> {
        self.over.take().map(|over| over.send(()).ok());
        let in_time = self.watchdog.take().and_then(|watchdog| watchdog.join().ok());
        ensure!(in_time == Some(true), "the time limit ended first: a caller waited for xenstored");
        Ok(())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.over.take().map(|over| over.send(()).ok());
        let _ = kill_process(self.xenstored, Signal::CONT);
    }
}

/// The state of a process or a thread, as `ps` has it.
fn state(folder: &str) -> Result<char> {
    let stat = fs::read_to_string(format!("{folder}/stat"))?;
    let rest = stat.rsplit_once(") ").context("a state")?.1;
    rest.chars().next().context("a state")
}

/// Waits until a process sleeps in the module.
fn sleeps_in_the_module(process: &Process) -> Result<()> {
    let stack = format!("/proc/{}/stack", process.id());
    until("it sleeps in the module", || Ok(fs::read_to_string(&stack)?.contains("[xen_eventfd]")))
}

/// Sends SIGKILL, which must end the process.
fn is_killable(mut process: Process) -> Result<()> {
    process.signal_kill()?;
    until("SIGKILL ends it", || process.has_ended())
}

pub(super) fn xenstored_at_the_first_open(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    ensure!(unload()?, "the module does not unload");
    let silence = Silence::begin()?;
    load()?;
    let owner = Command::new("/proc/self/exe")
        .args(["own", &guest.dom().0.to_string()])
        .stdout(Stdio::null())
        .spawn()?;
    let owner = Process::from(owner);
    sleeps_in_the_module(&owner)?;
    is_killable(owner)?;
    silence.lasts("a process that was killed")?;
    // Opening the node and QUERY need nothing from xenstore.
    let control = Control::open()?;
    control.query()?;
    silence.lasts("an open or QUERY")?;
    let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", control.number()))?;
    ensure!(shown.contains("confined:\tunknown\n"), "{shown}");
    silence.end()?;
    control.create(&Create::of(guest.dom()))?.stats()?;
    Ok(())
}

pub(super) fn xenstored_during_a_request(test: &mut TestContext<'_>) -> Result<()> {
    let guest = test.guest(IDLE)?;
    let (file, kick) = (GuestFile::of(guest.dom())?, new_eventfd()?);
    let silence = Silence::begin()?;
    let caller = Command::new("/proc/self/exe")
        .arg("line")
        .stdin(Stdio::from(file.as_fd().try_clone_to_owned()?))
        .spawn()?;
    let caller = Process::from(caller);
    sleeps_in_the_module(&caller)?;
    // It holds no lock meanwhile.
    file.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    ensure!(file.stats()?.doorbells == 1);
    silence.lasts("a request that needs nothing from it")?;
    is_killable(caller)?;
    silence.lasts("a process that was killed")?;
    silence.end()?;
    file.stats()?;
    Ok(())
}

/// The code of the caller: it assigns a line, through the guest's file that is its standard input.
pub(crate) fn assign_line() -> Result<()> {
    let file = GuestFile::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?);
    let call = new_eventfd()?;
    let _ = file.assign_irq(&Irq::isa(LINE, &call));
    Ok(())
}

/// Runs this thread on one CPU alone, with this nice value.
fn settle(cpu: usize, nice: i32) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus)?;
    setpriority_process(Some(gettid()), nice)?;
    Ok(())
}

/// A caller that changes one guest all the time, on a CPU of which it gets almost nothing when other
/// threads run; so it is often preempted while it holds the guest's locks.
struct Caller<'a> {
    file: &'a GuestFile,
    calls: AtomicU64,
    busy: AtomicBool,
    over: AtomicBool,
}

impl Caller<'_> {
    fn call(&self) -> Result<()> {
        settle(1, 19)?;
        let kick = new_eventfd()?;
        let doorbell = Doorbell::value(DOORBELL, 4, 0, &kick);
        while !self.over.load(Ordering::Relaxed) {
            self.file.assign(&doorbell)?;
            self.calls.fetch_add(1, Ordering::SeqCst);
            self.file.deassign(&doorbell)?;
            self.calls.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    fn busy(&self) -> Result<()> {
        settle(1, -20)?;
        while !self.over.load(Ordering::Relaxed) {
            if self.busy.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Runs the other threads until the caller is preempted while it holds the guest's lock, which is
    /// the case once `other` waits for the lock. Returns the number of its calls until then.
    fn stopped<'scope>(&'scope self, scope: &'scope thread::Scope<'scope, '_>) -> Result<u64> {
        for _ in 0..200 {
            self.busy.store(false, Ordering::SeqCst);
            let before = self.calls();
            until("it calls", || Ok(self.calls() > before + 1))?;
            self.busy.store(true, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(5));
            let (sender, receiver) = channel();
            let other = scope.spawn(move || {
                sender.send(gettid()).ok();
                self.file.stats().is_ok()
            });
            let other_is = format!("/proc/self/task/{}", receiver.recv()?.as_raw_nonzero());
            while !other.is_finished() {
                if state(&other_is).is_ok_and(|state| state == 'D') {
                    return Ok(self.calls());
                }
            }
        }
        bail!("the caller is never preempted with a lock")
    }
}

/// The stack of the kernel thread that runs xenstore's watches.
fn xenwatch() -> Result<String> {
    for process in fs::read_dir("/proc")? {
        let folder = process?.path();
        if fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim() == "xenwatch") {
            return Ok(fs::read_to_string(folder.join("stack"))?);
        }
    }
    bail!("there is no xenwatch")
}

pub(super) fn end_of_another(test: &mut TestContext<'_>) -> Result<()> {
    if thread::available_parallelism()?.get() < 2 {
        println!("on one CPU no caller can be preempted beside others");
        return Ok(());
    }
    let (guest, control) = (test.guest(IDLE)?, Control::open()?);
    let file = control.create(&Create::of(guest.dom()))?;
    let off = || AtomicBool::new(false);
    let caller = Caller { file: &file, calls: AtomicU64::new(0), busy: off(), over: off() };
    let before = sched_getaffinity(None)?;
    let result = thread::scope(|scope| {
        let calls = scope.spawn(|| caller.call());
        for _ in 0..4 {
            scope.spawn(|| caller.busy());
        }
        let destroys = || -> Result<()> {
            // Not on the CPU of the busy threads, and neither are the processes started from here.
            settle(0, 0)?;
            for _ in 0..5 {
                let (mut doomed, gone) = (test.guest(IDLE)?, new_eventfd()?);
                let file = control.create(&Create::of(doomed.dom()).notify_gone(&gone))?;
                let stopped = caller.stopped(scope)?;
                doomed.destroy()?;
                let notified = readable(&gone, PATIENCE / 4)?;
                let went_on = caller.calls() != stopped;
                let watches = xenwatch()?;
                caller.busy.store(false, Ordering::SeqCst);
                drop(file);
                ensure!(
                    notified,
                    "its end waits for a caller on another guest; xenwatch is in\n{watches}"
                );
                ensure!(!watches.contains("[xen_eventfd]"), "xenwatch is in\n{watches}");
                if !went_on {
                    return Ok(());
                }
            }
            bail!("the caller was never preempted for long enough")
        };
        let result = destroys();
        caller.busy.store(false, Ordering::SeqCst);
        caller.over.store(true, Ordering::SeqCst);
        let called = calls.join().map_err(|_| anyhow!("the caller panicked"))?;
        result.and(called)
    });
    sched_setaffinity(None, &before)?;
    result
}
