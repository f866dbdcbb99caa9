//! `docs/bench.md` and `docs/bench-arm64.md` and their plots, out of figures alone.

use super::cases;
use super::host::Counted;
use super::profile::{Part, Profile, functions};
use super::results::{Difference, Results};
use super::svg::{self, grouped};
use super::targets::{self, quotient};
use crate::page::Page;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use xen_eventfd_bench::{Calls, Case, Figures, Filter, Interrupt, Kicks, Space, Spread, Way};
use xen_eventfd_lab::{Arch, Platform, workspace};

/// All pages.
pub(super) const PAGES: [Page; 2] = [
    Page::new(Arch::X86_64, "bench.md", include_str!("begin.md"))
        .ending(include_str!("reading.md")),
    Page::new(Arch::Arm64, "bench-arm64.md", include_str!("begin_arm64.md"))
        .ending(include_str!("reading_arm64.md")),
];

/// Whether a page has what this machine itself counts.
pub(super) fn has_host(page: &Page) -> bool {
    page.arch == Arch::X86_64
}

/// Below which a profile stands.
pub(super) const PROFILE: &str = "Where the instructions go";
/// Below which stands what this machine counted.
pub(super) const HOST: &str = "Without Xen";

/// What is known of one dom0.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) platform: Platform,
    pub(super) results: Results,
    pub(super) profiles: Vec<Profile>,
}

/// Writes the page and the plots.
pub(super) fn write(page: &Page, all: &[Known], host: Option<&[Counted]>) -> Result<()> {
    let docs = workspace().join("docs");
    fs::create_dir_all(docs.join("bench"))?;
    let plots = all.iter().flat_map(plots);
    let plots = plots.map(|(name, plot)| (docs.join("bench").join(format!("{name}.svg")), plot));
    for (path, text) in plots {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    page.write(&text(page, all, host))
}

fn text(of: &Page, all: &[Known], host: Option<&[Counted]>) -> String {
    let mut page = of.begin.to_owned();
    versions(&mut page, of, all);
    promises(&mut page, all);
    for known in all {
        let Known { platform, results, profiles } = known;
        let title = platform.title();
        let _ = writeln!(page, "## {title}\n");
        for (name, _) in plots(known) {
            let _ = writeln!(page, "![{title}: {name}](bench/{name}.svg)\n");
        }
        one_vcpu(&mut page, *platform, results);
        registrations(&mut page, *platform, results);
        two_vcpus(&mut page, *platform, results);
        grid(&mut page, *platform, results);
        calls(&mut page, *platform, results);
        parts(&mut page, profiles);
    }
    if has_host(of) {
        on_this_machine(&mut page, host);
    }
    page.push_str(of.end);
    page
}

fn versions(page: &mut String, of: &Page, all: &[Known]) {
    let Some(Known { results: first, .. }) = all.first() else { return };
    let _ = writeln!(page, "Measured with:\n\n{}", of.made_with(&first.versions));
    for Known { platform, results, .. } in all {
        let name = platform.title();
        let count = results.measured.len();
        let _ = match (results.twice, &results.differences[..]) {
            (false, _) => writeln!(page, "{name}: measured once.\n"),
            (true, []) => writeln!(
                page,
                "{name}: two runs of {count} measurements, the same to the last instruction.\n"
            ),
            (true, differences) => {
                let _ = writeln!(
                    page,
                    "{name}: two runs of {count} measurements; **{} had other figures in the second run**:\n",
                    differences.len()
                );
                for one in differences {
                    let _ = writeln!(page, "- {}", difference(*platform, results, one));
                }
                writeln!(page)
            }
        };
    }
}

/// What a second run has measured of a case, where it is something else.
pub(super) fn difference(platform: Platform, results: &Results, one: &Difference) -> String {
    let name = name_of(platform, &one.case);
    let Some((first, again)) = results.of(&one.case).zip(one.again.as_ref()) else {
        return format!("{name}: not measured again");
    };
    let (ticks, across) = match one.case {
        Case::Kicks(_) => ("guest ticks, ", "to the backend, "),
        Case::Calls(_) => ("", ""),
    };
    let spreads = [(ticks, &first.ticks, &again.ticks), (across, &first.across, &again.across)];
    let differing: Vec<String> = spreads
        .into_iter()
        .filter_map(|(what, first, again)| Some((what, first.as_ref()?, again.as_ref()?)))
        .flat_map(|(what, first, again)| {
            [
                (what, "min", first.min(), again.min()),
                (what, "median", first.median(), again.median()),
                (what, "p99", first.p99(), again.p99()),
            ]
        })
        .filter(|(_, _, first, again)| first != again)
        .map(|(what, figure, first, again)| {
            format!("{what}{figure} {}, then {}", grouped(first), grouped(again))
        })
        .collect();
    match &differing[..] {
        [] => format!("{name}: neither minimum, median nor p99"),
        differing => format!("{name}: {}", differing.join("; ")),
    }
}

/// A case in words.
fn name_of(platform: Platform, case: &Case) -> String {
    match case {
        Case::Kicks(Kicks { way, registrations, vcpus, space, filter, backend }) => format!(
            "kicks, {}, {} registrations, {vcpus} vCPUs, {}, {}, {}",
            way.title(),
            grouped((*registrations).into()),
            name_of_space(*space),
            name_of_filter(*filter),
            if *backend { "a backend waits" } else { "no listener" }
        ),
        Case::Calls(Calls { way, interrupt }) => {
            format!("calls, {}, {}", call_title(*way), name_of_interrupt(platform, *interrupt))
        }
    }
}

fn name_of_space(space: Space) -> &'static str {
    match space {
        Space::Mmio => "MMIO",
        Space::Pio => "PIO",
    }
}

