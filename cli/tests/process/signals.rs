//! What each signal does to `run`, `watch` and `guard`.

use crate::on_model::{OnModel, program, until};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const KICK: &str = "mmio:0xfe000050:4:3";
/// Notes the signals that it gets, and ends when `$DIR/end` is there, or the test's files go: not the folder, which a
/// note of that moment keeps.
const NOTES: &str = "for name in HUP INT QUIT TERM USR1 USR2 ALRM VTALRM PROF PWR WINCH CONT; do \
                     trap \"echo $name >>$DIR/signals\" $name; done; \
                     echo $$ >$DIR/pid; : >$DIR/ready; \
                     while test -e $DIR/pid -a ! -e $DIR/end; do sleep 0.02; done; exit 9";

const WAITS: &str = "echo $$ >$DIR/pid; : >$DIR/ready; exec sleep 1000";
const PLAIN: &str = "exec \"$0\" \"$@\"";

/// A backend that is a shell script, and has begun.
fn run_as(script: &str, backend: &[&str], more: impl FnOnce(&mut Command)) -> OnModel {
    let words: Vec<&str> = [&["run", "guest", "--kick", KICK, "--"], backend].concat();
    let run = OnModel::start_as(&words, script, more);
    until("the backend has begun", || run.file("ready").exists());
    run
}

fn run(backend: &str) -> OnModel {
    let run = OnModel::start(&["run", "guest", "--kick", KICK, "--", "sh", "-c", backend]);
    until("the backend has begun", || run.file("ready").exists());
    run
}

fn state(pid: Pid) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

/// The process that `$DIR/pid` names.
fn backend_of(run: &OnModel) -> Pid {
    Pid::from_raw(run.text("pid").trim().parse().unwrap()).unwrap()
}

/// A mask of `/proc/PID/status`.
fn mask(status: &str, name: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn run_passes_signals_on() {
    let mut run = run(NOTES);
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::ALARM, "ALRM"),
        (Signal::VTALARM, "VTALRM"),
        (Signal::PROF, "PROF"),
        (Signal::POWER, "PWR"),
        (Signal::WINCH, "WINCH"),
        (Signal::CONT, "CONT"),
    ] {
        run.signal(signal);
        run.until_text("signals", name);
    }
    assert_eq!(run.order("kick 1 3"), "done", "the engine goes on");
    std::fs::write(run.file("end"), "").unwrap();
    assert_eq!(run.end().code(), Some(9));
}

#[test]
fn a_backend_that_a_signal_ends_gives_a_shells_code() {
    for (signal, code) in
        [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::USR1, 138)]
    {
        let mut run = run(": >$DIR/ready; exec sleep 1000");
        run.signal(signal);
        assert_eq!(run.end().code(), Some(code));
    }
}

#[test]
fn real_time_signals_end_nothing() {
    let mut run = run(NOTES);
    let pid = run.pid().as_raw_nonzero().to_string();
    assert!(Command::new("kill").args(["-40", &pid]).status().unwrap().success());
    run.signal(Signal::USR1);
    run.until_text("signals", "USR1");
    assert_eq!(run.order("kick 1 3"), "done");
}

#[test]
fn a_terminals_stop_stops_the_backend_and_not_the_engine() {
    for signal in [Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        // In a group of its own whose leader's parent is in this session: others are not stopped.
        let mut run = run_as(PLAIN, &["sh", "-c", WAITS], |command| _ = command.process_group(0));
        let backend = backend_of(&run);
        run.signal(signal);
        until("the backend is stopped", || state(backend) == 'T');
        assert_eq!(run.order("kick 1 3"), "done", "the guest's vCPU goes on");
        run.signal(Signal::CONT);
        until("the backend goes on", || state(backend) != 'T');
    }
}

#[test]
fn a_backend_that_is_stopped_can_be_ended() {
    let mut run = run(WAITS);
    let backend = backend_of(&run);
    kill_process(backend, Signal::STOP).unwrap();
    until("the backend is stopped", || state(backend) == 'T');
    run.signal(Signal::TERM);
    assert_eq!(run.end().code(), Some(143));
}

#[test]
fn a_guest_that_dies_ends_a_backend_that_is_stopped() {
    let mut run = run(WAITS);
    let backend = backend_of(&run);
    kill_process(backend, Signal::STOP).unwrap();
    until("the backend is stopped", || state(backend) == 'T');
    assert_eq!(run.order("destroy 1"), "true");
    assert_eq!(run.end().code(), Some(4));
}

#[test]
fn what_was_ignored_stays_ignored_by_run_and_its_backend() {
    // This backend would receive it, as it sets what it does with SIGINT and SIGHUP itself.
    let backend = ["env", "--default-signal=INT,HUP", "sh", "-c", NOTES];
    let mut run = run_as("trap '' INT HUP; exec \"$0\" \"$@\"", &backend, |_| ());
    run.signal(Signal::INT);
    run.signal(Signal::HUP);
    // Of a lower number than this one, so they would come before it.
    run.signal(Signal::USR1);
    run.until_text("signals", "USR1");
    assert_eq!(run.text("signals").trim(), "USR1");
}

#[test]
fn a_backend_has_signals_as_without_us() {
    let tells = "grep Sig /proc/self/status >$DIR/status; : >$DIR/ready; exit 0";
    let run = run_as("trap '' HUP; exec \"$0\" \"$@\"", &["sh", "-c", tells], |_| ());
    let status = run.text("status");
    assert_eq!(mask(&status, "SigBlk:"), 0, "{status}");
    let without_us = std::fs::read_to_string("/proc/self/status").unwrap();
    let pipe = 1 << (Signal::PIPE.as_raw() - 1);
    let expected = mask(&without_us, "SigIgn:") & !pipe | 1;
    assert_eq!(mask(&status, "SigIgn:"), expected, "{status}");
}

