//! What a backend finds, and what was meant for the command alone.

use crate::on_model::{OnModel, until};
use rustix::fs::fstat;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeMap;

const KICK: &str = "mmio:0xfe000050:4:3";
/// Reports its environment and its descriptors, and waits.
const TELLS: &str = "env >$DIR/env; find /proc/$$/fd -type l -fprintf $DIR/fds '%f %l\\n'; \
                     : >$DIR/reported; read line <&8";
/// What systemd gives a service of its own, with two sockets.
const OF_SYSTEMD: &str = "mkfifo $DIR/fifo; exec 3</etc/passwd 4</etc/passwd 5</dev/zero 8<>$DIR/fifo; \
    export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=a:b LISTEN_PIDFDID=1 \
           NOTIFY_SOCKET=/run/systemd/notify WATCHDOG_USEC=3000000 WATCHDOG_PID=$$ \
           MAINPID=$$ MAINPIDFDID=1 FDSTORE=4 LISTEN_ADDR=example INVOCATION_ID=f00; \
    exec \"$0\" \"$@\"";

/// The environment and the descriptors of a backend that runs.
fn reported(
    options: &[&str],
    check: impl FnOnce(&OnModel, &BTreeMap<String, String>, &BTreeMap<u32, String>),
) {
    let words = ["run", "guest", "--kick", KICK];
    let words: Vec<&str> = [&words[..], options, &["--", "sh", "-c", TELLS]].concat();
    let run = OnModel::start_as(&words, OF_SYSTEMD, |_| ());
    until("the backend has reported", || run.file("reported").exists());
    let env = run.text("env");
    let env = env.lines().filter_map(|line| line.split_once('='));
    let fds = run.text("fds");
    let fds = fds.lines().filter_map(|line| line.split_once(' '));
    check(
        &run,
        &env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        &fds.map(|(number, what)| (number.parse().unwrap(), what.to_owned())).collect(),
    );
}

#[test]
fn variables_for_the_command_do_not_reach_its_backend() {
    reported(&[], |_, env, _| {
        let left: Vec<_> = ["NOTIFY_", "WATCHDOG_", "MAINPID", "FDSTORE"]
            .iter()
            .flat_map(|prefix| env.keys().filter(move |name| name.starts_with(prefix)))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!((&*env["LISTEN_FDS"], &*env["LISTEN_FDNAMES"]), ("1", "kick0"));
        assert_eq!(env["LISTEN_ADDR"], "example", "what is not systemd's stays");
        assert_eq!(env["INVOCATION_ID"], "f00", "and so does what is every process's");
    });
}

#[test]
fn the_backend_is_named_so_that_sd_listen_fds_believes_it() {
    reported(&[], |_, env, _| {
        let pid = Pid::from_raw(env["LISTEN_PID"].parse().unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        // Where pidfds have no file system of their own, there is no such number.
        let expected = (rustix::fs::fstatfs(&pidfd).unwrap().f_type == 0x5049_4446)
            .then(|| fstat(&pidfd).unwrap().st_ino.to_string());
        assert_eq!(env.get("LISTEN_PIDFDID"), expected.as_ref());
    });
}

#[test]
fn sockets_for_the_command_do_not_reach_its_backend_and_other_descriptors_do() {
    reported(&[], |_, _, fds| {
        assert!(fds[&3].contains("eventfd"), "{fds:?}");
        assert!(!fds.contains_key(&4), "{fds:?}");
        assert_eq!(fds[&5], "/dev/zero", "{fds:?}");
        assert!(fds.values().all(|what| what != "/etc/passwd"), "{fds:?}");
    });
}

#[test]
fn a_backend_that_notifies_for_itself_has_the_socket() {
    reported(&["--pass-notify"], |_, env, _| {
        assert_eq!(env["NOTIFY_SOCKET"], "/run/systemd/notify");
        assert_eq!(env["WATCHDOG_USEC"], "3000000");
        assert_eq!(env["WATCHDOG_PID"], env["LISTEN_PID"]);
        assert!(!env.contains_key("MAINPID") && !env.contains_key("FDSTORE"));
    });
}

#[test]
fn no_eventfd_becomes_a_standard_descriptor() {
    let script = "mkfifo $DIR/fifo; exec 8<>$DIR/fifo; exec \"$0\" \"$@\" <&- >&- 2>&-";
    let words = ["run", "guest", "--kick", KICK, "--", "sh", "-c", TELLS];
    let run = OnModel::start_as(&words, script, |_| ());
    until("the backend has reported", || run.file("reported").exists());
    let fds = run.text("fds");
    for standard in ["0 /dev/null", "1 /dev/null", "2 /dev/null", "3 anon_inode:[eventfd]"] {
        assert!(fds.lines().any(|line| line == standard), "{fds}");
    }
}
