//! `list`, `show` and `top` as programs, on trees of files.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

const GUEST: &str = "\
dom:\t3
interface:\tnative
owner:\t412 my backend
server:\t7
vcpus:\t2
delivered:\t1000
held:\t1
odd:\t4
doorbell:\tmmio 0xfe000050 len 4 value 0x3 mask 0xffffffff kicks 1000 held 1 odd 3
waiting:\tmmio 0xfe000050 len 4 value 0x9
irq:\tmsi 0xfee00000 0x41 raised 3 failed 0
irq:\tmsi 0xfee00000 0x42 raised 0 failed 0 masked 1 pending 1
channel:\t7 signals 3
";
const RESERVED: &str = "dom:\t5\ninterface:\treserved\nowner:\t500 qemu\n";

/// A host on which the module shows these guests.
fn host(guests: &[(u16, &str)]) -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    let folder = tree.path().join("sys/kernel/debug/xen-eventfd");
    fs::create_dir_all(&folder).unwrap();
    for (dom, text) in guests {
        fs::write(folder.join(dom.to_string()), text).unwrap();
    }
    tree
}

fn program(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-eventfd"));
    command.args(words).arg("--root").arg(root).stdin(Stdio::null());
    command
}

fn output(root: &Path, words: &[&str]) -> Output {
    program(root, words).output().unwrap()
}

fn prose(root: &Path, words: &[&str]) -> String {
    let output = output(root, words);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(root: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&prose(root, &[words, &["--json"]].concat())).unwrap()
}

fn refused(root: &Path, words: &[&str], code: i32, why: &str) {
    let output = output(root, words);
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?} says {sentence}");
    assert!(sentence.contains(why), "{words:?} says {sentence}");
}

#[test]
fn list_tells_who_serves_whom() {
    let host = host(&[(3, GUEST), (5, RESERVED)]);
    let text = prose(host.path(), &["list"]);
    let rows: Vec<Vec<&str>> =
        text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["3", "-", "kernel", "412", "my", "backend", "7", "4", "1000"]);
    assert_eq!(rows[1], ["5", "-", "userspace", "500", "qemu", "-", "-", "-"]);
    let guests = &json(host.path(), &["list"])["guests"];
    let delivered = &guests[0]["counters"]["delivered"];
    assert_eq!((&guests[0]["registrations"], delivered), (&4.into(), &1000.into()));
    assert_eq!((&guests[1]["engine"], &guests[1]["counters"]), (&"userspace".into(), &Value::Null));
}

#[test]
fn an_engine_in_userspace_is_known_by_its_lock() {
    let host = host(&[]);
    let model = xen_eventfd_model::Model::new();
    let dom = model.domain(xen_eventfd_model::Config::new("web"));
    let builder = xen_eventfd::Xen::builder().run_dir(host.path().join("run/xen-eventfd"));
    let xen = builder.open_on(model.client("engine")).unwrap();
    let served = xen.guest(dom).unwrap();
    let guest = &json(host.path(), &["show", &dom.0.to_string()]);
    assert_eq!(guest["engine"], "userspace");
    assert_eq!(guest["owner"]["pid"], std::process::id());
    assert_eq!(guest["server"], served.server().0);
    drop(served);
    assert_eq!(prose(host.path(), &["list"]), "No guest is served.\n");
}

#[test]
fn without_a_guest_list_says_so() {
    assert_eq!(prose(host(&[]).path(), &["list"]), "No guest is served.\n");
    assert_eq!(json(host(&[]).path(), &["list"])["guests"], Value::Array(vec![]));
}

#[test]
fn an_orphan_is_told_with_the_advice_to_reap() {
    let host = host(&[]);
    let model = xen_eventfd_model::Model::new();
    let dom = model.domain(xen_eventfd_model::Config::new("web"));
    let run_dir = host.path().join("run/xen-eventfd");
    let client = model.client("engine");
    let xen = xen_eventfd::Xen::builder().run_dir(&run_dir).open_on(client.clone()).unwrap();
    let server = xen.guest(dom).unwrap().server().0;
    let record = run_dir.join(format!("{}.json", dom.0));
    let served = xen.guest(dom).unwrap();
    let text = fs::read(&record).unwrap();
    drop(served);
    assert_eq!(json(host.path(), &["list"])["orphans"], Value::Array(vec![]));
    // What a killed engine leaves: its record, and a lock that nothing holds.
    fs::write(&record, text).unwrap();
    let list = prose(host.path(), &["list"]);
    let reported = format!("domain {} was left by an engine that was killed", dom.0);
    assert!(list.contains(&reported) && list.contains("`xen-eventfd reap`"), "{list}");
    let orphan = &json(host.path(), &["list"])["orphans"][0];
    assert_eq!((&orphan["domid"], &orphan["server"]), (&dom.0.into(), &server.into()));
    refused(host.path(), &["show", &dom.0.to_string()], 7, "xen-eventfd reap");
}

