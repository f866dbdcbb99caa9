//! `run` on the model, with real backends.

mod common;

use clap::Parser;
use common::{Machine, NAME};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};
use xen_eventfd::{Space, Width, Xen};
use xen_eventfd_cli::arguments::{self, Command};
use xen_eventfd_cli::commands::run::run_on;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::signals::Signals;
use xen_eventfd_host::Errno;
use xen_eventfd_host::Host;
use xen_eventfd_model::{CallKind, Config, Kind, MAX_SERVERS};

const ADDR: u64 = 0xFE00_0050;
const KICK: &str = "mmio:0xfe000050:4:3";

fn run(xen: &Xen, words: &[&str], signals: Option<&mut Signals>) -> Result<Exit, Failure> {
    let words = ["xen-eventfd", "run"].iter().chain(words);
    let Command::Run(arguments) = arguments::Arguments::parse_from(words).command else {
        unreachable!("the word is `run`")
    };
    let helper = Path::new(env!("CARGO_BIN_EXE_xen-eventfd"));
    run_on(xen, &Session::default(), &arguments, helper, signals)
}

/// Runs `script` for the guest with one kick.
fn shell(machine: &Machine, script: &str) -> Result<Exit, Failure> {
    run(&machine.xen(), &[NAME, "--kick", KICK, "--", "sh", "-c", script], None)
}

/// Waits until some doorbell of the guest is claimed; from then on no kick is missed.
fn until_claimed(machine: &Machine) {
    let dom = machine.dom;
    machine.model.until("a doorbell is claimed", move |model| {
        model.servers(dom).iter().any(|server| server.enabled && !server.ranges.is_empty())
    });
}

fn refused(machine: &Machine) -> Failure {
    shell(machine, "exit 0").unwrap_err()
}

#[test]
fn a_backend_hears_kicks_and_raises_interrupts() {
    let machine = Machine::default();
    let vcpu = machine.vcpu();
    let port = vcpu.alloc_unbound().unwrap();
    let (xen, out) = (machine.xen(), machine.dir.path().join("out"));
    let call = format!("evtchn:{}", port.0);
    let script = format!(
        "dd bs=8 count=1 <&3 2>/dev/null | od -An -tu8 > {}; \
         printf '\\001\\000\\000\\000\\000\\000\\000\\000' >&4",
        out.display()
    );
    let backend = std::thread::spawn(move || {
        run(&xen, &[NAME, "--kick", KICK, "--call", &call, "--", "sh", "-c", &script], None)
    });
    until_claimed(&machine);
    vcpu.write(Space::Mmio, ADDR, Width::Four, 3).unwrap();
    vcpu.run(move |vcpu| vcpu.wait(port)).join().unwrap();
    assert_eq!(backend.join().unwrap(), Ok(Exit::Backend(0)));
    assert_eq!(std::fs::read_to_string(out).unwrap().trim(), "1");
    assert!(machine.model.servers(machine.dom).is_empty(), "the guest was let go of");
}

#[test]
fn eventfds_are_passed_as_systemd_passes_sockets() {
    let machine = Machine::default();
    let port = machine.vcpu().alloc_unbound().unwrap();
    let (channel, out) = (format!("evtchn:{}", port.0), machine.dir.path().join("out"));
    let script = format!(
        "echo $LISTEN_FDS $LISTEN_FDNAMES $((LISTEN_PID == $$)) $(ls /proc/$$/fd) > {}",
        out.display()
    );
    let words =
        [NAME, "--kick", KICK, "--kick", &channel, "--call", &channel, "--", "sh", "-c", &script];
    assert_eq!(run(&machine.xen(), &words, None), Ok(Exit::Backend(0)));
    let seen = std::fs::read_to_string(out).unwrap();
    assert!(seen.starts_with("3 kick0:kick1:call0 1 0 1"), "{seen}");
    assert!(seen.contains(" 3 4 5"), "{seen}");
}

#[test]
fn the_exit_code_is_the_backends() {
    let machine = Machine::default();
    assert_eq!(shell(&machine, "exit 7"), Ok(Exit::Backend(7)));
    assert_eq!(shell(&machine, "kill -KILL $$"), Ok(Exit::Backend(137)));
    let xen = machine.xen();
    assert_eq!(run(&xen, &[NAME, "--kick", KICK, "--", "/nonesuch"], None), Ok(Exit::Backend(127)));
    assert_eq!(run(&xen, &[NAME, "--kick", KICK, "--", "/dev/null"], None), Ok(Exit::Backend(126)));
}

