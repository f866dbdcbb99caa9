//! Whatever comes of a command with `--json` is an object of the documented schema.

use crate::on_model::{OnModel, until};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use xen_eventfd_cli::json::{GREATEST, SCHEMA};
use xen_eventfd_docs::schema::{self, Schema};

const KICK: &str = "mmio:0xfe000050:4:3";

/// All that a command prints, and its exit code.
fn output(words: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xen-eventfd"));
    let output = command.args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// The module serves guest 3, whose counters are at their end, and 4 by the privcmd ABI; a
/// living process holds guest 5; one that died has left guest 6.
fn host() -> (tempfile::TempDir, fs::File) {
    let tree = tempfile::tempdir().unwrap();
    let shown = tree.path().join("sys/kernel/debug/xen-eventfd");
    fs::create_dir_all(&shown).unwrap();
    let max = u64::MAX;
    let text = format!(
        "dom:\t3\ninterface:\tnative\nowner:\t412 my \"backend\"\nserver:\t7\nvcpus:\t2\n\
         delivered:\t{max}\nheld:\t1\nodd:\t4\n\
         doorbell:\tmmio 0xfffffffffffffff0 len 8 value {max:#x} mask {max:#x} kicks {max} held 1 odd 3\n\
         doorbell:\tpio 0x50 span 4 any kicks 1 held 0 odd 0\n\
         waiting:\tmmio 0xfe000050 len 4 value 0x9\n\
         irq:\tmsi 0xfee00000 0x41 raised 3 failed 0\nirq:\tisa 5 pulse raised 0 failed 0 masked 1 pending 1\n\
         irq:\tintx 3.1 level raised 0 failed 0\nirq:\tchannel 5 raised 10 failed 0\n\
         channel:\t7 signals {max}\n"
    );
    fs::write(shown.join("3"), text).unwrap();
    fs::write(
        shown.join("4"),
        "dom:\t4\ninterface:\tprivcmd\nowner:\t0 b\nowner-state:\tended\nserver:\t6\n",
    )
    .unwrap();
    let run = tree.path().join("run/xen-eventfd");
    fs::create_dir_all(&run).unwrap();
    let me = format!("process {} (me), userspace engine\n", std::process::id());
    fs::write(run.join("5.lock"), me).unwrap();
    let lock = fs::File::open(run.join("5.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let record = r#"{"domid":6,"uuid":null,"created":[],"server":{"id":7,"ports":[4]},"held":[]}"#;
    fs::write(run.join("6.json"), record).unwrap();
    (tree, lock)
}

/// `watch`, with one kick; and `run`, whose backend ends with 7, and whose backend cannot be started.
fn on_model(schema: &mut Schema) {
    let start = |words: &[&str], script: &str| {
        let script = format!("{script} >$DIR/out 2>$DIR/err");
        OnModel::start_as(words, &script, |_| ())
    };
    let mut watch = start(
        &["watch", "guest", "0xfe000050", "--take", "--count", "1", "--json"],
        "exec \"$0\" \"$@\"",
    );
    watch.order("served 1");
    watch.order("kick 1 7");
    assert_eq!(watch.end().code(), Some(0));
    assert_eq!(schema.lines(&watch.text("out")), ["watch.started", "watch.kick", "watch.ended"]);
    let kick: Value = serde_json::from_str(watch.text("out").lines().nth(1).unwrap()).unwrap();
    assert_eq!((&kick["addr"], &kick["value"]), (&"0xfe000050".into(), &"0x7".into()));

    let run = ["--json", "-vvv", "run", "guest", "--kick", KICK, "--"];
    let mut ends = start(&[&run[..], &["sh", "-c", "exit 7"]].concat(), "exec \"$0\" \"$@\"");
    assert_eq!(ends.end().code(), Some(7));
    assert_eq!(schema.lines(&ends.text("out")), ["run.started", "run.ended"]);
    schema.lines(&ends.text("err"));

    let mut absent = start(&[&run[..], &["/nonesuch"]].concat(), "exec \"$0\" \"$@\"");
    assert_eq!(absent.end().code(), Some(127));
    schema.lines(&absent.text("out"));
    assert!(schema.lines(&absent.text("err")).contains(&"error".to_owned()));

    let records = "mkdir -m 700 $DIR/run; for dom in 1 6; do \
        printf '{\"domid\":%s,\"uuid\":null,\"created\":[],\"server\":{\"id\":7,\"ports\":[4]},\"held\":[]}' \
        $dom >$DIR/run/$dom.json; done; exec \"$0\" \"$@\"";
    let mut reap = start(&["reap", "--json"], records);
    assert_eq!(reap.end().code(), Some(0));
    assert_eq!(schema.lines(&reap.text("out")), ["reap"]);
    assert_eq!(reap.text("out").matches("domid").count(), 2, "{}", reap.text("out"));

    let waits = ["--json", "run", "absent", "--wait=100ms", "--kick", KICK, "--", "true"];
    let mut waits = start(&waits, "exec \"$0\" \"$@\"");
    assert_eq!(waits.end().code(), Some(7));
    assert_eq!(schema.lines(&waits.text("out")), ["run.waiting"]);
    assert_eq!(schema.lines(&waits.text("err")), ["error"]);

    let follows = ["--json", "run", "guest", "--follow", "--kick", KICK, "--", "sleep", "1000"];
    let mut follows = start(&follows, "exec \"$0\" \"$@\"");
    follows.order("served 1");
    follows.order("destroy 1");
    until("the guest is waited for", || follows.text("out").contains("run.waiting"));
    until("that is reported", || follows.text("err").ends_with('\n'));
    assert_eq!(schema.lines(&follows.text("err")), ["note"]);
    follows.signal(rustix::process::Signal::TERM);
    follows.end();
    schema.lines(&follows.text("out"));
}

#[test]
fn whatever_comes_of_a_command_is_an_object_of_the_schema() {
    let mut schema = Schema::default();
    let (host, _lock) = host();
    let root = host.path().to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let run_dir = empty.path().join("run");
    let run_dir = run_dir.to_str().unwrap();
    for (words, printed) in [
        (&["list", "--root", root][..], "list"),
        (&["show", "3", "--root", root], "show"),
        (&["show", "4", "--root", root], "show"),
        (&["show", "5", "--root", root], "show"),
        (&["top", "--interval", "1ms", "--count", "2", "--root", root], "top"),
        (&["--run-dir", run_dir, "doctor"], "doctor"),
        (&["demo", "--kicks", "50"], "demo"),
        (&["man", "top"], "man"),
        (&["completion", "bash"], "completion"),
        (&["--help"], "help"),
        (&["help", "run"], "help"),
        (&["run", "--help"], "help"),
        (&["--version"], "version"),
    ] {
        let (out, err, code) = output(&[&["--json"], words].concat());
        assert!(schema.lines(&out).iter().all(|kind| kind == printed), "{words:?}: {out}");
        assert!(!out.is_empty() && err.is_empty(), "{words:?}: {out}{err}");
        assert!(matches!(code, 0 | 3), "{words:?}: {code}");
    }
    on_model(&mut schema);
    let virtio = |kind: &&String| kind.starts_with("virtio.");
    let unseen = schema.unseen();
    assert!(unseen.iter().all(|kind| virtio(&kind)), "no command printed {unseen:?}");
    assert_eq!((SCHEMA, GREATEST), (schema::VERSION, schema::GREATEST));
}

#[test]
fn what_is_refused_is_an_object_with_a_code_and_nothing_else() {
    let mut schema = Schema::default();
    let (host, _lock) = host();
    let root = host.path().to_str().unwrap();
    for (words, code, name) in [
        (&["--json"][..], 2, "usage"),
        (&["frob", "--json"], 2, "usage"),
        (&["--json", "--frob"], 2, "usage"),
        (&["list", "all", "--json"], 2, "usage"),
        (&["show", "--json"], 2, "usage"),
        (&["--json", "--engine", "steam", "list"], 2, "usage"),
        (&["top", "--json", "--interval", "soon"], 2, "usage"),
        (&["--json", "top", "--count"], 2, "usage"),
        (&["run", "g", "--json", "--", "true"], 2, "usage"),
        (&["run", "g", "--json", "--kick", "mmio:0x50"], 2, "usage"),
        (&["watch", "g", "0x50", "--json"], 2, "usage"),
        (&["man", "--json", "frob"], 2, "usage"),
        (&["completion", "cmd", "--json"], 2, "usage"),
        (&["--json", "guard"], 2, "usage"),
        (&["--json", "exec", "--parent", "1", "--", "true"], 1, "failed"),
        (&["--json", "show", "9", "--root", root], 7, "no-guest"),
        (&["--json", "show", "6", "--root", root], 7, "no-guest"),
        (&["--json", "list", "--root", root, "--run-dir", "/dev/null"], 1, "failed"),
    ] {
        let (out, err, exit) = output(words);
        assert_eq!((exit, &*out), (code, ""), "{words:?}: {err}");
        assert_eq!(schema.lines(&err), ["error"], "{words:?}");
        let error: Value = serde_json::from_str(&err).unwrap();
        assert_eq!((&error["code"], &error["exit"]), (&name.into(), &code.into()), "{words:?}");
    }
}

/// The library starts what XEN_EVENTFD_GUARDIAN names, wherever that is.
#[test]
fn doctor_names_the_guardian_that_the_library_would_start() {
    let program = env!("CARGO_BIN_EXE_xen-eventfd");
    let guardian = |named: Option<&str>| {
        let mut command = Command::new(program);
        command.args(["--json", "doctor"]).env("PATH", "").env_remove("XEN_EVENTFD_GUARDIAN");
        command.envs(named.map(|named| ("XEN_EVENTFD_GUARDIAN", named)));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["check"] == "guardian").unwrap()
    };
    let ours = guardian(Some(program));
    assert_eq!((&ours["standing"], &ours["found"]), (&"ok".into(), &program.into()));
    let other = guardian(Some("/no/such/guardian"));
    assert_eq!(
        (&other["standing"], &other["found"]),
        (&"poor".into(), &"/no/such/guardian is not there".into())
    );
    assert_eq!(guardian(None)["standing"], "poor");
}

#[test]
fn a_backends_json_is_not_ours() {
    let (_, err, code) = output(&["run", "g", "--", "backend", "--json"]);
    assert_eq!(code, 2);
    assert!(err.starts_with("xen-eventfd: "), "{err}");
}
