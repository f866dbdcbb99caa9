//! A connection to a backend: requests and replies, each exchange with one deadline.

use super::wire::{self, Header, MAX_REGIONS, Payload, REPLY, Request, VERSION};
use crate::{Error, Result, Wrong};
use core::mem::MaybeUninit;
use core::ops::RangeInclusive;
use core::time::Duration;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, ioctl_fionread, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, connect, recv, recvmsg, sendmsg, shutdown, socket_with,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

/// The delay before the next look at what cannot be waited for: room in the queue of a listening socket, the rest of a
/// message.
const PAUSE: Duration = Duration::from_millis(10);
/// The first such delay amid a message. A vCPU may wait for it.
const SHORT_PAUSE: Duration = Duration::from_micros(50);
/// More bytes than the payload of any reply has.
const MAX_REPLY: usize = 4096;

/// A connection to a backend.
///
/// # Invariants
/// Between two exchanges nothing is left to be read, or the socket is shut down: after an error that is not
/// the backend's refusal it is not known which reply would come next.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    limit: Duration,
}

/// Why an exchange failed.
enum Failure {
    Ended,
    Silent,
    Unsolicited,
    Wrong(Wrong),
    System(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Ended,
            Errno::TIMEDOUT => Self::Silent,
            errno => Self::System(errno),
        }
    }
}

impl Connection {
    /// Connects to a socket. `limit` is that of each exchange, of this one too.
    pub(super) fn open(path: &Path, limit: Duration) -> Result<Self> {
        let socket = connected(path, Instant::now() + limit)
            .map_err(|errno| Error::Connect { path: path.to_owned(), errno })?;
        Ok(Self::over(socket, limit))
    }

    pub(super) fn over(socket: OwnedFd, limit: Duration) -> Self {
        Self { socket, limit }
    }

    /// Readable when the backend has closed the connection, or sends without a request.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the connection is as it should be between two exchanges.
    pub(super) fn check(&self) -> Result<()> {
        self.idle().map_err(|failure| self.fail(None, failure))
    }

    /// Sends a request that has no reply.
    pub(super) fn send(
        &self,
        request: Request,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        let bytes = wire::message(request, false, payload);
        self.write(&bytes, descriptors, deadline)
            .map_err(|failure| self.fail(Some(request), failure))
    }

    /// Makes a request and returns the payload of its reply, whose size in bytes is one of `sizes`. The
    /// request asks for the reply if it has none by itself.
    pub(super) fn exchange(
        &self,
        request: Request,
        need_reply: bool,
        payload: &[u8],
        descriptors: &[BorrowedFd<'_>],
        sizes: RangeInclusive<usize>,
    ) -> Result<Vec<u8>> {
        let deadline = Instant::now() + self.limit;
        let bytes = wire::message(request, need_reply, payload);
        self.write(&bytes, descriptors, deadline)
            .and_then(|()| self.reply(request, &sizes, deadline))
            .map_err(|failure| self.fail(Some(request), failure))
    }

    /// Makes a request whose reply brings a descriptor.
    pub(super) fn exchange_for_file(
        &self,
        request: Request,
        payload: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, OwnedFd)> {
        let deadline = Instant::now() + self.limit;
        let bytes = wire::message(request, false, payload);
        let mut file = None;
        let reply = self
            .write(&bytes, &[], deadline)
            .and_then(|()| self.reply_with(request, &(size..=size), deadline, Some(&mut file)));
        reply
            .and_then(|reply| Ok((reply, file.ok_or(Failure::Wrong(Wrong::Descriptors))?)))
            .map_err(|failure| self.fail(Some(request), failure))
    }

    /// The reply of a request that is wrong in itself, by its meaning.
    pub(super) fn wrong(&self, request: Request, wrong: Wrong) -> Error {
        self.fail(Some(request), Failure::Wrong(wrong))
    }

    /// The error of a failure, after which the connection is not used again.
    fn fail(&self, request: Option<Request>, failure: Failure) -> Error {
        // If it fails, the socket is shut down already.
        let _ = shutdown(&self.socket, Shutdown::Both);
        // What arrived before would look like a reply. No more can arrive.
        let mut rest = [0_u8; 256];
        while let Ok((_, 1..)) = recv(&self.socket, &mut rest, RecvFlags::DONTWAIT) {}
        match (failure, request) {
            (Failure::Unsolicited, _) => Error::Unsolicited,
            (Failure::System(errno), _) => {
                Error::System { what: "use the backend's socket", errno }
            }
            (Failure::Silent, Some(request)) => Error::Silent { request, limit: self.limit },
            (Failure::Wrong(wrong), Some(request)) => Error::Reply { request, wrong },
            (_, request) => Error::Ended { request },
        }
    }

    /// Tells the backend that no request follows, and waits until it closes the connection. What it sends meanwhile, as
    /// to another process, is skipped.
    pub(super) fn end(&self) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        let end = || {
            // It fails if the backend was the first to close it.
            let _ = shutdown(&self.socket, Shutdown::Write);
            while Instant::now() < deadline {
                match recv(&self.socket, &mut [0_u8; 256], RecvFlags::DONTWAIT) {
                    Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                    Err(errno) => return Err(errno),
                }
            }
            Err(Errno::TIMEDOUT)
        };
        end().map_err(|errno| match errno {
            Errno::TIMEDOUT => Error::Open { limit: self.limit },
            errno => self.fail(None, errno.into()),
        })
    }

