// SPDX-License-Identifier: GPL-2.0

//! A guest's file: what is assigned through it ends when it is closed, whatever its last user died
//! of.
//!
//! # Invariants
//! * The private data of a file with [`OPERATIONS`] is an `Arc<Taken>` by `Arc::into_raw`, from
//!   [`install`] to [`release`].

use crate::abi::native;
use crate::bindings;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::guest::Guest;
use crate::guests::{self, Taken};
use crate::show::{self, Sequence};
use kernel::bindings as kernel_bindings;
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::str::CStrExt;
use kernel::sync::{Arc, ArcBorrow};
use kernel::uaccess::UserPtr;

/// A file's table of operations, which is static.
pub(crate) struct Operations(pub(crate) kernel_bindings::file_operations);

// SAFETY: It is only read.
unsafe impl Sync for Operations {}

static OPERATIONS: Operations = Operations(kernel_bindings::file_operations {
    // An open file pins the module.
    owner: this_module::<crate::LocalModule>().as_ptr(),
    release: Some(release),
    unlocked_ioctl: Some(ioctl),
    compat_ioctl: kernel_bindings::compat_ptr_ioctl,
    show_fdinfo: Some(show_fdinfo),
    ..pin_init::zeroed()
});

/// Gives the caller a descriptor of a guest's file.
pub(crate) fn install(taken: Arc<Taken>) -> Result<isize> {
    let private = taken.clone().into_raw();
    // SAFETY: The name and the operations are static, and these fit the private data, of which the
    // file becomes the owner.
    let fd = unsafe {
        bindings::anon_inode_getfd(
            c"[xen-eventfd]".as_char_ptr(),
            &raw const OPERATIONS.0,
            private.cast_mut().cast(),
            (kernel_bindings::O_RDWR | kernel_bindings::O_CLOEXEC) as c_int,
        )
    };
    if fd < 0 {
        // SAFETY: It came from `into_raw`, and there is no file that owns it.
        drop(unsafe { Arc::from_raw(private) });
        guests::leave(&taken);
        return Err(Error::from_errno(fd));
    }
    Ok(fd as isize)
}

fn answer(guest: &Guest, request: u32, arg: UserPtr) -> Result {
    match request {
        native::ASSIGN => {
            let (doorbell, eventfd) = native::doorbell(arg)?;
            guest.register(doorbell, EventFd::from_descriptor(eventfd)?)
        }
        native::DEASSIGN => {
            let (doorbell, eventfd) = native::doorbell(arg)?;
            guest.unregister(&doorbell, &EventFd::from_descriptor(eventfd)?)
        }
        native::STATS => {
            native::wants_stats(arg)?;
            native::stats(arg, &guest.stats()?)
        }
        native::LIST => {
            let listed = native::Listed::read(arg)?;
            guest.stats()?;
            match listed {
                native::Listed::Doorbell(index) => {
                    native::list_doorbell(arg, &guest.shown(index).ok_or(ENOENT)?)
                }
                native::Listed::Held(index) => {
                    native::list_held(arg, &guest.waiting(index).ok_or(ENOENT)?)
                }
            }
        }
        native::MISSED => {
            let (doorbell, eventfd) = native::fallback(arg)?;
            let eventfd = EventFd::from_descriptor(eventfd)?;
            guest.take_missed(&doorbell, &eventfd, |taken| native::missed(arg, taken))
        }
        native::ASSIGN_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.assign_irq(irq, &OpenEventFd::from_descriptor(eventfd)?)
        }
        native::DEASSIGN_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.deassign_irq(Some(irq), &EventFd::from_descriptor(eventfd)?)
        }
        native::IRQ_STATS => {
            let (irq, eventfd) = native::irq(arg)?;
            let eventfd = EventFd::from_descriptor(eventfd)?;
            native::irq_stats(arg, guest.irq_counts(irq, &eventfd)?)
        }
        native::LOWER => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.lower(irq, &EventFd::from_descriptor(eventfd)?)
        }
        native::SET_IRQ => {
            let (irq, eventfd, new) = native::irq_change(arg)?;
            guest.set_irq(irq, &EventFd::from_descriptor(eventfd)?, new)
        }
        native::MASK_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.mask_irq(irq, &EventFd::from_descriptor(eventfd)?)
        }
        native::UNMASK_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.unmask_irq(irq, &EventFd::from_descriptor(eventfd)?)
        }
        native::IRQ_STATE => {
            let (irq, eventfd) = native::irq_asked(arg)?;
            let eventfd = EventFd::from_descriptor(eventfd)?;
            native::irq_state(arg, guest.irq_state(irq, &eventfd)?)
        }
        native::ASSIGN_CHANNEL => {
            let (port, eventfd) = native::channel(arg)?;
            guest.assign_channel(port, OpenEventFd::from_descriptor(eventfd)?)
        }
        native::DEASSIGN_CHANNEL => {
            let (port, eventfd) = native::channel(arg)?;
            guest.deassign_channel(port, &EventFd::from_descriptor(eventfd)?)
        }
        _ => Err(ENOTTY),
    }
}

/// # Safety
/// The file has [`OPERATIONS`] and is open for as long as the result is used.
unsafe fn taken<'a>(file: *mut kernel_bindings::file) -> ArcBorrow<'a, Taken> {
    // SAFETY: The file is open.
    let private = unsafe { (*file).private_data };
    // SAFETY: By the invariant, and the file keeps it.
    unsafe { ArcBorrow::from_raw(private.cast()) }
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`].
unsafe extern "C" fn ioctl(
    file: *mut kernel_bindings::file,
    request: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: The kernel keeps the file open during a call.
    let taken = unsafe { taken(file) };
    match answer(&taken.guest, request, UserPtr::from_addr(arg)) {
        Ok(()) => 0,
        Err(error) => error.to_errno() as c_long,
    }
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`].
unsafe extern "C" fn show_fdinfo(
    file: *mut kernel_bindings::seq_file,
    of: *mut kernel_bindings::file,
) {
    // SAFETY: The kernel keeps the file open during a call.
    let taken = unsafe { taken(of) };
    // SAFETY: The kernel lends the sequence for the call, to us alone.
    unsafe { write(&taken, file) };
}

/// Writes all about a guest into a sequence.
///
/// # Safety
/// The sequence is the caller's alone during the call.
pub(crate) unsafe fn write(taken: &Taken, sequence: *mut kernel_bindings::seq_file) {
    // SAFETY: The caller's promise.
    let sequence = unsafe { SeqFile::from_raw(sequence) };
    // A sequence is cut where it is full, and begun again with more room.
    let _ = show::taken(taken, &mut Sequence(sequence));
}

/// # Safety
/// As the kernel calls it, once and last, for a file with [`OPERATIONS`].
unsafe extern "C" fn release(
    _inode: *mut kernel_bindings::inode,
    file: *mut kernel_bindings::file,
) -> c_int {
    // SAFETY: The file is still there.
    let private = unsafe { (*file).private_data };
    // SAFETY: By the invariant, and this is its end.
    let taken = unsafe { Arc::<Taken>::from_raw(private.cast()) };
    guests::leave(&taken);
    0
}
