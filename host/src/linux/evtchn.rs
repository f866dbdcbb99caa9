//! `/dev/xen/evtchn`: event channels and the queue of their events.
//!
//! The driver masks a port when it queues its event, and unmasks it when the port is written back.
//! Closing the device unbinds all of its ports.
//!
//! A waiting thread sleeps in `read()`, the cheapest way; a channel from this domain to itself
//! wakes it. A device that was handed over may be confined, and then refuses such a channel: there
//! the waiting thread sleeps in `poll()`, and an eventfd wakes it.
//!
//! The queue has room for an event of every bound port, yet it can overflow: an event that is
//! queued when its port is unbound stays, and the number may be assigned to the next port.

use super::door::{ioctl, open};
use super::sys::evtchn::{self as sys, BindInterdomain, BindUnboundPort, OnePort};
use crate::{Call, EventChannels, HostError, LocalPort, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, retry_on_intr, write};
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use xen_eventfd_core::{DomId, Port};

pub(super) const DEVICE: &str = "/dev/xen/evtchn";
/// The most ports of one read.
const BATCH: usize = 256;

/// The device and the ports that are bound through it.
///
/// # Invariants
/// `bound` is locked while a port is bound or unbound, so that a thread that holds it sees exactly the
/// ports whose events must be reported: an event that arrives before `bind` has returned is kept,
/// and one that `unbind` left in the queue is dropped.
#[derive(Debug)]
pub(super) struct Evtchn {
    device: OwnedFd,
    bound: Mutex<BTreeSet<LocalPort>>,
    /// The channel to notify so that an event arrives here; set by the first wake.
    wake_port: Mutex<Option<LocalPort>>,
    /// The eventfd that wakes instead of a channel, if the device was handed over.
    waker: Option<OwnedFd>,
    /// Whether a read of the empty queue sleeps; set by the first wait.
    sleeps: AtomicBool,
}

impl Evtchn {
    pub(super) fn open() -> Result<Self> {
        let device = open(DEVICE, OFlags::RDWR | OFlags::NONBLOCK)
            .map_err(|errno| HostError::new(Call::Open(DEVICE), errno))?;
        Ok(Self::over(device))
    }

    fn over(device: OwnedFd) -> Self {
        let (bound, wake_port) = Default::default();
        Self { device, bound, wake_port, waker: None, sleeps: false.into() }
    }

    /// A device that was handed over.
    pub(super) fn handed(device: OwnedFd) -> Result<Self> {
        let failed = |errno| HostError::new(Call::Open(DEVICE), errno);
        let flags = fcntl_getfl(&device).map_err(failed)?;
        fcntl_setfl(&device, flags | OFlags::NONBLOCK).map_err(failed)?;
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        Ok(Self { waker: Some(waker), ..Self::over(device) })
    }

