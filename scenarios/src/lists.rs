//! Lists of resources from Xen and from the kernel: servers, domains, event channels, and the
//! interrupts that the kernel binds to them.
//!
//! For domain 0 of real Xen. Xen prints its lists on its console when a debug key is pressed.

use crate::PATIENCE;
use crate::control::Control;
use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use xen_eventfd::DomId;

/// The interval at which Xen's console is read again.
const TICK: Duration = Duration::from_millis(5);

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
    /// Makes Xen print them and reads them.
    ///
    /// # Errors
    /// Xen does not print them.
    pub fn look() -> Result<Self> {
        let mut control = Control::open()?;
        control.take_console()?;
        // Event channels first, then domains, whose list ends with a line of its own.
        control.press(b'e')?;
        control.press(b'q')?;
        let (since, mut text) = (Instant::now(), String::new());
        // The console output follows the keys with a delay.
        loop {
            text.push_str(&control.take_console()?);
            if text.contains("Notifying guest") {
                break;
            }
            ensure!(since.elapsed() < PATIENCE, "Xen does not print its lists: {text}");
            std::thread::sleep(TICK);
        }
        Ok(Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let (mut guests, mut channels_to) =
            (BTreeMap::<DomId, BTreeSet<u16>>::new(), BTreeMap::new());
        let (mut channels, mut domain, mut ports_of) = (0, None, None);
        for line in text.lines() {
            if let Some(found) = number_after(line, "General information for domain ") {
                // Xen's own domains have numbers above any guest's.
                domain = Some(DomId(found)).filter(|dom| dom.0 != 0 && dom.is_guest());
                ports_of = None;
                if let Some(dom) = domain {
                    guests.entry(dom).or_default();
                }
            } else if let Some(found) = number_after(line, "Event channel information for domain ")
            {
                ports_of = Some(found);
            } else if let (Some(dom), Some(id)) = (domain, number_after(line, "ioreq_server ")) {
                guests.entry(dom).or_default().insert(id);
            } else if ports_of == Some(0) && line.contains("]: s=") {
                channels += 1;
                if let Some(dom) = number_after(line, " d=") {
                    *channels_to.entry(DomId(dom)).or_default() += 1;
                }
            }
        }
        Self { guests, channels, channels_to }
    }
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
(XEN) 'q' pressed -> dumping domain info
(XEN) General information for domain 0:
(XEN)     Rangesets belonging to domain 0:
(XEN) General information for domain 3:
(XEN)     Rangesets belonging to domain 3:
(XEN)     ioreq_server 0 pci { }
(XEN)     ioreq_server 0 memory { [fe000000, fe0001ff] }
(XEN)     ioreq_server 7 memory { [fe000050, fe000053] }
(XEN)     Interrupts { }
(XEN) General information for domain 5:
(XEN) General information for domain 32754:
";

    #[test]
    fn servers_are_found_in_the_domain_that_has_them() {
        let lists = Lists::read(PRINTED);
        let guests = [(DomId(3), BTreeSet::from([0, 7])), (DomId(5), BTreeSet::new())];
        assert_eq!(lists.guests, BTreeMap::from(guests));
    }

    #[test]
    fn channels_are_those_of_domain_0() {
        let lists = Lists::read(PRINTED);
        assert_eq!(lists.channels, 4);
        assert_eq!(lists.channels_to, BTreeMap::from([(DomId(3), 2), (DomId(31), 1)]));
    }
}