fn name_of_filter(filter: Filter) -> &'static str {
    match filter {
        Filter::Datamatch => "datamatch",
        Filter::Wildcard => "wildcard",
        Filter::None => "none",
    }
}

fn name_of_interrupt(platform: Platform, interrupt: Interrupt) -> &'static str {
    match (interrupt, platform.arch()) {
        (Interrupt::Msi, Arch::X86_64) => "MSI",
        (Interrupt::Msi, Arch::Arm64) => "SPI",
        (Interrupt::Channel, _) => "event channel",
    }
}

fn promises(page: &mut String, all: &[Known]) {
    let targets =
        all.iter().map(|known| (known.platform, targets::all(known.platform, &known.results)));
    page.push_str(&targets::table(targets));
}

/// `min | median | p99` of a spread.
fn spread(spread: Option<&Spread>) -> String {
    spread.map_or("– | – | –".to_owned(), |s| {
        format!("{} | {} | {}", grouped(s.min()), grouped(s.median()), grouped(s.p99()))
    })
}

fn wakeups(figures: &Figures) -> String {
    let w = &figures.wakeups;
    let n = figures.samples;
    format!(
        "{} | {} | {} | {} | {}",
        quotient(w.backend, n),
        quotient(w.vmm, n),
        quotient(w.engine, n),
        quotient(w.others, n),
        quotient(w.kernel, n)
    )
}

fn rows<'a>(page: &mut String, platform: Platform, figures: impl Fn(Way) -> Option<&'a Figures>) {
    let _ = writeln!(
        page,
        "| way | guest ticks: min | median | p99 | to the backend: min | median | p99 | dom0 | \
         woken: backend | VMM | engine | others | kernel threads |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for way in cases::ways(platform) {
        let Some(figures) = figures(way) else { continue };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            way.title(),
            spread(figures.ticks.as_ref()),
            spread(figures.across.as_ref()),
            grouped(figures.dom0 / figures.samples.max(1)),
            wakeups(figures)
        );
    }
    page.push('\n');
}

fn one_vcpu(page: &mut String, platform: Platform, results: &Results) {
    let _ = writeln!(page, "### A kick: one vCPU, one doorbell\n");
    rows(page, platform, |way| results.kicks(way, 1, 1));
    let _ = writeln!(
        page,
        "### The same, without a reader of the eventfd\n\nWhat the way itself costs: the backend does \
         not run inside of the window.\n"
    );
    rows(page, platform, |way| results.no_listener(way, 1));
}

