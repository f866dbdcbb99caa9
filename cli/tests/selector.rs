//! A number is a domain's number, whatever domains are called: in every command that takes a guest.

use clap::Parser;
use std::path::Path;
use tempfile::TempDir;
use xen_eventfd::{DomId, Xen};
use xen_eventfd_cli::arguments::{self, Command};
use xen_eventfd_cli::commands::run::run_on;
use xen_eventfd_cli::commands::watch::Watch;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_model::{Config, Model};

/// Domain 1 is called "2", and domain 2 has no name.
fn machine() -> (Model, TempDir, Xen) {
    let (model, dir) = (Model::new(), tempfile::tempdir().unwrap());
    let named = ["2", ""].map(|name| model.domain(Config::new(name)));
    assert_eq!(named, [DomId(1), DomId(2)]);
    let xen = Xen::builder().run_dir(dir.path().join("run")).open_on(model.client("xen-eventfd"));
    (model, dir, xen.unwrap())
}

fn parse(words: &[&str]) -> Command {
    arguments::Arguments::parse_from(["xen-eventfd"].iter().chain(words)).command
}

fn served(model: &Model) -> Vec<DomId> {
    let served = |dom: &DomId| !model.servers(*dom).is_empty();
    [DomId(1), DomId(2)].into_iter().filter(served).collect()
}

#[test]
fn watch_takes_the_number() {
    let (model, _dir, xen) = machine();
    let take = |word| -> Result<Watch, Failure> {
        let Command::Watch(arguments) = parse(&["watch", word, "0xfe000050", "--take"]) else {
            unreachable!("the word is `watch`")
        };
        Watch::start(&xen, &arguments)
    };
    for word in ["2", "02"] {
        let watch = take(word).unwrap();
        assert_eq!(served(&model), [DomId(2)], "by {word:?}");
        drop(watch);
    }
    for word in ["+2", " 2", "2x", "0x2", "3", "65538", ""] {
        let refused = take(word).unwrap_err();
        assert_eq!(refused.exit, Exit::NoGuest, "by {word:?}: {refused}");
    }
}

#[test]
fn run_takes_the_number() {
    let (_model, dir, xen) = machine();
    let (run_dir, out) = (dir.path().join("run"), dir.path().join("out"));
    let script = format!("ls {} > {}", run_dir.display(), out.display());
    let words = ["run", "2", "--kick", "mmio:0xfe000050", "--", "sh", "-c", &script];
    let Command::Run(arguments) = parse(&words) else { unreachable!("the word is `run`") };
    let helper = Path::new(env!("CARGO_BIN_EXE_xen-eventfd"));
    let ended = run_on(&xen, &Session::default(), &arguments, helper, None);
    assert_eq!(ended, Ok(Exit::Backend(0)));
    let locked = std::fs::read_to_string(out).unwrap();
    assert!(locked.contains("2.lock") && !locked.contains("1.lock"), "{locked}");
}
