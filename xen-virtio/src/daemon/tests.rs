//! The daemon on a xenstore in memory, with scripts in place of `xl` and `xen-virtio serve`.

use super::config::Config;
use super::guest::{END_TIMEOUT, PATIENCE, Tools};
use super::record::{Phase, StateDir};
use super::store::{Store, places};
use super::{Daemon, Happened};
use crate::layout::MmioPlace;
use crate::toolstack::Xl;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Permissions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use xen_eventfd_core::DomId;
use xen_eventfd_host::xenstore::{Access, Transaction, WatchEvent, Xenstore};
use xen_eventfd_host::{Call, Errno, HostError};

type Answer<T> = xen_eventfd_host::Result<T>;

/// What a xenstore has, shared by the daemon and the test, which is libxl.
#[derive(Debug, Clone, Default)]
struct Nodes(Arc<Mutex<Content>>, Arc<Mutex<Late>>);

/// A node that libxl makes once the daemon has begun so many transactions more.
type Late = Option<(usize, String)>;

/// Nodes, and events that were not taken yet.
type Content = (BTreeMap<String, String>, Vec<WatchEvent>);

impl Nodes {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap()
    }

    fn set(&self, path: &str, value: &str) {
        let mut state = self.lock();
        state.0.insert(full(path), value.to_owned());
        state.1.push(WatchEvent { path: path.to_owned(), token: String::new() });
    }

    /// A node that only has others below it is empty.
    fn get(&self, path: &str) -> Option<String> {
        let (state, below) = (self.lock(), full(path) + "/");
        let is_above = || state.0.keys().any(|node| node.starts_with(&below));
        state.0.get(&full(path)).cloned().or_else(|| is_above().then(String::new))
    }

    fn remove(&self, path: &str) {
        let mut state = self.lock();
        let below = full(path) + "/";
        state.0.retain(|node, _| *node != full(path) && !node.starts_with(&below));
        state.1.push(WatchEvent { path: path.to_owned(), token: String::new() });
    }
}

fn full(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/local/domain/0/{path}") }
}

#[derive(Debug)]
struct Memory {
    nodes: Nodes,
    /// Never readable: tests ask.
    fd: OwnedFd,
}

fn absent(path: &str) -> HostError {
    HostError::new(Call::Xenstore(path.to_owned()), Errno::NOENT)
}

impl Xenstore for Memory {
    fn read(&mut self, _: Transaction, path: &str) -> Answer<Vec<u8>> {
        self.nodes.get(path).map(String::into_bytes).ok_or_else(|| absent(path))
    }

    fn directory(&mut self, _: Transaction, path: &str) -> Answer<Vec<String>> {
        let below = full(path) + "/";
        let state = self.nodes.lock();
        let names = state.0.keys().filter_map(|node| node.strip_prefix(&below));
        let mut names: Vec<String> =
            names.filter_map(|rest| rest.split('/').next().map(str::to_owned)).collect();
        names.dedup();
        if names.is_empty() { Err(absent(path)) } else { Ok(names) }
    }

    fn write(&mut self, _: Transaction, path: &str, value: &[u8]) -> Answer<()> {
        self.nodes.set(path, str::from_utf8(value).unwrap());
        Ok(())
    }

    fn remove(&mut self, _: Transaction, path: &str) -> Answer<()> {
        self.nodes.remove(path);
        Ok(())
    }

    fn set_permissions(
        &mut self,
        _: Transaction,
        _: &str,
        _: DomId,
        _: Access,
        _: &[(DomId, Access)],
    ) -> Answer<()> {
        Ok(())
    }

    fn begin(&mut self) -> Answer<Transaction> {
        let mut late = self.nodes.1.lock().unwrap();
        match late.take() {
            Some((0, path)) => self.nodes.set(&path, ""),
            Some((left, path)) => *late = Some((left - 1, path)),
            None => {}
        }
        Ok(Transaction::NONE)
    }

    fn commit(&mut self, _: Transaction) -> Answer<()> {
        Ok(())
    }

    fn abort(&mut self, _: Transaction) -> Answer<()> {
        Ok(())
    }

    fn watch(&mut self, _: &str, _: &str) -> Answer<()> {
        Ok(())
    }

    fn unwatch(&mut self, _: &str, _: &str) -> Answer<()> {
        Ok(())
    }

