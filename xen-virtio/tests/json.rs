//! What a command prints with `--json` is an object of the documented schema.

use std::process::{Command, Stdio};
use xen_eventfd_docs::schema::Schema;

#[test]
fn what_comes_of_a_command_is_an_object_of_the_schema() {
    let mut schema = Schema::default();
    let run_dir = tempfile::tempdir().unwrap();
    let config = run_dir.path().join("virtio.toml");
    let device = "[[guest]]\nname = \"web\"\n[[guest.device]]\ndevice = \"net,tap=tap0\"\n";
    std::fs::write(&config, device).unwrap();
    let run_dir = run_dir.path().to_str().unwrap();
    for (words, printed, exit) in [
        (&["demo", "--blocks", "8"][..], "virtio.demo", 0),
        (&["list", "--run-dir", run_dir], "virtio.list", 0),
        (&["top", "--count", "1", "--interval", "1ms", "--run-dir", run_dir], "virtio.top", 0),
        (&["check", config.to_str().unwrap()], "virtio.check", 0),
        (&["check", "/no/such/file"], "virtio.check", 1),
        (&["man"], "man", 0),
        (&["completion", "bash"], "completion", 0),
        (&["--help"], "help", 0),
        (&["--version"], "version", 0),
        (&["demo", "--blocks", "many"], "error", 2),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xen-virtio"));
        let done = command.arg("--json").args(words).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, err) = (text(done.stdout), text(done.stderr));
        assert_eq!(done.status.code(), Some(exit), "{words:?}: {err}");
        assert_eq!(schema.lines(&(out + &err)), [printed], "{words:?}");
    }
    // What needs a guest of real Xen is held against the schema in `src/commands/tests.rs`, and in the lab.
    let real = ["virtio.served", "virtio.ended", "virtio.show", "virtio.follows", "virtio.event"];
    let unseen = schema.unseen();
    assert!(
        unseen.iter().all(|kind| !kind.starts_with("virtio.") || real.contains(&&**kind)),
        "no command printed {unseen:?}"
    );
}
