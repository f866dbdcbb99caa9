//! The program itself: what it refuses, with which code and which sentence, and what it prints.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn program(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xen-eventfd"))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts the code, and that the first line on standard error says `why`.
fn refused(words: &[&str], code: i32, why: &str) {
    let output = program(words);
    let sentence = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?} says {sentence}");
    assert!(
        sentence.lines().next().is_some_and(|line| line.contains(why)),
        "{words:?}: {sentence}"
    );
    assert!(output.stdout.is_empty(), "{words:?} printed a result");
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn words_that_no_guest_could_carry_out_are_usage() {
    for (words, why) in [
        (&["run", "g", "--", "true"][..], "there is nothing to hand over"),
        (&["run", "g", "--kick", "mmio:0x50"], "required"),
        (&["run", "g", "--kick", "mem:0x50", "--", "true"], "mmio:ADDR"),
        (&["run", "g", "--kick", "mmio:0x50:3", "--", "true"], "LEN 3 is no width"),
        (&["run", "g", "--kick", "mmio:0xfffffffffffffffe:4", "--", "true"], "beyond the end"),
        (&["run", "g", "--kick", "pio:0xffff:2", "--", "true"], "beyond the end"),
        (&["run", "g", "--kick", "mmio:0x50:1:256", "--", "true"], "outside its width"),
        (&["run", "g", "--kick", "mmio:1:4", "--kick", "mmio:1:any", "--", "true"], "beside"),
        (&["run", "g", "--kick", "mmio:1:4:1", "--kick", "mmio:1:4:1", "--", "true"], "beside"),
        (&["run", "g", "--call", "isa:16", "--", "true"], "0 to 15"),
        (&["run", "g", "--call", "msi:0:0", "--", "true"], "0xFEE00000"),
        (&["watch", "g", "0xfe000050"], "add --take"),
        (&["watch", "g", "zero", "--take"], "no number"),
        (&["watch", "g", "0x50", "--take", "--for", "soon"], "is no time"),
        (&["watch", "g", "0x50", "--take", "--for=-1"], "--for"),
        (&["demo", "--kicks", "0"], "at least 1"),
        (&["doctor", "now"], "unexpected argument"),
        (&["list", "all"], "unexpected argument"),
        (&["show"], "required"),
        (&["top", "--interval", "soon"], "is no time"),
        (&["reap", "1"], "unexpected argument"),
        (&["completion", "cmd"], "invalid value 'cmd'"),
        (&["man", "guard"], "there is no command guard"),
        (&["--engine", "steam", "doctor"], "invalid value 'steam'"),
        (&["guard"], "standard input is no pidfd"),
        (&["frob"], "unrecognized subcommand"),
    ] {
        refused(words, 2, why);
    }
}

#[test]
fn without_xen_it_says_so() {
    if Path::new("/dev/xen/privcmd").exists() {
        return;
    }
    let why = "cannot open /dev/xen/privcmd";
    refused(&["run", "g", "--kick", "mmio:0x50", "--", "true"], 3, why);
    refused(&["watch", "g", "0x50", "--take", "--json"], 3, why);
    refused(&["reap"], 3, why);
    let doctor = program(&["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(3));
    assert_eq!(json(&doctor)["engines"]["userspace"], false);
}

#[test]
fn with_json_an_error_is_an_object() {
    let output = program(&["--json", "guard"]);
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["exit"], 2);
    assert!(error["error"].as_str().is_some_and(|text| text.contains("pidfd")));
}

#[test]
fn the_demo_loses_nothing() {
    let output = program(&["demo", "--kicks", "3000", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let demo = json(&output);
    assert_eq!(
        (&demo["sent"], &demo["delivered"], &demo["lost"]),
        (&3000.into(), &3000.into(), &0.into())
    );
    let wakeups = |round: &Value| round["vmm_wakeups"].as_u64().unwrap();
    assert!(wakeups(&demo) < wakeups(&demo["without_ioeventfd"]), "{demo}");
}

#[test]
fn the_demo_is_plain_text_when_nobody_looks() {
    let output = program(&["demo", "--kicks", "1000"]);
    let story = text(&output.stdout);
    assert!(story.contains("No kick was lost.") && !story.contains('\x1b'), "{story}");
}

#[test]
fn every_shell_is_completed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&program(&["completion", shell]).stdout);
        assert!(
            script.contains("doctor") && script.contains("--run-dir") || shell == "fish",
            "{shell}"
        );
        assert!(script.contains("doctor"), "{shell}");
    }
}

#[test]
fn the_man_pages_are_made_from_the_same_source() {
    let page = text(&program(&["man"]).stdout);
    for word in
        [".TH xen-eventfd 1", "doctor", "list", "show", "top", "Exit codes", "no such guest"]
    {
        assert!(page.contains(word), "no {word:?} in {page}");
    }
    assert!(!page.contains("guard"), "what is hidden stays hidden");
    let top = text(&program(&["man", "top"]).stdout);
    assert!(top.contains("interval") && !top.contains("root"), "{top}");
    assert!(text(&program(&["man", "run"]).stdout).contains("LISTEN_FDS"));
}

#[test]
fn exec_says_what_it_cannot_become() {
    let me = std::process::id().to_string();
    refused(&["exec", "--parent", &me, "--", "/nonesuch/program"], 127, "/nonesuch/program");
    refused(&["exec", "--parent", &me, "--", "/dev/null"], 126, "/dev/null");
    refused(&["exec", "--parent", "1", "--", "true"], 1, "ended before its backend");
}