#[test]
fn a_signal_is_passed_on() {
    let machine = Machine::default();
    let (xen, started) = (machine.xen(), machine.dir.path().join("started"));
    let script =
        format!("trap 'exit 9' TERM; : > {}; while :; do sleep 0.05; done", started.display());
    let (report, thread) = std::sync::mpsc::channel();
    let backend = std::thread::spawn(move || {
        let mut signals = Signals::new().unwrap();
        report.send(pthread_self()).unwrap();
        run(&xen, &[NAME, "--kick", KICK, "--", "sh", "-c", &script], Some(&mut signals))
    });
    let thread = thread.recv().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !started.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    pthread_kill(thread, Signal::SIGTERM).unwrap();
    assert_eq!(backend.join().unwrap(), Ok(Exit::Backend(9)));
}

#[test]
fn when_the_guest_dies_its_backend_is_ended() {
    let machine = Machine::default();
    let xen = machine.xen();
    let words = [NAME, "--kick", KICK, "--", "sleep", "1000"];
    let backend = std::thread::spawn(move || run(&xen, &words, None));
    until_claimed(&machine);
    machine.model.destroy(machine.dom);
    let failure = backend.join().unwrap().unwrap_err();
    assert_eq!(failure.exit, Exit::GuestGone);
    assert_eq!(
        failure.sentence,
        "domain 1 is gone, so its backend sleep was ended; start both again"
    );
}

#[test]
fn a_guest_goes_by_name_or_number() {
    let machine = Machine::default();
    let xen = machine.xen();
    assert_eq!(run(&xen, &["1", "--kick", KICK, "--", "true"], None), Ok(Exit::Backend(0)));
    let failure = run(&xen, &["absent", "--kick", KICK, "--", "true"], None).unwrap_err();
    assert_eq!(failure.exit, Exit::NoGuest);
    assert_eq!(failure.sentence, "no domain absent; `xl list` lists all domains");
}

#[test]
fn a_pv_guest_is_refused_with_advice() {
    let failure = refused(&Machine::new(Config::new(NAME).kind(Kind::Pv)));
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.sentence.contains("use a PVH or HVM guest"), "{failure}");
}

#[test]
fn a_guest_without_a_free_server_is_in_use() {
    let machine = Machine::default();
    let others = machine.model.client("device models");
    (0..MAX_SERVERS).for_each(|_| _ = others.create_server(machine.dom).unwrap());
    let failure = refused(&machine);
    assert_eq!(failure.exit, Exit::InUse);
    assert!(failure.sentence.contains("all 8 ioreq servers"), "{failure}");
}

#[test]
fn a_guest_of_another_engine_is_in_use() {
    let machine = Machine::default();
    let other = machine.xen();
    let _guest = other.guest(machine.dom).unwrap();
    let failure = refused(&machine);
    assert_eq!(failure.exit, Exit::InUse);
    assert!(failure.sentence.contains("is served by process"), "{failure}");
}

#[test]
fn what_is_not_permitted_is_told_apart() {
    let machine = Machine::default();
    machine.client.fail(CallKind::CreateServer, 1, Errno::PERM);
    let failure = refused(&machine);
    assert_eq!(failure.exit, Exit::NotPermitted);
    assert!(failure.sentence.contains("may not control"), "{failure}");
}

#[test]
fn a_port_that_the_guest_has_not_allocated_is_refused() {
    let machine = Machine::default();
    let words = [NAME, "--call", "evtchn:99", "--", "true"];
    let failure = run(&machine.xen(), &words, None).unwrap_err();
    assert!(failure.sentence.contains("the guest must have allocated the port"), "{failure}");
    assert!(machine.model.servers(machine.dom).is_empty(), "nothing is left");
}

#[test]
fn twins_are_refused_before_the_guest_is_touched() {
    let machine = Machine::default();
    let words = [NAME, "--kick", KICK, "--kick", KICK, "--", "true"];
    assert_eq!(run(&machine.xen(), &words, None).unwrap_err().exit, Exit::Usage);
    let words = [NAME, "--", "true"];
    assert_eq!(run(&machine.xen(), &words, None).unwrap_err().exit, Exit::Usage);
}
