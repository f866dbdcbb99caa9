//! Xenstore's messages: Xen's `public/io/xs_wire.h` and `docs/misc/xenstore.txt`.

use rustix::io::Errno;

/// `struct xsd_sockmsg`: type, request, transaction and length, each 32 bits.
pub(in crate::linux) const HEADER: usize = 16;
/// `XENSTORE_PAYLOAD_MAX`, in both directions.
pub(in crate::linux) const PAYLOAD_MAX: usize = 4096;

/// `XS_DIRECTORY`.
pub(in crate::linux) const DIRECTORY: u32 = 1;
/// `XS_READ`.
pub(in crate::linux) const READ: u32 = 2;
/// `XS_WATCH`.
pub(in crate::linux) const WATCH: u32 = 4;
/// `XS_UNWATCH`.
pub(in crate::linux) const UNWATCH: u32 = 5;
/// `XS_TRANSACTION_START`.
pub(in crate::linux) const TRANSACTION_START: u32 = 6;
/// `XS_TRANSACTION_END`.
pub(in crate::linux) const TRANSACTION_END: u32 = 7;
/// `XS_WRITE`.
pub(in crate::linux) const WRITE: u32 = 11;
/// `XS_RM`.
pub(in crate::linux) const RM: u32 = 13;
/// `XS_SET_PERMS`.
pub(in crate::linux) const SET_PERMS: u32 = 14;
/// `XS_WATCH_EVENT`.
pub(in crate::linux) const WATCH_EVENT: u32 = 15;
/// `XS_ERROR`.
pub(in crate::linux) const ERROR: u32 = 16;
/// `XS_DIRECTORY_PART`.
pub(in crate::linux) const DIRECTORY_PART: u32 = 22;

/// `xsd_errors`: errors are sent by name.
pub(in crate::linux) const ERRORS: [(&str, Errno); 16] = [
    ("EINVAL", Errno::INVAL),
    ("EACCES", Errno::ACCESS),
    ("EEXIST", Errno::EXIST),
    ("EISDIR", Errno::ISDIR),
    ("ENOENT", Errno::NOENT),
    ("ENOMEM", Errno::NOMEM),
    ("ENOSPC", Errno::NOSPC),
    ("EIO", Errno::IO),
    ("ENOTEMPTY", Errno::NOTEMPTY),
    ("ENOSYS", Errno::NOSYS),
    ("EROFS", Errno::ROFS),
    ("EBUSY", Errno::BUSY),
    ("EAGAIN", Errno::AGAIN),
    ("EISCONN", Errno::ISCONN),
    ("E2BIG", Errno::TOOBIG),
    ("EPERM", Errno::PERM),
];

/// The paths of the daemon's socket, the usual one first.
pub(in crate::linux) const SOCKETS: [&str; 2] =
    ["/run/xenstored/socket", "/var/run/xenstored/socket"];
/// The kernel's device for xenstore, for a domain in which no daemon runs.
pub(in crate::linux) const DEVICE: &str = "/dev/xen/xenbus";
