//! The module's own tests: real guests in the lab, with the module as the engine.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use xen_eventfd_lab::{
    Arch, Boot, Lab, Machine, Platform, build_guest_for, build_static_for, quote,
};

use crate::{boots::place, tally::Tally};

/// How long one boot's tests may take.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// A disk in memory, for direct I/O to a guest's memory.
const DISK: &str = "brd";

/// Has the tests with random calls make those of an earlier run, which has printed it.
const SEED: &str = "KERNEL_TEST_SEED";

/// What goes into dom0 beside the module.
#[derive(Debug)]
pub(crate) struct Guests {
    tests: PathBuf,
    guest: PathBuf,
}

impl Guests {
    pub(crate) fn prepare(arch: Arch) -> Result<Self> {
        let tests = build_static_for(arch, "xen-eventfd-kernel-test", "kernel-test")?;
        Ok(Self { tests, guest: build_guest_for(arch, "xen-eventfd-guest")? })
    }

    /// Puts them into dom0.
    pub(crate) fn put(&self, boot: Boot) -> Boot {
        boot.payload("bin/kernel-test", &self.tests).payload("lab/guest", &self.guest)
    }

    /// Puts into dom0 what [`Guests::play`] needs.
    pub(super) fn put_all(&self, lab: &Lab, boot: Boot) -> Result<Boot> {
        let mut boot = self.put(boot);
        for (file, module) in lab.modules(&[DISK])? {
            boot = boot.payload_bytes(format!("lib/modules/{file}"), 0o644, module);
        }
        Ok(boot)
    }

    /// Plays all tests, or those that race, in a machine that has the module loaded.
    pub(super) fn play(
        &self,
        machine: &mut Machine,
        (kind, cpus): (Platform, u32),
        races: bool,
        names: &[String],
    ) -> Result<Tally> {
        let place = place(kind, cpus);
        let mut script = match std::env::var(SEED) {
            Ok(seed) => format!("{SEED}={} kernel-test run", quote(&seed)),
            Err(_) => "kernel-test run".to_owned(),
        };
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
        let status = machine.run_with(&script, TIMEOUT, |line| tally.receive(&place, line))?;
        ensure!(!tally.is_empty(), "{place}: no test was run; status {status}");
        tally.end(&place, status);
        if status != 0 {
            println!("{}", machine.report("the consoles:"));
        }
        Ok(tally)
    }
}
