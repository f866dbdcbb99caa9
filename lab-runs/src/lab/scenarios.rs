//! Plays the scenarios: on the model here, then in dom0 of real Xen, against the model's traces.

use super::rig::{Programs, patience};
use super::{Engine, RACE_CPUS};
use crate::boots::{Boots, place};
use crate::kmod::{self, Module};
use crate::tally::Tally;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xen_eventfd_lab::{Arch, Boot, Lab, Platform, build_static, quote};

/// The static programs, the guest, and what the model made of the scenarios.
#[derive(Debug)]
pub(super) struct Stage {
    lab: Lab,
    engine: Engine,
    /// If the engine is the module's.
    module: Option<Module>,
    programs: Programs,
    traces: PathBuf,
    model: Tally,
    /// Of a guest that means harm; `None`: as many as the scenario says.
    accesses: Option<u64>,
}

/// Names the checks of the command, which are no scenario.
const COMMAND: &str = "command";
/// What it is tested by.
const COMMANDS: &str = concat!(include_str!("../within.sh"), include_str!("commands.sh"));

/// How long one boot's scenarios may take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// What the dom0's kernel or Xen says when something went wrong inside it, whatever passed.
const COMPLAINTS: [&str; 9] = [
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection",
    "unable to handle",
    "Call Trace",
    "scheduling while atomic",
    "Assertion",
    "Xen BUG",
];

impl Stage {
    /// Builds everything for the lab of a platform, and plays on a model of the same architecture.
    pub(super) fn prepare(platform: Platform, engine: Engine, names: &[String]) -> Result<Self> {
        let lab = Lab::prepare_for(platform)?;
        let programs = Programs::build(lab.arch())?;
        let traces = programs.player.with_file_name("traces.json");
        let here = build_static("xen-eventfd-scenarios", "scenarios")?;
        let model = on_the_model(&here, lab.arch(), &traces, names)?;
        let module = engine.needs_module().then(|| kmod::build(&lab, false)).transpose()?;
        Ok(Self { lab, engine, module, programs, traces, model, accesses: None })
    }

    /// With so many accesses of a guest that means harm.
    pub(super) fn accesses(self, accesses: Option<u64>) -> Self {
        Self { accesses, ..self }
    }

    /// The same with another engine, one that wants the module.
    pub(super) fn with_module(&self, engine: Engine) -> Result<Self> {
        let lab = Lab::prepare_for(self.platforms()[0])?;
        let module = Some(kmod::build(&lab, false)?);
        let (programs, traces) = (self.programs.clone(), self.traces.clone());
        let (model, accesses) = (self.model.clone(), self.accesses);
        Ok(Self { lab, engine, module, programs, traces, model, accesses })
    }

    /// Those that its lab boots.
    pub(super) fn platforms(&self) -> Vec<Platform> {
        let of = |platform: &Platform| platform.arch() == self.lab.arch();
        Platform::ALL.into_iter().filter(of).collect()
    }

    pub(super) fn model_tally(&self) -> Tally {
        self.model.clone()
    }

