//! `cargo xtask soak`: guests, engines and registrations come and go for minutes, and what is left
//! after each round is held against what was there before, into `docs/soak.md`.

mod judge;
mod page;

use crate::boots::{Boots, place};
use crate::kmod::{self, Module, kernel_log};
use crate::lab::{Engine, Kind};
use crate::step::target;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_lab::{Boot, Dom0, Lab, build_guest, build_static};
use xen_eventfd_scenarios::soak::Sample;

/// How long, and where.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how long in each machine, and until there are rounds enough to tell
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// The kind of dom0; both if not given
    #[arg(long, value_enum)]
    dom0: Option<Kind>,
    /// The engine; userspace and kernel if not given
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Emulated CPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: u32,
}

/// What one machine has seen.
#[derive(Debug)]
struct Soaked {
    dom0: Dom0,
    engine: Engine,
    samples: Vec<Sample>,
}

/// What goes into dom0.
struct Rig {
    lab: Lab,
    module: Module,
    player: PathBuf,
    /// Whoever reaps after an engine that is killed.
    command: PathBuf,
    guest: PathBuf,
}

/// For the rounds that are wanted at least, on a busy machine.
const SPARE: Duration = Duration::from_secs(1200);

/// Each machine is a check. The page is written once each place has been flat.
pub(crate) fn run(arguments: &Arguments) -> Result<Tally> {
    let lab = Lab::prepare()?;
    let rig = Rig {
        module: kmod::build(&lab, false)?,
        player: build_static("xen-eventfd-scenarios", "scenarios")?,
        command: build_static("xen-eventfd-cli", "xen-eventfd")?,
        guest: build_guest("xen-eventfd-guest")?,
        lab,
    };
    let kinds = arguments.dom0.map_or_else(|| BOTH.to_vec(), |kind| vec![kind.into()]);
    let engines = arguments.engine.map_or_else(|| ENGINES.to_vec(), |one| vec![one]);
    let mut boots = Boots::new();
    for dom0 in kinds {
        for engine in &engines {
            let (rig, engine) = (&rig, *engine);
            let name = name(dom0, arguments.cpus, engine);
            let machine = (dom0, arguments.cpus);
            boots.add((), name, machine, move || rig.soak(arguments, dom0, engine));
        }
    }
    let mut tally = Tally::default();
    boots.run().into_iter().for_each(|done| tally += done.tally);
    if let Some(all) = last_of_each()?.filter(|_| tally.failed == 0) {
        page::write(&rig.lab, &all)?;
    }
    Ok(tally)
}

/// What is soaked if nothing else is asked for.
const BOTH: [Dom0; 2] = [Dom0::Pv, Dom0::Pvh];
const ENGINES: [Engine; 2] = [Engine::Userspace, Engine::Kernel];

/// Where the samples of the last run that was flat are kept.
fn path(dom0: Dom0, engine: Engine) -> PathBuf {
    target().join("soak").join(format!("{}-{}.json", dom0.name(), engine.name()))
}

/// The last run that was flat in each place; `None` while one is missing.
fn last_of_each() -> Result<Option<Vec<Soaked>>> {
    let mut all = Vec::new();
    for dom0 in BOTH {
        for engine in ENGINES {
            let Ok(text) = fs::read_to_string(path(dom0, engine)) else { return Ok(None) };
            all.push(Soaked { dom0, engine, samples: serde_json::from_str(&text)? });
        }
    }
    Ok(Some(all))
}

fn name(dom0: Dom0, cpus: u32, engine: Engine) -> String {
    format!("{}, {} engine", place(dom0, cpus), engine.name())
}

impl Rig {
    /// One machine.
    fn soak(&self, arguments: &Arguments, dom0: Dom0, engine: Engine) -> Result<Tally> {
        let name = name(dom0, arguments.cpus, engine);
        let boot = Boot::new(dom0)
            .cpus(arguments.cpus)
            .name(format!("soak-{}-{}", dom0.name(), engine.name()))
            .payload("bin/scenarios", &self.player)
            .payload("bin/xen-eventfd", &self.command)
            .payload("lab/guest", &self.guest);
        let mut machine = self.lab.boot(self.module.put(boot))?;
        let log = kernel_log::Log::begin(&mut machine)?;
        if engine.needs_module() {
            kmod::load(&mut machine)?;
        }
        let time = Duration::from_secs(arguments.minutes * 60);
        let script =
            format!("scenarios soak --engine {} --seconds {}", engine.name(), time.as_secs());
        let mut samples: Vec<Sample> = Vec::new();
        let status =
            machine.run_with(&script, time * 2 + SPARE, |line| match Sample::parse(line) {
                Some(sample) => {
                    println!("{name}: {line}");
                    samples.push(sample);
                }
                None => println!("{name}: {line}"),
            })?;
        ensure!(status == 0, "{}", machine.report("a round failed; the consoles:"));
        let mut faults = judge::faults(&samples);
        faults.extend(log.end(&mut machine).err().map(|error| format!("{error:#}")));
        let folder = machine.finish()?;
        let xen = fs::read(folder.join("xen.log")).context("Xen's console")?;
        let said = String::from_utf8_lossy(&xen);
        faults.extend(said.lines().find(|line| kernel_log::is_trouble(line)).map(str::to_owned));
        let mut tally = Tally::default();
        for fault in &faults {
            tally.hear(&name, &format!("FAILED  {fault}"));
        }
        if faults.is_empty() {
            tally.hear(&name, &format!("ok      {} rounds are flat", samples.len()));
            let path = path(dom0, engine);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            let text = serde_json::to_string(&samples)?;
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(tally)
    }
}
