//! What the project promises of its figures, and whether they keep it.

use super::results::Results;
use super::svg::grouped;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use xen_eventfd_bench::{Figures, Spread, Way};
use xen_eventfd_lab::{Arch, Platform};

/// A promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// What is promised.
    pub(super) promise: String,
    /// The two figures.
    pub(super) measured: String,
    /// Whether it is kept.
    pub(super) kept: bool,
    /// Why not, if that is known to happen.
    pub(super) why: Option<&'static str>,
}

impl Target {
    /// A line that says whether it is kept.
    pub(super) fn line(&self, platform: Platform) -> String {
        let verdict = if self.kept { "kept  " } else { "MISSED" };
        format!("{verdict}  {}: {}: {}", platform.name(), self.promise, self.measured)
    }
}

/// What was promised where there is such a dom0, in thousandths.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Of the floor.
    floor: u64,
    /// Of upstream C.
    upstream: u64,
}

impl Limits {
    fn of(platform: Platform) -> Self {
        match platform.arch() {
            Arch::X86_64 => Self { floor: 1050, upstream: 500 },
            Arch::Arm64 => Self { floor: 1020, upstream: 600 },
        }
    }
}

/// `0.5`, `1.02`: thousandths as a promise has them.
fn words(limit: u64) -> String {
    let digits = format!("{}.{:03}", limit / 1000, limit % 1000);
    digits.trim_end_matches('0').to_owned()
}

/// Why a kick costs more of upstream's than was promised.
const SHARE: &str = "No handler can cost that little: the floor, which does nothing, is above that share \
    itself. What Xen does for the access, the switch to dom0 and back, and the backend's own wakeup are \
    the same in both ways; upstream's own is the wakeup of its device model, and that alone can be saved.";
/// Why the userspace engine costs more than the loop.
const ENGINE: &str = "A dearer system call. The loop writes the eventfd, and sleeps for as long as its \
    backend leaves it full; the engine must not, and signals by `io_submit()`.";

fn spread(results: &Results, way: Way, registrations: u32) -> Option<&Spread> {
    results.kicks(way, registrations, 1)?.ticks.as_ref()
}

fn ticks(results: &Results, way: Way, registrations: u32) -> Option<u64> {
    spread(results, way, registrations).map(Spread::median)
}

fn no_listener(results: &Results, way: Way, registrations: u32) -> Option<&Spread> {
    results.no_listener(way, registrations)?.ticks.as_ref()
}

/// `part` in thousandths of `whole`.
fn thousandths(part: u64, whole: u64) -> u64 {
    part * 1000 / whole.max(1)
}

