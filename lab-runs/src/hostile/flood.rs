//! A flood of one guest's vCPUs, and what Linux makes a neighbour wait for it: with the module as it is,
//! and with one that ends each event within the upcall that brought it.

use super::ALONE;
use crate::boots::place;
use crate::kmod::{self, Module, guests::Guests, kernel_log};
use crate::lab::RACE_CPUS;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_lab::{Arch, Boot, Lab, Machine, Platform, target_folder};
use xen_eventfd_scenarios::report_lines::{Flood, Neighbour};

/// What was measured of one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beside {
    pub(super) alone: Neighbour,
    pub(super) beside: Neighbour,
    pub(super) flood: Flood,
}

/// Both modules, in one run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flooded {
    pub(super) in_upcall: Beside,
    pub(super) later: Beside,
}

/// The kernel test that floods. It fails if the end of an event is deferred.
const TEST: &str = "ports::flood";
/// Where the other module lies in dom0.
const TO_COMPARE: &str = "lab/in-upcall.ko";
const TIMEOUT: Duration = Duration::from_secs(600);

/// What goes into dom0.
pub(super) struct Parts {
    lab: Lab,
    module: Module,
    to_compare: Module,
    guests: Guests,
}

impl Parts {
    pub(super) fn build(platform: Platform) -> Result<Self> {
        let lab = Lab::prepare_for(platform)?;
        let (to_compare, module) = (kmod::build_to_compare(&lab)?, kmod::build(&lab, false)?);
        Ok(Self { module, to_compare, guests: Guests::prepare(lab.arch())?, lab })
    }
}

/// Measures both modules, one after the other in one machine.
pub(super) fn measure(parts: &Parts, platform: Platform) -> Result<Tally> {
    let Parts { lab, module, to_compare, guests } = parts;
    let place = place(platform, RACE_CPUS);
    let boot = Boot::new(platform).cpus(RACE_CPUS).short_turns();
    let boot = guests.put(module.put(boot.name(format!("hostile-flood-{}", platform.name()))));
    let boot = boot.payload(TO_COMPARE, &to_compare.path);
    let (mut machine, log) = kmod::start(lab, boot, false)?;
    let mut tally = Tally::default();
    let in_upcall =
        one(&mut machine, &place, &format!("insmod /{TO_COMPARE}"), &mut Tally::default())?;
    let later = one(&mut machine, &place, &kmod::loading(), &mut tally)?;
    tally.judge(&place, "kernel_log", log.end(&mut machine).map(drop));
    tally.judge(&place, "xen_log", kernel_log::of_xen(&machine));
    machine.finish()?;
    if tally.failed == 0 {
        let path = path(platform);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, serde_json::to_string(&Flooded { in_upcall, later })?)?;
    }
    Ok(tally)
}

/// Runs the test with one module, which is loaded before and goes afterwards.
fn one(machine: &mut Machine, place: &str, load: &str, tally: &mut Tally) -> Result<Beside> {
    let script =
        format!("{load} && kernel-test run {TEST}; status=$?; rmmod xen_eventfd && exit $status");
    let (mut neighbours, mut flood) = (Vec::new(), None);
    let status = machine.run_with(&script, TIMEOUT, |line| {
        tally.receive(place, line);
        neighbours.extend(Neighbour::parse(line));
        flood = flood.take().or_else(|| Flood::parse(line));
    })?;
    tally.end(place, status);
    let flood = flood.with_context(|| machine.report("nothing was said of the flood"))?;
    let [alone, beside] = <[Neighbour; 2]>::try_from(neighbours)
        .ok()
        .context("a neighbour is measured alone and beside the flood")?;
    ensure!(alone.when == ALONE, "measured {} first", alone.when);
    Ok(Beside { alone, beside, flood })
}

fn path(platform: Platform) -> PathBuf {
    target_folder().join("hostile").join(format!("{}-flood.json", platform.name()))
}

/// What was measured last, on the platforms of an architecture where it was.
pub(super) fn kept(arch: Arch) -> Result<Vec<(Platform, Flooded)>> {
    let mut kept = Vec::new();
    for platform in Platform::of(arch) {
        if let Ok(text) = fs::read_to_string(path(platform)) {
            kept.push((platform, serde_json::from_str(&text)?));
        }
    }
    Ok(kept)
}
