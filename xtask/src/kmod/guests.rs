//! The module's own tests: real guests in the lab, with the module as the engine.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{Boot, Dom0, Lab, build_guest, build_static, quote};

use super::{IN_DOM0, Module, kernel_log};
use crate::{boots::place, tally::Tally};

/// How long one boot's tests may take.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// What goes into dom0 beside the module.
#[derive(Debug)]
pub(super) struct Guests {
    tests: PathBuf,
    guest: PathBuf,
}

impl Guests {
    pub(super) fn prepare() -> Result<Self> {
        let tests = build_static("xen-eventfd-kernel-test", "kernel-test")?;
        Ok(Self { tests, guest: build_guest("xen-eventfd-guest")? })
    }

    /// One boot: all tests, or those that race.
    pub(super) fn play(
        &self,
        lab: &Lab,
        module: &Module,
        (kind, cpus): (Dom0, u32),
        races: bool,
        names: &[String],
    ) -> Result<Tally> {
        let place = place(kind, cpus);
        let boot = module
            .put(Boot::new(kind).cpus(cpus).name(format!("kmod-guests-{}-{cpus}", kind.name())))
            .payload("bin/kernel-test", &self.tests)
            .payload("lab/guest", &self.guest);
        let mut script = format!("insmod /{IN_DOM0} && kernel-test run");
        // On one CPU nothing happens at once.
        if races {
            script.push_str(" --races");
        } else if cpus == 1 && names.is_empty() {
            script.push_str(" --calm");
        }
        for name in names {
            script.push(' ');
            script.push_str(&quote(name));
        }
        let mut tally = Tally::default();
        let outcome = lab.run(boot, &script, TIMEOUT, |line| tally.hear(&place, line))?;
        if outcome.output.status != 0 {
            println!("{}", outcome.report);
        }
        ensure!(!tally.is_empty(), "{place}: no test was run");
        let xen = outcome.folder.join("xen.log");
        let said = std::fs::read(&xen).with_context(|| format!("reading {}", xen.display()))?;
        let said = String::from_utf8_lossy(&said);
        tally.judge(&place, "xen_log", kernel_log::check(said.lines()));
        Ok(tally)
    }
}
