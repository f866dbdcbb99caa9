//! `cargo xtask bench`: what a kick and a call cost, measured twice, into `docs/bench.md`.

mod cases;
mod host;
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
    if arguments.profile {
        profile(arguments)?;
    } else if !arguments.render {
        measure(arguments)?;
    }
    if arguments.cases.is_empty() {
        render()?;
    }
    Ok(())
}

fn kinds(arguments: &Arguments) -> Vec<Dom0> {
    arguments.dom0.map_or_else(|| BOTH.to_vec(), |kind| vec![kind.into()])
}

fn profile(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    for dom0 in kinds(arguments) {
        profile::count(&rig, dom0)?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    for dom0 in kinds(arguments) {
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
