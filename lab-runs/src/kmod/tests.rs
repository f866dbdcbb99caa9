//! The module's own tests, and what they need.

use anyhow::{Result, ensure};
use xen_eventfd_lab::{Boot, Lab, Platform};

use super::{
    Module, NODE, SHORT, build, guests::Guests, in_guest, load, platforms, privcmd, start,
};
use crate::{
    boots::{Boots, place},
    lab::RACE_CPUS,
    tally::Tally,
};

/// The module's own tests, and what they need.
#[derive(Debug)]
pub struct Tests {
    lab: Lab,
    module: Module,
    guests: Guests,
    privcmd: privcmd::Tests,
}

impl Tests {
    /// All of them, built.
    ///
    /// # Errors
    /// Something cannot be built.
    pub fn all() -> Result<Self> {
        Self::prepare(Lab::prepare()?, &[])
    }

    pub(super) fn prepare(lab: Lab, names: &[String]) -> Result<Self> {
        let module = build(&lab, false)?;
        let privcmd = privcmd::Tests::prepare(&lab.kernel_build()?, names)?;
        Ok(Self { module, guests: Guests::prepare()?, privcmd, lab })
    }

    /// Has all of them run, on each platform; what only repeats, if it may take long.
    pub fn add_all<'a, G: Copy + Send>(&'a self, boots: &mut Boots<'a, G>, group: G, long: bool) {
        self.add(boots, group, None, None, &[], long);
    }

    /// Has them run: on so many CPUs, or all on one and those that race on several; what was asked
    /// for by name, on both, and nothing else.
    pub(super) fn add<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        platform: Option<Platform>,
        cpus: Option<u32>,
        names: &'a [String],
        long: bool,
    ) {
        let Self { lab, module, guests, privcmd } = self;
        for kind in platforms(platform) {
            // Where CPUs take turns, races are rare; the kernel engine's scenarios play theirs there.
            let repeats = kind.threads(RACE_CPUS) < RACE_CPUS;
            let each = match cpus {
                Some(cpus) => vec![(cpus, false)],
                None if repeats && !long => vec![(1, false)],
                None => vec![(1, false), (RACE_CPUS, names.is_empty())],
            };
            for (cpus, races) in each {
                boots.add(group, place(kind, cpus), (kind, cpus), move || {
                    guests.play(lab, module, (kind, cpus), races, names)
                });
            }
            if names.is_empty() && cpus.is_none() {
                privcmd.add_ours(boots, group, lab, module, kind, long || !repeats);
                privcmd.add_wakeups(boots, group, lab, module, kind);
                let name = place(kind, 1);
                boots.add(group, name.clone(), (kind, 1), move || {
                    let mut tally = Tally::default();
                    tally.judge(&name, "comes_and_goes", comes_and_goes(lab, module, kind));
                    Ok(tally)
                });
            }
        }
        if names.is_empty() && cpus.is_none() && platform != Some(Platform::X86Pvh) {
            boots.add(group, in_guest::PLACE, (Platform::X86Pv, 1), move || {
                in_guest::check(lab, module, guests)
            });
        }
        if names.is_empty() && cpus.is_none() && platform != Some(Platform::X86Pv) {
            privcmd.add_theirs(boots, group, lab);
        }
    }
}

/// Boots, loads the module, opens its device, unloads it, and looks at what the kernel said.
fn comes_and_goes(lab: &Lab, module: &Module, kind: Platform) -> Result<()> {
    let boot = module.put(Boot::new(kind).name(format!("kmod-{}", kind.name())));
    let (mut machine, log) = start(lab, boot, true)?;

    let mode = machine.check(&format!("stat -c '%A %u %g' {NODE}"), SHORT)?.text();
    ensure!(mode == "crw------- 0 0", "{NODE} is root's alone, not {mode}");
    let refused = machine.run(&format!("exec 3<{NODE}; rmmod xen_eventfd"), SHORT)?;
    ensure!(!refused.success(), "rmmod is refused while the device is open");
    machine.check("rmmod xen_eventfd", SHORT)?;
    machine.check(&format!("test ! -e {NODE}"), SHORT)?;
    load(&mut machine)?;
    machine.check("rmmod xen_eventfd", SHORT)?;

    log.end(&mut machine)?;
    machine.finish().map(drop)
}
