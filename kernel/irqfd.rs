// SPDX-License-Identifier: GPL-2.0

//! An eventfd that raises a guest's interrupt, in the very wake-up of whoever signals it.
//!
//! # Invariants
//! * The wait-queue entry is in the eventfd's queue from [`IrqFd::attach`] to the drop of what that
//!   returns, and stays where it is meanwhile. The queue lives as long as our reference to the
//!   eventfd's counter, whoever closes the eventfd.
//! * The callback runs under the queue's lock with interrupts off: it takes no lock of ours and
//!   does not sleep. Removing the entry takes that lock, so no callback runs afterwards.
//! * A signal is consumed by whoever passes it on.

use crate::bindings;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::interrupt::Interrupt;
use core::ops::Deref;
use kernel::bindings as kernel_bindings;
use kernel::container_of;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::types::Opaque;

/// `EPOLLIN`: the eventfd was signalled.
const SIGNALLED: u32 = 0x001;
/// `EPOLLHUP`: its last user has closed it.
const CLOSED: u32 = 0x010;

/// An eventfd and the interrupt that it raises.
#[pin_data]
pub(crate) struct IrqFd {
    #[pin]
    wait: Opaque<kernel_bindings::wait_queue_entry>,
    eventfd: EventFd,
    interrupt: Interrupt,
    raised: Atomic<u64>,
    failed: Atomic<u64>,
    closed: Atomic<bool>,
}

// SAFETY: The entry is the wait queue's, which has a lock; the rest may be sent and shared.
unsafe impl Send for IrqFd {}
// SAFETY: As above.
unsafe impl Sync for IrqFd {}

/// One that is in its eventfd's wait queue. Dropping it takes it out; then nothing is raised any more.
pub(crate) struct Attached(Pin<KBox<IrqFd>>);

impl IrqFd {
    /// Has an eventfd raise an interrupt. What it has counted already raises one at once.
    ///
    /// # Errors
    /// `EBUSY` if it raises one already, of whichever guest.
    pub(crate) fn attach(eventfd: &OpenEventFd, interrupt: Interrupt) -> Result<Attached> {
        let counter = eventfd.another_reference()?;
        let irqfd = KBox::pin_init(
            pin_init!(Self {
                wait: Opaque::zeroed(),
                eventfd: counter,
                interrupt,
                raised: Atomic::new(0),
                failed: Atomic::new(0),
                closed: Atomic::new(false),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        // SAFETY: It is an eventfd's file, and open. The entry is pinned, in no queue, and taken
        // out again by the drop of `Attached` below; the callback fits it.
        to_result(unsafe {
            bindings::shim_eventfd_attach(eventfd.file(), irqfd.wait.get(), Some(wake))
        })?;
        Ok(Attached(irqfd))
    }

    /// The interrupt.
    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Whether it is this eventfd's.
    pub(crate) fn is_of(&self, eventfd: &EventFd) -> bool {
        self.eventfd.is(eventfd)
    }

    /// Whether the eventfd was closed: nobody can signal it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Interrupts raised, and those that Xen refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.raised.load(Relaxed), self.failed.load(Relaxed))
    }

    /// May be called from an interrupt.
    fn fire(&self) {
        let raised = self.interrupt.raise();
        let counter = if raised.is_ok() { &self.raised } else { &self.failed };
        counter.add(1, Relaxed);
    }
}

impl Deref for Attached {
    type Target = IrqFd;

    fn deref(&self) -> &IrqFd {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut last = 0;
        // SAFETY: By the invariants the entry is in this counter's queue.
        unsafe {
            kernel_bindings::eventfd_ctx_remove_wait_queue(
                self.eventfd.context(),
                self.wait.get(),
                &raw mut last,
            )
        };
        // It was signalled, and the callback has not seen it.
        if last != 0 {
            self.fire();
        }
    }
}

/// Passes a signal on. Returns whether it is consumed, so that nobody else is woken for it.
///
/// # Safety
/// `wait` is the entry of an [`IrqFd`] that is attached; the lock of its queue is held.
unsafe extern "C" fn wake(
    wait: *mut kernel_bindings::wait_queue_entry,
    _mode: c_uint,
    _flags: c_int,
    key: *mut c_void,
) -> c_int {
    let entry = wait.cast::<Opaque<kernel_bindings::wait_queue_entry>>();
    // SAFETY: The caller's promise: the entry is the field of an `IrqFd`.
    let irqfd = unsafe { container_of!(entry, IrqFd, wait) };
    // SAFETY: As above; whoever drops it waits for the lock that is held here.
    let irqfd = unsafe { &*irqfd };
    // The key is a poll mask in the place of a pointer.
    let events = key.addr() as u32;
    if events & CLOSED != 0 {
        irqfd.closed.store(true, Relaxed);
    }
    if events & SIGNALLED == 0 {
        return 0;
    }
    let mut count = 0;
    // SAFETY: Our reference keeps the counter alive, and its queue's lock is held.
    unsafe { kernel_bindings::eventfd_ctx_do_read(irqfd.eventfd.context(), &raw mut count) };
    if count != 0 {
        irqfd.fire();
    }
    1
}
