//! `cargo xtask bench`: what a kick and a call cost, measured twice, into `docs/bench.md` and, on Arm, into
//! `docs/bench-arm64.md`.

mod blocks;
mod cases;
mod devices;
mod host;
mod kept;
mod profile;
mod report;
mod results;
mod rig;
mod stored;
pub(crate) mod svg;
mod targets;

use crate::lab::{in_lab, of_each_lab};
use anyhow::{Result, ensure};
use clap::Args;
use report::Known;
use results::Results;
use xen_eventfd_lab::{KernelBuild, Platform};

/// What to measure.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The platform: x86-pv, x86-pvh or arm64; all that run if not given
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Measure once, and compare with nothing
    #[arg(long)]
    once: bool,
    /// Measure once, and compare with the figures of the last time
    #[arg(long, conflicts_with_all = ["once", "cases"])]
    again: bool,
    /// Count where the instructions of a kick go, instead of measuring
    #[arg(long, conflicts_with_all = ["once", "again", "cases"])]
    profile: bool,
    /// Measure whole devices of guests instead, and write docs/devices-cost.md and, on Arm, docs/devices-cost-arm64.md; with
    /// names of sets (guests, hvm, scsi, queues, number, root) these alone
    #[arg(long, conflicts_with_all = ["once", "again", "profile"])]
    devices: bool,
    /// Measure nothing: write the report from the figures of the last time
    #[arg(long, conflicts_with_all = ["platform", "once", "again", "profile", "cases"])]
    render: bool,
    /// Measure a module that ends events within the upcall, which is no module to use; with names of cases
    #[arg(long, requires_all = ["once", "cases"])]
    in_upcall: bool,
    /// Only cases whose JSON contains one of these, without a report; with --devices, only such sets
    cases: Vec<String>,
}

/// Measures, and writes the page and its plots.
///
/// # Errors
/// What was measured breaks a rule, differs between two runs, or could not be measured.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.devices {
        return devices::run(&platforms(arguments), &arguments.cases, arguments.render);
    }
    let writes = arguments.cases.is_empty();
    if arguments.profile {
        profile(arguments)?;
    } else {
        if writes {
            // Now, and not after an hour.
            check(&if arguments.render { Vec::new() } else { platforms(arguments) })?;
        }
        if !arguments.render {
            measure(arguments)?;
        }
    }
    if writes {
        check(&[])?;
        render()?;
    }
    Ok(())
}

/// Whether pages can be written that have all that the present ones have. `measured`: what there will
/// be figures of, besides those that there are. A page of whose platforms there will be none is not written.
fn check(measured: &[Platform]) -> Result<()> {
    for page in &report::PAGES {
        let (mut figures, mut profiles) = (measured.to_vec(), Vec::new());
        figures.retain(|platform| platform.arch() == page.arch);
        for platform in page.platforms() {
            figures.extend(Results::load(platform)?.map(|_| platform));
            profiles.extend((!profile::load(platform)?.is_empty()).then_some(platform));
        }
        if !figures.is_empty() {
            let parts = kept::Parts { figures, profiles, host: host::can_count() };
            kept::check(page, &page.present(), &parts)?;
        }
    }
    Ok(())
}

fn platforms(arguments: &Arguments) -> Vec<Platform> {
    in_lab(arguments.platform)
}

/// Builds the module that ours is measured against.
pub(crate) fn build_floor(kernel: &KernelBuild) -> Result<()> {
    rig::floor(kernel).map(drop)
}

fn profile(arguments: &Arguments) -> Result<()> {
    for_each(arguments, profile::count)
}

fn measure(arguments: &Arguments) -> Result<()> {
    for_each(arguments, |rig, platform| {
        let cases = cases::all(platform, &arguments.cases)?;
        ensure!(!cases.is_empty(), "no case is called anything like {:?}", arguments.cases);
        let first = match Results::load(platform)? {
            Some(last) if arguments.again => last.measured,
            _ => rig.measure(platform, &cases)?,
        };
        let second = if arguments.once { None } else { Some(rig.measure(platform, &cases)?) };
        let results = Results::new(rig.versions(), first, second.as_deref());
        for difference in &results.differences {
            let said = report::difference(platform, &results, difference);
            println!("DIFFERS {}: {said}", platform.name());
        }
        if arguments.cases.is_empty() {
            results.save(platform)?;
        }
        let missing = cases.len().saturating_sub(results.measured.len());
        ensure!(missing == 0, "{missing} cases could not be measured; why is said above");
        Ok(())
    })
}

/// Does it on each platform that is asked for, with what was built once for its architecture.
fn for_each(
    arguments: &Arguments,
    mut work: impl FnMut(&rig::Rig, Platform) -> Result<()>,
) -> Result<()> {
    let platforms = platforms(arguments);
    let build = |platform| rig::Rig::build(platform, arguments.in_upcall);
    for rig in of_each_lab(&platforms, build)? {
        for platform in platforms.iter().filter(|platform| rig.serves(**platform)) {
            work(&rig, *platform)?;
        }
    }
    Ok(())
}

/// Writes the page of each architecture of which there are figures.
fn render() -> Result<()> {
    let mut written = 0;
    for page in &report::PAGES {
        let mut all = Vec::new();
        for platform in page.platforms() {
            if let Some(results) = Results::load(platform)? {
                all.push(Known { platform, results, profiles: profile::load(platform)? });
            }
        }
        if all.is_empty() {
            continue;
        }
        let host = if report::has_host(page) { host::count()? } else { None };
        report::write(page, &all, host.as_deref())?;
        written += 1;
        for Known { platform, results, .. } in &all {
            for target in targets::all(*platform, results) {
                println!("{}", target.line(*platform));
            }
        }
    }
    ensure!(written > 0, "nothing was measured yet; leave --render out");
    Ok(())
}
