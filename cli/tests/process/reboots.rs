//! A guest that is not there yet, goes, and comes again; the unit of the documents through all that.

use crate::on_model::{OnModel, until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::Command;

const KICK: &str = "mmio:0xfe000050:4:3";
const PLAIN: &str = "exec \"$0\" \"$@\"";
/// Notes each of its lives, and each of its kicks, until it has to end.
const LIVES: &str = "trap 'echo asked >>$DIR/lives; kill $reader; exit 0' TERM; \
                     echo begins >>$DIR/lives; while test -d $DIR; do \
                     dd bs=8 count=1 <&3 of=$DIR/kick 2>/dev/null & reader=$!; wait $reader; \
                     od -An -tu8 $DIR/kick >>$DIR/kicks; done";

/// `run`, on a machine without a guest.
fn alone(options: &[&str], backend: &str) -> OnModel {
    let words: Vec<&str> =
        [&["run"], options, &["--kick", KICK, "--", "sh", "-c", backend]].concat();
    OnModel::start_as(&words, PLAIN, |command| _ = command.env_remove("ON_MODEL_GUEST"))
}

fn lives(run: &OnModel, count: usize) {
    until(&format!("the backend has begun {count} times"), || {
        run.text("lives").matches("begins").count() == count
    });
}

fn kick(run: &mut OnModel, dom: &str, times: usize) {
    assert_eq!(run.order(&format!("kick {dom} 3")), "done");
    until(&format!("{times} kicks have arrived"), || run.text("kicks").lines().count() == times);
}

/// What the guest's driver does: it allocates event channels, and the fifth is for us.
fn allocate_the_fifth(run: &mut OnModel, dom: &str) {
    while run.order(&format!("port {dom}")) != "5" {}
}

#[test]
fn a_guest_that_is_not_there_and_one_that_is_gone_differ() {
    let words = ["run", "other", "--kick", KICK, "--", "true"];
    assert_eq!(OnModel::start(&words).end().code(), Some(7));
    let words = ["run", "guest", "--kick", KICK, "--", "sleep", "1000"];
    let mut run = OnModel::start(&words);
    assert_eq!(run.order("served 1"), "done");
    assert_eq!(run.order("destroy 1"), "true");
    assert_eq!(run.end().code(), Some(4));
}

#[test]
fn a_guest_that_is_not_there_yet_is_waited_for() {
    let mut run = alone(&["web", "--wait"], LIVES);
    assert_eq!(run.order("create db"), "1");
    assert_eq!(run.order("create web"), "2");
    assert_eq!(run.order("served 2"), "done");
    lives(&run, 1);
    kick(&mut run, "2", 1);
    assert_eq!(run.order("destroy 2"), "true");
    assert_eq!(run.end().code(), Some(4), "it was not to be followed");
}

#[test]
fn a_wait_may_end() {
    let mut run = alone(&["web", "--wait=0.3"], LIVES);
    assert_eq!(run.end().code(), Some(7));
    assert_eq!(run.text("lives"), "");
}

#[test]
fn a_signal_ends_a_wait() {
    let mut run = alone(&["web", "--wait"], LIVES);
    // It answers once its signals are blocked: an order is carried out by then or soon after.
    let pid = run.pid().as_raw_nonzero();
    until("its signals are blocked", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let signalfd = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        status.contains("SigBlk:")
            && signalfd.into_iter().any(|fd| fd.to_string_lossy().contains("signalfd"))
    });
    run.signal(Signal::TERM);
    assert_eq!(run.end().code(), Some(143));
}

#[test]
fn a_guest_that_reboots_is_served_by_a_backend_that_begins_afresh() {
    let mut run = alone(&["web", "--wait", "--follow"], LIVES);
    for (life, dom) in ["1", "2", "3"].into_iter().enumerate() {
        assert_eq!(run.order("create web"), dom);
        assert_eq!(run.order(&format!("served {dom}")), "done");
        lives(&run, life + 1);
        kick(&mut run, dom, life + 1);
        assert_eq!(run.order(&format!("destroy {dom}")), "true");
        until("the backend has been notified", || {
            run.text("lives").matches("asked").count() == life + 1
        });
    }
    run.signal(Signal::TERM);
    assert_eq!(run.end().code(), Some(143));
    assert_eq!(run.text("kicks").split_whitespace().collect::<Vec<_>>(), ["1", "1", "1"]);
}

#[test]
fn a_guest_that_was_named_by_its_number_is_known_again_by_its_uuid() {
    let uuid = "5eed5eed-0000-4000-8000-000000000001";
    let mut run = alone(&["1", "--wait", "--follow"], LIVES);
    assert_eq!(run.order(&format!("create web {uuid}")), "1");
    assert_eq!(run.order("served 1"), "done");
    lives(&run, 1);
    assert_eq!(run.order("destroy 1"), "true");
    assert_eq!(run.order("create db"), "2");
    assert_eq!(run.order(&format!("create web {uuid}")), "3");
    assert_eq!(run.order("served 3"), "done");
    lives(&run, 2);
    assert_eq!(run.order("free 2"), "done");
}

