//! Descriptors that a guardian keeps for the process that goes on after this one was killed, such as connections
//! to backends that serve one session alone.
//!
//! The guardian has a socket (`SOCK_SEQPACKET`) in the run directory. A message is a byte that says what is asked for,
//! and a name; the descriptor comes with it. Only root, or this process's user, gets into the directory.

use crate::{Error, Result};
use core::mem::MaybeUninit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with, sockopt,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest name, in bytes.
const MAX_NAME: usize = 255;
/// The most descriptors that are kept.
const MAX_KEPT: usize = 256;
/// The most connections at a time.
const MAX_CLIENTS: usize = 16;
/// How long the guardian may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a message asks for.
const KEEP: u8 = b'k';
const FORGET: u8 = b'f';
const ALL: u8 = b'a';
/// After all that is kept, so that an answer that was cut off is not taken for a whole one.
const END: u8 = b'e';

/// A guardian's socket, and the connection to it of the process that it guards.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    socket: OwnedFd,
}

impl Store {
    /// Makes the socket. Returns the store, and what the guardian listens on.
    pub(super) fn make(path: PathBuf) -> rustix::io::Result<(Self, OwnedFd)> {
        let address = SocketAddrUnix::new(&path)?;
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let listener = socket()?;
        bind(&listener, &address)?;
        let made = listen(&listener, 16).and_then(|()| {
            let socket = socket()?;
            // A guardian that was stopped must not hold up a guest.
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
            connect(&socket, &address)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => Ok((Self { path, socket }, listener)),
            Err(errno) => {
                let _ = rustix::fs::unlink(&path);
                Err(errno)
            }
        }
    }

    /// Becomes readable when the guardian has ended.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn keep(&self, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
        send(&self.socket, KEEP, name, Some(fd)).map_err(failed)
    }

    pub(super) fn forget(&self, name: &str) -> Result<()> {
        send(&self.socket, FORGET, name, None).map_err(failed)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A guardian that was killed has not, nor one that could not be started.
        let _ = rustix::fs::unlink(&self.path);
    }
}

fn failed(errno: Errno) -> Error {
    Error::NoGuardian(format!("it keeps no descriptors: {errno}"))
}

fn socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// What the guardian at a path of [`super::Guarded::descriptors_at`] keeps, by name, for the process that goes on after
/// the one that it guarded. Nothing if that guardian has ended.
///
/// # Errors
/// [`Error::NoGuardian`] if it does not answer.
///
#[doc = example!(r#"
let nothing = kept_descriptors(&dir.path().join("guardian-1.sock"))?;
assert!(nothing.is_empty());
"#)]
pub fn kept_descriptors(at: &Path) -> Result<BTreeMap<String, OwnedFd>> {
    let ask = || -> rustix::io::Result<BTreeMap<String, OwnedFd>> {
        let socket = socket()?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        match connect(&socket, &SocketAddrUnix::new(at)?) {
            Err(Errno::NOENT) => return Ok(BTreeMap::new()),
            Err(Errno::CONNREFUSED) => {
                // It was killed.
                let _ = rustix::fs::unlink(at);
                return Ok(BTreeMap::new());
            }
            connected => connected?,
        }
        send(&socket, ALL, "", None)?;
        let mut all = BTreeMap::new();
        loop {
            match receive(&socket, RecvFlags::empty())? {
                Some((ALL, name, fd)) => all.extend(fd.map(|fd| (name, fd))),
                Some((END, ..)) => return Ok(all),
                _ => return Err(Errno::CONNRESET),
            }
        }
    };
    match ask() {
        // It has ended meanwhile.
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(BTreeMap::new()),
        asked => asked.map_err(failed),
    }
}

fn send(
    socket: &OwnedFd,
    asks: u8,
    name: &str,
    fd: Option<BorrowedFd<'_>>,
) -> rustix::io::Result<()> {
    if name.len() > MAX_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &fd {
        // There is room for one.
        ancillary.push(SendAncillaryMessage::ScmRights(core::slice::from_ref(fd)));
    }
    let bytes = [&[asks], name.as_bytes()].concat();
    let flags = SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)).map(drop)
}

type Message = (u8, String, Option<OwnedFd>);

/// The next message; `None` at the end of the connection, or of what can be understood.
fn receive(socket: &OwnedFd, flags: RecvFlags) -> rustix::io::Result<Option<Message>> {
    let mut bytes = [0; 1 + MAX_NAME];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
    });
    let length = received?.bytes;
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let Some((asks, name)) = bytes.get(..length).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    Ok(String::from_utf8(name.to_vec()).ok().map(|name| (*asks, name, fd)))
}

