//! Lists of resources from Xen and from the kernel: servers, domains, event channels, and the
//! interrupts that the kernel binds to them.
//!
//! For domain 0 of real Xen, which prints its event channels on its console when a debug key is pressed.

use crate::control::Control;
use anyhow::{Context, Result};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use xen_eventfd::{DomId, Host};
use xen_eventfd_core::IoServerId;
use xen_eventfd_host::linux::LinuxHost;

/// How many ioreq servers a guest can have (`MAX_NR_IOREQ_SERVERS`).
const SERVERS: u16 = 8;

/// Xen's lists of domains and event channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// The guests, including dead ones, each with the ids of its ioreq servers.
    pub guests: BTreeMap<DomId, BTreeSet<u16>>,
    /// The number of event channels of domain 0, of every type.
    pub channels: usize,
    /// How many of those are connected to each domain.
    pub channels_to: BTreeMap<DomId, usize>,
}

impl Lists {
    /// Asks Xen for them.
    ///
    /// The list of domains is not taken from debug key `q`: for each vCPU that prints the pending interrupts, on Arm without
    /// the lock of their list (`gic_dump_vgic_info`). Xen was seen to print one interrupt without end when the vCPU ran
    /// on another CPU meanwhile.
    ///
    /// # Errors
    /// Xen does not print its event channels, or does not say which domains and servers there are.
    pub fn look() -> Result<Self> {
        let mut control = Control::open()?;
        let text = control.printed(b'e')?;
        let host = LinuxHost::handed(control.device()?, [], []);
        let servers = |dom| {
            let there =
                (0..SERVERS).filter_map(|id| match has_server(&host, dom, IoServerId(id)) {
                    Ok(true) => Some(Ok(id)),
                    Ok(false) => None,
                    Err(error) => Some(Err(error)),
                });
            Ok((dom, there.collect::<Result<_>>()?))
        };
        let guests = control.guests()?.into_iter().map(servers).collect::<Result<_>>()?;
        let (channels, channels_to) = read_channels(&text);
        Ok(Self { guests, channels, channels_to })
    }
}

/// Whether a guest has a server, of whichever domain.
fn has_server(host: &LinuxHost, dom: DomId, id: IoServerId) -> Result<bool> {
    match host.server_alive(dom, id) {
        Ok(is_there) => Ok(is_there),
        // Another domain's.
        Err(error) if error.errno == Errno::PERM => Ok(true),
        // A PV guest, which can have none and of which Xen says no number of vCPUs either.
        Err(error) if error.errno == Errno::INVAL && is_pv(host, dom) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("server {} of {dom}", id.0)),
    }
}

fn is_pv(host: &LinuxHost, dom: DomId) -> bool {
    host.vcpus(dom).is_err_and(|error| error.errno == Errno::INVAL)
}

/// The number of domain 0's event channels, and how many are connected to each domain.
fn read_channels(text: &str) -> (usize, BTreeMap<DomId, usize>) {
    let mut channels_to = BTreeMap::new();
    let (mut channels, mut ports_of) = (0, None);
    for line in text.lines() {
        if let Some(found) = number_after(line, "Event channel information for domain ") {
            ports_of = Some(found);
        } else if ports_of == Some(0) && line.contains("]: s=") {
            channels += 1;
            if let Some(dom) = number_after(line, " d=") {
                *channels_to.entry(DomId(dom)).or_default() += 1;
            }
        }
    }
    (channels, channels_to)
}

/// The number that follows `words` in a line.
fn number_after(line: &str, words: &str) -> Option<u16> {
    let (_, rest) = line.split_once(words)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// The event channels that the kernel module has bound.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn module_interrupts() -> Result<usize> {
    let listed = std::fs::read_to_string("/proc/interrupts")?;
    Ok(listed.lines().filter(|line| line.trim_end().ends_with("xen-eventfd")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
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
    fn channels_are_those_of_domain_0() {
        assert_eq!(read_channels(PRINTED), (4, BTreeMap::from([(DomId(3), 2), (DomId(31), 1)])));
    }
}
