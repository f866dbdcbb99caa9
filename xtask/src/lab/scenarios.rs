//! Plays the scenarios: on the model here, then in dom0 of real Xen, against the model's traces.

use crate::tally::Tally;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xen_eventfd_lab::{Boot, Dom0, Lab, build_guest, build_static, quote};

/// The static programs, the guest, and what the model made of the scenarios.
pub(super) struct Stage {
    lab: Lab,
    player: PathBuf,
    command: PathBuf,
    guest: PathBuf,
    traces: PathBuf,
    model: Tally,
}

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
    /// Builds everything and plays on the model.
    pub(super) fn prepare(names: &[String]) -> Result<Self> {
        let player = build_static("xen-eventfd-scenarios", "scenarios")?;
        let command = build_static("xen-eventfd-cli", "xen-eventfd")?;
        let guest = build_guest("xen-eventfd-guest")?;
        let traces = player.with_file_name("traces.json");
        let model = on_the_model(&player, &traces, names)?;
        Ok(Self { lab: Lab::prepare()?, player, command, guest, traces, model })
    }

    pub(super) fn model_tally(&self) -> Tally {
        self.model
    }

    /// One boot: plays all, or those that race.
    pub(super) fn play(
        &self,
        dom0: Dom0,
        cpus: u32,
        races: bool,
        names: &[String],
    ) -> Result<Tally> {
        let place = format!("{} dom0, {cpus} CPU{}", dom0.name(), if cpus == 1 { "" } else { "s" });
        let boot = Boot::new(dom0)
            .cpus(cpus)
            .name(format!("scenarios-{}-{cpus}", dom0.name()))
            .payload("bin/scenarios", &self.player)
            .payload("bin/xen-eventfd", &self.command)
            .payload("lab/guest", &self.guest)
            .payload("lab/traces.json", &self.traces)
            .payload("lab/vmlinuz", self.lab.kernel())
            .payload_bytes("lab/commands", 0o644, include_str!("commands.sh"));
        let mut script = "scenarios run --on xen --expect /lab/traces.json".to_owned();
        if races {
            script.push_str(" --races");
        }
        for name in names {
            script.push(' ');
            script.push_str(&quote(name));
        }
        if !races && names.is_empty() {
            script.push_str("; status=$?; sh /lab/commands; exit $status");
        }
        let mut tally = Tally::default();
        let outcome = self.lab.run(boot, &script, TIMEOUT, |line| {
            tally.count(line);
            println!("{place}: {line}");
        })?;
        if outcome.output.status != 0 || tally.failed > 0 {
            println!("{}", outcome.report);
        }
        if tally == Tally::default() {
            bail!("{place}: no scenario was played; status {}", outcome.output.status);
        }
        if let Some(complaint) = complaint(&outcome.folder)? {
            println!("{place}: FAILED clean_logs: {complaint}");
            tally.failed += 1;
        } else {
            println!("{place}: ok      clean_logs");
            tally.passed += 1;
        }
        println!(
            "{place}: dom0 came up in {:.0} s; the consoles are in {}",
            outcome.boot_time.as_secs_f64(),
            outcome.folder.display()
        );
        Ok(tally)
    }
}

fn on_the_model(player: &Path, traces: &Path, names: &[String]) -> Result<Tally> {
    let output = Command::new(player)
        .args(["run", "--on", "model", "--traces"])
        .arg(traces)
        .args(names)
        .output()
        .with_context(|| format!("{}: cannot be started", player.display()))?;
    let mut tally = Tally::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        tally.count(line);
        println!("model: {line}");
    }
    if tally == Tally::default() {
        bail!("no scenario was played on the model: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(tally)
}

/// The first line of Xen's or dom0's console that should not be there.
fn complaint(folder: &Path) -> Result<Option<String>> {
    for log in ["xen.log", "dom0.log"] {
        let path = folder.join(log);
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let found = text.lines().find(|line| COMPLAINTS.iter().any(|mark| line.contains(mark)));
        if let Some(line) = found {
            return Ok(Some(format!("{log}: {line}")));
        }
    }
    Ok(None)
}