#[test]
fn an_event_channel_that_is_not_allocated_yet_is_waited_for() {
    let mut run = alone(&["web", "--wait", "--call", "evtchn:5"], LIVES);
    assert_eq!(run.order("create web"), "1");
    assert_eq!(run.order("served 1"), "done");
    assert_eq!(run.order("kick 1 3"), "done", "its doorbells are served meanwhile");
    assert_eq!(run.text("lives"), "", "and its backend has yet to begin");
    allocate_the_fifth(&mut run, "1");
    lives(&run, 1);
    until("the kick has been kept", || run.text("kicks").trim() == "1");
}

#[test]
fn without_waiting_an_event_channel_that_is_not_allocated_is_refused() {
    let words = ["run", "guest", "--call", "evtchn:99", "--", "true"];
    assert_eq!(OnModel::start(&words).end().code(), Some(1));
}

/// The unit of `docs/operating.md`.
struct Unit {
    text: String,
    service: BTreeMap<String, String>,
}

impl Unit {
    fn documented() -> Self {
        let page = include_str!("../../../docs/operating.md");
        let (_, text) = page.split_once("```ini\n").expect("the page has a unit");
        let text = text.split_once("```").unwrap().0.to_owned();
        let service = text.lines().filter(|line| !line.starts_with('#'));
        let service = service.filter_map(|line| line.split_once('='));
        let service = service.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { text, service }
    }

    fn codes(&self, setting: &str) -> Vec<i32> {
        let codes = self.service.get(setting).map_or("", String::as_str);
        codes.split_whitespace().map(|code| code.parse().unwrap()).collect()
    }

    /// Whether systemd starts it again (systemd.service(5)).
    fn restarts_after(&self, code: i32) -> bool {
        let clean = code == 0 || self.codes("SuccessExitStatus").contains(&code);
        let prevented = self.codes("RestartPreventExitStatus").contains(&code);
        assert_eq!(self.service["Restart"], "on-failure");
        !clean && !prevented
    }
}

#[test]
fn systemd_restarts_the_unit_where_another_attempt_helps() {
    let unit = Unit::documented();
    let codes = [0, 1, 2, 3, 4, 5, 6, 7, 126, 137, 143];
    let restarts: Vec<i32> = codes.into_iter().filter(|code| unit.restarts_after(*code)).collect();
    assert_eq!(restarts, [1, 3, 4, 5, 7, 126, 137]);
    // Five starts in ten seconds end it, unless the unit says otherwise.
    let pause: u32 = unit.service["RestartSec"].parse().unwrap();
    assert!(pause * 5 > 10, "attempts would use up the limit of starts");
}

#[test]
fn systemd_understands_the_unit() {
    let unit = Unit::documented();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web-disk.service");
    // It looks for the programs.
    let us = env!("CARGO_BIN_EXE_xen-eventfd");
    std::fs::write(&path, unit.text.replace("/usr/local/bin/xen-eventfd", us)).unwrap();
    let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        eprintln!("there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr);
    // Of other units it may say anything.
    let of_ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("web-disk") && line.contains(".service:"))
        .collect();
    assert!(of_ours.is_empty(), "{said}");
}

#[test]
fn the_unit_lives_through_a_start_before_its_guest_and_reboots() {
    let unit = Unit::documented();
    let words: Vec<&str> = unit.service["ExecStart"].split_whitespace().collect();
    let (us, words) = words.split_first().unwrap();
    assert!(us.ends_with("/xen-eventfd"));
    let (backend, words) = words.split_last().unwrap();
    assert!(backend.starts_with('/'));
    let words = [words, &["sh", "-c", LIVES]].concat();
    let mut service =
        OnModel::start_as(&words, PLAIN, |command| _ = command.env_remove("ON_MODEL_GUEST"));
    for (life, dom) in ["1", "2"].into_iter().enumerate() {
        assert_eq!(service.order("create web"), dom);
        lives(&service, life + 1);
        assert_eq!(service.order(&format!("kick {dom} 0")), "done");
        until("the kick has arrived", || service.text("kicks").lines().count() == life + 1);
        assert_eq!(service.order(&format!("destroy {dom}")), "true");
    }
    // `systemctl stop`
    service.signal(Signal::TERM);
    let code = service.end().code().unwrap();
    // 0 if the backend has ended by the signal before the guest's end was seen.
    assert!(!unit.restarts_after(code) && matches!(code, 0 | 143), "{code}");
}

#[test]
fn a_signal_to_end_just_before_the_guest_goes_ends_the_following() {
    // It takes a moment to end, and by then its guest is gone.
    let backend = "trap 'until test -e $DIR/end; do sleep 0.02; done; exit 0' TERM; \
                   echo begins >>$DIR/lives; while test -d $DIR; do sleep 0.02; done";
    let mut run = alone(&["web", "--wait", "--follow"], backend);
    assert_eq!(run.order("create web"), "1");
    lives(&run, 1);
    run.signal(Signal::TERM);
    assert_eq!(run.order("destroy 1"), "true");
    // A zombie domain is no more once the engine has dropped it.
    assert_eq!(run.order("free 1"), "done");
    std::fs::write(run.file("end"), "").unwrap();
    assert!(matches!(run.end().code(), Some(0 | 143)));
}
