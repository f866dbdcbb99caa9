//! `docs/devices-cost.md` and `docs/devices-cost-arm64.md`, out of figures alone.

use super::figures::{Figures, Profile};
use super::sets::{self, Set};
use super::targets;
use crate::bench::profile::{Part, functions};
use crate::bench::svg::grouped;
use crate::bench::targets::{quotient, table};
use crate::page::Page;
use anyhow::Result;
use std::fmt::Write as _;
use xen_eventfd_bench::devices::{Loaded, Server};
use xen_eventfd_lab::{Arch, Platform};

/// All pages.
pub(super) const PAGES: [Page; 2] = [
    Page::new(Arch::X86_64, "devices-cost.md", include_str!("begin.md"))
        .ending(include_str!("reading.md")),
    Page::new(Arch::Arm64, "devices-cost-arm64.md", include_str!("begin_arm64.md"))
        .ending(include_str!("reading_arm64.md")),
];

/// How many functions of a load stand on the page.
const FUNCTIONS: usize = 8;

/// Writes the page.
pub(super) fn write(page: &Page, all: &[(Platform, Figures)]) -> Result<()> {
    page.write(&text(page, all))
}

fn text(of: &Page, all: &[(Platform, Figures)]) -> String {
    let mut page = of.begin.to_owned();
    if let Some((_, figures)) = all.first() {
        let _ = writeln!(page, "Measured with:\n\n{}", of.made_with(&figures.versions));
    }
    let held =
        |(platform, figures): &(Platform, Figures)| (*platform, targets::all(*platform, figures));
    page.push_str(&table(all.iter().map(held)));
    for (platform, figures) in all {
        let _ = writeln!(page, "## {}\n", platform.title());
        for set in sets::of(*platform).filter(|set| !set.loads().is_empty()) {
            ticks(&mut page, figures, set);
        }
        parts(&mut page, figures);
        wakeups(&mut page, figures);
        starts(&mut page, figures);
        most(&mut page, figures);
    }
    page.push_str(of.end);
    page
}

/// What a server is called.
pub(super) fn title(server: Server) -> &'static str {
    match server {
        Server::Pv => "Xen's own",
        Server::Kernel => "kernel engine",
        Server::Userspace => "userspace engine",
        Server::Qemu => "QEMU's own, HVM",
        Server::Hvm => "kernel engine, HVM",
        Server::Scsi => "vhost-scsi",
        Server::PvQueues => "Xen's own, 4 queues",
        Server::KernelQueues => "kernel engine, 4 queues",
        Server::One => "1 disk",
        Server::Eight => "8 disks",
        Server::SixtyFour => "64 disks",
        Server::Root => "kernel engine, root on virtiofs",
    }
}

fn ticks(page: &mut String, figures: &Figures, set: &Set) {
    let (base, of) = set.base;
    let (mut head, mut line) = (String::new(), String::new());
    for server in set.columns() {
        let _ = write!(head, " {}: min | median | p99 |", title(server));
        line += "--:|--:|--:|";
        if server != base {
            let _ = write!(head, " of {of} |");
            line += "--:|";
        }
    }
    let _ = writeln!(page, "### {}\n\n| |{head}\n|---|{line}", set.title);
    for load in set.loads() {
        let each = |server| figures.of(server, *load).map(|(loaded, _)| &loaded.ticks.each);
        let _ = write!(page, "| {} |", load.title());
        for server in set.columns() {
            let cells = match each(server) {
                Some(each) => [each.min(), each.median(), each.p99()].map(grouped).join(" | "),
                None => "– | – | –".to_owned(),
            };
            let _ = write!(page, " {cells} |");
            if server == base {
                continue;
            }
            let share = match (each(server), each(base)) {
                (Some(ours), Some(base)) => quotient(ours.median(), base.median()),
                _ => "–".to_owned(),
            };
            let _ = write!(page, " {share} |");
        }
        page.push('\n');
    }
    page.push('\n');
}

/// Each load by each server.
fn rows<'a>(
    figures: &'a Figures,
) -> impl Iterator<Item = (String, &'a Loaded, &'a Profile)> + use<'a> {
    let cases = |set: &'static Set| {
        let servers = move |load| set.servers.iter().map(move |server| (*server, load));
        set.loads().iter().flat_map(servers)
    };
    sets::ALL.iter().flat_map(cases).filter_map(|(server, load)| {
        let (loaded, profile) = figures.of(server, *load)?;
        Some((format!("{} | {}", load.title(), title(server)), loaded, profile))
    })
}

fn parts(page: &mut String, figures: &Figures) {
    let titles = Part::ALL.map(Part::title).join(" | ");
    let _ = writeln!(
        page,
        "### Whose instructions they are\n\n\
         | | by | {titles} | all | exits of the guest | of dom0 |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for (name, Loaded { ticks, .. }, profile) in rows(figures) {
        let each = |count: u64| grouped(count / ticks.requests.max(1));
        let part = |part| each(profile.parts.get(&part).copied().unwrap_or(0));
        let cells = Part::ALL.map(part).join(" | ");
        let exits = [profile.exits, profile.dom0_exits]
            .map(|exits| quotient(exits, ticks.requests))
            .join(" | ");
        let _ = writeln!(page, "| {name} | {cells} | {} | {exits} |", each(profile.all()));
    }
    page.push('\n');
}

