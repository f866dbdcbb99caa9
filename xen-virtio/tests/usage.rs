//! The command line: mistakes, the man page and completion, as of `xen-eventfd`.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use xen_eventfd_vhost::linux::Tap;

fn xen_virtio(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-virtio"));
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_mistake_is_an_object_for_who_asks_for_objects() {
    for words in [&["--json"][..], &["demo", "--json", "--blocks", "many"], &["--json", "serf"]] {
        let done = xen_virtio(words);
        assert_eq!(done.status.code(), Some(2), "{words:?}");
        let object: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
        assert_eq!((&object["type"], &object["exit"]), (&"error".into(), &2.into()), "{words:?}");
        let error = object["error"].as_str().unwrap();
        assert!(!error.contains("xen-eventfd") && !error.contains('\n'), "{error}");
    }
    let done = xen_virtio(&["--json"]);
    assert!(str::from_utf8(&done.stderr).unwrap().contains("xen-virtio --help"));
}

#[test]
fn the_man_page_and_the_completion_are_of_this_program() {
    let page = xen_virtio(&["man"]);
    let page = str::from_utf8(&page.stdout).unwrap();
    assert!(page.contains(".TH xen-virtio") && page.contains("demo"), "{page}");
    let done = xen_virtio(&["man", "run"]);
    assert_eq!(done.status.code(), Some(2), "a command of the other program has a page");
    let script = xen_virtio(&["completion", "bash"]);
    let script = str::from_utf8(&script.stdout).unwrap();
    assert!(script.contains("xen-virtio") && !script.contains("xen-eventfd"), "{script}");
}

/// What a command that creates or serves a guest says, with this as its standard input.
fn refused(words: &[&str], device: &str, input: impl Into<Stdio>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-virtio"));
    let done = command.args(words).args(["--device", device]).stdin(input).output().unwrap();
    assert!(!done.status.success(), "{words:?}");
    String::from_utf8(done.stderr).unwrap()
}

#[test]
fn a_descriptor_is_looked_at_before_this_process_opens_anything() {
    for words in [["serve", "guest"], ["start", "guest.cfg"]] {
        let said = refused(&words, "net,fd=0", Stdio::null());
        assert!(said.contains("net,fd=0: cannot use descriptor 0 as a tap device"), "{said}");
        assert!(said.contains("it is no open tap device"), "{said}");
        // Numbers that it would give to what it opens itself, unless it has inherited them.
        let is_free = |number: &u32| !Path::new(&format!("/proc/self/fd/{number}")).exists();
        for number in (3..).filter(is_free).take(4) {
            let said = refused(&words, &format!("net,fd={number}"), Stdio::null());
            assert!(said.contains("must leave it open"), "{said}");
        }
        if let Ok(taps) = Tap::open("xevusage%d", 1) {
            let tap = taps[0].as_fd().try_clone_to_owned().unwrap();
            let said = refused(&words, "net,fd=0", tap);
            assert!(!said.contains("descriptor"), "{said}");
        }
    }
}
