//! `docs/soak.md`, for arm64 `docs/soak-arm64.md`, and their plots.

use super::Soaked;
use super::judge::{self, Growth};
use crate::bench::svg::{self, grouped};
use crate::lab::rig::{Rig, versions};
use crate::page::Page;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use xen_eventfd_lab::{Arch, workspace};
use xen_eventfd_scenarios::soak::Sample;

const PAGES: [Page; 2] = [
    Page::new(Arch::X86_64, "soak.md", include_str!("begin.md")),
    Page::new(Arch::Arm64, "soak-arm64.md", include_str!("begin_arm64.md")),
];

/// Writes the page and the plots.
pub(super) fn write(rig: &Rig, all: &[Soaked]) -> Result<()> {
    let plotted = workspace().join("docs/soak");
    fs::create_dir_all(&plotted)?;
    for (name, plot) in all.iter().flat_map(plots) {
        let path = plotted.join(name);
        fs::write(&path, plot).with_context(|| format!("writing {}", path.display()))?;
    }
    let page = Page::of(&PAGES, rig.lab.arch());
    let mut text = page.begin.to_owned() + &page.made_with(&versions(&rig.lab));
    all.iter().for_each(|soaked| section(&mut text, soaked));
    page.write(&text)
}

fn title(soaked: &Soaked) -> String {
    format!("{}, {} engine", soaked.platform.title(), soaked.engine.name())
}

fn section(page: &mut String, soaked: &Soaked) {
    let judged = judge::judged(&soaked.samples);
    let (Some(base), Some(last)) = (judged.first(), judged.last()) else { return };
    let done = last.done.named().map(|(name, count)| format!("{} {name}", grouped(count)));
    let _ = writeln!(
        page,
        "\n## {}\n\n{} rounds: {}.\n\n| there is | after round {} | and after each of {} more |\n|---|---|---|",
        title(soaked),
        last.round,
        done.join(", "),
        base.round,
        judged.len() - 1
    );
    for (nth, (name, count)) in base.counts.named().into_iter().enumerate() {
        let counts = || judged.iter().filter_map(|one| Some(one.counts.named().get(nth)?.1));
        let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
        let same = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let _ = writeln!(page, "| {name} | {count} | {same} |");
    }
    let _ = writeln!(
        page,
        "\n| memory, KiB | first third | last third | growth in each round | allowed |\n|---|---|---|---|---|"
    );
    for Growth { name, thirds: [first, last], each, allowed } in judge::growths(judged) {
        let [first, last] = [first, last].map(grouped);
        let _ = writeln!(page, "| {name} | {first} | {last} | {each:.2} | {allowed:.0} |");
    }
    for (name, _) in plots(soaked) {
        let _ = writeln!(page, "\n![{}](soak/{name})", title(soaked));
    }
}

/// What there was after each round, and how much memory was used.
fn plots(soaked: &Soaked) -> [(String, String); 2] {
    let samples = &soaked.samples;
    let file = |what| format!("{}-{}-{what}.svg", soaked.platform.name(), soaked.engine.name());
    let counts = series(samples, |sample| {
        sample.counts.named().map(|(name, count)| (name, count as u64)).to_vec()
    });
    let memory = series(samples, |sample| sample.memory.named().to_vec());
    let plot = |what: &str, unit, series: &[(&str, Vec<u64>)]| {
        svg::lines(&format!("{}: {what}", title(soaked)), unit, &ticks(samples), series)
    };
    [
        (file("counts"), plot("what is there", "how many, after each round", &counts)),
        (file("memory"), plot("memory", "KiB, after each round", &memory)),
    ]
}

fn series(
    samples: &[Sample],
    named: impl Fn(&Sample) -> Vec<(&'static str, u64)>,
) -> Vec<(&'static str, Vec<u64>)> {
    let Some(first) = samples.first() else { return Vec::new() };
    let of = |nth: usize| samples.iter().filter_map(|one| Some(named(one).get(nth)?.1)).collect();
    named(first).into_iter().enumerate().map(|(nth, (name, _))| (name, of(nth))).collect()
}

/// Some rounds' numbers along the axis.
fn ticks(samples: &[Sample]) -> Vec<(usize, String)> {
    let step = (samples.len() / 6).max(1);
    samples.iter().enumerate().step_by(step).map(|(at, one)| (at, one.round.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Engine;
    use xen_eventfd_lab::Platform;
    use xen_eventfd_scenarios::soak::{Counts, Done, Memory};

    #[test]
    fn a_section_says_what_was_done_and_what_is_there() {
        let sample = |round| Sample {
            round,
            done: Done { kicks: 1000 * round, ..Done::default() },
            counts: Counts { channels: 21, ..Counts::default() },
            memory: Memory { used: 90_000, slab: 20_000, resident: 5000 },
        };
        let soaked = Soaked {
            platform: Platform::X86Pvh,
            engine: Engine::Kernel,
            samples: (1..=20).map(sample).collect(),
        };
        let mut page = String::new();
        section(&mut page, &soaked);
        for text in [
            "## PVH dom0, kernel engine",
            "20 rounds: ",
            "20,000 kicks",
            "| event channels | 21 | 21 |",
            "| used in domain 0 | 90,000 | 90,000 | 0.00 |",
            "(soak/x86-pvh-kernel-counts.svg)",
        ] {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
        assert!(
            plots(&soaked)
                .iter()
                .all(|(_, plot)| plot.contains("event channels") || plot.contains("slabs"))
        );
    }

    #[test]
    fn the_pages_in_the_repository_have_these_words() {
        PAGES.iter().for_each(|page| page.check(&[]));
    }
}
