//! What a backend requests of its frontend, by a channel of its own (SET_BACKEND_REQ_FD).
//!
//! Only a change of the configuration means anything here. The backend is not trusted: the channel is read and written
//! without waiting, and a backend that requests more often than a device changes is an error.

use super::wire::{CONFIG_CHANGE, Header, NEED_REPLY, Payload, REPLY, VERSION};
use crate::{Error, Result, Wrong};
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    send, socketpair,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// The longest payload that a request may have, in bytes: longer than any that is specified.
const MAX_PAYLOAD: usize = 256;
/// As many requests may come at once, and one more for each [`PERIOD`] after that.
const BURST: u32 = 64;
const PERIOD: Duration = Duration::from_millis(100);

/// The channel.
#[derive(Debug)]
pub(super) struct Requests {
    socket: OwnedFd,
    /// The beginning of the next request.
    part: Vec<u8>,
    allowance: Allowance,
}

/// Why no more is read now.
enum Pause {
    Empty,
    Closed,
}

impl Requests {
    /// A channel, and the backend's end of it.
    pub(super) fn new() -> Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| Error::System { what: "make a pair of sockets", errno })?;
        Ok((Self { socket, part: Vec::new(), allowance: Allowance::new(Instant::now()) }, theirs))
    }

    /// Readable when the backend requests something.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes what is there. Returns whether the configuration has changed, and whether the backend has closed the
    /// channel, which it may.
    pub(super) fn take(&mut self) -> Result<(bool, bool)> {
        let mut changed = false;
        loop {
            match self.next()? {
                Ok(header) => {
                    if !self.allowance.take(Instant::now()) {
                        return Err(Error::Flood);
                    }
                    let known = header.request == CONFIG_CHANGE;
                    changed |= known;
                    if header.flags & NEED_REPLY != 0 {
                        self.reply(&header, known)?;
                    }
                }
                Err(Pause::Empty) => return Ok((changed, false)),
                Err(Pause::Closed) => return Ok((changed, true)),
            }
        }
    }

    /// The header of the next request that is there with its payload.
    fn next(&mut self) -> Result<core::result::Result<Header, Pause>> {
        loop {
            let header = self.part.get(..Header::SIZE).and_then(Header::parse);
            let whole = match &header {
                None => Header::SIZE,
                Some(header) => Header::SIZE + payload_of(header)?,
            };
            let missing = whole - self.part.len();
            if let Some(header) = header.filter(|_| missing == 0) {
                self.part.clear();
                return Ok(Ok(header));
            }
            match self.read(missing) {
                Ok(0) if self.part.is_empty() => return Ok(Err(Pause::Closed)),
                Ok(0) => return Err(Error::Request { wrong: Wrong::Cut }),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Err(Pause::Empty)),
                Err(Errno::CONNRESET) => return Ok(Err(Pause::Closed)),
                Err(errno) => {
                    return Err(Error::System { what: "read the backend's requests", errno });
                }
            }
        }
    }

    /// Reads at most so many bytes. Descriptors that come with them are closed.
    fn read(&mut self, length: usize) -> core::result::Result<usize, Errno> {
        let mut bytes = vec![0; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, into, &mut ancillary, flags)?.bytes;
        drop(ancillary);
        self.part.extend_from_slice(bytes.get(..received).unwrap_or_default());
        Ok(received)
    }

    fn reply(&self, header: &Header, done: bool) -> Result<()> {
        let size = u32::try_from(u64::SIZE).unwrap_or_default();
        let reply = Header { request: header.request, flags: VERSION | REPLY, size };
        let bytes = [reply.emit(), u64::from(!done).emit()].concat();
        match send(&self.socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            // The backend has closed its end since.
            Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
            // It does not read replies that it asks for.
            Ok(_) | Err(Errno::AGAIN) => Err(Error::Flood),
            Err(errno) => Err(Error::System { what: "reply to the backend", errno }),
        }
    }
}

/// The size of a request's payload.
fn payload_of(header: &Header) -> Result<usize> {
    let wrong = |wrong| Err(Error::Request { wrong });
    if header.flags & !NEED_REPLY != VERSION {
        return wrong(Wrong::Flags(header.flags));
    }
    match usize::try_from(header.size) {
        Ok(0) => Ok(0),
        Ok(size) if size <= MAX_PAYLOAD && header.request != CONFIG_CHANGE => Ok(size),
        _ => wrong(Wrong::Size(header.size)),
    }
}

/// How many requests may still come.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Takes one of them; returns whether there was one.
    fn take(&mut self, now: Instant) -> bool {
        let periods = now.duration_since(self.since).as_millis() / PERIOD.as_millis();
        if periods > 0 {
            let more = u32::try_from(periods).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = now;
        }
        let is_there = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_may_come_at_once_and_then_now_and_then() {
        let begin = Instant::now();
        let mut allowance = Allowance::new(begin);
        let mut taken =
            |at: Duration, wanted: u32| (0..wanted).filter(|_| allowance.take(begin + at)).count();
        assert_eq!(taken(Duration::ZERO, 100), 64);
        assert_eq!(taken(PERIOD / 2, 1), 0);
        assert_eq!(taken(PERIOD, 5), 1);
        assert_eq!(taken(4 * PERIOD, 5), 3);
        assert_eq!(taken(1000 * PERIOD, 100), 64);
    }
}
