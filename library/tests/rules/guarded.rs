//! A program can query whether its guests are reaped when it is killed.

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xen_eventfd::{Guardian, Xen};
use xen_eventfd_model::{Config, Model};

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "not in 60 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A guardian that writes its process's number to a file, and waits.
fn guardian(dir: &Path) -> (Guardian, PathBuf) {
    let (program, pid) = (dir.join("guardian"), dir.join("pid"));
    let script =
        format!("#!/bin/sh\necho $$ >{0}.new; mv {0}.new {0}; exec sleep 60\n", pid.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    (Guardian::Program(program), pid)
}

/// Kills the guardian that wrote this, once it has.
fn kill(pid: &Path) {
    until("the guardian has begun", || pid.exists());
    let number = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(number).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_guest_is_guarded_while_its_guardian_lives() {
    let model = Model::new();
    let dom = model.domain(Config::new("guest"));
    let dir = tempfile::tempdir().unwrap();
    let (guardian, pid) = guardian(dir.path());
    let builder = || Xen::builder().run_dir(dir.path().join("run"));
    let xen = builder().guardian(guardian).open_on(model.client("one")).unwrap();
    let guest = xen.guest(dom).unwrap();
    assert!(guest.is_guarded());
    kill(&pid);
    until("its end is known", || !guest.is_guarded());
}

#[test]
fn a_guardian_is_kept_for_servers_of_the_programs_own() {
    let dir = tempfile::tempdir().unwrap();
    let (guardian, pid) = guardian(dir.path());
    let run = dir.path().join("run");
    let guarded = guardian.keep(&run).unwrap().unwrap();
    assert!(guarded.is_there());
    until("the guardian has begun", || pid.exists());
    // One is enough for a process and a directory.
    std::fs::remove_file(&pid).unwrap();
    let again = guardian.keep(&run).unwrap().unwrap();
    assert!(again.is_there() && !pid.exists());
    drop((guarded, again));
    let new = guardian.keep(&run).unwrap().unwrap();
    kill(&pid);
    until("its end is known", || !new.is_there());
}

#[test]
fn without_a_guardian_a_guest_is_not_guarded() {
    let model = Model::new();
    let dom = model.domain(Config::new("guest"));
    let dir = tempfile::tempdir().unwrap();
    let builder = Xen::builder().run_dir(dir.path()).guardian(Guardian::None);
    let xen = builder.open_on(model.client("one")).unwrap();
    assert!(!xen.guest(dom).unwrap().is_guarded());
}
