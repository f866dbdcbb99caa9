//! The command line: mistakes, the man page and completion, as of `xen-eventfd`.

use std::process::{Command, Output, Stdio};

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
