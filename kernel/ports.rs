// SPDX-License-Identifier: GPL-2.0

//! The ports of one server, and a value that all their handlers read and none waits for.
//!
//! There are two copies of the value. The handlers read one of them. A change is made in the other,
//! which the handlers read from then on; once no handler runs that began before, the first copy is
//! changed too. So the caller of a change waits for handlers, and no handler waits.
//!
//! The readers are interrupts of known numbers, so the wait is `synchronize_irq`, which takes as long as
//! a handler does. An RCU grace period takes milliseconds, and a VMM that takes back a thousand
//! doorbells would wait for a thousand of them.
//!
//! Which copy a handler reads needs no barrier of its own, on Arm either: the kernel notes that a handler runs, and that
//! it has ended, under the lock of the interrupt's descriptor, and `synchronize_irq` looks for that under the
//! same lock. If it finds that none runs, the next one takes the lock later and sees the swap; if the last has ended,
//! its reads came before. What the copy holds is ordered by the swap's release and the handler's acquire.
//!
//! # Invariants
//! * A handler reads the copy that is current when it begins, and has no reference to it once it has
//!   ended.
//! * The other copy is read and changed by the owner of the [`Ports`] alone.
//! * Outside of [`Ports::change`] the copies are equal.

use crate::port::{Ended, Handler, Port};
use crate::protocol::{self, DomId};
use core::cell::UnsafeCell;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};
use kernel::sync::Arc;

/// What is done for an event, with the value that all handlers read.
pub(crate) trait Reader<T>: Send + Sync + 'static {
    /// Runs in the interrupt, for one event of this port of ours.
    fn handle(&self, port: protocol::Port, value: &T) -> Ended;
}

/// Both copies of the value.
struct Copies<T> {
    first: UnsafeCell<T>,
    second: UnsafeCell<T>,
    /// The handlers read the second.
    is_second: Atomic<bool>,
}

// SAFETY: By the module's invariants a copy is read by handlers, on any CPU, or used by one owner.
unsafe impl<T: Send + Sync> Sync for Copies<T> {}

impl<T> Copies<T> {
    fn current(&self) -> *const T {
        if self.is_second.load(Acquire) { &self.second } else { &self.first }.get()
    }

    fn other(&self) -> *mut T {
        if self.is_second.load(Relaxed) { &self.first } else { &self.second }.get()
    }

    /// Has the handlers that begin from now on read the other copy.
    fn swap(&self) {
        self.is_second.store(!self.is_second.load(Relaxed), Release);
    }
}

/// The context of one port.
struct Reading<H, T> {
    reader: H,
    copies: Arc<Copies<T>>,
}

impl<H: Reader<T>, T: Send + Sync + 'static> Handler for Reading<H, T> {
    fn handle(&self, port: protocol::Port) -> Ended {
        // SAFETY: A handler runs, and by the module's invariants this copy does not change before it
        // has ended.
        let value = unsafe { &*self.copies.current() };
        self.reader.handle(port, value)
    }
}

/// The bound ports, and what their handlers read.
pub(crate) struct Ports<H: Reader<T>, T: Send + Sync + 'static> {
    ports: KVec<Port<Reading<H, T>>>,
    copies: Arc<Copies<T>>,
}

impl<H: Reader<T>, T: Send + Sync + 'static> Ports<H, T> {
    /// None yet, with room for so many. `copies` are equal.
    pub(crate) fn new(most: usize, copies: [T; 2]) -> Result<Self> {
        let [first, second] = copies.map(UnsafeCell::new);
        let copies = Copies { first, second, is_second: Atomic::new(false) };
        Ok(Self {
            ports: KVec::with_capacity(most, GFP_KERNEL_ACCOUNT)?,
            copies: Arc::new(copies, GFP_KERNEL_ACCOUNT)?,
        })
    }

    /// Binds one more of a guest's ports, for which there is room.
    pub(crate) fn bind(&mut self, reader: H, dom: DomId, remote: protocol::Port) -> Result {
        let port = Port::bind(Reading { reader, copies: self.copies.clone() }, dom, remote)?;
        self.ports.push_within_capacity(port).map_err(|_| ENOMEM)
    }

    /// How many are bound.
    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    /// The first that was bound.
    pub(crate) fn first(&self) -> Option<&Port<impl Handler>> {
        self.ports.first()
    }

    /// The handlers, in the order in which they were bound.
    pub(crate) fn readers(&self) -> impl Iterator<Item = &H> {
        self.ports.iter().map(|port| &port.handler().reader)
    }

    /// What the handlers read.
    pub(crate) fn value(&self) -> &T {
        // SAFETY: By the module's invariants it is the owner's, whom `self` is borrowed from.
        unsafe { &*self.copies.other() }
    }

    /// Changes the value. `change` is called for each copy, and must do the same with both: what it
    /// needs to succeed with the second, it has found to be there with the first. When this returns, no
    /// handler has what was there before.
    ///
    /// # Errors
    /// Those of `change`, which leaves a copy as it is then.
    pub(crate) fn change(&mut self, mut change: impl FnMut(&mut T) -> Result) -> Result {
        // SAFETY: By the module's invariants it is the owner's, whom `self` is borrowed from.
        change(unsafe { &mut *self.copies.other() })?;
        self.copies.swap();
        self.ports.iter().for_each(Port::wait);
        // SAFETY: As above: it was read by handlers that have ended.
        change(unsafe { &mut *self.copies.other() })
    }

    /// Rings all of them.
    pub(crate) fn ring(&self) {
        for port in &self.ports {
            let _ = port.ring();
        }
    }

    /// Has no handler run any more; waits for those that do.
    pub(crate) fn stop(&self) {
        self.ports.iter().for_each(Port::stop);
    }
}
