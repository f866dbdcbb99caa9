//! The ABI of the patch, as C programs use it (`kernel/tests/seed`): its tests, on our module and on
//! the patch itself, and the measurement of who is woken.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xen_eventfd_lab::{
    Boot, Dom0, KernelBuild, Lab, Machine, Voice, build_guest, build_static, quote, target_folder,
    workspace,
};

use super::{NODE, build, kernel_log, load};
use crate::{
    lab::{Kind, RACE_CPUS},
    tally::Tally,
    upstream::Upstream,
};

/// How long one test may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Where the sources are, below the repository.
const SOURCE: &str = "kernel/tests/seed";
/// The patch's own node.
pub(super) const PRIVCMD: &str = "/dev/xen/privcmd";

/// What goes into dom0.
#[derive(Debug)]
pub(super) struct Programs {
    seed: PathBuf,
    wakeups: PathBuf,
    with_guest: PathBuf,
    guest: PathBuf,
}

impl Programs {
    /// Builds them with the compiler and the headers of dom0's own release.
    pub(super) fn build(kernel: &KernelBuild) -> Result<Self> {
        let output = target_folder().join("lab-seed").join(kernel.release());
        kernel.make_programs(workspace(), SOURCE, &output)?;
        check_in_cpp()?;
        Ok(Self {
            seed: output.join("seed"),
            wakeups: output.join("wakeups"),
            with_guest: build_static("xen-eventfd-kernel-test", "with-guest")?,
            guest: build_guest("xen-eventfd-guest")?,
        })
    }

    pub(super) fn put(&self, boot: Boot) -> Boot {
        boot.payload("bin/seed", &self.seed)
            .payload("bin/wakeups", &self.wakeups)
            .payload("bin/with-guest", &self.with_guest)
            .payload("lab/guest", &self.guest)
    }

    /// The tests of one of the program's lists whose names contain one of these, or all.
    fn tests(&self, list: &str, names: &[String]) -> Result<Vec<String>> {
        // Static and free of Xen, as far as this goes.
        let listed = Command::new(&self.seed)
            .args(["list", list])
            .output()
            .with_context(|| format!("{}: does not run here", self.seed.display()))?;
        let chosen =
            |name: &str| names.is_empty() || names.iter().any(|part| name.contains(part.as_str()));
        let listed = String::from_utf8(listed.stdout)?;
        Ok(listed.lines().filter(|name| chosen(name)).map(str::to_owned).collect())
    }
}

/// The tests with these in their names, or all: on our module, and on the patch itself those that
/// are about its own rules. That says that they are true.
pub(super) fn test(
    lab: &Lab,
    dom0: Option<Kind>,
    patch_alone: bool,
    names: &[String],
) -> Result<Tally> {
    let kernel = lab.kernel_build()?;
    let programs = Programs::build(&kernel)?;
    let mut tally = Tally::default();
    let kinds = dom0.map_or_else(|| vec![Kind::Pv, Kind::Pvh], |kind| vec![kind]);
    for kind in kinds.iter().copied().filter(|_| !patch_alone) {
        for (list, cpus) in [("all", 1), ("races", RACE_CPUS)] {
            let tests = programs.tests(list, names)?;
            if !tests.is_empty() {
                tally += test_ours(lab, &programs, (kind.into(), cpus), &tests)?;
            }
        }
    }
    let theirs = programs.tests("rules", names)?;
    if kinds.contains(&Kind::Pvh) && !theirs.is_empty() {
        let upstream = Upstream::build(&kernel)?;
        let boot = upstream.put(Boot::new(Dom0::Pvh).name("seed-patch"));
        let mut machine = lab.boot(programs.put(boot))?;
        tally += play(&mut machine, PRIVCMD, "the patch itself, pvh dom0", &theirs)?;
        machine.finish()?;
    }
    Ok(tally)
}

fn test_ours(
    lab: &Lab,
    programs: &Programs,
    (dom0, cpus): (Dom0, u32),
    tests: &[String],
) -> Result<Tally> {
    let place = format!("{} dom0, {cpus} CPU{}", dom0.name(), if cpus == 1 { "" } else { "s" });
    let boot = Boot::new(dom0).cpus(cpus).name(format!("seed-{}-{cpus}", dom0.name()));
    let boot = build(lab, false)?.put(boot);
    let mut machine = lab.boot(programs.put(boot))?;
    load(&mut machine)?;
    let log = kernel_log::Log::begin(&mut machine)?;
    let mut tally = play(&mut machine, NODE, &place, tests)?;
    tally += verdict(&place, "kernel_log", log.end(&mut machine).map(drop));
    tally += verdict(&place, "xen_log", xen_log(&machine));
    machine.finish()?;
    Ok(tally)
}

/// Runs tests, each with a guest of its own.
fn play(machine: &mut Machine, node: &str, place: &str, tests: &[String]) -> Result<Tally> {
    let mut tally = Tally::default();
    for test in tests {
        let before = tally;
        let command = format!("with-guest seed {node} {}", quote(test));
        let status = machine.run_with(&command, TIMEOUT, |line| {
            tally.count(line);
            println!("{place}: {line}");
        })?;
        ensure!(tally != before, "{place}: {test} ended with status {status} and no verdict");
    }
    Ok(tally)
}

/// What Xen has to say about us.
fn xen_log(machine: &Machine) -> Result<()> {
    let lines = machine.console();
    let mut said = lines.iter().filter(|line| line.voice == Voice::Xen).map(|line| &line.text);
    let trouble = said.find(|text| kernel_log::is_trouble(text));
    ensure!(trouble.is_none(), "{}", trouble.map_or("", String::as_str));
    Ok(())
}

fn verdict(place: &str, what: &str, result: Result<()>) -> Tally {
    match result {
        Ok(()) => {
            println!("{place}: ok      {what}");
            Tally { passed: 1, failed: 0 }
        }
        Err(error) => {
            println!("{place}: FAILED  {what}: {error:#}");
            Tally { passed: 0, failed: 1 }
        }
    }
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
