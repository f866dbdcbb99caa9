//! `cargo xtask bench`: what a kick and a call cost, measured twice, into `docs/bench.md`.

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

use anyhow::{Result, ensure};
use clap::Args;
use report::Known;
use results::Results;
use xen_eventfd_lab::Platform;

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
    /// Measure whole devices of guests instead, and write docs/devices-cost.md
    #[arg(long, conflicts_with_all = ["once", "again", "profile", "cases"])]
    devices: bool,
    /// Measure nothing: write the report from the figures of the last time
    #[arg(long, conflicts_with_all = ["platform", "once", "again", "profile", "cases"])]
    render: bool,
    /// Only cases whose JSON contains one of these; no report is written then
    cases: Vec<String>,
}

/// Measures, and writes the page and its plots.
///
/// # Errors
/// What was measured breaks a rule, differs between two runs, or could not be measured.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.devices {
        return devices::run(&platforms(arguments), arguments.render);
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

/// Whether a page can be written that has all that the present one has. `measured`: what there will
/// be figures of, besides those that there are.
fn check(measured: &[Platform]) -> Result<()> {
    let (mut figures, mut profiles) = (measured.to_vec(), Vec::new());
    for platform in Platform::ALL {
        figures.extend(Results::load(platform)?.map(|_| platform));
        profiles.extend((!profile::load(platform)?.is_empty()).then_some(platform));
    }
    kept::check(&report::present(), &kept::Parts { figures, profiles, host: host::can_count() })
}

fn platforms(arguments: &Arguments) -> Vec<Platform> {
    arguments.platform.map_or_else(|| Platform::ALL.to_vec(), |platform| vec![platform])
}

fn profile(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    for platform in platforms(arguments) {
        profile::count(&rig, platform)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    for platform in platforms(arguments) {
        let cases = cases::all(platform, &arguments.cases)?;
        ensure!(!cases.is_empty(), "no case is called anything like {:?}", arguments.cases);
        let first = match Results::load(platform)? {
            Some(last) if arguments.again => last.measured,
            _ => rig.measure(platform, &cases)?,
        };
        let second = if arguments.once { None } else { Some(rig.measure(platform, &cases)?) };
        let results = Results::new(rig.versions(), first, second.as_deref());
        for difference in &results.differences {
            println!("DIFFERS {}: {difference:?}", platform.name());
        }
        if arguments.cases.is_empty() {
            results.save(platform)?;
        }
        let missing = cases.len().saturating_sub(results.measured.len());
        ensure!(missing == 0, "{missing} cases could not be measured; why is said above");
    }
    Ok(())
}

fn render() -> Result<()> {
    let mut all = Vec::new();
    for platform in Platform::ALL {
        if let Some(results) = Results::load(platform)? {
            all.push(Known { platform, results, profiles: profile::load(platform)? });
        }
    }
    ensure!(!all.is_empty(), "nothing was measured yet; leave --render out");
    let host = host::count()?;
    report::write(&all, host.as_deref())?;
    for Known { platform, results, .. } in &all {
        for target in targets::all(results) {
            println!("{}", target.line(*platform));
        }
    }
    Ok(())
}
