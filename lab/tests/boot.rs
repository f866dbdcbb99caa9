//! The lab itself, on real Xen. These boot machines, which takes a minute: run them with
//! `cargo test -p xen-eventfd-lab -- --ignored`.

use std::{
    fs,
    time::{Duration, Instant},
};

use xen_eventfd_lab::{Boot, Lab, Machine, Platform, Voice};

const SHORT: Duration = Duration::from_secs(30);

fn boot(boot: Boot) -> Machine {
    Lab::prepare().unwrap().boot(boot).unwrap()
}

/// What holds on every kind of dom0.
fn commands_work(machine: &mut Machine) {
    let output = machine.run("echo one; echo two >&2; printf three; exit 3", SHORT).unwrap();
    assert_eq!(
        (output.status, output.lines),
        (3, vec!["one".into(), "two".into(), "three".into()])
    );

    assert!(machine.run("true", SHORT).unwrap().lines.is_empty());
    let many = machine.run("seq 1 3000", SHORT).unwrap();
    assert_eq!(many.lines.len(), 3000);
    assert_eq!(many.lines.last().unwrap(), "3000");

    let long = format!("cat <<'END'\n{}\nEND", "x".repeat(20_000));
    assert_eq!(machine.run(&long, SHORT).unwrap().lines, ["x".repeat(20_000)]);

    assert_eq!(machine.read_file("/payload/bytes").unwrap(), (0..=255).collect::<Vec<u8>>());
    assert!(machine.read_file("/none").is_err());
    assert!(machine.check("xl info", SHORT).unwrap().text().contains("xen_version"));
}

fn payload(boot: Boot) -> Boot {
    boot.payload_bytes("payload/bytes", 0o644, (0..=255).collect::<Vec<u8>>())
}

#[test]
#[ignore = "boots Xen"]
fn a_pv_dom0_runs_commands() {
    let mut machine = boot(payload(Boot::new(Platform::X86Pv)));
    commands_work(&mut machine);
    let folder = machine.finish().unwrap();
    assert!(fs::read_to_string(folder.join("xen.log")).unwrap().contains("Xen version"));
    assert!(!folder.join("dom0.cpio").exists());
}

#[test]
#[ignore = "boots Xen"]
fn a_pvh_dom0_runs_commands() {
    let mut machine = boot(payload(Boot::new(Platform::X86Pvh)));
    commands_work(&mut machine);
    let pvh = machine.check("cat /sys/hypervisor/guest_type", SHORT).unwrap();
    assert_eq!(pvh.lines, ["PVH"]);
}

#[test]
#[ignore = "boots Xen"]
fn dom0_has_the_cpus_that_were_asked_for() {
    let mut machine = boot(Boot::new(Platform::X86Pv).cpus(4));
    assert_eq!(machine.check("nproc", SHORT).unwrap().lines, ["2"]);
    let info = machine.check("xl info nr_cpus", SHORT).unwrap();
    assert_eq!(info.lines, ["4"]);
}

#[test]
#[ignore = "boots Xen"]
fn a_command_that_hangs_is_killed_with_all_that_it_started() {
    let mut machine = boot(Boot::new(Platform::X86Pv));
    let start = Instant::now();
    let error = machine
        .run("sleep 1000 & echo started; sleep 2000", Duration::from_secs(2))
        .unwrap_err()
        .to_string();
    assert!(error.contains("did not finish within 2s"), "{error}");
    assert!(error.contains("--- Xen"), "{error}");
    assert!(start.elapsed() < SHORT);
    let left = machine.run("pidof sleep", SHORT).unwrap();
    assert_eq!((left.status, left.lines), (1, vec![]));
}

#[test]
#[ignore = "boots Xen"]
fn a_crash_of_dom0_is_noticed_at_once() {
    let mut machine = boot(Boot::new(Platform::X86Pv));
    let start = Instant::now();
    let error = machine
        .run("echo c >/proc/sysrq-trigger", Duration::from_secs(300))
        .unwrap_err()
        .to_string();
    assert!(error.contains("the machine is lost"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(machine.run("true", SHORT).is_err());
}

#[test]
#[ignore = "boots Xen"]
fn a_boot_that_fails_says_what_the_console_last_said() {
    let boot =
        Boot::new(Platform::X86Pv).linux_argument("rdinit=/none").linux_argument("init=/none");
    let error = Lab::prepare().unwrap().boot(boot).unwrap_err().to_string();
    assert!(error.contains("did not come up") && error.contains("Kernel panic"), "{error}");
}

#[test]
#[ignore = "boots Xen"]
fn a_guest_speaks_on_xens_console_and_into_its_log() {
    let guest = xen_eventfd_lab::build_guest("xen-eventfd-guest").unwrap();
    let config = "name = \"g1\"\ntype = \"pvh\"\nkernel = \"/lib/guest\"\nmemory = 16\nvcpus = 1\n\
                  cmdline = \"say hello; poweroff\"\non_poweroff = \"preserve\"\n";
    let mut machine = boot(Boot::new(Platform::X86Pv).payload("lib/guest", guest).payload_bytes(
        "etc/xen/g1.cfg",
        0o644,
        config,
    ));
    machine.check("xl create /etc/xen/g1.cfg", SHORT).unwrap();
    let hello = |machine: &mut Machine| {
        machine.check("sleep 1; cat /var/log/xen/console/guest-g1.log", SHORT).unwrap().text()
    };
    assert!(hello(&mut machine).contains("hello"));
    assert!(machine.console().iter().any(|line| line.voice == Voice::Xen));
    let folder = machine.finish().unwrap();
    assert!(folder.join("dom0-logs/console/guest-g1.log").exists());
}

#[test]
#[ignore = "builds, and boots Xen"]
fn static_programs_run_in_dom0() {
    let program = xen_eventfd_lab::build_static("xtask", "xtask").unwrap();
    let lab = Lab::prepare().unwrap();
    let boot = Boot::new(Platform::X86Pv).payload("bin/xtask", program);
    let mut received = Vec::new();
    let outcome =
        lab.run(boot, "xtask --help; false", SHORT, |line| received.push(line.to_owned())).unwrap();
    assert_eq!(outcome.output.lines, received);
    assert!(outcome.output.text().contains("cargo xtask"));
    assert_eq!(outcome.output.status, 1);
    assert!(outcome.report.contains("--- Xen") && outcome.folder.join("xen.log").exists());
}

#[test]
#[ignore = "boots Xen twice"]
fn two_deterministic_runs_are_the_same() {
    let lab = Lab::prepare().unwrap();
    let run = || {
        let boot = Boot::new(Platform::X86Pv).deterministic();
        let script = "cat /proc/uptime; cat /proc/interrupts; dmesg | tail -n 50";
        let outcome = lab.run(boot, script, SHORT, |_| {}).unwrap();
        (outcome.output, fs::read(outcome.folder.join("console.log")).unwrap())
    };
    let (first, second) = (run(), run());
    assert_eq!(first.0.lines, second.0.lines);
    assert_eq!(String::from_utf8_lossy(&first.1), String::from_utf8_lossy(&second.1));
}