    /// Sleeps until there is an event or the eventfd is signalled, and does not read the event.
    fn sleep(&self, waker: &OwnedFd) -> core::result::Result<(), Errno> {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN), PollFd::new(waker, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None))?;
        if !fds[1].revents().is_empty() {
            // Clear the eventfd, so that it can wake again.
            let _ = read(waker, &mut [0; 8]);
        }
        Ok(())
    }

    fn bound(&self) -> MutexGuard<'_, BTreeSet<LocalPort>> {
        // A set of numbers is consistent after any panic.
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties a queue that overflowed. Its ports are lost, so any port may have had an event.
    fn reset(&self, ports: &mut Vec<LocalPort>) -> core::result::Result<(), Errno> {
        // SAFETY: the request takes no argument.
        unsafe { ioctl(self.device.as_fd(), sys::RESET, &mut ()) }?;
        ports.extend(self.bound().iter());
        Ok(())
    }

    /// Appends the ports of one read of the queue. `true`: there may be more.
    fn take(&self, ports: &mut Vec<LocalPort>) -> core::result::Result<bool, Errno> {
        let mut room = [MaybeUninit::uninit(); BATCH * 4];
        loop {
            return match read(&self.device, &mut room[..]) {
                Ok((bytes, left)) => {
                    ports.extend(decode(bytes));
                    Ok(left.is_empty())
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(false),
                Err(Errno::FBIG) => self.reset(ports).map(|()| false),
                Err(errno) => Err(errno),
            };
        }
    }

    /// Appends all ports of the queue, without waiting for more.
    fn drain(&self, ports: &mut Vec<LocalPort>) -> core::result::Result<(), Errno> {
        while self.is_safe_to_read()? && self.take(ports)? {}
        Ok(())
    }

    /// Whether a read does not sleep.
    fn is_safe_to_read(&self) -> core::result::Result<bool, Errno> {
        if !self.sleeps.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut device = [PollFd::new(&self.device, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(retry_on_intr(|| poll(&mut device, Some(&now)))? > 0)
    }

    /// From now on a read of the empty queue sleeps.
    fn let_reads_sleep(&self) -> core::result::Result<(), Errno> {
        if !self.sleeps.load(Ordering::Relaxed) {
            let flags = fcntl_getfl(&self.device)?;
            fcntl_setfl(&self.device, flags - OFlags::NONBLOCK)?;
            self.sleeps.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Appends ports by `what`, and removes from the appended part duplicates and ports that are not bound.
    fn append(
        &self,
        ports: &mut Vec<LocalPort>,
        what: impl FnOnce(&mut Vec<LocalPort>) -> core::result::Result<(), Errno>,
    ) -> Result<()> {
        let from = ports.len();
        let appended = what(ports);
        sift(ports, from, &self.bound());
        appended.map_err(event)
    }

    /// Binds a port, whose events are reported from now on.
    fn bind_port(&self, dom: DomId, remote: Port) -> core::result::Result<LocalPort, Errno> {
        let mut argument =
            BindInterdomain { remote_domain: u32::from(dom.0), remote_port: remote.0 };
        let mut bound = self.bound();
        // SAFETY: the request reads one such struct.
        let port = unsafe { ioctl(self.device.as_fd(), sys::BIND_INTERDOMAIN, &mut argument) }?;
        bound.insert(LocalPort(port));
        Ok(LocalPort(port))
    }

    /// Binds a channel from this domain to itself. Its event arrives at once, as that of any new channel.
    fn bind_wake_port(&self) -> core::result::Result<LocalPort, Errno> {
        let mut argument = BindUnboundPort { remote_domain: u32::from(DomId::SELF.0) };
        // SAFETY: the request reads one such struct.
        let wake_port =
            unsafe { ioctl(self.device.as_fd(), sys::BIND_UNBOUND_PORT, &mut argument) }?;
        if let Err(errno) = self.bind_port(DomId::SELF, Port(wake_port)) {
            // If this fails, the port is closed with the device.
            let _ = self.unbind(LocalPort(wake_port));
            return Err(errno);
        }
        Ok(LocalPort(wake_port))
    }
}

fn event(errno: Errno) -> HostError {
    HostError::new(Call::Event, errno)
}

/// The ports in the bytes that the device returned.
fn decode(bytes: &[u8]) -> impl Iterator<Item = LocalPort> + '_ {
    let (ports, _) = bytes.as_chunks::<4>();
    ports.iter().map(|port| LocalPort(u32::from_ne_bytes(*port)))
}

/// Removes from `ports[from..]` duplicates and ports that are not bound.
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
        self.bind_port(dom, remote).map_err(|errno| HostError::new(Call::Bind(dom, remote), errno))
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
        self.append(ports, |ports| self.drain(ports))
    }

    fn wait(&self, ports: &mut Vec<LocalPort>) -> Result<()> {
        match &self.waker {
            Some(waker) => self.sleep(waker).map_err(event)?,
            None => self.let_reads_sleep().map_err(event)?,
        }
        self.append(ports, |ports| self.take(ports).map(drop))
    }

    fn wake(&self) -> Result<()> {
        if let Some(waker) = &self.waker {
            return match write(waker, &1_u64.to_ne_bytes()) {
                // Its counter is full of wakes.
                Ok(_) | Err(Errno::AGAIN) => Ok(()),
                Err(errno) => Err(event(errno)),
            };
        }
        let mut wake_port = self.wake_port.lock().unwrap_or_else(PoisonError::into_inner);
        match *wake_port {
            Some(wake_port) => self.notify(wake_port),
            None => {
                *wake_port = Some(self.bind_wake_port().map_err(event)?);
                Ok(())
            }
        }
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
        let channels = Evtchn::over(device);
        channels.bound().extend(ports([3, 5, 9]));
        (channels, driver)
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
    fn a_wait_sleeps_until_there_is_an_event() {
        let (channels, driver) = queue(&[]);
        let mut found = Vec::new();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let mut ports = Vec::new();
                channels.wait(&mut ports).map(|()| ports)
            });
            write(&driver, &5_u32.to_ne_bytes()).unwrap();
            assert_eq!(waits.join().unwrap().unwrap(), ports([5]));
        });
        channels.pending(&mut found).unwrap();
        assert_eq!(found, [], "a waiter can still poll");
        write(&driver, &9_u32.to_ne_bytes()).unwrap();
        channels.pending(&mut found).unwrap();
        channels.pending(&mut found).unwrap();
        assert_eq!(found, ports([9]));
    }

    #[test]
    fn a_wait_on_a_device_that_was_handed_over_needs_no_channel_to_this_domain() {
        let (queue, driver) = queue(&[]);
        let channels = Evtchn::handed(queue.device).unwrap();
        channels.bound().extend(ports([3]));
        let mut found = Vec::new();
        for _ in 0..2 {
            // Before the wait, and during it.
            channels.wake().unwrap();
            channels.wait(&mut found).unwrap();
            assert_eq!(found, []);
        }
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| channels.wait(&mut Vec::new()));
            channels.wake().unwrap();
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
        write(&driver, &3_u32.to_ne_bytes()).unwrap();
        channels.wait(&mut found).unwrap();
        assert_eq!(found, ports([3]));
        channels.pending(&mut found).unwrap();
        assert_eq!(found, ports([3]), "and there is no wait");
    }

    #[test]
    fn errors_name_the_call() {
        let (channels, _driver) = queue(&[]);
        let refused = channels.bind(DomId(1), Port(2)).unwrap_err();
        assert_eq!(refused, HostError::new(Call::Bind(DomId(1), Port(2)), Errno::NOTTY));
        assert_eq!(channels.notify(LocalPort(3)).unwrap_err().call, Call::Event);
        assert_eq!(channels.wake().unwrap_err().call, Call::Event);
        assert!(channels.unbind(LocalPort(3)).is_err());
        assert!(channels.bound().contains(&LocalPort(3)), "a port stays bound if unbind fails");
    }
}
