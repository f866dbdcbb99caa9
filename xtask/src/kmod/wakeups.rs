//! `cargo xtask kmod wakeups`: who is woken when a guest rings 1,000 times.
//!
//! One program (`kernel/tests/seed/wakeups.c`) plays device model and backend in every way, so that
//! nothing differs but who decodes the kick. On one CPU, with time counted in instructions: a second
//! run gives the same figures.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use xen_eventfd_lab::{Boot, Dom0, Lab};

use super::{
    IN_DOM0, NODE, build,
    seed::{PRIVCMD, Programs},
};
use crate::upstream::Upstream;

/// How long the ways of one boot may take, in dom0's time.
const TIMEOUT: Duration = Duration::from_secs(300);

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
    Way { title: "module, the patch's ABI", name: "seed", node: NODE },
    Way { title: "module, native ABI", name: "native", node: NODE },
];
/// What it can do with the patch in its own module.
const PATCHED: [Way; 1] = [Way { title: "upstream C", name: "seed", node: PRIVCMD }];

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

/// Measures the ways that such a dom0 has and whose title contains one of `names`, or all; prints a
/// table.
pub(super) fn run(lab: &Lab, dom0: Dom0, names: &[String]) -> Result<()> {
    let kernel = lab.kernel_build()?;
    let programs = Programs::build(&kernel)?;
    let boot =
        |what: &str| programs.put(Boot::new(dom0).deterministic().name(format!("wakeups-{what}")));
    let mut rows = Vec::new();
    let stock = chosen(&STOCK, names);
    if !stock.is_empty() {
        let boot = build(lab, false)?.put(boot("module"));
        rows.extend(measure(lab, boot, &format!("insmod /{IN_DOM0}"), &stock)?);
    }
    let patched = chosen(&PATCHED, names);
    // In a PV dom0 the patch's ioctl crashes the kernel.
    if dom0 == Dom0::Pvh && !patched.is_empty() {
        let boot = Upstream::build(&kernel)?.put(boot("upstream"));
        rows.extend(measure(lab, boot, "true", &patched)?);
    }
    ensure!(!rows.is_empty(), "no way is called anything like {names:?}");
    println!("{}", table(&rows));
    Ok(())
}

fn chosen(ways: &[Way], names: &[String]) -> Vec<Way> {
    let wanted =
        |way: &&Way| names.is_empty() || names.iter().any(|name| way.title.contains(name.as_str()));
    ways.iter().filter(wanted).copied().collect()
}

/// One boot.
fn measure(lab: &Lab, boot: Boot, begin: &str, ways: &[Way]) -> Result<Vec<(Way, Figures)>> {
    let mut script = begin.to_owned();
    for way in ways {
        script += &format!(" && with-guest wakeups {} {}", way.name, way.node);
    }
    let outcome = lab.run(boot, &script, TIMEOUT, |line| eprintln!("{line}"))?;
    ensure!(outcome.output.success(), "{}", outcome.report);
    let figures = outcome.output.lines.iter().filter_map(|line| figures(line));
    let rows: Vec<_> = ways.iter().copied().zip(figures).collect();
    ensure!(rows.len() == ways.len(), "a way has no figures:\n{}", outcome.output.text());
    Ok(rows)
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
    fn a_row_has_every_column() {
        let figures = figures("wakeups kicks 1000 delivered 999 vmm 1").unwrap();
        let table = table(&[(STOCK[0], figures)]);
        let row = table.lines().last().unwrap();
        assert_eq!(row, "| VMM alone | 1000 | 999 | ? | 1 | ? | ? | ? |");
    }
}
