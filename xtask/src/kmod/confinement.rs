//! The module in a guest of Xen: a stock kernel that Xen did not start is confined to its target.

use std::time::Duration;

use anyhow::{Result, ensure};
use xen_eventfd_lab::{Boot, Lab, Platform};

use super::Module;
use crate::tally::Tally;

/// Two guests boot a stock kernel, each in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(400);

/// One boot of a PV dom0, in which two guests load the module.
pub(super) fn check(lab: &Lab, module: &Module) -> Result<Tally> {
    let place = "guest of a PV dom0";
    let boot = module
        .put(Boot::new(Platform::X86Pv).name("kmod-confinement"))
        .payload("lab/vmlinuz", lab.kernel())
        .payload_bytes("lab/confinement", 0o644, include_str!("confinement.sh"));
    let mut tally = Tally::default();
    let outcome = lab.run(boot, "sh /lab/confinement", TIMEOUT, |line| {
        tally.receive(place, line);
    })?;
    tally.end(place, outcome.output.status);
    if tally.failed > 0 {
        println!("{}", outcome.report);
    }
    ensure!(!tally.is_empty(), "{place}: no test was run");
    Ok(tally)
}
