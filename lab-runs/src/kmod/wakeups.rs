//! `cargo xtask kmod wakeups`: who is woken when a guest rings 1,000 times.
//!
//! One program (`kernel/tests/privcmd/wakeups.c`) plays device model and backend in every way, so that
//! nothing differs but who decodes the kick. On one CPU, with time counted in instructions: a second
//! run gives the same figures.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, anyhow, ensure};
use xen_eventfd_lab::{Boot, Lab, Platform};

use super::{
    Module, NODE, build, loading,
    privcmd::{PRIVCMD, Programs},
};
use crate::{
    boots::{Boots, place},
    is_asked_for,
    tally::Tally,
    upstream::Upstream,
};

/// How long the ways of one boot may take, in dom0's time.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How often each way is measured. A process of dom0 may have a timer of its own that ends meanwhile; one that kicks
/// wake is woken each time.
const ROUNDS: usize = 2;

/// One way from a kick to a backend.
#[derive(Debug, Clone, Copy)]
struct Way {
    title: &'static str,
    /// The program's name for it.
    name: &'static str,
    node: &'static str,
}

/// What a stock dom0 can do, with our module.
const STOCK: [Way; 3] = [
    Way { title: "VMM alone", name: "vmm", node: "none" },
    Way { title: "module, the privcmd ABI", name: "privcmd", node: NODE },
    Way { title: "module, native ABI", name: "native", node: NODE },
];
/// What it can do with the patch in its own module.
const PATCHED: [Way; 1] = [Way { title: "upstream C", name: "privcmd", node: PRIVCMD }];

/// What the columns show, and the program's name for it.
const COLUMNS: [(&str, &str); 7] = [
    ("kicks", "kicks"),
    ("delivered", "delivered"),
    ("reached the VMM", "reached"),
    ("VMM wakeups", "vmm"),
    ("backend", "backend"),
    ("others", "others"),
    ("kernel threads", "kernel"),
];

/// What the program says, by its names.
type Figures = BTreeMap<String, u64>;

/// What is measured in one boot.
struct Session {
    boot: Boot,
    begin: String,
    ways: Vec<Way>,
}

/// Measures the ways that such a dom0 has and whose title contains one of `names`, or all; prints a
/// table.
pub(super) fn run(lab: &Lab, platform: Platform, names: &[String]) -> Result<()> {
    let kernel = lab.kernel_build()?;
    let (programs, module) = (Programs::build(&kernel)?, build(lab, false)?);
    let mut sessions = vec![with_ours(&programs, &module, platform)];
    if Upstream::runs_on(platform) {
        sessions.push(with_the_patch(&programs, &Upstream::build(&kernel)?, platform));
    }
    let mut rows = Vec::new();
    for mut session in sessions {
        session.ways.retain(|way| is_asked_for(way.title, names));
        if !session.ways.is_empty() {
            rows.extend(measure(lab, session)?);
        }
    }
    ensure!(!rows.is_empty(), "no way is called anything like {names:?}");
    println!("{}", table(&rows));
    Ok(())
}

fn with_ours(programs: &Programs, module: &Module, platform: Platform) -> Session {
    let boot =
        Boot::new(platform).deterministic().name(format!("wakeups-{}-module", platform.name()));
    let (boot, begin) = (module.put(programs.put(boot)), loading());
    Session { boot, begin, ways: STOCK.to_vec() }
}

fn with_the_patch(programs: &Programs, upstream: &Upstream, platform: Platform) -> Session {
    let boot =
        Boot::new(platform).deterministic().name(format!("wakeups-{}-upstream", platform.name()));
    let (boot, begin) = (upstream.put(programs.put(boot)), "true".to_owned());
    Session { boot, begin, ways: PATCHED.to_vec() }
}

/// Has it measured, and judged: with our module only the backend is woken.
pub(super) fn add<'a, G: Copy + Send>(
    boots: &mut Boots<'a, G>,
    group: G,
    (lab, module, platform): (&'a Lab, &'a Module, Platform),
    (programs, upstream): (&'a Programs, &'a Upstream),
) {
    let place = format!("{}, deterministic", place(platform, 1));
    let title = place.clone();
    boots.add(group, place.clone(), (platform, 1), move || {
        judge(&title, &measure(lab, with_ours(programs, module, platform))?)
    });
    if Upstream::runs_on(platform) {
        let title = format!("{place}, the patch");
        boots.add(group, title.clone(), (platform, 1), move || {
            judge(&title, &measure(lab, with_the_patch(programs, upstream, platform))?)
        });
    }
}

fn judge(place: &str, rows: &[(Way, Figures)]) -> Result<Tally> {
    println!("{place}:\n{}", table(rows));
    let mut tally = Tally::default();
    for (way, figures) in rows {
        let verdict = fault(way, figures).map_or(Ok(()), |fault| Err(anyhow!(fault)));
        tally.judge(place, &format!("wakeups of {}", way.title), verdict);
    }
    Ok(tally)
}

/// What is not as it should be. With the patch the VMM reads the same slot as the kernel, and a kick
/// that it sees first is not delivered (docs/attacks.md).
fn fault(way: &Way, figures: &Figures) -> Option<String> {
    let figure = |name: &str| figures.get(name).copied();
    let to_the_vmm = if way.node == PRIVCMD { figure("reached") } else { Some(0) };
    let arrived = figure("delivered").zip(to_the_vmm).map(|(delivered, seen)| delivered + seen);
    if arrived != figure("kicks") || arrived.is_none_or(|kicks| kicks == 0) {
        return Some("a kick was lost".to_owned());
    }
    if way.node != NODE {
        return None;
    }
    match (figure("vmm"), figure("others")) {
        (Some(0), Some(0)) => None,
        woken => Some(format!("processes other than the backend were woken: {woken:?}")),
    }
}