/// A quotient with three digits after the point.
pub(super) fn quotient(part: u64, whole: u64) -> String {
    let thousandths = thousandths(part, whole);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// Whether `part` is at most so many thousandths of `whole`.
pub(super) fn at_most(promise: impl Into<String>, part: u64, whole: u64, limit: u64) -> Target {
    let measured = format!("{} of {}: {}", grouped(part), grouped(whole), quotient(part, whole));
    Target { promise: promise.into(), measured, kept: part * 1000 <= whole * limit, why: None }
}

/// By the minima: two processes are woken, and dom0's scheduler lets the engine answer Xen first, or the backend run first.
/// So there are kinds of kicks, and the medians, which are named beside, may stand among different ones.
fn by_minima(promise: &str, part: &Spread, whole: &Spread) -> Target {
    let mut target = at_most(promise, part.min(), whole.min(), 1050);
    let medians = quotient(part.median(), whole.median());
    target.measured = format!("minima: {}; medians: {medians}", target.measured);
    target
}

/// Of the floor, by the medians and by the minima: dom0 has more to do in some kicks, when it becomes idle, and the one
/// median may stand among those and the other not.
fn of_floor(promise: String, part: &Spread, whole: &Spread, limit: u64) -> Target {
    let mut target = at_most(promise, part.median(), whole.median(), limit);
    let minima = at_most("", part.min(), whole.min(), limit);
    target.measured.push_str(&format!("; minima: {}", minima.measured));
    target.kept &= minima.kept;
    target
}

/// Wake-ups that are the engine's own.
fn foreign(figures: &Figures) -> u64 {
    figures.wakeups.vmm + figures.wakeups.engine + figures.wakeups.others
}

/// With what the floor costs: nothing that is done in dom0 can cost less.
fn of_upstream(promise: String, limit: u64, ticks: impl Fn(Way) -> Option<u64>) -> Option<Target> {
    let (module, upstream, floor) =
        (ticks(Way::Module)?, ticks(Way::Upstream)?, ticks(Way::Floor)?);
    let mut target = at_most(promise, module, upstream, limit);
    target.measured.push_str(&format!("; the floor: {}", quotient(floor, upstream)));
    // If the floor keeps it, then something else is to blame.
    target.why = (floor * 1000 > upstream * limit).then_some(SHARE);
    Some(target)
}

/// All promises that these results can be held to. Compared are medians, if nothing else is said.
pub(super) fn all(platform: Platform, results: &Results) -> Vec<Target> {
    let (mut targets, limits) = (Vec::new(), Limits::of(platform));
    let one = |way| ticks(results, way, 1);
    let one_spread = |way| spread(results, way, 1);
    if let (Some(module), Some(floor)) = (one_spread(Way::Module), one_spread(Way::Floor)) {
        let limit = words(limits.floor);
        let promise = format!("module: at most {limit} times the floor with the same waiter");
        targets.push(of_floor(promise, module, floor, limits.floor));
    }
    let alone = |way| no_listener(results, way, 1).map(Spread::median);
    let alone_spread = |way| no_listener(results, way, 1);
    if let (Some(module), Some(floor)) = (alone_spread(Way::Module), alone_spread(Way::Floor)) {
        let promise = "module: the same, no reader".to_owned();
        targets.push(of_floor(promise, module, floor, limits.floor));
    }
    let share = match limits.upstream {
        500 => "half".to_owned(),
        limit => words(limit),
    };
    let promise = format!("module: at most {share} of upstream C");
    targets.extend(of_upstream(promise, limits.upstream, one));
    let promise = "module: the same, no backend waiting".to_owned();
    targets.extend(of_upstream(promise, limits.upstream, alone));
    if let Some(figures) = results.kicks(Way::Module, 1, 1) {
        targets.push(Target {
            promise: "module: no process woken but the backend".to_owned(),
            measured: format!(
                "{} in {} kicks",
                grouped(foreign(figures)),
                grouped(figures.samples)
            ),
            // Something wakes up by a timer now and then, whatever the guest does.
            kept: foreign(figures) * 100 < figures.samples,
            why: None,
        });
    }
    if let (Some(many), Some(module)) = (ticks(results, Way::Module, 1024), one(Way::Module)) {
        let promise = "module: 1,024 registrations at most 1.05 times one";
        targets.push(at_most(promise, many, module, 1050));
    }
    let engine = |registrations| spread(results, Way::Engine, registrations);
    if let (Some(many), Some(one)) = (engine(1024), engine(1)) {
        let promise = "userspace engine: 1,024 registrations at most 1.05 times one";
        targets.push(by_minima(promise, many, one));
    }
    let engine_alone =
        |registrations| no_listener(results, Way::Engine, registrations).map(Spread::median);
    if let (Some(many), Some(one)) = (engine_alone(1024), engine_alone(1)) {
        targets.push(at_most("userspace engine: the same, no reader", many, one, 1050));
    }
    if let (Some(engine), Some(vmm)) = (engine(1), spread(results, Way::Vmm, 1)) {
        let promise = "userspace engine: at most 1.05 times a minimal loop in C";
        targets.push(Target { why: Some(ENGINE), ..by_minima(promise, engine, vmm) });
    }
    targets
}

/// What a page says of the targets in each dom0.
pub(super) fn table(all: impl Iterator<Item = (Platform, Vec<Target>)>) -> String {
    let mut page =
        "## Targets\n\n| dom0 | target | measured (medians, if nothing else is said) | |\n|---|---|---|---|\n".to_owned();
    let mut missed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (platform, targets) in all {
        let name = platform.title();
        for Target { promise, measured, kept, why } in targets {
            let verdict = if kept { "kept" } else { "**missed**" };
            let _ = writeln!(page, "| {name} | {promise} | {measured} | {verdict} |");
            if !kept {
                let why = why.unwrap_or("It is not known why.");
                missed.entry(why).or_default().insert(format!("{name}, {promise}"));
            }
        }
    }
    page.push('\n');
    if missed.is_empty() {
        return page;
    }
    page.push_str("Why some are missed:\n\n");
    for (why, promises) in missed {
        let promises: Vec<_> = promises.into_iter().collect();
        let _ = writeln!(page, "- *{}*: {why}", promises.join("*; *"));
    }
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_kept_to_by_the_medians_and_by_the_minima() {
        let spread = |min, rest| Spread::of(vec![min, rest, rest]).unwrap();
        let kept = |part, whole| of_floor(String::new(), &part, &whole, 1020).kept;
        assert!(kept(spread(1020, 2040), spread(1000, 2000)));
        assert!(!kept(spread(1021, 2040), spread(1000, 2000)));
        assert!(!kept(spread(1020, 2041), spread(1000, 2000)));
    }

    #[test]
    fn two_processes_are_compared_by_the_minima_alone() {
        let spread = |min, rest| Spread::of(vec![min, rest, rest]).unwrap();
        let target = |part| by_minima("", &part, &spread(1000, 2000));
        let kept = target(spread(1050, 2200));
        assert!(kept.kept);
        assert_eq!(kept.measured, "minima: 1,050 of 1,000: 1.050; medians: 1.100");
        assert!(!target(spread(1051, 2000)).kept);
    }

    #[test]
    fn a_limit_is_kept_up_to_itself() {
        assert!(at_most("", 1050, 1000, 1050).kept);
        assert!(!at_most("", 1051, 1000, 1050).kept);
        assert_eq!(quotient(22_441, 20_000), "1.122");
        assert_eq!([1050, 1020, 600].map(words), ["1.05", "1.02", "0.6"]);
    }
}
