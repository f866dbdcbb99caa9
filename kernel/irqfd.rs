// SPDX-License-Identifier: GPL-2.0

//! An eventfd that raises a guest's interrupt, in the very wake-up of its signal.
//!
//! # Invariants
//! * The wait-queue entry is in the eventfd's queue from [`IrqFd::attach`] to the drop of what that
//!   returns, and stays where it is meanwhile. The queue lives as long as our reference to the
//!   eventfd's counter, whichever closes the eventfd.
//! * The callback runs under the queue's lock with interrupts off. It takes
//!   [`IrqFd::state`], and under it that of a device whose bits it sets, and does not sleep. Any other holder of
//!   [`IrqFd::state`] takes no other lock under it.
//!   Removing the entry takes the queue's lock, so no callback runs afterwards.
//! * An interrupt is raised under [`IrqFd::state`]: the one that changes the state and releases the lock
//!   knows that nothing is raised by the old one any more.
//! * A signal is consumed by the callback, in each wake-up. So what is in the counter at any other
//!   time was signalled before the assignment, or is the rest of a write to a semaphore
//!   (`EFD_SEMAPHORE`), of which each wake-up takes 1: one write, one interrupt, as under KVM.

use crate::bindings;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::interrupt::Interrupt;
use crate::protocol::irq::{Irq, Line};
use crate::protocol::DomId;
use core::ops::Deref;
use core::ptr::null_mut;
use kernel::bindings as kernel_bindings;
use kernel::container_of;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::types::Opaque;

/// `EPOLLIN`: the eventfd was signalled.
const SIGNALLED: u32 = 0x001;
/// `EPOLLHUP`: its last user has closed it.
const CLOSED: u32 = 0x010;

/// What a signal does.
struct State {
    interrupt: Interrupt,
    masked: bool,
    /// It was signalled while it was masked.
    pending: bool,
}

/// An eventfd and the interrupt that it raises.
#[pin_data]
pub(crate) struct IrqFd {
    #[pin]
    wait: Opaque<kernel_bindings::wait_queue_entry>,
    eventfd: EventFd,
    #[pin]
    state: SpinLockIrq<State>,
    raised: Atomic<u64>,
    failed: Atomic<u64>,
    closed: Atomic<bool>,
}

// SAFETY: The entry is the wait queue's, which has a lock; the rest may be sent and shared.
unsafe impl Send for IrqFd {}
// SAFETY: As above.
unsafe impl Sync for IrqFd {}

/// One that is in its eventfd's wait queue. Dropping it takes it out; then nothing is raised any more.
pub(crate) struct Attached {
    irqfd: Pin<KBox<IrqFd>>,
    /// The eventfd's, which lives as long as the reference to its counter.
    queue: *mut kernel_bindings::wait_queue_head,
}

// SAFETY: The queue is only locked and changed by the kernel's functions, from any thread.
unsafe impl Send for Attached {}
// SAFETY: As above.
unsafe impl Sync for Attached {}

impl IrqFd {
    /// Has an eventfd raise an interrupt. What it has counted already raises one at once.
    ///
    /// # Errors
    /// `EBUSY` if it raises one already, of whichever guest.
    pub(crate) fn attach(eventfd: &OpenEventFd, interrupt: Interrupt) -> Result<Attached> {
        let counter = eventfd.another_reference()?;
        let state = State { interrupt, masked: false, pending: false };
        let irqfd = KBox::pin_init(
            pin_init!(Self {
                wait: Opaque::zeroed(),
                eventfd: counter,
                state <- new_spinlock_irq!(state, "IrqFd::state"),
                raised: Atomic::new(0),
                failed: Atomic::new(0),
                closed: Atomic::new(false),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let mut queue = null_mut();
        // SAFETY: It is an eventfd's file, and open. The entry is pinned, in no queue, and taken
        // out again by the drop of `Attached` below; the callback fits it.
        to_result(unsafe {
            let (file, entry) = (eventfd.file(), irqfd.wait.get());
            bindings::shim_eventfd_attach(file, entry, Some(wake), &raw mut queue)
        })?;
        Ok(Attached { irqfd, queue })
    }

    /// Which interrupt it raises.
    pub(crate) fn irq(&self) -> Irq {
        self.state.lock().interrupt.irq()
    }

    /// The line that it raises and does not lower, and whose.
    pub(crate) fn leaves_up(&self) -> Option<(DomId, Line)> {
        self.state.lock().interrupt.leaves_up()
    }

    /// Lowers its line if it is level-triggered.
    pub(crate) fn lower(&self) -> Result {
        self.state.lock().interrupt.lower()
    }

    /// Has it raise another interrupt. When this returns, the one before is not raised again; every
    /// signal has raised or will raise the one or the other.
    ///
    /// Returns the one before. To be dropped where one may sleep.
    pub(crate) fn set(&self, interrupt: Interrupt) -> Interrupt {
        core::mem::replace(&mut self.state.lock().interrupt, interrupt)
    }

    /// Keeps signals from raising it. When this returns, it is not raised again until
    /// [`IrqFd::unmask`].
    pub(crate) fn mask(&self) {
        self.state.lock().masked = true;
    }

    /// Raises it once if it was signalled while it was masked, and from then on at each signal.
    pub(crate) fn unmask(&self) {
        let mut state = self.state.lock();
        state.masked = false;
        if core::mem::take(&mut state.pending) {
            self.raise(&state.interrupt);
        }
    }

    /// Whether it is masked, and whether it was signalled since.
    pub(crate) fn is_masked(&self) -> (bool, bool) {
        let state = self.state.lock();
        (state.masked, state.pending)
    }

    /// Whether it is this eventfd's.
    pub(crate) fn is_of(&self, eventfd: &EventFd) -> bool {
        self.eventfd.is(eventfd)
    }

    /// Whether the eventfd was closed: no process can signal it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Interrupts raised, and those that Xen refused.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.raised.load(Relaxed), self.failed.load(Relaxed))
    }

    /// A signal has come. May be called from an interrupt.
    fn fire(&self) {
        let mut state = self.state.lock();
        if state.masked {
            state.pending = true;
        } else {
            self.raise(&state.interrupt);
        }
    }

    fn raise(&self, interrupt: &Interrupt) {
        let raised = interrupt.raise();
        let counter = if raised.is_ok() { &self.raised } else { &self.failed };
        counter.add(1, Relaxed);
    }
}

impl Deref for Attached {
    type Target = IrqFd;

    fn deref(&self) -> &IrqFd {
        &self.irqfd
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: By the invariants the entry is in this queue, which our reference to the counter
        // keeps.
        unsafe { bindings::shim_eventfd_detach(self.queue, self.irqfd.wait.get()) };
        // Every signal has been passed on, but for one that was masked: it is the eventfd's again.
        if self.is_masked().1 {
            self.irqfd.eventfd.signal();
        }
    }
}

/// Passes a signal on. Returns whether it is consumed, so that no other process is woken for it.
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
    // SAFETY: As above; the one that drops it waits for the lock that is held here.
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