fn two_vcpus(page: &mut String, platform: Platform, results: &Results) {
    let _ = writeln!(page, "### Two vCPUs, back to back\n");
    rows(page, platform, |way| results.kicks(way, 1, 2));
}

fn registrations(page: &mut String, platform: Platform, results: &Results) {
    let _ = writeln!(
        page,
        "### Among many doorbells\n\nMedian guest ticks of a kick to the last registration.\n\n\
         | way | 1 | 64 | 1,024 | 1,024 to 1 |\n|---|--:|--:|--:|--:|"
    );
    for way in cases::ways(platform) {
        let medians = cases::SIZES
            .map(|size| results.kicks(way, size, 1)?.ticks.as_ref().map(Spread::median));
        let [Some(one), Some(some), Some(many)] = medians else { continue };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            way.title(),
            grouped(one),
            grouped(some),
            grouped(many),
            quotient(many, one)
        );
    }
    page.push('\n');
}

fn grid(page: &mut String, platform: Platform, results: &Results) {
    let _ = writeln!(
        page,
        "### The grid of pci-testdev\n\nGuest ticks of a write, with the module. *none*: no eventfd is \
         registered, and the device model answers.\n\n\
         | | none: min | median | p99 | wildcard: min | median | p99 | datamatch: min | median | p99 |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for space in cases::spaces(platform) {
        let cells = [Filter::None, Filter::Wildcard, Filter::Datamatch].map(|filter| {
            let (way, registrations, vcpus, backend) = (Way::Module, 1, 1, true);
            let kicks = Kicks { way, registrations, vcpus, space, filter, backend };
            let figures = results.of(&Case::Kicks(kicks));
            spread(figures.and_then(|figures| figures.ticks.as_ref()))
        });
        let _ = writeln!(page, "| {} | {} |", name_of_space(space), cells.join(" | "));
    }
    page.push('\n');
}

/// What tables call a way of calls.
fn call_title(way: Way) -> &'static str {
    match way {
        Way::Floor | Way::FloorSilent => "no eventfd: the backend raises it itself",
        Way::Vmm => "a process reads the eventfd and raises it",
        other => other.title(),
    }
}

fn calls(page: &mut String, platform: Platform, results: &Results) {
    let _ = writeln!(
        page,
        "### A call: eventfd to guest\n\nTicks from before the backend's write until the guest's vCPU, \
         which slept, runs after its handler.\n\n\
         | interrupt | way | min | median | p99 | woken: VMM | engine | others | kernel threads |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|"
    );
    for interrupt in [Interrupt::Channel, Interrupt::Msi] {
        for way in [Way::Vmm, Way::Upstream, Way::Engine, Way::Module, Way::Floor] {
            let case = Case::Calls(Calls { way, interrupt });
            let Some(figures) = results.of(&case) else { continue };
            let (w, n) = (&figures.wakeups, figures.samples);
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} | {} | {} |",
                name_of_interrupt(platform, interrupt),
                call_title(way),
                spread(figures.across.as_ref()),
                quotient(w.vmm, n),
                quotient(w.engine, n),
                quotient(w.others, n),
                quotient(w.kernel, n)
            );
        }
    }
    page.push('\n');
}

/// Functions that a way's list has.
const FUNCTIONS: usize = 12;

fn parts(page: &mut String, profiles: &[Profile]) {
    if profiles.is_empty() {
        return;
    }
    let titles = Part::ALL.map(Part::title).join(" | ");
    let _ = writeln!(
        page,
        "### {PROFILE}\n\nInstructions for each kick, counted by a plug-in of QEMU \
         (`bench/profiler`) from the first kick to the last."
    );
    for (backend, when) in [(true, "While a backend waits:"), (false, "Without one:")] {
        let _ =
            writeln!(page, "\n{when}\n\n| way | {titles} | all |\n|---|--:|--:|--:|--:|--:|--:|");
        for profile in profiles.iter().filter(|profile| profile.backend == backend) {
            let part = |part| profile.parts.get(&part).copied().unwrap_or(0);
            let each = |count: u64| grouped(count / profile.kicks.max(1));
            let cells = Part::ALL.map(|one| each(part(one))).join(" | ");
            let all = each(profile.parts.values().sum());
            let _ = writeln!(page, "| {} | {cells} | {all} |", profile.way.title());
        }
    }
    let _ = writeln!(page, "\nThe functions with the most of them, while a backend waits:\n");
    for profile in profiles.iter().filter(|profile| profile.backend) {
        let names = functions(&profile.functions, FUNCTIONS, profile.kicks);
        let _ = writeln!(page, "- **{}**: {names}", profile.way.title());
    }
    page.push('\n');
}

