//! The ABI of the patch, as C programs use it (`kernel/tests/privcmd`): its tests, on our module and on
//! the patch itself, and the measurement of who is woken.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{
    Arch, Boot, KernelBuild, Lab, Machine, Platform, build_guest_for, build_static_for, quote,
    target_folder, workspace,
};

use super::{Module, NODE, finish, start, wakeups};
use crate::{
    boots::{Boots, place},
    is_asked_for,
    lab::RACE_CPUS,
    tally::Tally,
    upstream::Upstream,
};

/// How long one test may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Where the sources are, below the repository.
const SOURCE: &str = "kernel/tests/privcmd";
/// The patch's own node.
pub(super) const PRIVCMD: &str = "/dev/xen/privcmd";

/// What goes into dom0.
#[derive(Debug)]
pub(super) struct Programs {
    /// The same as `privcmd` for this machine, to say which tests there are.
    here: PathBuf,
    privcmd: PathBuf,
    wakeups: PathBuf,
    with_guest: PathBuf,
    guest: PathBuf,
}

impl Programs {
    /// Builds them with the compiler and the headers of dom0's own release.
    pub(super) fn build(kernel: &KernelBuild) -> Result<Self> {
        let output = |arch: Arch| -> Result<PathBuf> {
            let folder = format!("{}-on-{}", kernel.release(), arch.debian());
            let output = target_folder().join("lab-privcmd").join(folder);
            kernel.make_programs(arch, workspace(), SOURCE, &output)?;
            Ok(output)
        };
        let here = output(Arch::HOST)?.join("privcmd");
        let arch = kernel.arch();
        let output = output(arch)?;
        check_in_cpp()?;
        Ok(Self {
            here,
            privcmd: output.join("privcmd"),
            wakeups: output.join("wakeups"),
            with_guest: build_static_for(arch, "xen-eventfd-kernel-test", "with-guest")?,
            guest: build_guest_for(arch, "xen-eventfd-guest")?,
        })
    }

    pub(super) fn put(&self, boot: Boot) -> Boot {
        boot.payload("bin/privcmd", &self.privcmd)
            .payload("bin/wakeups", &self.wakeups)
            .payload("bin/with-guest", &self.with_guest)
            .payload("lab/guest", &self.guest)
    }

    /// The tests of one of the program's lists whose names contain one of these, or all.
    fn tests(&self, list: &str, names: &[String]) -> Result<Vec<String>> {
        // Static and free of Xen, as far as this goes.
        let listed = Command::new(&self.here)
            .args(["list", list])
            .output()
            .with_context(|| format!("{}: does not run here", self.here.display()))?;
        let listed = String::from_utf8(listed.stdout)?;
        Ok(listed.lines().filter(|name| is_asked_for(name, names)).map(str::to_owned).collect())
    }
}

/// The tests with these in their names, or all, and what they need.
#[derive(Debug)]
pub(super) struct Tests {
    pub(super) programs: Programs,
    /// Each list, and how many CPUs it is for.
    ours: Vec<(Vec<String>, u32)>,
    /// Those that are about the patch's own rules: that it passes them says that they are true.
    theirs: Vec<String>,
    upstream: Upstream,
}

impl Tests {
    pub(super) fn prepare(kernel: &KernelBuild, names: &[String]) -> Result<Self> {
        let programs = Programs::build(kernel)?;
        let mut ours = vec![(programs.tests("all", names)?, 1)];
        ours.push((programs.tests("races", names)?, RACE_CPUS));
        ours.retain(|(tests, _)| !tests.is_empty());
        let theirs = programs.tests("rules", names)?;
        Ok(Self { programs, ours, theirs, upstream: Upstream::build(kernel)? })
    }

    /// Has them run on our module, in machines of their own.
    pub(super) fn add_ours<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        lab: &'a Lab,
        module: &'a Module,
        platform: Platform,
    ) {
        for (tests, cpus) in &self.ours {
            let place = place(platform, *cpus);
            boots.add(group, format!("{place}: privcmd"), (platform, *cpus), move || {
                test_ours(lab, module, &self.programs, (platform, *cpus), tests)
            });
        }
    }

    /// Runs those for so many CPUs in a machine that has the module loaded.
    pub(super) fn play_ours(
        &self,
        machine: &mut Machine,
        (platform, cpus): (Platform, u32),
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        for (tests, _) in self.ours.iter().filter(|(_, for_cpus)| *for_cpus == cpus) {
            tally += play(machine, NODE, &place(platform, cpus), tests)?;
        }
        Ok(tally)
    }

    /// Has it measured who is woken by kicks.
    pub(super) fn add_wakeups<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        lab: &'a Lab,
        module: &'a Module,
        platform: Platform,
    ) {
        wakeups::add(boots, group, (lab, module, platform), (&self.programs, &self.upstream));
    }

    /// Has them run on the patch itself, unless it crashes on this platform.
    pub(super) fn add_theirs<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        lab: &'a Lab,
        platform: Platform,
    ) {
        if self.theirs.is_empty() || !Upstream::runs_on(platform) {
            return;
        }
        let place = format!("the patch itself, {platform}");
        boots.add(group, place.clone(), (platform, 1), move || {
            let boot = Boot::new(platform).name(format!("privcmd-patch-{platform}"));
            let mut machine = lab.boot(self.programs.put(self.upstream.put(boot)))?;
            let tally = play(&mut machine, PRIVCMD, &place, &self.theirs)?;
            machine.finish()?;
            Ok(tally)
        });
    }
}

fn test_ours(
    lab: &Lab,
    module: &Module,
    programs: &Programs,
    (platform, cpus): (Platform, u32),
    tests: &[String],
) -> Result<Tally> {
    let place = place(platform, cpus);
    let boot = Boot::new(platform).cpus(cpus).name(format!("privcmd-{}-{cpus}", platform.name()));
    let (mut machine, log) = start(lab, programs.put(module.put(boot)), true)?;
    let mut tally = play(&mut machine, NODE, &place, tests)?;
    finish(machine, log, &place, &mut tally)?;
    Ok(tally)
}

/// Runs tests, each with a guest of its own.
fn play(machine: &mut Machine, node: &str, place: &str, tests: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    for test in tests {
        let before = tally.clone();
        let command = format!("with-guest privcmd {node} {}", quote(test));
        let status = machine.run_with(&command, TIMEOUT, |line| tally.receive(place, line))?;
        ensure!(tally != before, "{place}: {test} ended with status {status} and no verdict");
        tally.end(&format!("{place}: {test}"), status);
    }
    Ok(tally)
}

/// Our header in C++, where there is a compiler for it: dom0's tree has none.
fn check_in_cpp() -> Result<()> {
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    };
    if !(there("g++") && there("make")) {
        return Ok(());
    }
    let folder: &Path = &workspace().join(SOURCE);
    let status = Command::new("make")
        .args(["--silent", "--directory"])
        .arg(folder)
        .arg("native")
        .status()
        .context("make could not be started")?;
    ensure!(status.success(), "kernel/uapi/xen-eventfd.h does not stand alone; see above");
    Ok(())
}