    fn events(&mut self) -> Answer<Vec<WatchEvent>> {
        Ok(std::mem::take(&mut self.nodes.lock().1))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Notes what it is asked for, and answers as the file `state` says; pauses may be made slow by a file that it runs.
const XL: &str = r#"#!/bin/sh
cd "${0%/*}"
echo "$@" >>xl.log
case $1 in
list)
    if [ -e gone ]; then echo "Error: Domain '$3' does not exist." >&2; exit 1; fi
    printf 'head\nweb 5 128 1 %s 0.0 uuid-%s - -\n' "$(cat state)" "$3"
    ;;
pause) [ ! -x slow ] || ./slow ;;
esac
"#;

/// Says that it serves, and does until the test kills it.
const SERVE: &str = r#"#!/bin/sh
echo "$@" >>"${0%/*}/serve.log"
[ ! -e "${0%/*}/broken" ] || exit 1
echo '{"schema":1,"type":"virtio.served"}'
exec sleep 1000
"#;

/// Listens, as far as a file can.
const BACKEND: &str = r#"#!/bin/sh
echo "$@" >>"${0%/*}/backend.log"
: >"$1"
exec sleep 1000
"#;

struct Rig {
    folder: tempfile::TempDir,
    nodes: Nodes,
    daemon: Option<Daemon>,
    happened: Vec<(String, Happened)>,
    whys: Vec<String>,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in [("xl", XL), ("serve", SERVE), ("backend", BACKEND)] {
            let path = folder.path().join(name);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        let nodes = Nodes::default();
        nodes.set("/libxl/0/type", "pv");
        let mut rig = Self { folder, nodes, daemon: None, happened: Vec::new(), whys: Vec::new() };
        rig.write("state", "--p---");
        rig.write("config", &rig.config("web"));
        rig.begin();
        rig
    }

