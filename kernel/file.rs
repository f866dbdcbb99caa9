// SPDX-License-Identifier: GPL-2.0

//! A guest's file: what is assigned through it ends when it is closed, whatever its last user died
//! of.
//!
//! # Invariants
//! * The private data of a file with [`OPERATIONS`] is a `KBox<Member>` by `KBox::into_raw`, from
//!   [`install`] to [`release`].

use crate::abi::native;
use crate::bindings;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::protocol::status::Interface;
use crate::member::Member;
use crate::operations::Operations;
use crate::show;
use kernel::bindings as kernel_bindings;
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::uaccess::UserPtr;

static OPERATIONS: Operations = Operations(kernel_bindings::file_operations {
    // An open file pins the module.
    owner: this_module::<crate::LocalModule>().as_ptr(),
    flush: Some(flush),
    release: Some(release),
    unlocked_ioctl: Some(ioctl),
    compat_ioctl: kernel_bindings::compat_ptr_ioctl,
    show_fdinfo: Some(show_fdinfo),
    ..pin_init::zeroed()
});

/// Gives the caller a descriptor of a guest's file.
pub(crate) fn install(member: Member) -> Result<isize> {
    let private = KBox::into_raw(KBox::new(member, GFP_KERNEL_ACCOUNT)?);
    // SAFETY: The name and the operations are static, and these fit the private data, of which the
    // file becomes the owner.
    let fd = unsafe {
        bindings::anon_inode_getfd(
            c"[xen-eventfd]".as_char_ptr(),
            &raw const OPERATIONS.0,
            private.cast(),
            (kernel_bindings::O_RDWR | kernel_bindings::O_CLOEXEC) as c_int,
        )
    };
    if fd < 0 {
        // SAFETY: It came from `into_raw`, and there is no file that owns it.
        drop(unsafe { KBox::from_raw(private) });
        return Err(Error::from_errno(fd));
    }
    Ok(fd as isize)
}

/// Whether doorbells, and registers of devices, are this file's: those of a guest that is shared are of the requests of privcmd.
fn has_doorbells(member: &Member) -> Result {
    match member.taken().interface {
        Interface::Privcmd => Err(EOPNOTSUPP),
        Interface::Native | Interface::Reserved => Ok(()),
    }
}

fn answer(member: &Member, request: u32, arg: UserPtr) -> Result {
    let (guest, by) = (member.guest(), member.id());
    match request {
        native::ASSIGN => {
            let (doorbell, eventfd) = native::doorbell(arg)?;
            has_doorbells(member)?;
            guest.register(doorbell, EventFd::from_descriptor(eventfd)?)
        }
        native::DEASSIGN => {
            let (doorbell, eventfd) = native::doorbell(arg)?;
            has_doorbells(member)?;
            guest.unregister(&doorbell, &EventFd::from_descriptor(eventfd)?)
        }
        native::STATS => {
            native::wants_stats(arg)?;
            native::stats(arg, &guest.stats()?)
        }
        native::LIST => {
            let listed = native::listed(arg)?;
            guest.stats()?;
            match listed {
                native::Listed::Doorbell(index) => {
                    native::list_doorbell(arg, &guest.shown(index as usize).ok_or(ENOENT)?)
                }
                native::Listed::Held(index) => {
                    native::list_held(arg, &guest.waiting(index as usize).ok_or(ENOENT)?)
                }
            }
        }
        native::MISSED => {
            let (doorbell, eventfd) = native::fallback(arg)?;
            has_doorbells(member)?;
            let eventfd = EventFd::from_descriptor(eventfd)?;
            guest.take_unmatched(&doorbell, &eventfd, |taken| native::unmatched(arg, taken))
        }
        native::ASSIGN_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.assign_irq(by, irq, &OpenEventFd::from_descriptor(eventfd)?)
        }
        native::DEASSIGN_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.deassign_irq(by, Some(irq), &EventFd::from_descriptor(eventfd)?)
        }
        native::IRQ_STATS => {
            let (irq, eventfd) = native::irq(arg)?;
            let eventfd = EventFd::from_descriptor(eventfd)?;
            native::irq_stats(arg, guest.irq_counts(by, irq, &eventfd)?)
        }
        native::LOWER => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.lower(by, irq, &EventFd::from_descriptor(eventfd)?)
        }
        native::SET_IRQ => {
            let (irq, eventfd, new) = native::irq_change(arg)?;
            guest.set_irq(by, irq, &EventFd::from_descriptor(eventfd)?, new)
        }
        native::MASK_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.mask_irq(by, irq, &EventFd::from_descriptor(eventfd)?)
        }
        native::UNMASK_IRQ => {
            let (irq, eventfd) = native::irq(arg)?;
            guest.unmask_irq(by, irq, &EventFd::from_descriptor(eventfd)?)
        }
        native::IRQ_STATE => {
            let (irq, eventfd) = native::irq_asked(arg)?;
            let eventfd = EventFd::from_descriptor(eventfd)?;
            native::irq_state(arg, guest.irq_state(by, irq, &eventfd)?)
        }
        native::ASSIGN_STATUS => {
            let (registers, irq) = native::status(arg)?;
            has_doorbells(member)?;
            guest.assign_status(registers, irq)
        }
        native::DEASSIGN_STATUS => {
            let (registers, irq) = native::status(arg)?;
            has_doorbells(member)?;
            native::status_bits(arg, guest.deassign_status(registers, irq)?)
        }
        native::CHANGE_STATUS => {
            let (registers, change) = native::status_change(arg)?;
            has_doorbells(member)?;
            native::status_changed(arg, &guest.change_status(registers, change)?)
        }
        native::ASSIGN_CHANNEL => {
            let (port, eventfd) = native::channel(arg)?;
            guest.assign_channel(by, port, OpenEventFd::from_descriptor(eventfd)?)
        }
        native::DEASSIGN_CHANNEL => {
            let (port, eventfd) = native::channel(arg)?;
            guest.deassign_channel(by, port, &EventFd::from_descriptor(eventfd)?)
        }
        _ => Err(ENOTTY),
    }
}

/// # Safety
/// The file has [`OPERATIONS`] and is open for as long as the result is used.
unsafe fn member<'a>(file: *mut kernel_bindings::file) -> &'a Member {
    // SAFETY: The file is open.
    let private = unsafe { (*file).private_data };
    // SAFETY: By the invariant, and the file keeps it.
    unsafe { &*private.cast_const().cast() }
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`].
unsafe extern "C" fn ioctl(
    file: *mut kernel_bindings::file,
    request: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: The kernel keeps the file open during a call.
    let member = unsafe { member(file) };
    // A copy of a file that has ended.
    if member.has_left() {
        return ENODEV.to_errno() as c_long;
    }
    match answer(member, request, UserPtr::from_addr(arg)) {
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
    let member = unsafe { member(of) };
    // SAFETY: The kernel lends the sequence for the call, to us alone.
    unsafe { show::write(member.taken(), file) };
}

/// # Safety
/// As the kernel calls it, for a file with [`OPERATIONS`]: at each close of a descriptor, by `close` or
/// a process's end. `id` is the table of descriptors that the descriptor was in.
unsafe extern "C" fn flush(
    file: *mut kernel_bindings::file,
    id: kernel_bindings::fl_owner_t,
) -> c_int {
    // SAFETY: The kernel keeps the file open during a call.
    unsafe { member(file) }.closed_by(id.addr());
    0
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
    drop(unsafe { KBox::<Member>::from_raw(private.cast()) });
    0
}