    /// Has them played: on so many CPUs, or all on one and those that race on several; what was
    /// asked for by name, on both.
    pub(super) fn add<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        platform: Platform,
        cpus: Option<u32>,
        names: &'a [String],
        long: bool,
    ) {
        // The userspace engine is the same on every platform; the kernel engine's races show what the platform does.
        let repeats = platform != Platform::X86Pv && !self.engine.needs_module();
        let each = match cpus {
            Some(cpus) => vec![(cpus, false)],
            // The module's part in a race is the same by either of its ABIs.
            None if !self.engine.is_whole() => vec![(1, false)],
            None if repeats && !long => vec![(1, false)],
            None => vec![(1, false), (RACE_CPUS, names.is_empty())],
        };
        for (cpus, races) in each {
            boots.add(group, place(platform, cpus), (platform, cpus), move || {
                self.play(platform, cpus, races, names)
            });
        }
    }

    /// One boot: plays all, or those that race.
    fn play(&self, platform: Platform, cpus: u32, races: bool, names: &[String]) -> Result<Tally> {
        let engine = self.engine.name();
        let place = format!("{}, {engine} engine", place(platform, cpus));
        let boot = Boot::new(platform)
            .cpus(cpus)
            .name(format!("scenarios-{engine}-{}-{cpus}", platform.name()));
        let boot = self
            .programs
            .put(boot)
            .payload("lab/traces.json", &self.traces)
            .payload("lab/vmlinuz", self.lab.kernel())
            .payload_bytes("lab/commands", 0o644, COMMANDS);
        let boot = match &self.module {
            Some(module) => module.put(boot),
            None => boot,
        };
        let mut script =
            format!("scenarios run --on xen --engine {engine} --expect /lab/traces.json");
        if races {
            script.push_str(" --races");
        }
        let commands = format!("sh /lab/commands {engine}");
        let mut timeout = TIMEOUT;
        if let Some(accesses) = self.accesses {
            script.push_str(&format!(" --accesses {accesses}"));
            timeout += patience(accesses)?;
        }
        for name in names.iter().filter(|name| *name != COMMAND) {
            script.push(' ');
            script.push_str(&quote(name));
        }
        if names == [COMMAND] {
            script = commands;
        } else if !races && names.is_empty() && self.engine.is_whole() {
            script.push_str(&format!(" && {commands}"));
        }
        let mut tally = Tally::default();
        let (mut machine, log) = kmod::start(&self.lab, boot, self.module.is_some())?;
        let boot_time = machine.boot_time().as_secs_f64();
        let status = machine.run_with(&script, timeout, |line| tally.receive(&place, line))?;
        tally.end(&place, status);
        if self.engine.is_whole() && tally.skipped > 0 {
            tally.receive(
                &place,
                "FAILED  this engine can do everything, and something was skipped",
            );
        }
        if status != 0 || tally.failed > 0 {
            println!("{}", machine.report("the consoles:"));
        }
        if tally.is_empty() {
            bail!("{place}: no scenario was played; status {status}");
        }
        if self.module.is_some() {
            tally.judge(&place, "module_goes", kmod::unload(&mut machine));
        }
        tally.judge(&place, "clean_kernel_log", log.end(&mut machine).map(drop));
        let folder = machine.finish()?;
        tally.judge(&place, "clean_consoles", clean(&folder));
        println!(
            "{place}: dom0 came up in {boot_time:.0} s; the consoles are in {}",
            folder.display()
        );
        Ok(tally)
    }
}

fn on_the_model(player: &Path, arch: Arch, traces: &Path, names: &[String]) -> Result<Tally> {
    let (place, arch) = match arch {
        Arch::X86_64 => ("model", "x86"),
        Arch::Arm64 => ("model of Arm", "arm"),
    };
    let output = Command::new(player)
        .args(["run", "--on", "model", "--arch", arch, "--traces"])
        .arg(traces)
        .args(names.iter().filter(|name| *name != COMMAND))
        .output()
        .with_context(|| format!("{}: cannot be started", player.display()))?;
    let mut tally = Tally::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        tally.receive(place, line);
    }
    if tally.is_empty() {
        bail!("no scenario was played on the model: {}", String::from_utf8_lossy(&output.stderr));
    }
    tally.end(place, output.status.code().unwrap_or(-1));
    Ok(tally)
}

/// Fails if a line of Xen's or dom0's console should not be there.
fn clean(folder: &Path) -> Result<()> {
    for log in ["xen.log", "dom0.log"] {
        let path = folder.join(log);
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let found = text.lines().find(|line| COMPLAINTS.iter().any(|mark| line.contains(mark)));
        if let Some(line) = found {
            bail!("{log}: {line}");
        }
    }
    Ok(())
}
