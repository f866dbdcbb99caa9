//! The module's own tests, and what they need.

use anyhow::{Result, ensure};
use xen_eventfd_lab::{Boot, Lab, Machine, Platform};

use super::{
    Module, NODE, SHORT, build, finish, guests::Guests, in_guest, load, privcmd, start, unload,
};
use crate::{
    boots::{Boots, place},
    lab::{RACE_CPUS, of_each_lab},
    tally::Tally,
};

/// The module's own tests, and what they need in each lab.
#[derive(Debug)]
pub struct Tests(Vec<LabTests>);

/// Those of one lab.
#[derive(Debug)]
struct LabTests {
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
        Self::prepare(&Platform::ALL, &[])
    }

    pub(super) fn prepare(platforms: &[Platform], names: &[String]) -> Result<Self> {
        of_each_lab(platforms, |platform| LabTests::prepare(platform, names)).map(Self)
    }

    /// Has all of them run, on each platform; what only repeats, if it may take long.
    pub fn add_all<'a, G: Copy + Send>(&'a self, boots: &mut Boots<'a, G>, group: G, long: bool) {
        self.add(boots, group, &Platform::ALL, None, &[], long);
    }

    /// Has them run on these platforms: on so many CPUs, or all on one and those that race on several; what was asked
    /// for by name, on both, and nothing else.
    pub(super) fn add<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        platforms: &[Platform],
        cpus: Option<u32>,
        names: &'a [String],
        long: bool,
    ) {
        for tests in &self.0 {
            for kind in platforms.iter().filter(|kind| kind.arch() == tests.lab.arch()) {
                tests.add(boots, group, (*kind, cpus), names, long);
            }
        }
    }
}

impl LabTests {
    fn prepare(platform: Platform, names: &[String]) -> Result<Self> {
        let lab = Lab::prepare_for(platform)?;
        let module = build(&lab, false)?;
        let privcmd = privcmd::Tests::prepare(&lab.kernel_build()?, names)?;
        Ok(Self { module, guests: Guests::prepare(lab.arch())?, privcmd, lab })
    }

    fn add<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        (kind, cpus): (Platform, Option<u32>),
        names: &'a [String],
        long: bool,
    ) {
        let Self { lab, module, guests, privcmd } = self;
        // Where CPUs take turns, races are rare; the kernel engine's scenarios play theirs there.
        let repeats = kind.threads(RACE_CPUS) < RACE_CPUS;
        let each = match cpus {
            Some(cpus) => vec![(cpus, false)],
            None if repeats && !long => vec![(1, false)],
            None => vec![(1, false), (RACE_CPUS, names.is_empty())],
        };
        let whole = names.is_empty() && cpus.is_none();
        for (cpus, races) in each {
            boots.add(group, place(kind, cpus), (kind, cpus), move || {
                self.play((kind, cpus), races, whole, names)
            });
        }
        if !whole {
            return;
        }
        privcmd.add_wakeups(boots, group, lab, module, kind);
        privcmd.add_theirs(boots, group, lab, kind);
        if kind == Platform::X86Pv {
            boots.add(group, in_guest::PLACE, (kind, 1), move || {
                in_guest::check(lab, module, guests)
            });
        }
    }

    /// One boot: the tests of guests, and in a whole run what else one CPU or several are for.
    fn play(
        &self,
        (kind, cpus): (Platform, u32),
        races: bool,
        whole: bool,
        names: &[String],
    ) -> Result<Tally> {
        let Self { lab, module, guests, privcmd } = self;
        let place = place(kind, cpus);
        let boot = Boot::new(kind).cpus(cpus).name(format!("kmod-{}-{cpus}", kind.name()));
        let boot = guests.put_all(lab, privcmd.programs.put(module.put(boot)))?;
        let (mut machine, log) = start(lab, boot, true)?;
        let mut tally = guests.play(&mut machine, (kind, cpus), races, names)?;
        if whole {
            tally += privcmd.play_ours(&mut machine, (kind, cpus))?;
            tally.judge(&place, "comes_and_goes", comes_and_goes(&mut machine));
        }
        finish(machine, log, &place, &mut tally)?;
        Ok(tally)
    }
}

/// The module's device, while it is loaded and open, and while it is not. It is loaded before and after.
fn comes_and_goes(machine: &mut Machine) -> Result<()> {
    let mode = machine.check(&format!("stat -c '%A %u %g' {NODE}"), SHORT)?.text();
    ensure!(mode == "crw------- 0 0", "{NODE} is root's alone, not {mode}");
    let refused = machine.run(&format!("exec 3<{NODE}; rmmod xen_eventfd"), SHORT)?;
    ensure!(!refused.success(), "rmmod is refused while the device is open");
    unload(machine)?;
    machine.check(&format!("test ! -e {NODE}"), SHORT)?;
    load(machine)
}
