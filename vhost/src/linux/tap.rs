//! A tap device: a network interface of this host whose other end is a backend's.

use super::door::{self, Interface};
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
};

const DEVICE: &str = "/dev/net/tun";
/// `struct virtio_net_hdr_v1`, in bytes: what precedes each packet of a modern device.
const HEADER: i32 = 12;

/// One queue of a tap device, with the header of virtio before each packet.
#[derive(Debug)]
pub struct Tap {
    pub(super) file: File,
    name: String,
}

impl Tap {
    /// Opens as many queues of the tap device of this name, which is made if there is none, and then goes
    /// with its last queue.
    ///
    /// # Errors
    /// [`Error::Tap`]: [`Errno::BUSY`] if the device is another process's, [`Errno::PERM`] without the
    /// right to have it, [`Errno::INVAL`] if it is another kind of interface.
    pub fn open(name: &str, queues: u16) -> Result<Vec<Self>> {
        (0..queues).map(|_| Self::queue(name, queues > 1)).collect()
    }

    fn queue(name: &str, several: bool) -> Result<Self> {
        let failed = |errno| Error::Tap { name: name.to_owned(), errno };
        let mut bytes = [0; 16];
        // The last byte is 0.
        match bytes.get_mut(..name.len()) {
            Some(place) if (1..16).contains(&name.len()) => place.copy_from_slice(name.as_bytes()),
            _ => return Err(failed(Errno::NAMETOOLONG)),
        }
        let tun = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::Device { path: DEVICE, errno })?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if several {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let flags = u16::try_from(flags).map_err(|_| failed(Errno::INVAL))?;
        door::set_interface(tun.as_fd(), Interface::new(bytes, flags)).map_err(failed)?;
        Self::over(tun)
    }

    /// A queue of a tap device that is open.
    ///
    /// # Errors
    /// [`Error::Tap`] if it is none, or is without the header of virtio (`IFF_VNET_HDR`).
    pub fn over(tap: OwnedFd) -> Result<Self> {
        let unnamed = |errno| Error::Tap { name: "a descriptor".to_owned(), errno };
        let interface = door::interface(tap.as_fd()).map_err(unnamed)?;
        let name: Vec<u8> = interface.name.into_iter().take_while(|byte| *byte != 0).collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        let failed = |errno| Error::Tap { name: name.clone(), errno };
        let needed = libc::IFF_TAP | libc::IFF_VNET_HDR;
        if i32::from(interface.flags) & needed != needed {
            return Err(failed(Errno::INVAL));
        }
        door::set_header_size(tap.as_fd(), HEADER).map_err(failed)?;
        Ok(Self { file: tap.into(), name })
    }

    /// The name of its network interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has packets come to this queue of a device of several, or go to the others.
    pub(super) fn attach(&self, attach: bool) -> Result<()> {
        let flag = if attach { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let failed = |errno| Error::Tap { name: self.name.clone(), errno };
        let flags = u16::try_from(flag).map_err(|_| failed(Errno::INVAL))?;
        door::set_queue(self.file.as_fd(), Interface::new([0; 16], flags)).map_err(failed)
    }

    /// Sets which packets the guest takes, by the features that its driver has accepted.
    pub(super) fn set_offload(&self, features: u64) -> Result<()> {
        let has = |bit: u32| features & (1 << bit) != 0;
        let mut flags = 0;
        for (bit, flag) in [
            (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
            (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
            (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
        ] {
            flags |= if has(bit) { flag } else { 0 };
        }
        door::set_offload(self.file.as_fd(), flags)
            .map_err(|errno| Error::Tap { name: self.name.clone(), errno })
    }
}
