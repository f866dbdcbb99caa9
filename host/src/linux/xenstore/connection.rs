//! One connection to the daemon: requests with a deadline, and watch events.

use super::wire::{self, Body, Message};
use crate::linux::sys::xenstore::{DEVICE, HEADER, PAYLOAD_MAX, SOCKETS, WATCH_EVENT};
use crate::{Call, HostError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The time limit of an answer. The daemon answers within a millisecond unless it hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for a daemon that has created its socket and does not listen yet.
const PATIENCE_FOR_LISTENER: Duration = Duration::from_millis(300);
/// The delay before the next attempt after a refused connection.
const PAUSE: Duration = Duration::from_millis(10);
/// The most reads of one check for events.
const READS: usize = 16;

/// Why a request failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The daemon returned an error.
    Refused(Errno),
    /// The connection is unusable.
    Broken(Errno),
}

impl Failure {
    pub(super) fn errno(&self) -> Errno {
        match self {
            Self::Refused(errno) | Self::Broken(errno) => *errno,
        }
    }
}

/// A connection, with the bytes that were received and not parsed yet.
///
/// # Invariants
/// `received` is read into only while it holds no whole message: it stays below two messages.
#[derive(Debug)]
pub(in crate::linux) struct Connection {
    link: Link,
    received: Vec<u8>,
    last_request: u32,
    patience: Duration,
}

#[derive(Debug)]
enum Link {
    Socket(OwnedFd),
    Device(OwnedFd),
}

impl Connection {
    /// Connects to the daemon's socket or, if there is none, through the kernel.
    ///
    /// If the daemon has a socket and refuses, the kernel's device is not tried: it would wait for
    /// the same daemon.
    pub(in crate::linux) fn open() -> crate::Result<Self> {
        Self::open_at(SOCKETS, DEVICE)
    }

