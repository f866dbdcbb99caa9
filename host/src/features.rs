//! Kernel features that the engines need beyond Xen's devices.
//!
//! Everything else that the engines use is older: acquiring a resource and `/dev/xen/hypercall` are in
//! Linux 4.18 and later, asynchronous I/O with eventfds since 2.6.

use crate::{Call, HostError, Result};
use core::fmt;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A feature that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// The id of each eventfd in `/proc/self/fdinfo`, by which two descriptors of one eventfd are
    /// recognised.
    EventFdId,
    /// `RWF_NOWAIT` for a read of an eventfd, whatever O_NONBLOCK is.
    ReadWithoutWaiting,
    /// `pidfd_open`, by which `xen-eventfd run` watches its backend and sends it signals. Engines do not
    /// need it, and neither does a guardian that the library starts: it waits for a record lock.
    PidFd,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 3] = [Self::EventFdId, Self::ReadWithoutWaiting, Self::PidFd];

    /// The kernel version that has it.
    pub fn since(self) -> &'static str {
        match self {
            Self::EventFdId => "that is in Linux 5.2 and later",
            Self::ReadWithoutWaiting => {
                "that is in Linux 5.8 and later; the kernel module does without"
            }
            Self::PidFd => {
                "that is in Linux 5.3 and later, unless a seccomp filter forbids it; engines and their \
                 guardian do without"
            }
        }
    }

    /// Checks for it.
    ///
    /// # Errors
    /// [`Call::Kernel`] with [`Errno::NOSYS`] or [`Errno::OPNOTSUPP`] if this kernel does not have it;
    /// another errno if the check itself fails.
    pub fn check(self) -> Result<()> {
        let failed = |errno| HostError::new(Call::Kernel(self), errno);
        if self == Self::PidFd {
            return pidfd_open(getpid(), PidfdFlags::empty()).map(drop).map_err(failed);
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(1, flags).map_err(failed)?;
        match self {
            Self::EventFdId => eventfd_id(&fdinfo(fd.as_fd())?).map(drop),
            _ => take(fd.as_fd()).map(drop),
        }
    }
}

/// Checks for the features that the userspace engine needs.
///
/// # Errors
/// As [`Feature::check`].
pub fn check_engine() -> Result<()> {
    Feature::EventFdId.check()?;
    Feature::ReadWithoutWaiting.check()
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventFdId => "the number of an eventfd (eventfd-id in /proc/self/fdinfo)",
            Self::ReadWithoutWaiting => "a read of an eventfd that never waits (RWF_NOWAIT)",
            Self::PidFd => "a descriptor of a process (pidfd_open)",
        })
    }
}

/// The kernel's fdinfo of a descriptor of this process.
///
/// # Errors
/// [`Call::Open`] if it cannot be read.
pub fn fdinfo(fd: BorrowedFd<'_>) -> Result<String> {
    let mut text = Vec::new();
    std::fs::File::open(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
        .and_then(|mut file| file.read_to_end(&mut text))
        .map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::PROTO);
            HostError::new(Call::Open("/proc/self/fdinfo"), errno)
        })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The id of an eventfd in its [`fdinfo`], the same for all descriptors of it. `None`: it is not an
/// eventfd.
///
/// # Errors
/// [`Feature::EventFdId`] if the kernel does not report it.
pub fn eventfd_id(fdinfo: &str) -> Result<Option<u64>> {
    let failed = |errno| Err(HostError::new(Call::Kernel(Feature::EventFdId), errno));
    let value = |name| fdinfo.lines().find_map(|line| line.strip_prefix(name));
    match value("eventfd-id:").map(|id| id.trim().parse()) {
        Some(Ok(id)) => Ok(Some(id)),
        Some(Err(_)) => failed(Errno::PROTO),
        None if value("eventfd-count:").is_some() => failed(Errno::OPNOTSUPP),
        None => Ok(None),
    }
}

/// Reads and clears an eventfd's counter without waiting. RWF_NOWAIT applies to this read alone, as
/// O_NONBLOCK is its owner's to change. Returns `false` if the counter was 0 or another reader was
/// faster.
///
/// # Errors
/// [`Feature::ReadWithoutWaiting`] if the kernel does not support it; else [`Call::EventFd`].
pub fn take(eventfd: BorrowedFd<'_>) -> Result<bool> {
    let mut count = [0; 8];
    let mut buffers = [IoSliceMut::new(&mut count)];
    let flags = ReadWriteFlags::NOWAIT;
    match retry_on_intr(|| rustix::io::preadv2(eventfd, &mut buffers, u64::MAX, flags)) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(errno @ (Errno::OPNOTSUPP | Errno::NOSYS)) => {
            Err(HostError::new(Call::Kernel(Feature::ReadWithoutWaiting), errno))
        }
        Err(errno) => Err(HostError::new(Call::EventFd, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_all_features() {
        Feature::ALL.into_iter().for_each(|feature| assert_eq!(feature.check(), Ok(())));
    }

    #[test]
    fn a_missing_eventfd_id_is_distinguished_from_another_file_type() {
        let old = "pos:\t0\nflags:\t02004002\nmnt_id:\t15\neventfd-count:                0\n";
        assert_eq!(eventfd_id(old).unwrap_err().errno, Errno::OPNOTSUPP);
        assert_eq!(eventfd_id(&format!("{old}eventfd-id: 38\n")), Ok(Some(38)));
        assert_eq!(eventfd_id("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"), Ok(None));
    }

    #[test]
    fn an_error_names_the_kernel_version_that_has_the_feature() {
        for (feature, version) in Feature::ALL.into_iter().zip(["5.2", "5.8", "5.3"]) {
            let error = HostError::new(Call::Kernel(feature), Errno::OPNOTSUPP).to_string();
            assert!(error.contains(&format!("Linux {version}")), "{error}");
        }
    }

    /// A file of proc returns what an eventfd does before Linux 5.8.
    #[test]
    fn a_kernel_without_rwf_nowait_is_reported() {
        let file = std::fs::File::open("/proc/self/comm").unwrap();
        let call = Call::Kernel(Feature::ReadWithoutWaiting);
        assert_eq!(take(file.as_fd()), Err(HostError::new(call, Errno::OPNOTSUPP)));
    }
}
