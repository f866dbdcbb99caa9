//! A watch on this host's network interfaces: rtnetlink's group for links, of which only that there is something new is of
//! interest.

use core::mem::MaybeUninit;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many messages are taken at once: others keep the socket readable.
const MOST: usize = 64;

/// Reports that an interface was made, changed or removed.
#[derive(Debug)]
pub(super) struct Links(OwnedFd);

impl Links {
    /// Begins to watch.
    pub(super) fn watch() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol that is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let group = u32::try_from(libc::RTMGRP_LINK).map_err(|_| Errno::INVAL)?;
        bind(&socket, &SocketAddrNetlink::new(0, group))?;
        Ok(Self(socket))
    }

    /// Readable when there is something new.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes what is new.
    pub(super) fn drain(&self) {
        // What does not fit is cut off; ENOBUFS says that messages were lost, which is something new as well.
        let mut byte = [MaybeUninit::<u8>::uninit()];
        let mut take = || retry_on_intr(|| recv(&self.0, &mut byte, RecvFlags::empty()).map(drop));
        for _ in 0..MOST {
            if !matches!(take(), Ok(()) | Err(Errno::NOBUFS)) {
                return;
            }
        }
    }
}
