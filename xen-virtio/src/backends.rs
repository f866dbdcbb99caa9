//! Connects a device to the backend that its description names.

use crate::error::Result;
use crate::spec::{BackendSpec, DeviceSpec, TapSpec};
use std::time::Duration;
use xen_eventfd_vhost::linux::{self, Net, Options, Tap};
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::{Backend, Needs};

/// How long each exchange with a backend may take. A vCPU waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first bytes of an address that Xen gives a card.
const XENS: [u8; 3] = [0x00, 0x16, 0x3E];

impl DeviceSpec {
    /// Whether the descriptors that it takes are queues of a tap device.
    pub(crate) fn check(&self) -> Result<()> {
        Ok(Tap::inherited(self.descriptors()).map(drop)?)
    }

    /// Connects.
    pub(crate) fn connect(&self) -> Result<Box<dyn Backend>> {
        match &self.backend {
            BackendSpec::VhostUser(socket) => {
                let needs = Needs { queues: self.kind.queues, fixed: self.fixed_queues };
                Ok(Box::new(Frontend::connect(socket, needs, PATIENCE)?))
            }
            BackendSpec::VhostNet { tap, mac, offloads } => {
                let options = Options { mac: *mac, offloads: *offloads };
                let taps = match tap {
                    TapSpec::Named { name, queues } => Tap::open(name, *queues)?,
                    TapSpec::Open(numbers) => Tap::inherited(numbers)?,
                };
                Ok(Box::new(Net::new(taps, options)?))
            }
            BackendSpec::Sockets { cid } => Ok(Box::new(linux::Device::vsock(*cid)?)),
            BackendSpec::Target { wwpn, queues } => {
                Ok(Box::new(linux::Device::scsi(wwpn, *queues)?))
            }
        }
    }
}

/// The address of a guest's card with this number, from its UUID, which is the same if its configuration
/// has one.
pub(crate) fn default_mac(uuid: Option<&str>, number: u8) -> [u8; 6] {
    let digits: Vec<char> =
        uuid.unwrap_or_default().chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |from_end: usize| {
        let first = digits.len().checked_sub(2 * from_end)?;
        let pair: String = digits.get(first..first + 2)?.iter().collect();
        u8::from_str_radix(&pair, 16).ok()
    };
    let [a, b, c] = [3, 2, 1].map(|from_end| byte(from_end).unwrap_or(0));
    let [x, y, z] = XENS;
    [x, y, z, a & 0x7F, b, c ^ number]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_card_of_each_guest_has_an_address_of_its_own() {
        let uuid = |last: &str| format!("0a1b2c3d-0000-4000-8000-000000{last}");
        assert_eq!(default_mac(Some(&uuid("c1d2e3")), 0), [0, 0x16, 0x3E, 0x41, 0xD2, 0xE3]);
        assert_eq!(default_mac(Some(&uuid("c1d2e3")), 1)[5], 0xE2);
        assert_ne!(default_mac(Some(&uuid("c1d2e4")), 0), default_mac(Some(&uuid("c1d2e3")), 0));
        assert_eq!(default_mac(None, 2), [0, 0x16, 0x3E, 0, 0, 2]);
    }
}
