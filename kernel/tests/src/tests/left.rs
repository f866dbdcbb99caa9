//! What must not be left behind, by the kernel's and by Xen's own lists.

use anyhow::{Context, Result, bail, ensure};
use std::process::Command;
use std::time::Instant;
use xen_eventfd::DomId;
use xen_eventfd_scenarios::{PATIENCE, Play};

/// Event channels that the module has bound.
pub(super) fn interrupts() -> Result<usize> {
    let listed = std::fs::read_to_string("/proc/interrupts")?;
    Ok(listed.lines().filter(|line| line.trim_end().ends_with("xen-eventfd")).count())
}

/// The ports of this domain that Xen has connected to a guest's.
pub(super) fn ports(dom: DomId) -> Result<usize> {
    xl(&["dmesg", "-c"])?;
    xl(&["debug-keys", "e"])?;
    let (since, mut dump) = (Instant::now(), String::new());
    // Domains come in order, this one first.
    let end = format!("information for domain {}:", dom.0);
    while !dump.contains(&end) {
        ensure!(since.elapsed() < PATIENCE, "Xen does not print its event channels: {dump}");
        dump.push_str(&xl(&["dmesg", "-c"])?);
    }
    Ok(ports_in(&dump, dom))
}

fn ports_in(dump: &str, dom: DomId) -> usize {
    let mut ours = false;
    let other = format!("d={}", dom.0);
    let mut count = 0;
    for line in dump.lines() {
        if let Some((_, rest)) = line.split_once("information for domain ") {
            ours = rest.starts_with("0:");
        }
        let mut words = line.split_whitespace();
        count += usize::from(ours && words.any(|word| word == other));
    }
    count
}

fn xl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("xl").args(arguments).output().context("running xl")?;
    if !output.status.success() {
        bail!("xl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a guest has of others before the module takes it.
#[derive(Debug)]
pub(super) struct Before {
    dom: DomId,
    servers: Vec<u16>,
    ports: usize,
}

impl Before {
    pub(super) fn look(play: &Play<'_>, dom: DomId) -> Result<Self> {
        Ok(Self { dom, servers: play.stage().servers(dom)?, ports: ports(dom)? })
    }

    /// Whether the module, of which no file is open, has left the guest as it was.
    pub(super) fn nothing_is_left(&self, play: &Play<'_>) -> Result<()> {
        let servers = play.stage().servers(self.dom)?;
        ensure!(servers == self.servers, "servers {servers:?}, and before {:?}", self.servers);
        let interrupts = interrupts()?;
        ensure!(interrupts == 0, "{interrupts} of the module's interrupts are left");
        let ports = ports(self.dom)?;
        ensure!(ports == self.ports, "{ports} ports to the guest, and before {}", self.ports);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
(XEN) 'e' pressed -> dumping event-channel info
(XEN) Event channel information for domain 0:
(XEN) Polling vCPUs: {}
(XEN)     port [p/m/s]
(XEN)        1 [0/0/  -   ]: s=5 n=0 x=0 v=2
(XEN)       19 [0/0/  -   ]: s=3 n=0 x=0 d=3 p=1
(XEN)       20 [0/0/  -   ]: s=3 n=0 x=0 d=31 p=1
(XEN)       21 [1/0/  -   ]: s=3 n=0 x=0 d=3 p=7
(XEN) Event channel information for domain 3:
(XEN)        1 [0/0/  -   ]: s=3 n=0 x=0 d=0 p=19
(XEN)        9 [0/0/  -   ]: s=3 n=0 x=0 d=3 p=9
";

    #[test]
    fn ports_are_those_of_domain_0_to_the_guest() {
        assert_eq!(ports_in(DUMP, DomId(3)), 2);
        assert_eq!(ports_in(DUMP, DomId(31)), 1);
        assert_eq!(ports_in(DUMP, DomId(1)), 0);
    }
}
