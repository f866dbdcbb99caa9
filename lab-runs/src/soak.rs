//! `cargo xtask soak`: guests, engines and registrations come and go for minutes, and what is left
//! after each round is held against what was there before, into `docs/soak.md`.

mod judge;
mod page;

use crate::kmod::{self, kernel_log};
use crate::lab::Engine;
use crate::lab::rig::{Kept, Places, Rig};
use crate::tally::Tally;
use anyhow::{Result, ensure};
use clap::Args;
use std::time::Duration;
use xen_eventfd_lab::Platform;
use xen_eventfd_scenarios::soak::Sample;

/// How long, and where.
#[derive(Debug, Args)]
pub struct Arguments {
    /// For how long in each machine, and until there are rounds enough to report
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    #[command(flatten)]
    places: Places,
    /// Emulated CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: u32,
}

/// What one machine has seen.
#[derive(Debug)]
struct Soaked {
    platform: Platform,
    engine: Engine,
    samples: Vec<Sample>,
}

const KEPT: Kept = Kept("soak");
/// For the rounds that are wanted at least, on a busy machine.
const SPARE: Duration = Duration::from_secs(1200);

/// Each machine is a check. The page is written once each place has been flat.
pub fn run(arguments: &Arguments) -> Result<Tally> {
    let rig = arguments.places.rig()?;
    let run = |name: &str, platform, engine| soak(&rig, arguments, name, (platform, engine));
    let tally = arguments.places.run(arguments.cpus, run);
    if let Some(all) = KEPT.all(rig.lab.arch())?.filter(|_| tally.failed == 0) {
        let soaked = |(platform, engine, samples)| Soaked { platform, engine, samples };
        page::write(&rig, &all.into_iter().map(soaked).collect::<Vec<_>>())?;
    }
    Ok(tally)
}

/// One machine.
fn soak(
    rig: &Rig,
    arguments: &Arguments,
    name: &str,
    (platform, engine): (Platform, Engine),
) -> Result<Tally> {
    let boot = rig
        .boot(platform, arguments.cpus, &format!("soak-{}-{}", platform.name(), engine.name()))
        .host_clock();
    let (mut machine, log) = kmod::start(&rig.lab, boot, engine.needs_module())?;
    let time = Duration::from_secs(arguments.minutes * 60);
    let script = format!("scenarios soak --engine {} --seconds {}", engine.name(), time.as_secs());
    let mut samples: Vec<Sample> = Vec::new();
    let status = machine.run_with(&script, time * 2 + SPARE, |line| match Sample::parse(line) {
        Some(sample) => {
            println!("{name}: {line}");
            samples.push(sample);
        }
        None => println!("{name}: {line}"),
    })?;
    ensure!(status == 0, "{}", machine.report("a round failed; the consoles:"));
    let mut faults = judge::faults(&samples);
    faults.extend(log.end(&mut machine).err().map(|error| format!("{error:#}")));
    faults.extend(kernel_log::of_xen(&machine).err().map(|error| format!("{error:#}")));
    machine.finish()?;
    let mut tally = Tally::default();
    for fault in &faults {
        tally.receive(name, &format!("FAILED  {fault}"));
    }
    if faults.is_empty() {
        tally.receive(name, &format!("ok      {} rounds are flat", samples.len()));
        KEPT.save(platform, engine, &samples)?;
    }
    Ok(tally)
}