fn on_this_machine(page: &mut String, host: Option<&[Counted]>) {
    let _ = writeln!(page, "## {HOST}\n");
    let Some(counted) = host else {
        let _ = writeln!(page, "Not counted: the machine has no valgrind.\n");
        return;
    };
    let _ = writeln!(
        page,
        "Instructions of the program, as callgrind counts them; what the kernel does in system calls is \
         not among them. The model's rows are threads that wait for each other in no fixed order, so \
         they differ by up to a third from run to run; the others do not.\n\n\
         | | instructions |\n|---|--:|"
    );
    for one in counted {
        let _ = writeln!(page, "| {} | {} |", one.title, grouped(one.instructions));
    }
    page.push('\n');
}

/// Names and contents.
fn plots(known: &Known) -> Vec<(String, String)> {
    let Known { platform, results, .. } = known;
    let (title, name) = (platform.title(), platform.name());
    let ticks = |way, size| results.kicks(way, size, 1)?.ticks.as_ref();
    let no_listener = |way| results.no_listener(way, 1)?.ticks.as_ref();
    let ways = cases::ways(*platform);
    let bars: Vec<_> = ways
        .iter()
        .filter_map(|way| ticks(*way, 1).map(|s| (way.title(), s.median(), s.p99())))
        .collect();
    let alone: Vec<_> = ways
        .iter()
        .filter_map(|way| no_listener(*way).map(|s| (way.title(), s.median(), s.p99())))
        .collect();
    let percentiles: Vec<_> = ways
        .iter()
        .filter_map(|way| {
            let across = results.kicks(*way, 1, 1)?.across.as_ref()?;
            Some((way.title(), across.percentiles().to_vec()))
        })
        .collect();
    let sizes: Vec<_> = ways
        .iter()
        .filter_map(|way| {
            let points = cases::SIZES.map(|size| ticks(*way, size).map(Spread::median));
            let points: Option<Vec<u64>> = points.into_iter().collect();
            Some((way.title(), points?))
        })
        .collect();
    let percent = [0, 25, 50, 75, 100].map(|p| (p, format!("{p} %")));
    let counts = cases::SIZES.map(|size| grouped(size.into()));
    let counts: Vec<_> = counts.into_iter().enumerate().collect();
    vec![
        (
            format!("kicks-{name}"),
            svg::bars(&format!("{title}: a kick, median and p99"), "guest ticks", &bars),
        ),
        (
            format!("no_listener-{name}"),
            svg::bars(
                &format!("{title}: a kick, median and p99, without a reader"),
                "guest ticks",
                &alone,
            ),
        ),
        (
            format!("backend-{name}"),
            svg::lines(
                &format!("{title}: from the guest's write to the backend"),
                "ticks, by percentile",
                &percent,
                &percentiles,
            ),
        ),
        (
            format!("registrations-{name}"),
            svg::lines(
                &format!("{title}: a kick among many doorbells"),
                "guest ticks, by registrations",
                &counts,
                &sizes,
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use xen_eventfd_bench::{Measured, Wakeups};

    fn known(platform: Platform, differs: bool) -> Known {
        let measured = |way, registrations, ticks: u64| {
            let (vcpus, space, filter, backend) = (1, Space::Mmio, Filter::Datamatch, true);
            let kicks = Kicks { way, registrations, vcpus, space, filter, backend };
            let figures = Figures {
                samples: 1000,
                ticks: Spread::of(vec![ticks, ticks + 10]),
                across: Spread::of(vec![ticks - 1000]),
                found: 1000,
                delivered: 1000,
                dom0: 12_345_678,
                wakeups: Wakeups { backend: 1000, vmm: 1001, ..Wakeups::default() },
            };
            Measured { case: Case::Kicks(kicks), figures }
        };
        let first = vec![measured(Way::Module, 1, 23_000), measured(Way::Floor, 1, 22_000)];
        let mut second = first.clone();
        if differs {
            second[1] = measured(Way::Floor, 1, 22_500);
        }
        let results = Results::new(BTreeMap::new(), first, Some(&second));
        Known { platform, results, profiles: Vec::new() }
    }

    #[test]
    fn a_page_has_its_figures_and_says_that_they_came_again() {
        let page = text(&PAGES[0], &[known(Platform::X86Pv, false)], None);
        assert!(page.contains("the same to the last instruction"), "{page}");
        assert!(page.contains("| module | 23,000 | 23,000 | 23,010 |"), "{page}");
        assert!(page.contains("| 1.000 | 1.001 | 0.000 | 0.000 | 0.000 |"), "{page}");
        assert!(page.contains("23,000 of 22,000: 1.045 | kept"), "{page}");
        assert!(page.contains("1,001 in 1,000 kicks | **missed**"), "{page}");
        let reason = "- *PV dom0, module: no process woken but the backend*: It is not known why.";
        assert!(page.contains(reason), "{page}");
        assert!(page.contains("no valgrind"), "{page}");
    }

    #[test]
    fn a_page_says_what_did_not_come_again() {
        let mut known = known(Platform::X86Pv, true);
        let words = "two runs of 2 measurements; **1 had other figures in the second run**:\n\n- kicks, floor, ";
        let said = |known: &Known| {
            let page = text(&PAGES[0], std::slice::from_ref(known), None);
            let (_, rest) = page.split_once(words).unwrap();
            rest.lines().next().unwrap().rsplit_once("a backend waits: ").unwrap().1.to_owned()
        };
        assert_eq!(
            said(&known),
            "guest ticks, min 22,000, then 22,500; guest ticks, median 22,000, then 22,500; \
             guest ticks, p99 22,010, then 22,510; to the backend, min 21,000, then 21,500; \
             to the backend, median 21,000, then 21,500; to the backend, p99 21,000, then 21,500"
        );
        let floor = known.results.measured[1].figures.clone();
        known.results.differences[0].again = Some(Figures { dom0: 1, ..floor });
        assert_eq!(said(&known), "neither minimum, median nor p99");
        let Difference { case, .. } = known.results.differences[0];
        let gone = Difference { case, again: None };
        assert!(difference(known.platform, &known.results, &gone).ends_with("not measured again"));
    }

    #[test]
    fn a_page_of_arm_has_what_arm_has_and_nothing_of_this_machine() {
        let page = text(&PAGES[1], &[known(Platform::Arm64, false)], None);
        assert!(page.contains("23,000 of 22,000: 1.045 | **missed**"), "{page}");
        assert!(page.contains("| MMIO |") && !page.contains("| PIO |"), "{page}");
        assert!(!page.contains("valgrind"), "{page}");
        assert_eq!(name_of_interrupt(Platform::Arm64, Interrupt::Msi), "SPI");
        assert_eq!(name_of_interrupt(Platform::X86Pvh, Interrupt::Msi), "MSI");
    }

    #[test]
    fn the_pages_in_the_repository_have_these_words() {
        PAGES.iter().for_each(|page| page.check(&[]));
    }

    #[test]
    fn the_pages_in_the_repository_have_their_plots() {
        for page in &PAGES {
            let text = page.present();
            let plots: Vec<&str> =
                text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
            let plots: Vec<&str> = plots.into_iter().filter(|to| to.ends_with(".svg")).collect();
            assert!(!plots.is_empty(), "{} has no plots", page.file);
            for plot in plots {
                assert!(workspace().join("docs").join(plot).exists(), "{plot} is not there");
            }
        }
    }
}
