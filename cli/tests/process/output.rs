//! Nothing depends on standard output and standard error.

use crate::on_model::{OnModel, until};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};

const KICK: &str = "mmio:0xfe000050:4:3";
/// Waits for two kicks, one after the other. It keeps nothing of its standard output.
const BACKEND: &str = "exec >/dev/null 2>&1; dd bs=8 count=1 <&3; : >$DIR/first; \
                       dd bs=8 count=1 <&3; exit 5";

/// Runs the backend, has it kicked, and expects its exit code.
fn serves(script: &str, more: impl FnOnce(&mut Command)) {
    let words = ["--json", "-vvv", "run", "guest", "--kick", KICK, "--", "sh", "-c", BACKEND];
    let mut run = OnModel::start_as(&words, script, more);
    assert_eq!(run.order("served 1"), "done");
    assert_eq!(run.order("kick 1 3"), "done");
    let first = run.file("first");
    until("the backend has its first kick", || first.exists());
    // A value for which there is no eventfd, so that more is reported of it.
    assert_eq!(run.order("kick 1 4"), "done");
    assert_eq!(run.order("kick 1 3"), "done");
    assert_eq!(run.end().code(), Some(5), "the code is the backend's");
}

const PLAIN: &str = "exec \"$0\" \"$@\"";

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// The end of a pipe that nothing reads.
fn unread(readers: &mut Vec<OwnedFd>) -> OwnedFd {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, OFlags::empty()).unwrap();
    readers.push(reader);
    writer
}

fn reader_gone() -> Stdio {
    pipe_with(PipeFlags::CLOEXEC).unwrap().1.into()
}

#[test]
fn run_serves_its_backend_on_a_full_disk() {
    serves(PLAIN, |command| _ = command.stdout(full()).stderr(full()));
}

#[test]
fn run_serves_its_backend_when_its_readers_are_gone() {
    serves(PLAIN, |command| _ = command.stdout(reader_gone()).stderr(reader_gone()));
}

#[test]
fn run_serves_its_backend_without_standard_descriptors() {
    serves("exec \"$0\" \"$@\" <&- >&- 2>&-", |_| ());
}

#[test]
fn run_serves_its_backend_when_nothing_reads_what_it_writes() {
    let mut readers = Vec::new();
    let ends = [unread(&mut readers), unread(&mut readers)];
    serves(PLAIN, |command| {
        let [out, err] = ends;
        command.stdout(out).stderr(err);
        // What is built for coverage complains at its end about counts that a killed program has damaged: to
        // standard error, and waits for its reader.
        command.env("LLVM_PROFILE_FILE", "/dev/null");
    });
}

#[test]
fn run_serves_its_backend_when_a_file_may_not_grow() {
    // 4 KiB are enough for what the engine keeps, and are used up in these.
    let script = "for file in out err; do head -c 4096 /dev/zero >$DIR/$file; done; ulimit -f 8; \
                  exec \"$0\" \"$@\" >>$DIR/out 2>>$DIR/err";
    serves(script, |_| ());
}

#[test]
fn a_descriptor_that_does_not_block_is_waited_for() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    // More than a pipe holds.
    let mut child = Command::new(env!("CARGO_BIN_EXE_xen-eventfd"))
        .args(["completion", "zsh"])
        .stdin(Stdio::null())
        .stdout(full_until_read(writer))
        .spawn()
        .unwrap();
    let mut script = Vec::new();
    std::io::Read::read_to_end(&mut File::from(reader), &mut script).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(String::from_utf8_lossy(&script).contains("xen-eventfd"));
}

/// Fills a pipe, so that the next write finds no room.
fn full_until_read(writer: OwnedFd) -> Stdio {
    while rustix::io::write(&writer, b"# filled by the test\n").is_ok() {}
    writer.into()
}

#[test]
fn watch_ends_with_its_reader_and_gives_the_doorbell_back() {
    let words = ["--json", "watch", "guest", "0xfe000050", "--take"];
    let mut watch = OnModel::start_as(&words, PLAIN, |command| _ = command.stdout(reader_gone()));
    // Without a kick that it could fail to print.
    assert_eq!(watch.end().code(), Some(141));
}

#[test]
fn watch_that_is_not_read_ends_by_a_signal() {
    let mut readers = Vec::new();
    let out = unread(&mut readers);
    let words = ["--json", "watch", "guest", "0xfe000050", "--take"];
    let mut watch = OnModel::start_as(&words, PLAIN, |command| _ = command.stdout(out));
    assert_eq!(watch.order("served 1"), "done");
    for value in 0..3 {
        assert_eq!(watch.order(&format!("kick 1 {value}")), "done");
    }
    watch.signal(rustix::process::Signal::TERM);
    assert_eq!(watch.end().code(), Some(0));
}

/// Commands that print something and end by themselves.
const PRINTING: [&[&str]; 8] = [
    &["list"],
    &["top", "--plain", "--interval", "0.1", "--count", "2"],
    &["doctor"],
    &["completion", "bash"],
    &["man"],
    &["demo", "--kicks", "200"],
    &["--json", "demo", "--kicks", "200"],
    &["--help"],
];

fn output(words: &[&str], stdout: Stdio, stderr: Stdio) -> Output {
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-eventfd"));
    command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    if matches!(words[0], "list" | "top") {
        command.arg("--root").arg(root.path());
    }
    command.output().unwrap()
}

#[test]
fn every_command_ends_quietly_when_its_reader_is_gone() {
    for words in PRINTING {
        let Output { status, stderr, .. } = output(words, reader_gone(), Stdio::piped());
        let said = String::from_utf8_lossy(&stderr);
        let expected = if words == ["--help"] { 0 } else { 141 };
        assert_eq!((status.code(), &*said), (Some(expected), ""), "{words:?}");
    }
}

#[test]
fn every_command_says_that_a_disk_is_full() {
    for words in PRINTING.into_iter().filter(|words| words[0] != "--help") {
        let Output { status, stderr, .. } = output(words, full(), Stdio::piped());
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("cannot write") && !said.contains("panic"), "{words:?}: {said}");
    }
}

#[test]
fn no_command_panics_for_want_of_standard_error() {
    let wrong: [&[&str]; 4] = [&["frob"], &["guard"], &["man", "frob"], &["list"]];
    for words in wrong {
        let code = output(words, full(), full()).status.code();
        assert!(matches!(code, Some(1..=3)), "{words:?}: {code:?}");
    }
}

#[test]
fn poll_tells_that_a_reader_is_gone() {
    // What `watch` relies on.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    let mut watched = [PollFd::new(&writer, PollFlags::empty())];
    poll(&mut watched, None).unwrap();
    assert!(watched[0].revents().contains(PollFlags::ERR));
}
