//! `cargo xtask hostile`: guests and backends that mean harm, on real Xen, and what a guest that does
//! no harm has of them, into `docs/hostile.md` and `docs/hostile-arm64.md`.

mod flood;
mod page;

use crate::kmod::{self, kernel_log};
use crate::lab::Engine;
use crate::lab::rig::{Kept, Places, Rig, patience};
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use xen_eventfd_lab::Platform;
use xen_eventfd_scenarios::report_lines::{Accesses, Neighbour};

/// How much, and where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Accesses of the hostile guest in a PV dom0, and on arm64; in a PVH one, where each takes longer, a thirtieth
    #[arg(long, default_value_t = 1_000_000)]
    accesses: u64,
    /// Only the flood on four CPUs; what else is on the page stays
    #[arg(long)]
    flood: bool,
    #[command(flatten)]
    places: Places,
}

/// What one engine in one kind of dom0 has measured.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    /// Each attack: a neighbour's kicks alone, and beside it.
    attacks: Vec<[Neighbour; 2]>,
    accesses: Accesses,
}

const KEPT: Kept = Kept("hostile");
/// How long the attacks may take whose kicks are measured.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The page is written once there are figures of each place.
pub fn run(arguments: &Arguments) -> Result<Tally> {
    let mut tally = Tally::default();
    let rig = arguments.places.rig()?;
    let arch = rig.lab.arch();
    let platforms = arguments.places.platforms();
    let parts = flood::Parts::build(platforms[0])?;
    for platform in platforms {
        tally += flood::measure(&parts, platform)?;
    }
    if arguments.flood {
        if tally.failed == 0 {
            page::write_flood(arch, &flood::kept(arch)?)?;
        }
        return Ok(tally);
    }
    tally += arguments.places.run(1, |name, platform, engine| {
        let accesses =
            if platform == Platform::X86Pvh { arguments.accesses / 30 } else { arguments.accesses };
        attack(&rig, name, (platform, engine), accesses)
    });
    if let Some(all) = KEPT.all(arch)?.filter(|_| tally.failed == 0) {
        page::write(&rig, &all)?;
        page::write_flood(arch, &flood::kept(arch)?)?;
    }
    Ok(tally)
}

/// All attacks in a machine whose time is counted in instructions, and then the many accesses in
/// another, as fast as it goes.
fn attack(
    rig: &Rig,
    name: &str,
    (platform, engine): (Platform, Engine),
    accesses: u64,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let name_of = |what: &str| format!("hostile-{what}-{}-{}", platform.name(), engine.name());
    let script = |rest: &str| format!("scenarios run --on xen --engine {} {rest}", engine.name());

    let mut neighbours = Vec::new();
    let boot = rig.boot(platform, 1, &name_of("kicks")).deterministic();
    let load = if engine.needs_module() { kmod::loading() } else { "true".to_owned() };
    let outcome =
        rig.lab.run(boot, &format!("{load} && {}", script("hostile")), TIMEOUT, |line| {
            tally.receive(name, line);
            neighbours.extend(Neighbour::parse(line));
        })?;
    tally.end(name, outcome.output.status);
    ensure!(tally.failed == 0, "an attack was not measured: {}", outcome.report);

    let boot = rig.boot(platform, 1, &name_of("accesses")).host_clock();
    let (mut machine, log) = kmod::start(&rig.lab, boot, engine.needs_module())?;
    let mut found = None;
    let many = script(&format!("--accesses {accesses} hostile_guest"));
    let status = machine.run_with(&many, TIMEOUT + patience(accesses)?, |line| {
        tally.receive(name, line);
        found = found.take().or_else(|| Accesses::parse(line));
    })?;
    tally.end(name, status);
    if tally.failed > 0 {
        println!("{}", machine.report("the consoles:"));
    }
    tally.judge(name, "kernel_log", log.end(&mut machine).map(drop));
    tally.judge(name, "xen_log", kernel_log::of_xen(&machine));
    machine.finish()?;
    if tally.failed == 0 {
        let (attacks, rest) = neighbours.as_chunks::<2>();
        ensure!(rest.is_empty(), "{name}: a neighbour was measured an odd number of times");
        let mut attacks = attacks.to_vec();
        attacks.iter_mut().for_each(|pair| pair.sort_by_key(|kicks| kicks.when != ALONE));
        let accesses = found.context("nothing was said of the accesses")?;
        KEPT.save(platform, engine, &Measured { attacks, accesses })?;
    }
    Ok(tally)
}

/// What a scenario calls a measurement without an attack.
const ALONE: &str = "alone";
