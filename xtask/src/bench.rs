//! `cargo xtask bench`: what a kick and a call cost, measured twice, into `docs/bench.md`.

mod cases;
mod rig;

use crate::lab::Kind;
use anyhow::{Result, ensure};
use clap::Args;
use xen_eventfd_lab::Dom0;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The kind of dom0; both if not given
    #[arg(long, value_enum)]
    dom0: Option<Kind>,
    /// Once is enough, and nothing is written
    #[arg(long)]
    once: bool,
    /// Only cases whose JSON contains one of these
    names: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let rig = rig::Rig::build()?;
    let kinds = arguments.dom0.map_or_else(|| vec![Kind::Pv, Kind::Pvh], |kind| vec![kind]);
    for kind in kinds {
        let dom0 = Dom0::from(kind);
        let cases = cases::all(dom0, &arguments.names)?;
        ensure!(!cases.is_empty(), "no case is called anything like {:?}", arguments.names);
        let first = rig.measure(dom0, &cases)?;
        if !arguments.once {
            let second = rig.measure(dom0, &cases)?;
            ensure!(first == second, "two runs differ");
        }
    }
    Ok(())
}