    fn open_at(sockets: [&'static str; 2], device: &'static str) -> crate::Result<Self> {
        if let Some(connection) = Self::to_sockets(sockets)? {
            return Ok(connection);
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match retry_on_intr(|| rustix::fs::open(device, flags, Mode::empty())) {
            Ok(device) => Ok(Self::over(Link::Device(device))),
            Err(Errno::NOENT) => Err(HostError::new(Call::Open(sockets[0]), Errno::NOENT)),
            Err(errno) => Err(HostError::new(Call::Open(device), errno)),
        }
    }

    /// Connects for a watch, which is only set over a socket: through the kernel's device Linux waits
    /// for the answer uninterruptibly, when a watch is set and when the device is closed
    /// (`read_reply` in `drivers/xen/xenbus/xenbus_xs.c`). If xenstored died meanwhile, the process
    /// could not even be killed.
    ///
    /// # Errors
    /// [`Errno::OPNOTSUPP`] without a socket.
    pub(in crate::linux) fn open_for_watch() -> crate::Result<Self> {
        Self::open_for_watch_at(SOCKETS)
    }

    fn open_for_watch_at(sockets: [&'static str; 2]) -> crate::Result<Self> {
        let none = HostError::new(Call::Open(sockets[0]), Errno::OPNOTSUPP);
        Self::to_sockets(sockets)?.ok_or(none)
    }

    /// Connects to the first of these sockets that exists.
    fn to_sockets(sockets: [&'static str; 2]) -> crate::Result<Option<Self>> {
        for path in sockets {
            match Self::to_socket(path) {
                Ok(connection) => return Ok(Some(connection)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(HostError::new(Call::Open(path), errno)),
            }
        }
        Ok(None)
    }

    /// Connects to a socket. If its short queue of connections is full or it does not
    /// listen yet, the connection is tried again for a moment.
    fn to_socket(path: &str) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let address = SocketAddrUnix::new(path)?;
        let since = Instant::now();
        loop {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let patience = match connect(&socket, &address) {
                Ok(()) => return Ok(Self::over(Link::Socket(socket))),
                Err(Errno::AGAIN | Errno::INTR) => PATIENCE,
                Err(Errno::CONNREFUSED) => PATIENCE_FOR_LISTENER,
                Err(errno) => return Err(errno),
            };
            if since.elapsed() >= patience {
                // If the queue stays full, the daemon does not answer.
                return retry_on_intr(|| connect(&socket, &address))
                    .map(|()| Self::over(Link::Socket(socket)))
                    .map_err(|errno| if errno == Errno::AGAIN { Errno::TIMEDOUT } else { errno });
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn over(link: Link) -> Self {
        Self { link, received: Vec::new(), last_request: 0, patience: PATIENCE }
    }

    /// Readable when bytes have arrived that were not read yet.
    pub(in crate::linux) fn fd(&self) -> BorrowedFd<'_> {
        match &self.link {
            Link::Socket(fd) | Link::Device(fd) => fd.as_fd(),
        }
    }

    /// Makes a request and waits for the answer. Watch events that arrive meanwhile go to `event`.
    pub(super) fn request(
        &mut self,
        kind: u32,
        parts: &[&str],
        event: impl FnMut(&[u8]),
    ) -> Result<Vec<u8>, Failure> {
        self.send_request(kind, &Body { transaction: 0, parts, value: &[] }, event)
    }

    /// The same for a request that has a value or belongs to a transaction.
    pub(super) fn send_request(
        &mut self,
        kind: u32,
        body: &Body<'_>,
        mut event: impl FnMut(&[u8]),
    ) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.patience;
        let request = self.last_request.wrapping_add(1);
        self.last_request = request;
        let bytes = wire::encode_body(kind, request, body).map_err(Failure::Refused)?;
        self.send(&bytes, deadline).map_err(Failure::Broken)?;
        self.wait_for(deadline, |message| match message {
            Message { kind: WATCH_EVENT, payload, .. } => {
                event(payload);
                None
            }
            reply if reply.request == request => Some(wire::answer(reply, kind).map(Vec::from)),
            _ => None,
        })
        .map_err(Failure::Broken)?
        .map_err(Failure::Refused)
    }

    /// Waits for an event.
    pub(super) fn wait_for_event(&mut self, is_it: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
        self.wait_for(Instant::now() + self.patience, |message| {
            (message.kind == WATCH_EVENT && is_it(message.payload)).then_some(())
        })
    }

    fn wait_for<T>(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<T, Errno> {
        loop {
            while let Some(outcome) = self.take(&mut wanted)? {
                if let Some(found) = outcome {
                    return Ok(found);
                }
            }
            // The deadline also holds against a daemon that keeps sending other messages.
            if !self.receive()? || Instant::now() >= deadline {
                self.wait(PollFlags::IN, deadline)?;
            }
        }
    }

    /// Reads the events that have arrived. Never waits, and leaves events in the kernel that arrive faster
    /// than it reads.
    pub(super) fn events(&mut self, mut event: impl FnMut(&[u8])) -> Result<(), Errno> {
        for _ in 0..READS {
            let received = self.receive()?;
            while let Some(()) = self.take(|message| {
                if message.kind == WATCH_EVENT {
                    event(message.payload);
                }
            })? {}
            if !received {
                break;
            }
        }
        Ok(())
    }

    /// Passes the first whole message to `look` and removes it.
    fn take<T>(&mut self, look: impl FnOnce(&Message<'_>) -> T) -> Result<Option<T>, Errno> {
        let Some((message, rest)) = wire::split(&self.received)? else {
            return Ok(None);
        };
        let (looked, used) = (look(&message), self.received.len() - rest.len());
        self.received.drain(..used);
        Ok(Some(looked))
    }

    /// Reads what has arrived. `false`: nothing.
    fn receive(&mut self) -> Result<bool, Errno> {
        let mut bytes = [0; HEADER + PAYLOAD_MAX];
        match retry_on_intr(|| rustix::io::read(self.fd(), &mut bytes)) {
            Ok(0) => Err(Errno::CONNRESET),
            Ok(length) => {
                self.received.extend_from_slice(&bytes[..length]);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn send(&self, mut bytes: &[u8], deadline: Instant) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let sent = retry_on_intr(|| match &self.link {
                Link::Socket(fd) => send(fd, bytes, SendFlags::NOSIGNAL),
                Link::Device(fd) => rustix::io::write(fd, bytes),
            });
            match sent {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                // A hang-up is the same error, whether writing or reading finds it.
                Err(Errno::PIPE) => return Err(Errno::CONNRESET),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> Result<(), Errno> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::from_borrowed_fd(self.fd(), flags)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
impl Connection {
    /// A connection to a test's daemon.
    pub(in crate::linux) fn to(daemon: std::os::unix::net::UnixStream) -> Self {
        daemon.set_nonblocking(true).unwrap();
        Self::over(Link::Socket(daemon.into()))
    }

    pub(super) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A connection to a daemon that listens at this path.
    pub(super) fn at(path: &str) -> Result<Self, Errno> {
        Self::to_socket(path)
    }

    /// As [`Self::open`], at these paths.
    pub(super) fn open_there(
        sockets: [&'static str; 2],
        device: &'static str,
    ) -> crate::Result<Self> {
        Self::open_at(sockets, device)
    }

    /// As [`Self::open_for_watch`], at these paths.
    pub(super) fn open_for_watch_there(sockets: [&'static str; 2]) -> crate::Result<Self> {
        Self::open_for_watch_at(sockets)
    }
}