/// Keeps descriptors, until the process ends: what a guardian does with its standard output, if that is the socket.
///
/// # Errors
/// It cannot listen any more.
pub fn keep_descriptors(listener: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut clients: Vec<OwnedFd> = Vec::new();
    let mut kept = BTreeMap::new();
    loop {
        let is_asked_for_more = {
            let fds = [listener].into_iter().chain(clients.iter().map(AsFd::as_fd));
            let mut polled: Vec<_> =
                fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            retry_on_intr(|| poll(&mut polled, None))?;
            polled.first().is_some_and(|listener| !listener.revents().is_empty())
        };
        // Messages that other processes sent before one asks for all are in the answer: they are read first.
        let mut asking = Vec::new();
        for (index, client) in clients.iter().enumerate() {
            let next = take(client, &mut kept);
            if next != Next::More {
                asking.push((index, next));
            }
        }
        for (index, next) in asking.into_iter().rev() {
            let client = clients.remove(index);
            if next == Next::All {
                // One that does not listen gets no answer.
                let _ = answer(&client, &kept);
            }
        }
        if is_asked_for_more {
            let client = accept_with(listener, SocketFlags::CLOEXEC)?;
            let limited =
                sockopt::set_socket_timeout(&client, sockopt::Timeout::Send, Some(PATIENCE));
            if clients.len() < MAX_CLIENTS && limited.is_ok() {
                clients.push(client);
            }
        }
    }
}

/// What follows on a client's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// More may come.
    More,
    /// It is to get all that is kept.
    All,
    /// It has ended, or is not understood.
    End,
}

/// Does what all of a client's messages ask for that are there.
fn take(client: &OwnedFd, kept: &mut BTreeMap<String, OwnedFd>) -> Next {
    loop {
        match receive(client, RecvFlags::DONTWAIT) {
            Ok(Some((KEEP, name, Some(fd))))
                if kept.len() < MAX_KEPT || kept.contains_key(&name) =>
            {
                kept.insert(name, fd);
            }
            Ok(Some((FORGET, name, _))) => _ = kept.remove(&name),
            Ok(Some((ALL, ..))) => return Next::All,
            Err(Errno::AGAIN) => return Next::More,
            _ => return Next::End,
        }
    }
}

/// Sends all that is kept.
fn answer(client: &OwnedFd, kept: &BTreeMap<String, OwnedFd>) -> rustix::io::Result<()> {
    for (name, fd) in kept {
        send(client, ALL, name, Some(fd.as_fd()))?;
    }
    send(client, END, "", None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    /// A guardian in a thread, which ends with the process.
    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let (store, listener) = Store::make(dir.path().join("guardian-1.sock")).unwrap();
        std::thread::spawn(move || keep_descriptors(listener.as_fd()));
        (dir, store)
    }

    #[test]
    fn what_is_kept_outlives_its_process_and_is_given_to_each_other_one() {
        let (_dir, store) = store();
        let (ours, theirs) = UnixStream::pair().unwrap();
        store.keep("5/0", theirs.as_fd()).unwrap();
        store.keep("5/1", theirs.as_fd()).unwrap();
        store.forget("5/1").unwrap();
        let path = store.path.clone();
        // As of a process that is killed.
        std::mem::forget(store);
        drop(theirs);
        for _ in 0..2 {
            let mut kept = kept_descriptors(&path).unwrap();
            assert_eq!(kept.keys().collect::<Vec<_>>(), ["5/0"]);
            let mut socket = UnixStream::from(kept.remove("5/0").unwrap());
            socket.write_all(b"!").unwrap();
            let mut byte = [0];
            (&ours).read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"!");
        }
    }

    #[test]
    fn another_of_the_same_name_replaces_it() {
        let (_dir, store) = store();
        let pairs = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
        for (_, theirs) in &pairs {
            store.keep("5/0", theirs.as_fd()).unwrap();
        }
        let mut kept = kept_descriptors(&store.path).unwrap();
        let [(first, theirs), (_, last)] = pairs;
        UnixStream::from(kept.remove("5/0").unwrap()).write_all(b"!").unwrap();
        drop((theirs, last));
        // What was replaced is closed.
        assert_eq!((&first).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_guardian_that_has_ended_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, listener) = Store::make(dir.path().join("guardian-1.sock")).unwrap();
        // It ends before it has answered.
        let path = store.path.clone();
        let asking = std::thread::spawn(move || kept_descriptors(&path));
        std::thread::sleep(Duration::from_millis(20));
        drop(listener);
        assert!(asking.join().unwrap().unwrap().is_empty());
        assert!(kept_descriptors(&store.path).unwrap().is_empty());
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(store.keep("5/0", one.as_fd()), Err(Error::NoGuardian(_))));
        // The next one of this process has the same path.
        let (again, _listener) = Store::make(store.path.clone()).unwrap();
        again.keep("5/0", one.as_fd()).unwrap();
    }

    #[test]
    fn no_more_than_so_many_are_kept_and_no_longer_names() {
        let (_dir, store) = store();
        let (one, _other) = UnixStream::pair().unwrap();
        let long = "x".repeat(MAX_NAME + 1);
        assert!(store.keep(&long, one.as_fd()).is_err());
        for number in 0..MAX_KEPT {
            store.keep(&format!("{number:0>255}"), one.as_fd()).unwrap();
        }
        assert_eq!(kept_descriptors(&store.path).unwrap().len(), MAX_KEPT);
        // What asks for more is not listened to any longer.
        let _ = store.keep("more", one.as_fd());
        assert_eq!(kept_descriptors(&store.path).unwrap().len(), MAX_KEPT);
    }
}