#[test]
fn show_tells_everything_of_one_guest() {
    let host = host(&[(3, GUEST), (5, RESERVED)]);
    let text = prose(host.path(), &["show", "3"]);
    for word in [
        "412 my backend",
        "delivered    1000",
        "mmio 0xfe000050 len 4 value 0x3 mask 0xffffffff   1000     1    3",
        "mmio 0xfe000050 len 4 value 0x9",
        "msi 0xfee00000 0x41       3       0  no",
        "msi 0xfee00000 0x42       0       0  yes, pending",
        "7                    3",
    ] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    let guest = &json(host.path(), &["show", "3"]);
    assert_eq!(
        (&guest["doorbells"][0]["value"], &guest["doorbells"][0]["odd"]),
        (&"0x3".into(), &3.into())
    );
    for (irq, masked) in [(0, false), (1, true)] {
        let irq = &guest["irqs"][irq];
        assert_eq!((&irq["masked"], &irq["pending"]), (&masked.into(), &masked.into()));
    }
    assert_eq!(guest["counters"]["odd"], 4);
}

#[test]
fn show_says_where_the_counters_of_userspace_are() {
    let host = host(&[(5, RESERVED)]);
    let text = prose(host.path(), &["show", "5"]);
    assert!(text.contains("500 qemu") && text.contains("inside that process"), "{text}");
    assert_eq!(json(host.path(), &["show", "5"])["doorbells"], Value::Null);
}

#[test]
fn what_cannot_be_told_is_refused() {
    let damaged = host(&[(3, "dom:\tthree\n")]);
    for words in [&["list"][..], &["show", "3"], &["top", "--plain"]] {
        refused(damaged.path(), words, 1, "line 1 (\"dom:\\tthree\")");
    }
    let host = host(&[(3, GUEST)]);
    refused(host.path(), &["show", "4"], 7, "domain 4 is served by no engine");
    refused(host.path(), &["show", "web"], 7, "give its number");
    refused(host.path(), &["top", "--interval", "0.0001"], 2, "1ms and 365d");
    refused(host.path(), &["top", "--count", "0"], 2, "--count");
}

#[test]
fn top_prints_a_table_for_each_interval() {
    let host = host(&[(3, GUEST)]);
    let text = prose(host.path(), &["top", "--interval", "0.1", "--count", "2"]);
    assert_eq!(text.matches("KICKS/S").count(), 2, "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn top_prints_an_object_for_each_interval() {
    let host = host(&[(3, GUEST)]);
    let words = ["top", "--interval", "0.1", "--count", "2", "--json"];
    let objects: Vec<Value> = prose(host.path(), &words)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[1]["guests"][0]["per_second"]["kicks"], 0.0);
}

/// `top` on a terminal of its own.
struct OnTerminal {
    master: File,
    slave: File,
    child: Child,
    seen: Vec<u8>,
    host: TempDir,
}

/// The terminal goes to another screen, and comes back.
const ENTER: &[u8] = b"\x1b[?1049h";
const LEAVE: &[u8] = b"\x1b[?1049l";

impl OnTerminal {
    fn start() -> Self {
        let host = host(&[(3, GUEST)]);
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = program(host.path(), &["top", "--interval", "0.1"]);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { master: master.into(), slave, child, seen: vec![], host }
    }

    fn until(&mut self, what: &[u8]) {
        while !self.seen.windows(what.len()).any(|window| window == what) {
            let mut bytes = [0; 4096];
            let count = self.master.read(&mut bytes).unwrap();
            self.seen.extend(&bytes[..count]);
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        !modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// Waits for the end, which is a good one, on the terminal as it was.
    fn ends_well(mut self) {
        self.until(LEAVE);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(!self.is_raw(), "the terminal stays raw");
    }
}

#[test]
fn a_key_ends_top_and_the_terminal_is_as_it_was() {
    let mut top = OnTerminal::start();
    top.until(ENTER);
    top.until(b"0xfe000050");
    assert!(top.is_raw());
    top.master.write_all(b"q").unwrap();
    top.ends_well();
}

#[test]
fn a_signal_ends_top_and_the_terminal_is_as_it_was() {
    let mut top = OnTerminal::start();
    top.until(b"0xfe000050");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(top.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    top.ends_well();
}

#[test]
fn a_text_that_cannot_be_understood_ends_top_and_the_terminal_is_as_it_was() {
    let mut top = OnTerminal::start();
    top.until(b"0xfe000050");
    let text = top.host.path().join("sys/kernel/debug/xen-eventfd/3");
    fs::write(text, "dom:\tthree\n").unwrap();
    top.until(LEAVE);
    assert_eq!(top.child.wait().unwrap().code(), Some(1));
    assert!(!top.is_raw(), "the terminal stays raw");
}

#[test]
fn top_ends_when_its_terminal_goes() {
    let mut top = OnTerminal::start();
    top.until(b"0xfe000050");
    let OnTerminal { master, slave, mut child, .. } = top;
    drop((master, slave));
    let end = child.wait().unwrap();
    // A failure if it was just drawing. No signal asked it to end, nor did it abort.
    assert!(matches!(end.code(), Some(0 | 1)), "{end}");
}
