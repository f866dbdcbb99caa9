//! `/dev/xen/evtchn`: event channels of our own and the queue of their events.
//!
//! The driver masks a port when it queues its event, and unmasks it when the port is written back.
//! Closing the device unbinds all of its ports.
//!
//! The queue has room for an event of every bound port, yet it can overflow: an event that waits
//! there when its port is unbound stays, and the number may be given to the next port.

use super::door::ioctl;
use super::sys::evtchn::{self as sys, BindInterdomain, OnePort};
use crate::{Call, EventChannels, HostError, LocalPort, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, retry_on_intr, write};
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xen_eventfd_core::{DomId, Port};

const DEVICE: &str = "/dev/xen/evtchn";
/// Ports that one read takes at most.
const BATCH: usize = 256;

/// The device and what is bound through it.
///
/// # Invariants
/// `bound` is locked while a port is bound or unbound, so that whoever holds it sees exactly the
/// ports whose events are worth reporting: an event that comes before `bind` has returned is kept,
/// and one that `unbind` left in the queue is dropped.
#[derive(Debug)]
pub(super) struct Evtchn {
    device: OwnedFd,
    bound: Mutex<BTreeSet<LocalPort>>,
}

impl Evtchn {
    pub(super) fn open() -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = open(DEVICE, flags, Mode::empty())
            .map_err(|errno| HostError::new(Call::Open(DEVICE), errno))?;
        Ok(Self { device, bound: Mutex::default() })
    }

    fn bound(&self) -> MutexGuard<'_, BTreeSet<LocalPort>> {
        // A set of numbers is whole whatever unwound.
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties a queue that overflowed. Which ports it held is lost, so all may have had an event.
    fn reset(&self, ports: &mut Vec<LocalPort>) -> core::result::Result<(), Errno> {
        // SAFETY: the request takes no argument and looks at none.
        unsafe { ioctl(self.device.as_fd(), sys::RESET, &mut ()) }?;
        ports.extend(self.bound().iter());
        Ok(())
    }

    /// Appends what the queue holds, as it is.
    fn drain(&self, ports: &mut Vec<LocalPort>) -> core::result::Result<(), Errno> {
        let mut room = [MaybeUninit::uninit(); BATCH * 4];
        loop {
            let (bytes, left) = match read(&self.device, &mut room[..]) {
                Ok((bytes, left)) => (bytes, left.len()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::FBIG) => return self.reset(ports),
                Err(errno) => return Err(errno),
            };
            ports.extend(decode(bytes));
            if left > 0 {
                return Ok(());
            }
        }
    }
}

fn event(errno: Errno) -> HostError {
    HostError::new(Call::Event, errno)
}

/// The ports in what the device gave, which are whole ones.
fn decode(bytes: &[u8]) -> impl Iterator<Item = LocalPort> + '_ {
    let (ports, _) = bytes.as_chunks::<4>();
    ports.iter().map(|port| LocalPort(u32::from_ne_bytes(*port)))
}

/// Leaves of `ports[from..]` each one that is bound, once.
fn sift(ports: &mut Vec<LocalPort>, from: usize, bound: &BTreeSet<LocalPort>) {
    ports[from..].sort_unstable();
    let mut next = from;
    for at in from..ports.len() {
        let port = ports[at];
        if bound.contains(&port) && (next == from || ports[next - 1] != port) {
            ports[next] = port;
            next += 1;
        }
    }
    ports.truncate(next);
}

impl EventChannels for Evtchn {
    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn bind(&self, dom: DomId, remote: Port) -> Result<LocalPort> {
        let mut argument =
            BindInterdomain { remote_domain: u32::from(dom.0), remote_port: remote.0 };
        let mut bound = self.bound();
        // SAFETY: the request reads one such struct.
        let port = unsafe { ioctl(self.device.as_fd(), sys::BIND_INTERDOMAIN, &mut argument) }
            .map_err(|errno| HostError::new(Call::Bind(dom, remote), errno))?;
        bound.insert(LocalPort(port));
        Ok(LocalPort(port))
    }

    fn unbind(&self, port: LocalPort) -> Result<()> {
        let mut bound = self.bound();
        // SAFETY: the request reads one such struct.
        unsafe { ioctl(self.device.as_fd(), sys::UNBIND, &mut OnePort { port: port.0 }) }
            .map_err(event)?;
        bound.remove(&port);
        Ok(())
    }

    fn notify(&self, port: LocalPort) -> Result<()> {
        // SAFETY: the request reads one such struct.
        unsafe { ioctl(self.device.as_fd(), sys::NOTIFY, &mut OnePort { port: port.0 }) }
            .map_err(event)?;
        Ok(())
    }

    fn pending(&self, ports: &mut Vec<LocalPort>) -> Result<()> {
        let from = ports.len();
        let drained = self.drain(ports);
        sift(ports, from, &self.bound());
        drained.map_err(event)
    }

    fn eoi(&self, port: LocalPort) -> Result<()> {
        retry_on_intr(|| write(&self.device, &port.0.to_ne_bytes())).map_err(event)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports<const N: usize>(numbers: [u32; N]) -> Vec<LocalPort> {
        numbers.map(LocalPort).to_vec()
    }

    /// A queue without a driver behind it.
    fn queue(events: &[u32]) -> (Evtchn, OwnedFd) {
        let (device, driver) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        for port in events {
            write(&driver, &port.to_ne_bytes()).unwrap();
        }
        (Evtchn { device, bound: Mutex::new(ports([3, 5, 9]).into_iter().collect()) }, driver)
    }

    #[test]
    fn events_are_appended_once_each_and_only_of_bound_ports() {
        let (channels, _driver) = queue(&[9, 3, 4, 9, 3, 7]);
        let mut found = ports([100, 3]);
        channels.pending(&mut found).unwrap();
        assert_eq!(found, ports([100, 3, 3, 9]));
    }

    #[test]
    fn more_than_a_batch_is_drained_in_one_call() {
        let (channels, _driver) = queue(&[&[3; 2 * BATCH][..], &[5]].concat());
        let mut found = Vec::new();
        channels.pending(&mut found).unwrap();
        assert_eq!(found, ports([3, 5]));
    }

    #[test]
    fn an_empty_queue_does_not_wait() {
        let (channels, _driver) = queue(&[]);
        let mut found = Vec::new();
        channels.pending(&mut found).unwrap();
        assert_eq!(found, []);
    }

    #[test]
    fn refusals_name_what_was_asked() {
        let (channels, _driver) = queue(&[]);
        let refused = channels.bind(DomId(1), Port(2)).unwrap_err();
        assert_eq!(refused, HostError::new(Call::Bind(DomId(1), Port(2)), Errno::NOTTY));
        assert_eq!(channels.notify(LocalPort(3)).unwrap_err().call, Call::Event);
        assert!(channels.unbind(LocalPort(3)).is_err());
        assert!(channels.bound().contains(&LocalPort(3)), "what is not unbound stays");
    }
}