    fn idle(&self) -> core::result::Result<(), Failure> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match retry_on_intr(|| recv(&self.socket, &mut [0_u8; 1], flags)) {
            Ok((_, 0)) => Err(Failure::Ended),
            Ok(_) => Err(Failure::Unsolicited),
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn write(
        &self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> core::result::Result<(), Failure> {
        self.idle()?;
        self.put(bytes, descriptors, deadline)
    }

    /// Writes, whatever is left to be read.
    fn put(
        &self,
        mut bytes: &[u8],
        mut descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> core::result::Result<(), Failure> {
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_REGIONS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let message = SendAncillaryMessage::ScmRights(descriptors);
            if !descriptors.is_empty() && !ancillary.push(message) {
                return Err(Failure::System(Errno::TOOBIG));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                // The descriptors go with the first bytes.
                Ok(sent) => (bytes, descriptors) = (bytes.get(sent..).unwrap_or_default(), &[]),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Skips what the process that had the socket before has not read: at most one reply, as it was killed amid one
    /// exchange. That comes before the replies to these two requests, and is of the same kind as one of them at most.
    pub(super) fn skip_replies(&self) -> Result<()> {
        let deadline = Instant::now() + self.limit;
        let skip = |request| -> core::result::Result<(), Failure> {
            self.put(&wire::message(request, false, &[]), &[], deadline)?;
            loop {
                let header = self.header(deadline)?;
                self.payload(&header, &(0..=MAX_REPLY), deadline, Some(&mut None))?;
                if header.request == request as u32 {
                    return Ok(());
                }
            }
        };
        for request in [Request::GetFeatures, Request::GetProtocolFeatures] {
            skip(request).map_err(|failure| self.fail(Some(request), failure))?;
        }
        self.check()
    }

    fn reply(
        &self,
        request: Request,
        sizes: &RangeInclusive<usize>,
        deadline: Instant,
    ) -> core::result::Result<Vec<u8>, Failure> {
        self.reply_with(request, sizes, deadline, None)
    }

    /// The same, and a descriptor if one is wanted.
    fn reply_with(
        &self,
        request: Request,
        sizes: &RangeInclusive<usize>,
        deadline: Instant,
        file: Option<&mut Option<OwnedFd>>,
    ) -> core::result::Result<Vec<u8>, Failure> {
        let header = self.header(deadline)?;
        if header.request != request as u32 {
            return Err(Failure::Wrong(Wrong::Request(header.request)));
        }
        if header.flags != VERSION | REPLY {
            return Err(Failure::Wrong(Wrong::Flags(header.flags)));
        }
        self.payload(&header, sizes, deadline, file)
    }

    /// The header of the next message, which is left to be read.
    fn header(&self, deadline: Instant) -> core::result::Result<Header, Failure> {
        self.wait_for_bytes(Header::SIZE, deadline)?;
        let mut bytes = [0; Header::SIZE];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        retry_on_intr(|| recv(&self.socket, &mut bytes, flags))?;
        Header::parse(&bytes).ok_or(Failure::Ended)
    }

    /// Reads the next message, whose header this is, once all of it is there: a process that goes on with the socket
    /// finds no half of one.
    fn payload(
        &self,
        header: &Header,
        sizes: &RangeInclusive<usize>,
        deadline: Instant,
        file: Option<&mut Option<OwnedFd>>,
    ) -> core::result::Result<Vec<u8>, Failure> {
        let size = usize::try_from(header.size).ok().filter(|size| sizes.contains(size));
        let length = Header::SIZE + size.ok_or(Failure::Wrong(Wrong::Size(header.size)))?;
        self.wait_for_bytes(length, deadline)?;
        let mut message = self.read(length, deadline, file)?;
        message.drain(..Header::SIZE);
        Ok(message)
    }

    /// Waits until so many bytes can be read.
    fn wait_for_bytes(
        &self,
        length: usize,
        deadline: Instant,
    ) -> core::result::Result<(), Failure> {
        let mut pause = SHORT_PAUSE;
        loop {
            let there = ioctl_fionread(&self.socket)?;
            if there >= length as u64 {
                return Ok(());
            }
            let mut polled = [PollFd::new(&self.socket, PollFlags::RDHUP)];
            if retry_on_intr(|| poll(&mut polled, Some(&Timespec::default())))? > 0 {
                return Err(Failure::Ended);
            }
            match there {
                0 => self.wait(PollFlags::IN, deadline)?,
                // It is readable already.
                _ if Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (2 * pause).min(PAUSE);
                }
                _ => return Err(Failure::Silent),
            }
        }
    }

    /// Reads as many bytes, which bring no descriptors but one if that is wanted.
    fn read(
        &self,
        length: usize,
        deadline: Instant,
        mut file: Option<&mut Option<OwnedFd>>,
    ) -> core::result::Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; length];
        let mut left = &mut bytes[..];
        while !left.is_empty() {
            // One is enough to see that there are some. Linux closes those beyond the buffer.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let mut into = [IoSliceMut::new(left)];
            match recvmsg(&self.socket, &mut into, &mut ancillary, flags) {
                Ok(received) => {
                    // Those that came and are not wanted are closed here.
                    let mut brought: Vec<OwnedFd> = ancillary.drain().flat_map(files).collect();
                    if let Some(file) = file.as_deref_mut().filter(|file| file.is_none()) {
                        *file = brought.pop();
                    }
                    if !brought.is_empty() || received.flags.contains(ReturnFlags::CTRUNC) {
                        return Err(Failure::Wrong(Wrong::Descriptors));
                    }
                    if received.bytes == 0 {
                        return Err(Failure::Ended);
                    }
                    left = left.get_mut(received.bytes..).unwrap_or_default();
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(bytes)
    }

    /// Waits for the socket; fails once the deadline has passed, also with a backend that sends a byte now and
    /// then.
    fn wait(&self, flags: PollFlags, deadline: Instant) -> core::result::Result<(), Errno> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// The descriptors that a message brings.
fn files(message: RecvAncillaryMessage<'_>) -> Vec<OwnedFd> {
    match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    }
}

/// A socket that is connected to that of a path. If the listener's queue is full, the connection is tried again
/// until the deadline.
fn connected(path: &Path, deadline: Instant) -> core::result::Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
}