fn wakeups(page: &mut String, figures: &Figures) {
    let _ = writeln!(page, "### Who is woken\n\n| | by | requests | woken |\n|---|---|--:|---|");
    for (name, Loaded { ticks, processes, .. }, _) in rows(figures) {
        let woken = processes.iter().map(|(name, one)| format!("{name} {}", grouped(one.woken)));
        let woken = woken.collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| {name} | {} | {woken} |", grouped(ticks.requests));
    }
    page.push('\n');
}

fn starts(page: &mut String, figures: &Figures) {
    let _ = writeln!(
        page,
        "### A start\n\n\
         | by | until the guest has read its disk | meanwhile xen-virtio runs | of that, until the guest runs | \
         in memory, at most | of that, anonymous |\n|---|--:|--:|--:|--:|--:|"
    );
    for server in Server::ALL {
        let Some(started) = figures.started(server) else { continue };
        let size = |name| match started.memory.get(name) {
            Some(size) => format!("{} KiB", grouped(*size)),
            None => "–".to_owned(),
        };
        let ran = |time: u64| if time == 0 { "–".to_owned() } else { grouped(time) };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            title(server),
            grouped(started.until_first_read),
            ran(started.ran),
            ran(started.until_it_runs),
            size("VmHWM"),
            size("RssAnon")
        );
    }
    page.push('\n');
}

fn most(page: &mut String, figures: &Figures) {
    let _ = writeln!(page, "### The functions with the most of them\n");
    for (name, Loaded { ticks, .. }, profile) in rows(figures) {
        let names = functions(&profile.functions, FUNCTIONS, ticks.requests);
        let _ = writeln!(page, "- **{}**: {names}", name.replace(" | ", ", "));
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use xen_eventfd_bench::Spread;
    use xen_eventfd_bench::devices::{Load, Process, Started, Ticks};

    fn figures() -> Figures {
        let loaded = |(server, load, median)| {
            let ticks = Ticks {
                requests: 2000,
                each: Spread::of(vec![median]).unwrap(),
                all: median * 2000,
            };
            let name = if server == Server::Pv { "netback" } else { "vhost" };
            let processes = BTreeMap::from([(name.to_owned(), Process { woken: 2000, ran: 1 })]);
            let profile = Profile {
                parts: BTreeMap::from([(Part::Xen, 2000 * median)]),
                exits: 3000,
                dom0_exits: 1000,
                functions: vec![(Part::Xen, "svm_vmexit_handler".to_owned(), 4000)],
            };
            (Loaded { server, load, ticks, processes }, profile)
        };
        let started = Started {
            server: Server::Kernel,
            until_first_read: 2_000_000_000,
            ran: 22_000_000,
            until_it_runs: 12_000_000,
            memory: BTreeMap::from([("VmHWM".to_owned(), 9000)]),
        };
        Figures {
            versions: BTreeMap::new(),
            started: vec![started],
            loaded: [
                (Server::Pv, Load::Ping, 1000),
                (Server::Kernel, Load::Ping, 500),
                (Server::Qemu, Load::READS[0], 1000),
                (Server::Hvm, Load::READS[0], 600),
            ]
            .map(loaded)
            .to_vec(),
        }
    }

    #[test]
    fn a_page_has_figures_and_what_they_are_held_to() {
        let page = text(&PAGES[0], &[(Platform::X86Pv, figures())]);
        for text in [
            "| PV dom0 | ping there and back: at most 0.58 of Xen's own | 500 of 1,000: 0.500 | kept |",
            "| PV dom0 | no request of the guest wakes xen-virtio, whichever it is | 0 in 2,000 requests | kept |",
            "| PV dom0 | xen-virtio: less than 8 MiB in memory | 9,000 KiB | **missed** |",
            "| PV dom0 | kernel engine, HVM: 4 KiB read: at most 0.50 of QEMU's own | 600 of 1,000: 0.600 | **missed** |",
            "| | QEMU's own, HVM: min | median | p99 | kernel engine, HVM: min | median | p99 | of QEMU's own |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|\n\
             | 4 KiB read | 1,000 | 1,000 | 1,000 | 600 | 600 | 600 | 0.600 |\n",
            "| 4 KiB read | kernel engine, HVM | 0 | 600 |",
            "| ping there and back | 1,000 | 1,000 | 1,000 | 500 | 500 | 500 | 0.500 |",
            "| ping there and back | kernel engine | 0 | 500 | 0 | 0 | 0 | 500 | 1.500 | 0.500 |",
            "| ping there and back | kernel engine | 2,000 | vhost 2,000 |",
            "- **ping there and back, kernel engine**: Xen svm_vmexit_handler (2)",
        ] {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
    }

    #[test]
    fn the_pages_in_the_repository_have_these_words() {
        PAGES.iter().for_each(|page| page.check(&[]));
    }
}