#[test]
fn an_ignored_sigchld_does_not_cost_the_exit_code() {
    let script = "exec env --ignore-signal=CHLD \"$0\" \"$@\"";
    let mut run = run_as(script, &["sh", "-c", ": >$DIR/ready; exit 7"], |_| ());
    assert_eq!(run.end().code(), Some(7));
}

/// A terminal, with `script` at its other end as the leader of a session.
fn on_terminal(script: &str, backend: &[&str]) -> (File, OnModel) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let run = run_as(script, backend, |command| {
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
    });
    (master.into(), run)
}

#[test]
fn a_terminals_interrupt_reaches_the_backend_once_wherever_it_is() {
    for backend in [&["sh", "-c", NOTES][..], &["setsid", "sh", "-c", NOTES]] {
        let (mut terminal, mut run) = on_terminal("exec setsid --ctty \"$0\" \"$@\"", backend);
        terminal.write_all(b"\x03").unwrap();
        run.until_text("signals", "INT");
        // A second one of a higher number; what was sent twice would be there by then.
        run.signal(Signal::USR1);
        run.until_text("signals", "USR1");
        assert_eq!(run.text("signals").matches("INT").count(), 1, "{backend:?}");
    }
}

#[test]
fn a_terminal_that_goes_tells_the_backend() {
    // It signals the leader of its session, which is `run`, and no other process.
    let backend = ["sh", "-c", NOTES];
    let (terminal, mut run) = on_terminal("exec setsid --ctty \"$0\" \"$@\"", &backend);
    drop(terminal);
    run.until_text("signals", "HUP");
    assert_eq!(run.order("kick 1 3"), "done");
}

#[test]
fn a_terminals_stop_does_not_stop_the_engine() {
    // A shell with jobs, as only then a terminal's stop stops anything.
    let script = "exec setsid --ctty sh -c 'set -m; \"$0\" \"$@\"' \"$0\" \"$@\"";
    let (mut terminal, mut run) = on_terminal(script, &["sh", "-c", WAITS]);
    let backend = backend_of(&run);
    terminal.write_all(b"\x1a").unwrap();
    until("the backend is stopped", || state(backend) == 'T');
    assert_eq!(run.order("kick 1 3"), "done");
    terminal.write_all(b"\x03").unwrap();
    assert_eq!(run.end().code(), Some(130), "and it can be ended");
}

fn watch(script: &str) -> OnModel {
    let words = ["--json", "watch", "guest", "0xfe000050", "--take"];
    let mut watch = OnModel::start_as(&words, script, |command| {
        command.stdout(Stdio::piped());
    });
    assert_eq!(watch.order("served 1"), "done");
    watch
}

/// Signals that end a program which does nothing about them, and `watch` in order.
const ENDS: [Signal; 7] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
];

#[test]
fn a_signal_ends_watch_in_order() {
    for signal in ENDS {
        let mut watch = watch(PLAIN);
        let out = BufReader::new(watch.child().stdout.take().unwrap());
        watch.signal(signal);
        let last = out.lines().map(Result::unwrap).last().unwrap_or_default();
        assert!(last.contains("ended"), "{signal:?}: {last}");
        assert_eq!(watch.end().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn watch_keeps_what_was_ignored_and_does_not_stop() {
    let mut watch = watch("trap '' HUP INT; exec \"$0\" \"$@\"");
    let mut out = BufReader::new(watch.child().stdout.take().unwrap());
    for signal in [Signal::HUP, Signal::INT, Signal::TSTP, Signal::TTIN, Signal::TTOU] {
        watch.signal(signal);
    }
    let mut started = String::new();
    out.read_line(&mut started).unwrap();
    assert!(started.contains("watch.started"), "{started}");
    // One that is shown on the way to an end, and one that is not.
    for value in ["6", "7"] {
        assert_eq!(watch.order(&format!("kick 1 {value}")), "done");
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.contains(&format!("\"value\":\"0x{value}\"")), "{line}");
    }
}

#[test]
fn no_signal_ends_or_stops_the_guardian() {
    let mut engine = Command::new("sleep").arg("1000").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&engine), PidfdFlags::empty()).unwrap();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command.arg("--run-dir").arg(dir.path());
    command.args(["-vvv", "guard"]).stdin(pidfd).stdout(full()).stderr(full());
    let mut guard = command.spawn().unwrap();
    let pid = Pid::from_child(&guard);
    let status =
        || std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    // It goes there with its signals blocked.
    let cwd = format!("/proc/{}/cwd", pid.as_raw_nonzero());
    until("it has let go of its directory", || {
        std::fs::read_link(&cwd).is_ok_and(|cwd| cwd == Path::new("/"))
    });
    let usr1 = 1 << (Signal::USR1.as_raw() - 1);
    assert!(mask(&status(), "SigBlk:") & usr1 != 0, "{}", status());
    let others = [Signal::PIPE, Signal::TSTP, Signal::TTIN, Signal::TTOU];
    for signal in ENDS.into_iter().chain(others) {
        kill_process(pid, signal).unwrap();
    }
    engine.kill().unwrap();
    engine.wait().unwrap();
    assert_eq!(guard.wait().unwrap().code(), Some(0));
}
