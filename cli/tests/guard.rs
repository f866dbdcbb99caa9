//! The guardian as the library starts it.

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use xen_eventfd::{Guardian, kept_descriptors};

/// A process that is killed when the test ends.
struct Process(Child);

impl Process {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_guard(engine: &Process, run_dir: &Path) -> Process {
    let pidfd = pidfd_open(engine.pid(), PidfdFlags::empty()).unwrap();
    let mut guard = Command::new(env!("CARGO_BIN_EXE_xen-eventfd"));
    guard.arg("--run-dir").arg(run_dir).arg("guard");
    guard.stdin(Stdio::from(pidfd)).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    Process(guard.spawn().unwrap())
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "not in 30 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn blocked(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn it_outlives_what_ends_the_engine_and_holds_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Process(Command::new("sleep").arg("1000").spawn().unwrap());
    let mut guard = start_guard(&engine, dir.path());
    let pid = guard.pid();
    until("its signals are blocked", || blocked(pid) & (1 << 14) != 0);
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill_process(pid, signal).unwrap();
    }
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    until("it has left its directory", || {
        std::fs::read_link(proc.join("cwd")).unwrap() == Path::new("/")
    });
    until("it holds only the standard descriptors", || {
        std::fs::read_dir(proc.join("fd")).unwrap().count() == 3
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!guard.has_ended(), "a signal ended it");
}

#[test]
fn it_waits_for_the_end_of_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = Process(Command::new("sleep").arg("1000").spawn().unwrap());
    let mut guard = start_guard(&engine, dir.path());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!guard.has_ended(), "the engine lives");
    engine.0.kill().unwrap();
    assert_eq!(engine.0.wait().unwrap().signal(), Some(9));
    let waiting = |pid: Pid| {
        let stack = format!("/proc/{}/wchan", pid.as_raw_nonzero());
        std::fs::read_to_string(stack).is_ok_and(|wait| wait.contains("poll"))
    };
    let pid = guard.pid();
    until("it has woken", || guard.has_ended() || !waiting(pid));
}

/// What a program that may be taken over has kept, as its successor finds it.
#[test]
fn it_keeps_descriptors_for_the_process_that_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let program = Guardian::Program(env!("CARGO_BIN_EXE_xen-eventfd").into());
    let guarded = program.keep_for(dir.path(), Duration::from_secs(60)).unwrap().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    guarded.keep_descriptor("5/0", theirs.as_fd()).unwrap();
    drop(theirs);
    let at = guarded.descriptors_at().unwrap().to_owned();
    let mut kept = kept_descriptors(&at).unwrap();
    let mut socket = UnixStream::from(kept.remove("5/0").unwrap());
    socket.write_all(b"!").unwrap();
    let mut byte = [0];
    (&ours).read_exact(&mut byte).unwrap();
    assert_eq!((&byte, kept.len()), (b"!", 0));
    drop(socket);
    // It has them until it ends, and leaves no socket.
    drop(guarded);
    assert_eq!((&ours).read(&mut byte).unwrap(), 0);
    until("the socket is removed", || !at.exists());
}