    fn config(&self, name: &str) -> String {
        format!(
            "[[guest]]\nname = {name:?}\n[[guest.device]]\ndevice = \"blk,socket={{socket}}\"\ncommand = [{:?}, \
             \"{{socket}}\"]\n[[guest.device]]\ndevice = \"net,tap=tap{{domid}}\"\n",
            self.path("backend")
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What `xl` was asked for, but for what only looks.
    fn xl(&self) -> Vec<String> {
        let log = self.text("xl.log");
        log.lines().filter(|line| !line.starts_with("list")).map(str::to_owned).collect()
    }

    /// Starts a daemon, in place of the one before.
    fn begin(&mut self) {
        self.daemon = None;
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let store = Store::follow(Box::new(Memory { nodes: self.nodes.clone(), fd })).unwrap();
        let rebooted = self.path("rebooted");
        let tools = Tools {
            xl: Xl::named(self.path("xl")),
            reboot: Box::new(move |dom| Ok(std::fs::write(&rebooted, dom.0.to_string())?)),
            serve: vec![OsString::from(self.path("serve"))],
            state: StateDir::open(&self.path("run")).unwrap(),
        };
        let path = self.path("config");
        let config = Config::read(&path).unwrap();
        self.daemon = Some(Daemon::new(store, tools, path, config).unwrap());
        self.turn();
    }

    fn turn(&mut self) {
        self.turn_at(Instant::now());
    }

    fn turn_at(&mut self, now: Instant) {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.turn(now).unwrap();
        for event in daemon.events() {
            self.happened.push((event.name, event.event));
            self.whys.extend(event.why);
        }
    }

    /// Turns until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        loop {
            self.turn();
            if holds(self) {
                return;
            }
            let log = (&self.happened, &self.whys, self.text("xl.log"));
            assert!(begin.elapsed() < Duration::from_secs(60), "not so: {what}; {log:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn count(&self, what: Happened) -> usize {
        self.happened.iter().filter(|(_, happened)| *happened == what).count()
    }

    /// libxl has made a domain.
    fn make(&self, dom: u16, name: &str) {
        self.nodes.set(&format!("/local/domain/{dom}/name"), name);
        self.nodes.set(&format!("/local/domain/{dom}/vm"), &format!("/vm/uuid-{dom}"));
        self.nodes.set(&format!("/libxl/{dom}/type"), "pvh");
    }

    /// It has added its devices.
    fn add(&self, dom: u16, types: &[&str]) {
        for (number, of) in types.iter().enumerate() {
            self.nodes.set(&format!("backend/virtio/{dom}/{number}/type"), of);
            self.nodes.set(&format!("backend/virtio/{dom}/{number}/state"), "1");
        }
        self.nodes.set(&format!("/libxl/{dom}/device/console/0"), "");
    }

    /// It may let the guest run from now on.
    fn open_console(&self, dom: u16) {
        self.nodes.set(&format!("/local/domain/{dom}/console/tty"), "/dev/pts/1");
    }

    /// It destroys the guest.
    fn destroy(&self, dom: u16) {
        self.nodes.remove(&format!("backend/virtio/{dom}"));
        self.nodes.remove(&format!("/local/domain/{dom}"));
        self.nodes.remove(&format!("/libxl/{dom}"));
    }

    fn state(&self, dom: u16, number: usize) -> Option<String> {
        self.nodes.get(&format!("backend/virtio/{dom}/{number}/state"))
    }

    /// The processes of a guest, as its record has them: `serve`, and the first device's backend.
    fn processes(&self, dom: u16) -> (Option<u32>, Option<u32>) {
        let state = StateDir::open(&self.path("run")).unwrap();
        let record =
            state.records().unwrap().into_iter().find(|record| record.domid == dom).unwrap();
        let backend = record.backends.first().copied().flatten();
        (record.server.map(|id| id.pid), backend.map(|id| id.pid))
    }

    /// The first device's backend has accepted its one connection, and listens no more.
    fn connect_once(&self) -> (UnixStream, UnixStream) {
        let socket = self.path("run/5/0/socket");
        // What stands for it.
        while std::fs::remove_file(&socket).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let listener = UnixListener::bind(&socket).unwrap();
        let ends = (UnixStream::connect(&socket).unwrap(), listener.accept().unwrap().0);
        std::fs::remove_file(socket).unwrap();
        ends
    }

    /// Kills the first device's backend; the daemon has started it again when this returns.
    fn kill_backend(&mut self) {
        let before = self.processes(5).1;
        self.kill(before.unwrap());
        self.until("the backend is started again", |rig| {
            rig.processes(5).1.is_some_and(|pid| Some(pid) != before)
        });
    }

    fn kill(&self, pid: u32) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// A guest that is served.
    fn served(dom: u16) -> Self {
        let mut rig = Self::new();
        rig.make(dom, "web");
        rig.turn();
        rig.add(dom, LINES);
        rig.until("it is served", |rig| rig.count(Happened::Served) == 1);
        rig.open_console(dom);
        rig
    }

    /// Ends what it has started. A process that no longer serves ends at once.
    fn finish(mut self, dom: u16) {
        self.destroy(dom);
        if let (Some(server), _) = self.processes(dom) {
            self.kill(server);
        }
        let gone = self.count(Happened::Gone);
        self.until("it is gone", |rig| rig.count(Happened::Gone) == gone + 1);
        let left = std::fs::read_dir(self.path("run")).unwrap().count();
        assert_eq!(left, 0);
    }
}

const LINES: &[&str] = &["virtio,device02", "virtio,device01"];

fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z ")
}

#[test]
fn a_guest_is_paused_at_once_and_let_run_when_it_is_served() {
    let mut rig = Rig::new();
    rig.make(5, "web");
    rig.turn();
    // libxl still builds it.
    assert_eq!(rig.xl(), ["pause 5"]);
    rig.add(5, LINES);
    rig.turn();
    // And perhaps served by now.
    assert_ne!(rig.state(5, 0).as_deref(), Some("1"));
    rig.open_console(5);
    rig.until("it is served", |rig| rig.count(Happened::Served) == 1);
    assert_eq!(rig.xl(), ["pause 5", "unpause 5"]);
    assert_eq!((rig.state(5, 0).as_deref(), rig.state(5, 1).as_deref()), (Some("4"), Some("4")));
    let socket = rig.path("run/5/0/socket");
    let words = format!(
        "--json serve 5 --takeover-time 30 --device blk,socket={} --device net,tap=tap5\n",
        socket.display()
    );
    assert_eq!(rig.text("serve.log"), words);
    assert_eq!(rig.text("backend.log"), format!("{}\n", socket.display()));
    // libxl destroys it: it waits for this state, and then removes the nodes.
    for number in 0..2 {
        rig.nodes.set(&format!("backend/virtio/5/{number}/state"), "5");
    }
    rig.turn();
    assert_eq!((rig.state(5, 0).as_deref(), rig.state(5, 1).as_deref()), (Some("6"), Some("6")));
    let (server, backend) = rig.processes(5);
    rig.finish(5);
    assert!(!is_alive(server.unwrap()) && !is_alive(backend.unwrap()));
}

#[test]
fn a_guest_that_the_file_does_not_name_is_left_alone() {
    let mut rig = Rig::new();
    rig.make(6, "other");
    rig.add(6, LINES);
    rig.turn();
    assert_eq!((rig.xl(), rig.state(6, 0).as_deref()), (vec![], Some("1")));
}

#[test]
fn a_guest_without_lines_is_let_run() {
    let mut rig = Rig::new();
    rig.write("config", &rig.config("*"));
    rig.make(6, "other");
    rig.turn();
    assert_eq!(rig.xl(), ["pause 6"]);
    rig.add(6, &[]);
    rig.turn();
    assert_eq!(rig.xl(), ["pause 6", "unpause 6"]);
    assert_eq!(std::fs::read_dir(rig.path("run")).unwrap().count(), 0);
    rig.open_console(6);
    rig.turn();
    assert_eq!((rig.xl().len(), rig.happened.len()), (2, 0));
}

#[test]
fn a_guest_whose_lines_do_not_fit_stays_paused() {
    for (types, says) in [
        (&["virtio,device02"][..], "has 1 virtio= lines"),
        (&["virtio,device01", "virtio,device02"], "type=virtio,device02"),
        (&["virtio,device02", "virtio,device1"], ""),
    ] {
        let mut rig = Rig::new();
        rig.make(5, "web");
        rig.turn();
        rig.add(5, types);
        rig.open_console(5);
        if says.is_empty() {
            // The digits are a number, however they are written.
            rig.until("it is served", |rig| rig.count(Happened::Served) == 1);
            rig.finish(5);
            continue;
        }
        rig.turn();
        assert_eq!((rig.xl(), rig.count(Happened::Failed)), (vec!["pause 5".to_owned()], 1));
        assert!(rig.whys[0].contains(says), "{:?}", rig.whys);
        rig.finish(5);
    }
}

#[test]
fn a_guest_that_may_have_run_before_it_was_paused_is_made_to_reboot() {
    let mut rig = Rig::new();
    // Meanwhile libxl is done.
    let tty = rig.path("tty");
    rig.write("slow", &format!("#!/bin/sh\n: >{}\n", tty.display()));
    std::fs::set_permissions(rig.path("slow"), Permissions::from_mode(0o755)).unwrap();
    let nodes = rig.nodes.clone();
    let libxl = std::thread::spawn(move || {
        while !tty.exists() {
            std::thread::yield_now();
        }
        nodes.set("/local/domain/5/console/tty", "/dev/pts/1");
    });
    rig.write("slow", &format!("{}sleep 1\n", rig.text("slow")));
    rig.make(5, "web");
    rig.turn();
    libxl.join().unwrap();
    rig.add(5, LINES);
    rig.turn();
    assert_eq!((rig.xl(), rig.count(Happened::Failed)), (vec!["pause 5".to_owned()], 1));
    assert!(rig.whys[0].contains("may have run"), "{:?}", rig.whys);
    assert_eq!(rig.text("rebooted"), "5");
    rig.finish(5);
}

#[test]
fn of_the_guests_that_were_there_those_that_have_not_run_are_served() {
    for (state, served) in [("--p---", true), ("-b----", false)] {
        let mut rig = Rig::new();
        rig.daemon = None;
        rig.write("state", state);
        rig.make(5, "web");
        rig.add(5, LINES);
        rig.open_console(5);
        rig.begin();
        if served {
            rig.until("it is served", |rig| rig.count(Happened::Served) == 1);
            assert_eq!(rig.xl(), ["pause 5", "unpause 5"]);
        } else {
            assert!(rig.xl().is_empty() && rig.whys[0].contains("runs already"), "{:?}", rig.whys);
            // Its end waits for no backend.
            rig.nodes.set("backend/virtio/5/1/state", "5");
            rig.turn();
            assert_eq!(rig.state(5, 1).as_deref(), Some("6"));
        }
        rig.finish(5);
    }
}

#[test]
fn what_ends_is_started_again() {
    let mut rig = Rig::served(5);
    let (server, _) = rig.processes(5);
    rig.kill_backend();
    assert_eq!((rig.count(Happened::BackendEnded), rig.processes(5).0), (1, server));
    rig.kill(server.unwrap());
    rig.until("it is served again", |rig| rig.count(Happened::Served) == 2);
    assert_eq!(rig.count(Happened::ServeEnded), 1);
    // Nothing is waited for, of the device without a command neither.
    assert_eq!(rig.daemon.as_ref().unwrap().deadline(Instant::now()), None);
    // It runs: it is not let run once more than it was paused.
    assert_eq!(rig.xl(), ["pause 5", "unpause 5"]);
    rig.finish(5);
}

#[test]
fn a_backend_that_serves_one_connection_listens_no_more() {
    let mut rig = Rig::served(5);
    let (server, backend) = rig.processes(5);
    std::fs::remove_file(rig.path("run/5/0/socket")).unwrap();
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    rig.begin();
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    assert_eq!((rig.count(Happened::BackendEnded), rig.processes(5).1), (0, backend));
    // What serves the guest next connects to it, if its connection was not kept.
    rig.kill(server.unwrap());
    rig.until("serve has ended", |rig| rig.count(Happened::ServeEnded) == 1);
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    assert!(rig.whys.last().unwrap().contains("does not listen"), "{:?}", rig.whys);
    rig.until("it is served again", |rig| rig.count(Happened::Served) == 2);
    rig.finish(5);
}

#[test]
fn a_backend_that_serve_has_connected_to_before_it_was_looked_at_is_not_waited_for() {
    let mut rig = Rig::served(5);
    rig.kill_backend();
    let connection = rig.connect_once();
    let backend = rig.processes(5).1;
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    assert_eq!((rig.count(Happened::BackendEnded), rig.processes(5).1), (1, backend));
    drop(connection);
    rig.finish(5);
}

#[test]
fn a_backend_that_hangs_before_it_listens_is_ended_also_while_serve_runs() {
    let mut rig = Rig::served(5);
    rig.write("backend", "#!/bin/sh\nexec sleep 1000\n");
    let (server, _) = rig.processes(5);
    rig.kill_backend();
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    assert!(rig.whys.last().unwrap().contains("does not listen"), "{:?}", rig.whys);
    assert_eq!(rig.processes(5).0, server);
    rig.finish(5);
}

#[test]
fn a_backend_whose_connection_is_kept_need_not_listen_for_the_next_serve() {
    let mut rig = Rig::served(5);
    let (server, backend) = rig.processes(5);
    let connection = rig.connect_once();
    rig.turn();
    rig.kill(server.unwrap());
    rig.until("it is served again", |rig| rig.count(Happened::Served) == 2);
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    assert_eq!((rig.count(Happened::BackendEnded), rig.processes(5).1), (0, backend));
    // Also if the daemon was killed with it.
    let server = rig.processes(5).0;
    rig.daemon = None;
    rig.kill(server.unwrap());
    rig.begin();
    rig.until("it is served once more", |rig| rig.count(Happened::Served) == 3);
    rig.turn_at(Instant::now() + 2 * PATIENCE);
    assert_eq!((rig.count(Happened::BackendEnded), rig.processes(5).1), (0, backend));
    drop(connection);
    rig.finish(5);
}

#[test]
fn a_guest_that_has_run_is_served_again_whatever_one_of_its_backends_does() {
    let mut rig = Rig::served(5);
    rig.write("backend", "#!/bin/sh\nexit 1\n");
    let (server, backend) = rig.processes(5);
    rig.kill(backend.unwrap());
    rig.until("the backend fails", |rig| rig.count(Happened::BackendEnded) == 3);
    rig.kill(server.unwrap());
    rig.until("it is served again", |rig| rig.count(Happened::Served) == 2);
    // Nothing of the backend is looked at before it is started again.
    let failed = rig.count(Happened::BackendEnded);
    let mut now = Instant::now();
    while rig.count(Happened::BackendEnded) == failed {
        std::thread::sleep(Duration::from_millis(5));
        now = Instant::now();
        rig.turn_at(now);
    }
    let deadline = rig.daemon.as_ref().unwrap().deadline(now).unwrap();
    assert!(deadline > now + Duration::from_millis(60), "{:?}", deadline - now);
    rig.finish(5);
}

#[test]
fn what_ends_again_and_again_is_given_up() {
    let mut rig = Rig::new();
    rig.write("broken", "");
    rig.make(5, "web");
    rig.turn();
    rig.add(5, LINES);
    // It is waited for longer and longer, which takes no time here.
    let (begin, mut now) = (Instant::now(), Instant::now());
    while rig.count(Happened::Failed) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is not given up");
        rig.turn_at(now);
        if rig.processes(5).0.is_none() {
            now += Duration::from_millis(100);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.text("serve.log").lines().count(), 9);
    assert_eq!((rig.count(Happened::ServeEnded), rig.xl()), (9, vec!["pause 5".to_owned()]));
    assert!(rig.whys.last().unwrap().contains("too often"), "{:?}", rig.whys);
    // The end of its backend is noticed once.
    rig.kill(rig.processes(5).1.unwrap());
    rig.until("nothing runs", |rig| rig.processes(5) == (None, None));
    assert_eq!(rig.daemon.as_ref().unwrap().fds().len(), 1, "xenstore alone");
    rig.finish(5);
}

#[test]
fn a_serve_that_waits_for_a_backend_is_looked_at_now_and_then() {
    let mut rig = Rig::new();
    rig.write("broken", "");
    rig.make(5, "web");
    rig.turn();
    rig.add(5, LINES);
    rig.until("serve has failed", |rig| rig.count(Happened::ServeEnded) == 1);
    std::fs::remove_file(rig.path("run/5/0/socket")).unwrap();
    std::fs::remove_file(rig.path("broken")).unwrap();
    // By then it is due.
    let now = Instant::now() + PATIENCE / 2;
    rig.turn_at(now);
    assert!(rig.daemon.as_ref().unwrap().deadline(now).unwrap() > now);
    assert_eq!(rig.text("serve.log").lines().count(), 1);
    rig.write("run/5/0/socket", "");
    rig.until("it is served", |rig| rig.count(Happened::Served) == 1);
    rig.finish(5);
}

#[test]
fn without_news_nothing_is_asked_of_xenstore() {
    let mut rig = Rig::served(5);
    rig.turn();
    let next = Some((0, "/libxl/5/never".to_owned()));
    rig.nodes.1.lock().unwrap().clone_from(&next);
    rig.turn();
    assert_eq!(*rig.nodes.1.lock().unwrap(), next);
    rig.finish(5);
}

#[test]
fn the_next_daemon_takes_up_what_the_one_before_has_started() {
    let mut rig = Rig::served(5);
    let before = rig.processes(5);
    rig.begin();
    assert_eq!(rig.processes(5), before);
    // Its children are none of this daemon's.
    let (server, _) = before;
    rig.kill(server.unwrap());
    rig.until("it is served again", |rig| rig.count(Happened::Served) == 2);
    assert_eq!((rig.xl().len(), rig.text("serve.log").lines().count()), (2, 2));
    rig.finish(5);
}

#[test]
fn a_daemon_that_was_killed_while_it_paused_a_guest_does_not_trust_it() {
    let mut rig = Rig::new();
    rig.make(5, "web");
    rig.turn();
    let record = rig.text("run/5/guest");
    rig.daemon = None;
    rig.write("run/5/guest", &record.replace("\"pause\":\"yes\"", "\"pause\":\"begun\""));
    assert_ne!(rig.text("run/5/guest"), record);
    rig.begin();
    rig.add(5, LINES);
    rig.turn();
    assert_eq!((rig.xl(), rig.count(Happened::Failed)), (vec!["pause 5".to_owned(); 2], 1));
    assert_eq!(rig.text("rebooted"), "5");
    rig.finish(5);
}

#[test]
fn a_guest_that_reboots_waits_for_the_end_of_what_served_it() {
    let mut rig = Rig::served(5);
    let (server, _) = rig.processes(5);
    rig.destroy(5);
    rig.make(6, "web");
    rig.turn();
    rig.add(6, LINES);
    rig.turn();
    assert_eq!(rig.count(Happened::Held), 1, "its backends would have the same files");
    rig.kill(server.unwrap());
    rig.until("it is served", |rig| rig.count(Happened::Served) == 2);
    let position = |what| rig.happened.iter().rposition(|(_, happened)| *happened == what);
    assert!(position(Happened::Gone) < position(Happened::Held), "{:?}", rig.happened);
    rig.finish(6);
}

#[test]
fn a_guest_that_only_xenstore_has_forgotten_is_served_on() {
    let mut rig = Rig::served(5);
    let (server, backend) = rig.processes(5);
    let (server, backend) = (server.unwrap(), backend.unwrap());
    // xenstored was started anew, and has nothing of it.
    rig.destroy(5);
    for time in 1..4 {
        rig.turn_at(Instant::now() + time * 2 * END_TIMEOUT);
        rig.begin();
    }
    rig.turn_at(Instant::now() + 2 * END_TIMEOUT);
    std::thread::sleep(Duration::from_millis(50));
    assert!(is_alive(server) && is_alive(backend));
    assert_eq!(rig.count(Happened::Gone), 0);
    // A `serve` that does not end with its guest is ended.
    rig.write("gone", "");
    rig.turn_at(Instant::now() + 5 * END_TIMEOUT);
    rig.until("it is gone", |rig| rig.count(Happened::Gone) == 1);
    assert!(!is_alive(server) && !is_alive(backend));
}

#[test]
fn a_file_with_a_mistake_does_not_count() {
    let mut rig = Rig::new();
    rig.write("config", "guest = 1");
    rig.make(5, "web");
    rig.turn();
    rig.add(5, LINES);
    rig.until("it is served", |rig| rig.count(Happened::Served) == 1);
    rig.finish(5);
}

#[test]
fn there_is_one_daemon_for_a_state_directory() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let lock = state.lock().unwrap();
    let refused = state.lock().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(refused.to_string(), std::process::id().to_string());
    drop(lock);
    state.lock().unwrap();
}

