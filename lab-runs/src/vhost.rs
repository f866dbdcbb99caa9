//! Linux's own vhost, with the modules of the stock kernel, in a dom0 of the lab: the tests of the crate that uses it.

use crate::boots::{Boots, place};
use crate::modules::Modules;
use crate::tally::Tally;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_lab::{Boot, Lab, Machine, Platform, build_static_test};

/// What to load, beside what it needs.
const MODULES: [&str; 1] = ["vhost_net"];
/// What to load for the other devices. The last has the disks of a target's tests.
const OTHERS: [&str; 3] = ["vhost_vsock", "vhost_scsi", "target_core_mod"];
/// The tests that run before all that is loaded.
const WITHOUT_THE_MODULE: &str = "without_the_module";
const SHORT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(300);

/// What goes into dom0.
#[derive(Debug)]
pub struct Tests {
    lab: Lab,
    program: PathBuf,
    modules: Modules,
    others: Modules,
}

impl Tests {
    /// Builds it.
    ///
    /// # Errors
    /// Something cannot be built.
    pub fn prepare() -> Result<Self> {
        let program = build_static_test("xen-eventfd-vhost", "linux")?;
        let lab = Lab::prepare()?;
        let modules = Modules::of(&lab, &MODULES)?;
        let others = Modules::of(&lab, &OTHERS)?.without(&modules);
        Ok(Self { lab, program, modules, others })
    }

    /// Has them run in both kinds of dom0.
    pub fn add<'a, G: Copy + Send>(&'a self, boots: &mut Boots<'a, G>, group: G) {
        for kind in [Platform::X86Pv, Platform::X86Pvh] {
            let place = place(kind, 1);
            boots.add(group, place.clone(), (kind, 1), move || self.play(kind, &place));
        }
    }

    fn play(&self, kind: Platform, place: &str) -> Result<Tally> {
        let boot = Boot::new(kind).name(format!("vhost-{}", kind.name()));
        let boot = self.others.put(self.modules.put(boot.payload("bin/linux", &self.program)));
        let mut machine = self.lab.boot(boot)?;
        self.modules.load_needed(&mut machine)?;
        // Tests return at once where it is otherwise.
        machine.check("test -c /dev/net/tun && test ! -e /dev/vhost-net", SHORT)?;
        let mut tally = Tally::default();
        run(&mut machine, WITHOUT_THE_MODULE, place, &mut tally)?;
        self.modules.load_last(&mut machine)?;
        self.others.load(&mut machine)?;
        machine.check("mount -t configfs configfs /sys/kernel/config", SHORT)?;
        machine.check(
            "cd /dev && test -c vhost-net && test -c vhost-vsock && test -c vhost-scsi",
            SHORT,
        )?;
        run(&mut machine, &format!("--skip {WITHOUT_THE_MODULE}"), place, &mut tally)?;
        if tally.failed > 0 {
            println!("{}", machine.report("the consoles:"));
        }
        machine.finish()?;
        Ok(tally)
    }
}

/// Runs the tests that these arguments of Rust's test runner choose.
fn run(machine: &mut Machine, chosen: &str, place: &str, tally: &mut Tally) -> Result<()> {
    let before = tally.clone();
    // Two tests at once would add to each other's numbers of packets.
    let command = format!("linux --test-threads 1 {chosen} 2>&1");
    let status = machine.run_with(&command, TIMEOUT, |line| {
        tally.receive(place, &verdict(line));
    })?;
    tally.end(place, status);
    ensure!(*tally != before, "{place}: no test was run by {command}");
    Ok(())
}

/// A line of Rust's test runner, with its verdict first.
fn verdict(line: &str) -> String {
    let parts = line.strip_prefix("test ").and_then(|test| test.split_once(" ... "));
    match parts {
        Some((name, "ok")) => format!("ok      {name}"),
        Some((name, _)) => format!("FAILED  {name}"),
        None => format!("        {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn a_verdict_stands_first() {
        assert_eq!(verdict("test a_tap ... ok"), "ok      a_tap");
        assert_eq!(verdict("test a_tap ... FAILED"), "FAILED  a_tap");
        assert!(verdict("test result: ok. 9 passed").starts_with("  "));
    }
}
