//! A tap device: a network interface of this host whose other end is a backend's.

use super::door::{self, Interface};
use crate::{Error, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
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
    /// The device was not there before.
    is_new: bool,
}

impl Drop for Tap {
    fn drop(&mut self) {
        // A process that is killed does not come here: its device stays for the next one.
        if self.is_new {
            let _ = door::set_persistent(self.file.as_fd(), false);
        }
    }
}

impl Tap {
    /// Opens as many queues of the tap device of this name. It is made if there is none, and then goes with its last queue,
    /// but for a process that is killed: then it stays, with its addresses and its bridge, for the next one.
    ///
    /// # Errors
    /// [`Error::Tap`]: [`Errno::BUSY`] if the device is another process's, [`Errno::PERM`] without the
    /// right to have it, [`Errno::INVAL`] if it is another kind of interface.
    pub fn open(name: &str, queues: u16) -> Result<Vec<Self>> {
        let is_new = !Path::new("/sys/class/net").join(name).exists();
        let queue = |_| {
            let mut tap = Self::queue(name, queues > 1)?;
            if is_new {
                let failed = |errno| Error::Tap { name: name.to_owned(), errno };
                door::set_persistent(tap.file.as_fd(), true).map_err(failed)?;
                tap.is_new = true;
            }
            Ok(tap)
        };
        (0..queues).map(queue).collect()
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
        Self::checked(tun, name, several)
    }

    /// Queues of one tap device that this process has open under these numbers, as the process that started it has
    /// left them. They stay open, and are closed when this process executes a program.
    ///
    /// # Errors
    /// [`Error::Tap`], with the number: [`Errno::BADF`] if it is not open, [`Errno::XDEV`] if it is a queue of another
    /// tap device than the first one; as [`Tap::over`]; and [`Errno::INVAL`] if there are several, and the device was
    /// not made for that (`IFF_MULTI_QUEUE`).
    pub fn inherited(numbers: &[RawFd]) -> Result<Vec<Self>> {
        let mut taps: Vec<Self> = Vec::new();
        for number in numbers {
            let descriptor = format!("descriptor {number}");
            let failed = |errno| Error::Tap { name: descriptor.clone(), errno };
            let fd = door::inherited(*number).map_err(failed)?;
            let tap = Self::checked(fd, &descriptor, numbers.len() > 1)?;
            if taps.first().is_some_and(|first| first.name != tap.name) {
                return Err(failed(Errno::XDEV));
            }
            taps.push(tap);
        }
        Ok(taps)
    }

    /// A queue of a tap device that is open.
    ///
    /// # Errors
    /// [`Error::Tap`]: [`Errno::NOTTY`] or [`Errno::BADFD`] if it is none, [`Errno::INVAL`] if it is a `tun` device or
    /// without the header of virtio (`IFF_VNET_HDR`). That packet information precedes packets (no `IFF_NO_PI`) is not
    /// found out: Linux reports it by the bit that also means that there is no filter.
    pub fn over(tap: OwnedFd) -> Result<Self> {
        Self::checked(tap, "a descriptor", false)
    }

