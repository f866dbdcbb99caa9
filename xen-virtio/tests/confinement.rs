//! What a process that serves a guest has given up. In dom0 of the lab (`cargo xtask devices rights`) the kernel has all
//! of Landlock that is asked for.

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::Uid;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use xen_eventfd_host::Signaller;
use xen_virtio::confinement::{Capabilities, confine, give_up_capabilities};

/// Set in the process that is confined, with its folder.
const FOLDER: &str = "CONFINED_FOLDER";
/// Set where the kernel has all that is asked for.
const WHOLLY: &str = "CONFINED_WHOLLY";

/// Runs this test again in a process of its own, which it is to confine.
#[test]
fn what_was_given_up_cannot_be_had_again() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return given_up(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "what_was_given_up_cannot_be_had_again";
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", name])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

fn given_up(folder: &Path) {
    let (run_dir, sockets) = (folder.join("run"), folder.join("sockets"));
    let elsewhere = folder.join("elsewhere");
    for folder in [&run_dir, &sockets, &elsewhere] {
        fs::create_dir(folder).unwrap();
    }
    let socket = sockets.join("backend");
    // One that is known by a link elsewhere, and one in the folder where the process is.
    let [linked, link, here] = ["linked", "link", "here"].map(|name| folder.join(name));
    for folder in [&linked, &link, &here] {
        fs::create_dir(folder).unwrap();
    }
    let (linked, link) = (linked.join("backend"), link.join("backend"));
    std::os::unix::fs::symlink(&linked, &link).unwrap();
    std::env::set_current_dir(&here).unwrap();
    let listeners = [&socket, &linked, &here.join("backend"), &elsewhere.join("other")]
        .map(|path| UnixListener::bind(path).unwrap());
    fs::write(elsewhere.join("file"), "").unwrap();
    // A thread that runs already is confined as well.
    let (go, gone) = (channel::<()>(), channel());
    let (path, begin, end) = (elsewhere.clone(), go.1, gone.0);
    let thread = std::thread::spawn(move || {
        begin.recv().unwrap();
        end.send((
            File::open(path.join("file")).is_err(),
            TcpListener::bind("127.0.0.1:0").is_err(),
        ))
    });
    let served = [socket, link, PathBuf::from("backend")];
    give_up_capabilities(Capabilities::Connect).unwrap();
    let capabilities = || rustix::thread::capabilities(None).unwrap();
    let most = CapabilitySet::DAC_OVERRIDE;
    let is_left = move |sets: CapabilitySets| {
        most.contains(sets.effective)
            && most.contains(sets.permitted)
            && sets.inheritable.is_empty()
    };
    assert!(is_left(capabilities()));
    if rustix::process::geteuid().is_root() {
        assert_eq!(capabilities().effective, most);
    }
    assert!(std::thread::spawn(move || is_left(capabilities())).join().unwrap());
    // What root has for the asking.
    let another = Uid::from_raw(12345);
    assert!(rustix::fs::chown(elsewhere.join("file"), Some(another), None).is_err());
    let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let confinement = confine(&run_dir, &served).unwrap();
    assert!(confinement.system_calls);
    let wholly = std::env::var_os(WHOLLY).is_some();
    assert!(!wholly || confinement.files && confinement.sockets, "{confinement:?}");
    go.0.send(()).unwrap();
    let (file, listener) = gone.1.recv().unwrap();
    assert_eq!((file, listener), (confinement.files, true));
    thread.join().unwrap().unwrap();

    // What is still had.
    fs::write(run_dir.join("record"), "text").unwrap();
    fs::rename(run_dir.join("record"), run_dir.join("other")).unwrap();
    fs::remove_file(run_dir.join("other")).unwrap();
    assert!(fs::read_dir("/proc/self/fdinfo").unwrap().next().is_some());
    for socket in &served {
        UnixStream::connect(socket).unwrap();
    }
    let works = || {
        let again = rustix::io::fcntl_dupfd_cloexec(&eventfd, 3).unwrap();
        xen_eventfd_host::features::fdinfo(again.as_fd()).unwrap();
        let mut signaller = xen_eventfd_host::aio::Context::new().unwrap();
        signaller.signal(again.as_fd()).unwrap();
        assert!(xen_eventfd_host::features::take(again.as_fd()).unwrap());
    };
    std::thread::scope(|threads| threads.spawn(works).join().unwrap());
    std::thread::spawn(|| {}).join().unwrap();

    // What is not.
    assert!(Command::new("/bin/true").status().is_err());
    assert!(TcpListener::bind("127.0.0.1:0").is_err());
    assert!(rustix::process::test_kill_process(rustix::process::getppid().unwrap()).is_err());
    assert!(rustix::process::chroot("/").is_err());
    assert_eq!(File::open("/etc/passwd").is_err(), confinement.files);
    assert_eq!(fs::write(elsewhere.join("new"), "").is_err(), confinement.files);
    assert_eq!(UnixStream::connect(elsewhere.join("other")).is_err(), confinement.sockets);
    drop(listeners);
}
