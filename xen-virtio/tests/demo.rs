//! The demonstration, as a user runs it.

use std::process::{Command, Output, Stdio};

fn demo(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-virtio"));
    command.arg("demo").args(words).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn all_blocks_come_back_and_xen_virtio_sleeps_while_data_flows() {
    let done = demo(&["--json", "--blocks", "300"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let number = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert_eq!((&report["schema"], &report["type"]), (&1.into(), &"virtio.demo".into()));
    assert_eq!([number("requests"), number("completed"), number("lost")], [600, 600, 0]);
    assert_eq!([number("blocks"), number("equal"), number("different")], [300, 300, 0]);
    assert_eq!(number("wakeups"), 0);
    assert_eq!(number("kicks"), number("kicks_delivered"));
    // One request at a time: there is no other reason to wake up than its end.
    assert_eq!(number("interrupts"), 600);
    assert!((1..=600).contains(&number("kicks")));
    assert!(number("register_accesses") > 0);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_ne!(number("backend_pid"), 0);
}

#[test]
fn it_tells_a_newcomer_what_happened() {
    let done = demo(&["--blocks", "8"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let said = text(&done.stdout);
    for part in ["A virtio disk for a guest of Xen", "All blocks came back", "virtio-drivers"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(text(&done.stderr).is_empty(), "{}", text(&done.stderr));
}

#[test]
fn a_number_that_is_none_is_a_mistake_of_the_command_line() {
    for words in [["--blocks", "many"], ["--blocks", "100001"]] {
        let done = demo(&words);
        assert_eq!(done.status.code(), Some(2));
        assert!(text(&done.stderr).contains("--blocks"), "{}", text(&done.stderr));
    }
}

/// The process that another one has started, once there is one.
fn child_of(parent: u32) -> u32 {
    let parent = format!(" {parent} ");
    loop {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // After the name and the state comes the parent.
            let of_parent =
                stat.rsplit_once(')').is_some_and(|(_, rest)| rest[2..].starts_with(&parent));
            if of_parent {
                return id;
            }
        }
    }
}

#[test]
fn a_backend_that_is_killed_is_named_and_nothing_waits_for_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-virtio"));
    command.args(["demo", "--blocks", "100000"]).stdin(Stdio::null());
    let demo = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let backend = child_of(demo.id());
    // Data flows by then; if not yet, it is another message.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let pid = rustix::process::Pid::from_raw(backend.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let done = demo.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("disk has failed"), "{}", text(&done.stderr));
}