    /// The same, which errors call so, and which is one of several queues or the only one.
    fn checked(tap: OwnedFd, called: &str, several: bool) -> Result<Self> {
        let failed = |errno| Error::Tap { name: called.to_owned(), errno };
        let interface = door::interface(tap.as_fd()).map_err(failed)?;
        let mut needed = libc::IFF_TAP | libc::IFF_VNET_HDR;
        if several {
            needed |= libc::IFF_MULTI_QUEUE;
        }
        if i32::from(interface.flags) & needed != needed {
            return Err(failed(Errno::INVAL));
        }
        door::set_header_size(tap.as_fd(), HEADER).map_err(failed)?;
        let name: Vec<u8> = interface.name.into_iter().take_while(|byte| *byte != 0).collect();
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Self { file: tap.into(), name, is_new: false })
    }

    /// The name of its network interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device is still there, for a queue that packets come to.
    ///
    /// # Errors
    /// [`Error::Tap`] with [`Errno::NODEV`]: it was removed.
    pub(super) fn check(&self) -> Result<()> {
        let failed = |_| Error::Tap { name: self.name.clone(), errno: Errno::NODEV };
        door::interface(self.file.as_fd()).map(drop).map_err(failed)
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

/// To hand it over to another process, which has it by [`Tap::inherited`].
impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::links::Links;
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd};
    use std::os::fd::AsRawFd;
    use std::process::Command;

    /// A queue of a device that was made with these flags, which this process has open as others hand it over:
    /// without close-on-exec. `None` if the kernel has no tap devices, or this process may not make one.
    fn opened(name: &str, flags: i32) -> Option<OwnedFd> {
        let tun = rustix::fs::open(DEVICE, OFlags::RDWR, Mode::empty()).ok()?;
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let interface = Interface::new(bytes, u16::try_from(flags).unwrap());
        door::set_interface(tun.as_fd(), interface).ok().map(|()| tun)
    }

    #[test]
    fn a_device_that_was_made_stays_for_the_next_process_and_goes_in_order() {
        if opened("xevprobe", CARD).is_none() {
            return;
        }
        let is_there = || Path::new("/sys/class/net/xevkept").exists();
        // As a process that is killed leaves it.
        let mut killed = Tap::open("xevkept", 1).unwrap();
        killed[0].is_new = false;
        drop(killed);
        assert!(is_there());
        let mut next = Tap::open("xevkept", 1).unwrap();
        assert!(!next[0].is_new);
        next[0].is_new = true;
        drop(next);
        assert!(!is_there());
        drop(Tap::open("xevkept", 2).unwrap());
        assert!(!is_there());
    }

    #[test]
    fn a_device_that_was_removed_is_noticed() {
        if opened("xevprobe", CARD).is_none() {
            return;
        }
        let links = Links::watch().unwrap();
        let is_new = || {
            let time = Timespec { tv_sec: 10, tv_nsec: 0 };
            poll(&mut [PollFd::from_borrowed_fd(links.fd(), PollFlags::IN)], Some(&time)) == Ok(1)
        };
        let [tap] = &Tap::open("xevremoved", 1).unwrap()[..] else { panic!("not one") };
        assert!(is_new());
        links.drain();
        assert_eq!(tap.check(), Ok(()));
        let removed = Command::new("ip").args(["link", "del", "xevremoved"]).status().unwrap();
        assert!(removed.success() && is_new());
        let gone = Error::Tap { name: "xevremoved".to_owned(), errno: Errno::NODEV };
        assert_eq!(tap.check(), Err(gone.clone()));
        assert!(gone.to_string().contains("was removed"), "{gone}");
    }

    fn refused(numbers: &[RawFd]) -> (String, Errno) {
        match Tap::inherited(numbers).unwrap_err() {
            Error::Tap { name, errno } => (name, errno),
            error => panic!("{error}"),
        }
    }

    const CARD: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

    #[test]
    fn a_tap_device_that_is_handed_over_is_the_same_and_goes_to_no_other_program() {
        let Some(opened) = opened("xevinherit", CARD) else { return };
        assert!(!fcntl_getfd(&opened).unwrap().contains(FdFlags::CLOEXEC));
        let [tap] = &Tap::inherited(&[opened.as_raw_fd()]).unwrap()[..] else { panic!("not one") };
        assert_eq!(tap.name(), "xevinherit");
        for descriptor in [opened.as_fd(), tap.file.as_fd()] {
            assert!(fcntl_getfd(descriptor).unwrap().contains(FdFlags::CLOEXEC));
        }
        // The device goes with its last queue, so it is this one that is kept.
        drop(opened);
        let taken = Error::Tap { name: "xevinherit".to_owned(), errno: Errno::BUSY };
        assert_eq!(Tap::open("xevinherit", 1).unwrap_err(), taken);
        tap.set_offload(1 << VIRTIO_NET_F_GUEST_CSUM).unwrap();
    }

    #[test]
    fn several_queues_that_are_handed_over_are_of_one_device() {
        let queue = |name| opened(name, CARD | libc::IFF_MULTI_QUEUE);
        let (Some(first), Some(second)) = (queue("xevseveral"), queue("xevseveral")) else {
            return;
        };
        let numbers = [&first, &second].map(AsRawFd::as_raw_fd);
        let taps = Tap::inherited(&numbers).unwrap();
        assert_eq!(taps.iter().map(Tap::name).collect::<Vec<_>>(), ["xevseveral"; 2]);
        // Each is a queue of its own.
        taps[1].attach(false).unwrap();
        taps[1].attach(true).unwrap();

        let other = queue("xevother").unwrap();
        let numbers = [&first, &other].map(AsRawFd::as_raw_fd);
        assert_eq!(refused(&numbers), (format!("descriptor {}", numbers[1]), Errno::XDEV));

        let single = opened("xevsingle", CARD).unwrap();
        let again = fcntl_dupfd_cloexec(&single, 0).unwrap();
        let numbers = [&single, &again].map(AsRawFd::as_raw_fd);
        assert_eq!(refused(&numbers), (format!("descriptor {}", numbers[0]), Errno::INVAL));
    }

    #[test]
    fn what_is_handed_over_and_is_no_card_is_refused() {
        let null = File::open("/dev/null").unwrap();
        let number = null.as_raw_fd();
        assert_eq!(refused(&[number]), (format!("descriptor {number}"), Errno::NOTTY));
        let error = Tap::inherited(&[1_000_000]).unwrap_err();
        assert!(error.to_string().contains("descriptor 1000000 as a tap device"), "{error}");
        assert!(error.to_string().contains("must leave it open"), "{error}");
        for (name, flags) in [
            ("xevtun", libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR),
            ("xevplain", libc::IFF_TAP | libc::IFF_NO_PI),
        ] {
            let Some(opened) = opened(name, flags) else { return };
            assert_eq!(refused(&[opened.as_raw_fd()]).1, Errno::INVAL, "{name}");
        }
    }
}