#[test]
fn a_socket_lies_in_a_directory_of_its_user() {
    let rig = Rig::served(5);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&rig.path("run/5")), mode(&rig.path("run/5/0"))), (0o755, 0o700));
    let state = StateDir::open(&rig.path("run")).unwrap();
    assert_eq!(state.records().unwrap()[0].phase, Phase::Served);
    rig.finish(5);
}

/// What libxl writes of an Arm guest's lines (`libxl_virtio.c`).
fn arm_guest(lines: &[(&str, &str)]) -> crate::error::Result<Vec<MmioPlace>> {
    let nodes = Nodes::default();
    for (number, (base, irq)) in lines.iter().enumerate() {
        nodes.set(&format!("backend/virtio/5/{number}/base"), base);
        nodes.set(&format!("backend/virtio/5/{number}/irq"), irq);
    }
    let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    places(&mut Memory { nodes, fd }, DomId(5))
}

#[test]
fn the_devices_of_an_arm_guest_are_where_libxl_has_put_them() {
    let lines = [("0x2000000", "33"), ("0x2000200", "34")];
    let expected = [(0x200_0000, 33), (0x200_0200, 34)];
    let expected = expected.map(|(base, spi)| MmioPlace { base, spi });
    assert_eq!(arm_guest(&lines).unwrap(), expected);
    assert_eq!(arm_guest(&[]).unwrap(), []);
}

#[test]
fn a_line_without_a_place_of_its_own_is_named() {
    for second in [("0", "0"), ("0x2000200", "0"), ("0x2000000", "34"), ("33554432", "33")] {
        let error = arm_guest(&[("0x2000000", "33"), second]).unwrap_err().to_string();
        for part in ["device 1", "transport=mmio", second.0, second.1] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn what_comes_during_a_request_to_xenstore_is_not_forgotten() {
    for transactions in 0..8 {
        let mut rig = Rig::new();
        rig.make(5, "web");
        rig.turn();
        rig.add(5, LINES);
        // The last node of its devices comes while the daemon writes their states.
        let console = "/libxl/5/device/console/0";
        rig.nodes.remove(console);
        *rig.nodes.1.lock().unwrap() = Some((transactions, console.to_owned()));
        rig.turn();
        let has_come = rig.nodes.1.lock().unwrap().is_none();
        assert_eq!(rig.count(Happened::Held), usize::from(has_come), "{transactions}");
        assert!(has_come || transactions > 1);
        rig.until("it is served", |rig| {
            rig.nodes.set("/libxl/5/device/console/0", "");
            rig.count(Happened::Served) == 1
        });
        rig.finish(5);
    }
}
