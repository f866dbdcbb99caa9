//! `cargo xtask bench`: what a kick and a call cost, measured twice, into `docs/bench.md`.

mod cases;
mod host;
mod kept;
mod profile;
mod report;
mod results;
mod rig;
pub(crate) mod svg;
mod targets;

use crate::lab::Kind;
use anyhow::{Result, ensure};
use clap::Args;
use report::Known;
use results::Results;
use xen_eventfd_lab::Dom0;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The kind of dom0; both if not given
    #[arg(long, value_enum)]
    dom0: Option<Kind>,
    /// Measure once, and compare with nothing
    #[arg(long)]
    once: bool,
    /// Measure once, and compare with the figures of the last time
    #[arg(long, conflicts_with_all = ["once", "cases"])]
    again: bool,
    /// Count where the instructions of a kick go, instead of measuring
    #[arg(long, conflicts_with_all = ["once", "again", "cases"])]
    profile: bool,
    /// Measure nothing: write the report from the figures of the last time
    #[arg(long, conflicts_with_all = ["dom0", "once", "again", "profile", "cases"])]
    render: bool,
    /// Only cases whose JSON contains one of these; no report is written then
    cases: Vec<String>,
}

/// Both kinds of dom0.
const BOTH: [Dom0; 2] = [Dom0::Pv, Dom0::Pvh];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let writes = arguments.cases.is_empty();
    if arguments.profile {
        profile(arguments)?;
    } else {
        if writes {
            // Now, and not after an hour.
            check(if arguments.render { &[] } else { kinds(arguments) })?;
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
fn check(measured: &[Dom0]) -> Result<()> {
    let (mut figures, mut profiles) = (measured.to_vec(), Vec::new());
    for dom0 in BOTH {
        figures.extend(Results::load(dom0)?.map(|_| dom0));
        profiles.extend((!profile::load(dom0)?.is_empty()).then_some(dom0));
    }
    kept::check(&report::present(), &kept::Parts { figures, profiles, host: host::can_count() })
}

fn kinds(arguments: &Arguments) -> &'static [Dom0] {
    match arguments.dom0.map(Dom0::from) {
        None => &BOTH,
        Some(dom0) => BOTH.iter().position(|one| *one == dom0).map_or(&BOTH, |at| &BOTH[at..=at]),
    }
}

fn profile(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    for &dom0 in kinds(arguments) {
        profile::count(&rig, dom0)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    for &dom0 in kinds(arguments) {
        let cases = cases::all(dom0, &arguments.cases)?;
        ensure!(!cases.is_empty(), "no case is called anything like {:?}", arguments.cases);
        let first = match Results::load(dom0)? {
            Some(last) if arguments.again => last.measured,
            _ => rig.measure(dom0, &cases)?,
        };
        let second = if arguments.once { None } else { Some(rig.measure(dom0, &cases)?) };
        let results = Results::new(rig.versions(), first, second.as_deref());
        for difference in &results.differences {
            println!("DIFFERS {}: {difference:?}", dom0.name());
        }
        if arguments.cases.is_empty() {
            results.save(dom0)?;
        }
        let missing = cases.len().saturating_sub(results.measured.len());
        ensure!(missing == 0, "{missing} cases could not be measured; why is said above");
    }
    Ok(())
}

fn render() -> Result<()> {
    let mut all = Vec::new();
    for dom0 in BOTH {
        if let Some(results) = Results::load(dom0)? {
            all.push(Known { dom0, results, profiles: profile::load(dom0)? });
        }
    }
    ensure!(!all.is_empty(), "nothing was measured yet; leave --render out");
    let host = host::count()?;
    report::write(&all, host.as_deref())?;
    for Known { dom0, results, .. } in &all {
        for target in targets::all(results) {
            let verdict = if target.kept { "kept  " } else { "MISSED" };
            println!("{verdict}  {}: {}: {}", dom0.name(), target.promise, target.measured);
        }
    }
    Ok(())
}
