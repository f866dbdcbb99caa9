//! The link between a test and the other processes of its scenario: whole messages, with descriptors.
//!
//! On real Xen the other end is a process, on the model a thread; the link is the same.

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The longest message.
const MESSAGE: usize = 64 * 1024;
/// The most descriptors with one message.
const DESCRIPTORS: usize = 32;

/// One end of a link.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// A message and the descriptors that came with it; `None` once the other end is closed.
pub type Message<T> = Option<(T, Vec<OwnedFd>)>;

impl Link {
    /// A connected pair.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> Result<(Self, Self)> {
        let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        let (one, other) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// The end that this process inherited.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Returns the descriptor, to pass it to a child.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// A second handle on this end.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn again(&self) -> Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Closes both directions, for every handle.
    pub fn hang_up(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The other end is closed.
    pub fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let text = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            bail!("too many descriptors for one message: {}", fds.len());
        }
        let vectors = [IoSlice::new(&text)];
        let sent = sendmsg(&self.0, &vectors, &mut ancillary, SendFlags::NOSIGNAL);
        sent.context("the other process of the scenario is gone").map(|_| ())
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// No message arrived in time, or it is not of the expected type.
    pub fn receive<T: DeserializeOwned>(&self, patience: Duration) -> Result<Message<T>> {
        let timeout = Timespec::try_from(patience)?;
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => bail!("the other process of the scenario sent nothing for {patience:?}"),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.receive_now()
    }

    /// Receives a message that is there already.
    ///
    /// # Errors
    /// It is not of the expected type.
    pub fn receive_now<T: DeserializeOwned>(&self) -> Result<Message<T>> {
        let mut text = vec![0; MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut vectors = [IoSliceMut::new(&mut text)];
        let received = match recvmsg(&self.0, &mut vectors, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if received == 0 {
            return Ok(None);
        }
        let text = text.get(..received).unwrap_or_default();
        let shown = || format!("unexpected message {}", String::from_utf8_lossy(text));
        Ok(Some((serde_json::from_slice(text).with_context(shown)?, fds)))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
