//! Doors for the fuzzers of `fuzz/`; no program has them.

use crate::arguments::{Arguments, Command};
use crate::commands::top::lines::{Order, lines, plain};
use crate::commands::{list, show};
use crate::module_status;
use crate::quantity::{LONGEST, SHORTEST};
use crate::rates::rates;
use crate::served::{Guest, Names};
use crate::spec::check_together;
use clap::Parser;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// Two readings of what the module shows, printed by each command that prints them.
pub fn module_status(before: &[u8], now: &[u8]) {
    let read = |text: &[u8]| {
        let shown = String::from_utf8_lossy(text).parse::<module_status::Guest>().ok()?;
        Some(Guest::of_module(shown, &Names::Known(BTreeMap::new())))
    };
    let Some(now) = read(now) else { return };
    let before: Vec<Guest> = read(before).into_iter().collect();
    let rates = rates(&before, std::slice::from_ref(&now), Duration::from_millis(100));
    let [guest] = &rates[..] else { panic!("{rates:?}") };
    let reported = guest.per_second.map(|all| [all.kicks, all.held, all.odd, all.irqs]);
    let doorbells = guest
        .doorbells
        .iter()
        .flat_map(|of| [of.per_second.kicks, of.per_second.held, of.per_second.odd]);
    assert!(
        reported.into_iter().flatten().chain(doorbells).all(|rate| rate >= 0.0 && rate.is_finite())
    );
    let count = 1 + guest.doorbells.len();
    for order in [Order::Dom, Order::Kicks, Order::Held, Order::Odd, Order::Irqs] {
        assert_eq!(lines(&rates, order).len(), count);
    }
    let one_each = |text: &str, lines: usize| {
        assert!(!text.contains(|letter: char| letter.is_control() && letter != '\n'), "{text:?}");
        assert_eq!(text.lines().count(), lines, "{text:?}");
    };
    one_each(&plain(&rates), 1 + count);
    one_each(&list::Report::new(vec![now.clone()], vec![]).prose(), 2);
    let prose = show::Report::new(now).prose();
    one_each(&prose, prose.lines().count());
}

/// A command line, its words apart by spaces: taken as it says, or refused by an error.
pub fn arguments(line: &[u8]) {
    let word = |word: &[u8]| OsString::from_vec(word.to_vec());
    let words: Vec<OsString> = line.split(|byte| *byte == b' ').map(word).collect();
    let program = OsString::from("xen-eventfd");
    match Arguments::try_parse_from(std::iter::once(&program).chain(&words)) {
        Ok(arguments) => taken(&arguments, &words),
        // Help and the version are errors as well, which go to standard output.
        Err(error) => {
            let reported = error.render().to_string();
            assert_eq!(error.exit_code(), if error.use_stderr() { 2 } else { 0 });
            assert!(
                !reported.trim().is_empty() && reported.len() <= 10 * line.len() + 10_000,
                "{reported}"
            );
        }
    }
}

fn taken(arguments: &Arguments, words: &[OsString]) {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (ours, backends) = words.split_at(end);
    let written = |text: &str| {
        ours.iter().any(|word| {
            let word = word.to_string_lossy();
            word == text || word.strip_suffix(text).is_some_and(|option| option.ends_with('='))
        })
    };
    // What `exec` becomes may have such a word of its own.
    if !matches!(arguments.command, Command::Exec(_)) {
        assert_eq!(arguments.options.session().json, ours.iter().any(|word| word == "--json"));
    }
    match &arguments.command {
        Command::Run(run) => {
            assert_eq!(run.command, backends[1..]);
            assert!(written(&run.dom));
            assert!(run.kicks.iter().all(|kick| written(&kick.text)));
            assert!(run.calls.iter().all(|call| written(&call.text)));
            let _ = check_together(&run.kicks);
        }
        Command::Watch(watch) => {
            assert!(written(&watch.addr.text) && (1..=8).contains(&watch.addr.span));
        }
        Command::Top(top) => {
            assert!((SHORTEST..=LONGEST).contains(&top.interval));
            assert_ne!(top.count, Some(0));
        }
        Command::Demo(demo) => assert!((1..=10_000_000).contains(&demo.kicks)),
        Command::Exec(exec) => assert!(!exec.command.is_empty()),
        Command::Show(show) => assert!(written(&show.dom)),
        _ => {}
    }
}
