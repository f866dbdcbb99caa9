//! The module in a guest of Xen, which Xen did not start: whom it may serve, and what becomes of that when the
//! guest is suspended and resumed.

use std::time::Duration;

use anyhow::{Result, ensure};
use xen_eventfd_lab::{Boot, Lab, Platform};

use super::{Module, guests::Guests};
use crate::tally::Tally;

/// Guests boot a stock kernel, each in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(400);

/// As tables call it.
pub(super) const PLACE: &str = "guest of a PV dom0";

/// One boot of a PV dom0 for each script, in whose guests the module is loaded.
pub(super) fn check(lab: &Lab, module: &Module, guests: &Guests) -> Result<Tally> {
    let scripts = [
        ("confinement", concat!(include_str!("initramfs.sh"), include_str!("confinement.sh"))),
        ("suspend", concat!(include_str!("initramfs.sh"), include_str!("suspend.sh"))),
    ];
    let mut tally = Tally::default();
    for (name, script) in scripts {
        let boot = Boot::new(Platform::X86Pv).name(format!("kmod-{name}"));
        let boot = guests.put(module.put(boot)).payload("lab/vmlinuz", lab.kernel()).payload_bytes(
            "lab/script",
            0o644,
            script,
        );
        let outcome = lab.run(boot, "sh /lab/script", TIMEOUT, |line| {
            tally.receive(PLACE, line);
        })?;
        tally.end(PLACE, outcome.output.status);
        if tally.failed > 0 {
            println!("{}", outcome.report);
        }
    }
    ensure!(!tally.is_empty(), "{PLACE}: no test was run");
    Ok(tally)
}
