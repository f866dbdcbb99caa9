//! `docs/hostile.md`, for arm64 `docs/hostile-arm64.md`, and their plots.

use super::Measured;
use super::flood::{Beside, Flooded};
use crate::bench::svg::{self, grouped};
use crate::lab::Engine;
use crate::lab::rig::{Rig, versions};
use crate::page::Page;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use xen_eventfd_lab::{Arch, Platform, workspace};

const PAGES: [Page; 2] = [
    Page::new(Arch::X86_64, "hostile.md", include_str!("begin.md")),
    Page::new(Arch::Arm64, "hostile-arm64.md", include_str!("begin_arm64.md")),
];

/// Writes the page and the plots.
pub(super) fn write(rig: &Rig, all: &[(Platform, Engine, Measured)]) -> Result<()> {
    let plotted = workspace().join("docs/hostile");
    fs::create_dir_all(&plotted)?;
    let page = Page::of(&PAGES, rig.lab.arch());
    let mut text = page.begin.to_owned() + &page.made_with(&versions(&rig.lab));
    for (platform, engine, measured) in all {
        let title = format!("{}, {} engine", platform.title(), engine.name());
        let plot = format!("{}-{}.svg", platform.name(), engine.name());
        section(&mut text, &title, &plot, measured);
        let path = plotted.join(plot);
        fs::write(&path, bars(&title, measured))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    page.write(&text)
}

/// Writes what was measured of the flood into the architecture's page, whose other sections stay.
pub(super) fn write_flood(arch: Arch, all: &[(Platform, Flooded)]) -> Result<()> {
    let page = Page::of(&PAGES, arch);
    page.write(&with_flood(&page.read()?, all))
}

const FLOOD: &str = include_str!("flood.md");

/// The page with this as its last section.
fn with_flood(page: &str, all: &[(Platform, Flooded)]) -> String {
    let title = FLOOD.lines().next().unwrap_or_default();
    let rest = page.find(&format!("\n{title}\n")).map_or(page, |begin| &page[..begin]);
    let mut page = format!("{}\n\n{FLOOD}", rest.trim_end());
    for (platform, Flooded { in_upcall, later }) in all {
        let _ = writeln!(
            page,
            "\n| {}: an event ends | alone: median | max | beside the flood: median | max | \
             max, times | kicks of the flood | longest upcall, events | ends deferred |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|",
            platform.title()
        );
        for (when, Beside { alone, beside, flood }) in
            [("within its upcall", in_upcall), ("as the module ends it", later)]
        {
            let [before, before_max, median, max, kicks, longest, deferred] = [
                alone.median,
                alone.max,
                beside.median,
                beside.max,
                flood.kicks,
                flood.longest,
                flood.deferred,
            ]
            .map(grouped);
            let times = times(beside.max, alone.max);
            let _ = writeln!(
                page,
                "| {when} | {before} | {before_max} | {median} | {max} | {times} | {kicks} | {longest} | {deferred} |"
            );
        }
    }
    page
}

fn section(page: &mut String, title: &str, plot: &str, measured: &Measured) {
    let Measured { attacks, accesses } = measured;
    let _ = writeln!(
        page,
        "\n## {title}\n\n| a neighbour's kick, in ticks | min | median | max | median, alone | times |\n\
         |---|--:|--:|--:|--:|--:|"
    );
    for [alone, beside] in attacks {
        let (when, [min, median, max, before]) =
            (&beside.when, [beside.min, beside.median, beside.max, alone.median].map(grouped));
        let times = times(beside.median, alone.median);
        let _ = writeln!(page, "| {when} | {min} | {median} | {max} | {before} | {times} |");
    }
    let all = grouped(accesses.all);
    let _ = writeln!(
        page,
        "\n![{title}](hostile/{plot})\n\n| of {all} accesses | requests |\n|---|--:|"
    );
    for (end, count) in &accesses.ends {
        let _ = writeln!(page, "| {end} | {} |", grouped(*count));
    }
    let transient = grouped(accesses.transient);
    let _ = writeln!(page, "\nMeanwhile a device's doorbell came and went {transient} times.");
}

/// How many times the one is the other, with a digit after the point.
fn times(one: u64, other: u64) -> String {
    let tenths = one * 10 / other.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn bars(title: &str, measured: &Measured) -> String {
    let rows: Vec<(&str, u64, u64)> = measured
        .attacks
        .iter()
        .flatten()
        .map(|kicks| (kicks.when.as_str(), kicks.median, kicks.max))
        .collect();
    svg::bars(
        &format!("{title}: a neighbour's kick"),
        "ticks: bar to the median, mark at the most",
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_scenarios::report_lines::{Accesses, Neighbour};

    #[test]
    fn a_section_holds_each_attack_against_what_was_before() {
        let kicks =
            |when: &str, median| Neighbour { when: when.to_owned(), min: 1000, median, max: 9000 };
        let measured = Measured {
            attacks: vec![[kicks("alone", 2000), kicks("beside a flood", 5000)]],
            accesses: Accesses {
                all: 1_000_000,
                ends: vec![("kicks".to_owned(), 70_000)],
                transient: 3,
            },
        };
        let mut page = String::new();
        section(&mut page, "PV dom0, kernel engine", "x86-pv-kernel.svg", &measured);
        for text in [
            "## PV dom0, kernel engine",
            "| beside a flood | 1,000 | 5,000 | 9,000 | 2,000 | 2.5 |",
            "| of 1,000,000 accesses | requests |",
            "| kicks | 70,000 |",
            "came and went 3 times",
        ] {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
        assert!(bars("PV", &measured).contains("beside a flood"));
    }

    #[test]
    fn the_pages_in_the_repository_have_these_words() {
        PAGES.iter().for_each(|page| page.check(&[FLOOD]));
    }
}
