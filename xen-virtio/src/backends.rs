//! Connects a device to the backend that its description names.

use crate::error::{Error, Result};
use crate::registers::DeviceState;
use crate::resume::{Connector, Resumes};
use crate::spec::{BackendSpec, DeviceSpec, TapSpec};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};
use xen_eventfd_vhost::linux::{self, Net, Options, Tap};
use xen_eventfd_vhost::user::Frontend;
use xen_eventfd_vhost::{Backend, Needs};

/// How long each exchange with a backend may take. A vCPU waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a process that was killed may take to end.
const ENDING: Duration = Duration::from_secs(5);
/// Between two attempts to have what it had.
const PAUSE: Duration = Duration::from_millis(20);
/// The first bytes of an address that Xen gives a card.
const XENS: [u8; 3] = [0x00, 0x16, 0x3E];

impl DeviceSpec {
    /// Whether the descriptors that it takes are queues of a tap device.
    pub(crate) fn check(&self) -> Result<()> {
        Ok(Tap::inherited(self.descriptors()).map(drop)?)
    }

    /// How the process that goes on with a guest connects. To a socket, whenever its backend listens. Devices of the kernel
    /// are opened at once, as this process gives up the right to; the one before may have them for a moment yet.
    ///
    /// # Errors
    /// A device of the kernel cannot be opened, or is still in use.
    pub(crate) fn connector(&self) -> Result<Connector> {
        match self.backend {
            BackendSpec::VhostUser(_) => {
                let spec = self.clone();
                Ok(Connector::new(move || spec.connect()))
            }
            _ => Ok(Connector::once(once_free(|| self.connect(), ENDING)?)),
        }
    }

    /// Whether its connection is kept for the process that goes on with the guest.
    pub(crate) fn keeps_session(&self) -> bool {
        matches!(self.backend, BackendSpec::VhostUser(_))
    }

    /// Goes on with the session that the process before had over this connection, whose state this is: it asks the backend
    /// where each queue is (GET_VRING_BASE). That says nothing of a disk's requests, whose backend completes what it has begun
    /// when a session ends, so it gets a new one.
    pub(crate) fn go_on(
        &self,
        connection: OwnedFd,
        state: &DeviceState,
    ) -> Result<Box<dyn Backend>> {
        match Resumes::of(self.kind.device_type) {
            Resumes::Drained => {
                Frontend::end(connection.into(), ENDING)?;
                self.connect()
            }
            Resumes::InOrder | Resumes::SameSession => self.same_session(connection, state),
        }
    }

    /// Goes on with the session itself.
    pub(crate) fn same_session(
        &self,
        connection: OwnedFd,
        state: &DeviceState,
    ) -> Result<Box<dyn Backend>> {
        let features = state.accepted().unwrap_or(0);
        Ok(Box::new(Frontend::go_on(connection.into(), self.needs(), features, PATIENCE)?))
    }

    fn needs(&self) -> Needs {
        Needs { queues: self.kind.queues, fixed: self.fixed_queues }
    }

    /// Connects.
    pub(crate) fn connect(&self) -> Result<Box<dyn Backend>> {
        match &self.backend {
            BackendSpec::VhostUser(socket) => {
                Ok(Box::new(Frontend::connect(socket, self.needs(), PATIENCE)?))
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

/// What `open` opens, once a process that ends does not have it any more.
fn once_free<T>(mut open: impl FnMut() -> Result<T>, limit: Duration) -> Result<T> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(Error::Backend(error)) if error.is_in_use() && begun.elapsed() < limit => {
                thread::sleep(PAUSE);
            }
            done => return done,
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
    use rustix::io::Errno;

    fn tap(errno: Errno) -> Error {
        xen_eventfd_vhost::Error::Tap { name: "tap0".to_owned(), errno }.into()
    }

    #[test]
    fn a_connection_by_a_socket_is_kept() {
        let keeps = |device: &str| device.parse::<DeviceSpec>().unwrap().keeps_session();
        for device in ["fs,socket=/a,tag=fs", "net,socket=/a", "blk,socket=/a", "scsi,socket=/a"] {
            assert!(keeps(device), "{device}");
        }
        for device in ["net,tap=tap0", "vsock,cid=3"] {
            assert!(!keeps(device), "{device}");
        }
    }

    #[test]
    fn what_a_process_that_ends_still_has_is_waited_for() {
        let mut attempts = 0;
        let third = || {
            attempts += 1;
            if attempts < 3 { Err(tap(Errno::BUSY)) } else { Ok(attempts) }
        };
        assert_eq!(once_free(third, ENDING).ok(), Some(3));
        let never: Result<()> = once_free(|| Err(tap(Errno::BUSY)), Duration::ZERO);
        assert!(never.unwrap_err().to_string().contains("tap0"));
    }

    #[test]
    fn what_cannot_be_opened_at_all_is_not_waited_for() {
        let mut attempts = 0;
        let refused: Result<()> = once_free(
            || {
                attempts += 1;
                Err(tap(Errno::PERM))
            },
            ENDING,
        );
        assert!(refused.is_err());
        assert_eq!(attempts, 1);
    }

    #[test]
    fn each_card_of_each_guest_has_an_address_of_its_own() {
        let uuid = |last: &str| format!("0a1b2c3d-0000-4000-8000-000000{last}");
        assert_eq!(default_mac(Some(&uuid("c1d2e3")), 0), [0, 0x16, 0x3E, 0x41, 0xD2, 0xE3]);
        assert_eq!(default_mac(Some(&uuid("c1d2e3")), 1)[5], 0xE2);
        assert_ne!(default_mac(Some(&uuid("c1d2e4")), 0), default_mac(Some(&uuid("c1d2e3")), 0));
        assert_eq!(default_mac(None, 2), [0, 0x16, 0x3E, 0, 0, 2]);
    }
}