/// One boot.
fn measure(lab: &Lab, session: Session) -> Result<Vec<(Way, Figures)>> {
    let Session { boot, begin: mut script, ways } = session;
    for way in &ways {
        let once = format!(" && with-guest wakeups {} {}", way.name, way.node);
        script += &once.repeat(ROUNDS);
    }
    let outcome = lab.run(boot, &script, TIMEOUT, |line| eprintln!("{line}"))?;
    ensure!(outcome.output.success(), "{}", outcome.report);
    let all = outcome.output.lines.iter().filter_map(|line| figures(line));
    let all: Vec<Figures> = all.collect();
    let wanted = ways.len() * ROUNDS;
    ensure!(all.len() == wanted, "a way has no figures:\n{}", outcome.output.text());
    let rounds = ways.iter().zip(all.chunks(ROUNDS));
    Ok(rounds.map(|(way, rounds)| (*way, quietest(way, rounds))).collect())
}

/// Of a way's rounds the one in which fewest other processes ran; but one that has another fault comes before all.
fn quietest(way: &Way, rounds: &[Figures]) -> Figures {
    let is_faulty = |round: &&Figures| {
        let mut alone = (*round).clone();
        alone.insert("others".to_owned(), 0);
        fault(way, &alone).is_some()
    };
    let quietest = || rounds.iter().min_by_key(|round| round.get("others").copied());
    rounds.iter().find(is_faulty).or_else(quietest).cloned().unwrap_or_default()
}

/// `wakeups NAME NUMBER NAME NUMBER …`; `None`: another line.
fn figures(line: &str) -> Option<Figures> {
    let words: Vec<&str> = line.strip_prefix("wakeups ")?.split_whitespace().collect();
    let (pairs, rest) = words.as_chunks();
    let pair = |[name, number]: &[&str; 2]| Some(((*name).to_owned(), number.parse().ok()?));
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}

/// The figures as a table in Markdown.
fn table(rows: &[(Way, Figures)]) -> String {
    let head: Vec<&str> = COLUMNS.iter().map(|(title, _)| *title).collect();
    let mut lines = vec![format!("| way | {} |", head.join(" | "))];
    lines.push(format!("|---|{}", "--:|".repeat(COLUMNS.len())));
    for (way, figures) in rows {
        let number = |(_, name): &(&str, &str)| figures.get(*name).map(u64::to_string);
        let cells: Vec<String> =
            COLUMNS.iter().map(|column| number(column).unwrap_or_else(|| "?".into())).collect();
        lines.push(format!("| {} | {} |", way.title, cells.join(" | ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_pairs_of_a_name_and_a_number() {
        let found = figures("wakeups kicks 1000 vmm 3").unwrap();
        assert_eq!(found, [("kicks".to_owned(), 1000), ("vmm".to_owned(), 3)].into());
        assert_eq!(figures("ok      wakeups: kicks 1000"), None);
        assert_eq!(figures("wakeups kicks many"), None);
        assert_eq!(figures("wakeups kicks"), None);
    }

    #[test]
    fn of_two_rounds_the_quieter_one_counts_unless_the_other_has_a_fault() {
        let round = |text: &str| figures(text).unwrap();
        let quiet = round("wakeups kicks 9 delivered 9 vmm 0 others 0");
        let timer = round("wakeups kicks 9 delivered 9 vmm 0 others 1");
        assert_eq!(quietest(&STOCK[2], &[timer.clone(), quiet.clone()]), quiet);
        assert_eq!(quietest(&STOCK[2], &[timer.clone(), timer.clone()]), timer);
        for fault in [
            "wakeups kicks 9 delivered 8 vmm 0 others 3",
            "wakeups kicks 9 delivered 9 vmm 1 others 3",
        ] {
            let faulty = round(fault);
            assert_eq!(quietest(&STOCK[2], &[quiet.clone(), faulty.clone()]), faulty);
        }
    }

    #[test]
    fn our_ways_wake_nobody_but_the_backend() {
        let of = |way: &Way, text: &str| fault(way, &figures(text).unwrap());
        let quiet = "wakeups kicks 9 delivered 9 vmm 0 others 0";
        assert_eq!(of(&STOCK[2], quiet), None);
        assert!(of(&STOCK[2], "wakeups kicks 9 delivered 9 vmm 1 others 0").is_some());
        assert!(of(&STOCK[1], "wakeups kicks 9 delivered 9 vmm 0 others 2").is_some());
        let patched = |shares| of(&PATCHED[0], &format!("wakeups kicks 9 {shares} vmm 9 others 0"));
        assert_eq!(patched("delivered 9 reached 0"), None);
        assert_eq!(patched("delivered 8 reached 1"), None);
        assert!(patched("delivered 8 reached 0").is_some());
        assert!(of(&STOCK[1], "wakeups kicks 9 delivered 9 vmm 0").is_some());
        for lost in ["wakeups kicks 9 delivered 8 vmm 0 others 0", "wakeups delivered 9"] {
            assert!(of(&STOCK[0], lost).is_some());
        }
    }

    #[test]
    fn a_row_has_every_column() {
        let figures = figures("wakeups kicks 1000 delivered 999 vmm 1").unwrap();
        let table = table(&[(STOCK[0], figures)]);
        let row = table.lines().last().unwrap();
        assert_eq!(row, "| VMM alone | 1000 | 999 | ? | 1 | ? | ? | ? |");
    }
}
