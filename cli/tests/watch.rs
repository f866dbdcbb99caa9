//! `watch` on the model.

mod common;

use clap::Parser;
use common::{Machine, NAME};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use xen_eventfd::{Space, Width, Xen};
use xen_eventfd_cli::arguments::{self, Command};
use xen_eventfd_cli::commands::watch::{Arguments, Line, Seen, Watch};
use xen_eventfd_cli::failure::{Exit, Failure};

const ADDR: u64 = 0xFE00_0050;

fn parse(words: &[&str]) -> Arguments {
    let words = ["xen-eventfd", "watch"].iter().chain(words);
    match arguments::Arguments::parse_from(words).command {
        Command::Watch(arguments) => arguments,
        _ => unreachable!("the word is `watch`"),
    }
}

type Watching = JoinHandle<Result<Seen, Failure>>;

/// Takes the doorbell, and follows it in a thread.
fn start(xen: &Xen, words: &[&str]) -> Result<(Watching, Receiver<Line>), Failure> {
    let watch = Watch::start(xen, &parse(words))?;
    let (report, lines) = channel();
    let show = move |line: &Line| {
        report.send(line.clone()).unwrap();
        Ok(())
    };
    Ok((std::thread::spawn(move || watch.follow(None, show)), lines))
}

#[test]
fn kicks_are_shown_and_the_doorbell_is_given_back() {
    let machine = Machine::default();
    let (watching, lines) =
        start(&machine.xen(), &[NAME, "0xfe000050", "--take", "--count", "2"]).unwrap();
    let vcpu = machine.vcpu();
    vcpu.write(Space::Mmio, ADDR, Width::Four, 7).unwrap();
    let line = lines.recv().unwrap();
    assert_eq!((line.space, line.addr, line.width), ("mmio", ADDR, 4));
    assert_eq!((line.value, line.count), (7, 1));
    vcpu.write(Space::Mmio, ADDR, Width::Two, 8).unwrap();
    assert_eq!(lines.recv().unwrap().value, 8);
    assert_eq!(watching.join().unwrap(), Ok(Seen { shown: 2, ..Seen::default() }));
    assert!(machine.model.servers(machine.dom).is_empty());
}

#[test]
fn a_datamatch_chooses_what_is_shown() {
    let machine = Machine::default();
    let (watching, lines) =
        start(&machine.xen(), &["1", "mmio:0xfe000050:4:3", "--take", "--count", "1"]).unwrap();
    for value in [1, 2, 3] {
        machine.vcpu().write(Space::Mmio, ADDR, Width::Four, value).unwrap();
    }
    assert_eq!(lines.recv().unwrap().value, 3);
    let seen = watching.join().unwrap().unwrap();
    assert_eq!((seen.shown, seen.other), (1, 2));
}

#[test]
fn it_ends_when_time_is_up() {
    let machine = Machine::default();
    let (watching, _lines) =
        start(&machine.xen(), &[NAME, "0x50", "--take", "--for", "0.01"]).unwrap();
    assert_eq!(watching.join().unwrap(), Ok(Seen::default()));
}

#[test]
fn it_tells_that_the_guest_died() {
    let machine = Machine::default();
    let (watching, _lines) = start(&machine.xen(), &[NAME, "0x50", "--take"]).unwrap();
    machine.model.destroy(machine.dom);
    assert_eq!(watching.join().unwrap().unwrap_err().exit, Exit::GuestGone);
}

#[test]
fn it_takes_nothing_unless_told_to() {
    let machine = Machine::default();
    let failure = start(&machine.xen(), &[NAME, "0x50"]).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.sentence.contains("add --take"), "{failure}");
}

#[test]
fn unknown_and_taken_guests_are_refused() {
    let machine = Machine::default();
    let failure = start(&machine.xen(), &["nobody", "0x50", "--take"]).unwrap_err();
    assert_eq!(failure.exit, Exit::NoGuest);
    let other = machine.xen();
    let _guest = other.guest(machine.dom).unwrap();
    let failure = start(&machine.xen(), &[NAME, "0x50", "--take"]).unwrap_err();
    assert_eq!(failure.exit, Exit::InUse);
}
