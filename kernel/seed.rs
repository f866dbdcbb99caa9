// SPDX-License-Identifier: GPL-2.0

//! The seed ABI on a control file: what was assigned by the requests of `<xen/privcmd.h>`.
//!
//! A request's `ioreq` and `ports` are the name of a server, and must be readable; nothing else is
//! done with them. The server is the module's own, one for each guest, and files that assign for
//! the same guest share it.

use crate::abi::privcmd::DmOp;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::guests::{self, Interface, Taken};
use crate::protocol::seed::{IoEventFd, IrqFd};
use crate::protocol::{DomId, Doorbell};
use crate::show;
use kernel::fmt::{self, Write};
use kernel::prelude::*;
use kernel::sync::Arc;

/// One ioeventfd.
struct Bell {
    key: u64,
    vcpus: u32,
    taken: Arc<Taken>,
    doorbell: Doorbell,
    eventfd: EventFd,
}

/// One irqfd.
struct Call {
    taken: Arc<Taken>,
    eventfd: EventFd,
}

/// All that one file has assigned.
pub(crate) struct Assigned {
    bells: KVVec<Bell>,
    calls: KVVec<Call>,
    /// The guests of these, each once.
    guests: KVVec<Arc<Taken>>,
}

impl Assigned {
    pub(crate) fn new() -> Self {
        Self { bells: KVVec::new(), calls: KVVec::new(), guests: KVVec::new() }
    }

    /// `IOCTL_PRIVCMD_IOEVENTFD`. `readable`: whether what a new key points at can be read.
    pub(crate) fn ioeventfd(&mut self, request: &IoEventFd, readable: Result) -> Result {
        if request.deassign {
            return self.deassign_bell(request);
        }
        let doorbell = request.doorbell().map_err(|_| EINVAL)?;
        let open = OpenEventFd::from_descriptor(request.event_fd)?;
        let eventfd = open.another_reference()?;
        self.bury();
        let known = || self.bells.iter().filter(|bell| bell.key == request.ioreq);
        match known().next() {
            Some(bell) if !bell.is_for(request) => return Err(EINVAL),
            Some(_) if known().any(|bell| bell.eventfd.is(&eventfd)) => return Err(EBUSY),
            Some(_) => {}
            None => readable?,
        }
        self.bells.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let taken = self.join(request.dom)?;
        let (key, vcpus) = (request.ioreq, request.vcpus);
        // One reference is the guest's, one is for us to know it by.
        let assigned = open.another_reference().and_then(|again| {
            let ours = taken.guest.stats()?.vcpus;
            if vcpus as usize > ours {
                return Err(EINVAL);
            }
            taken.guest.register(doorbell, again)
        });
        if assigned.is_ok() {
            let bell = Bell { key, vcpus, taken, doorbell, eventfd };
            self.bells.push_within_capacity(bell).map_err(|_| ENOMEM)?;
        } else {
            self.leave_unused();
        }
        assigned
    }

    fn deassign_bell(&mut self, request: &IoEventFd) -> Result {
        let eventfd = EventFd::from_descriptor(request.event_fd)?;
        let ours = |bell: &Bell| bell.is_for(request) && bell.eventfd.is(&eventfd);
        let index = self.bells.iter().position(ours).ok_or(ENODEV)?;
        let bell = self.bells.remove(index).map_err(|_| ENODEV)?;
        // Of a guest that died it is gone already.
        let _ = bell.taken.guest.unregister(&bell.doorbell, &bell.eventfd);
        drop(bell);
        self.leave_unused();
        Ok(())
    }

    /// `IOCTL_PRIVCMD_IRQFD`. `dm_op`: the operation that it carries, if it could be read.
    pub(crate) fn irqfd(&mut self, request: &IrqFd, dm_op: Result<DmOp>) -> Result {
        if request.deassign {
            return self.deassign_call(request);
        }
        let dm_op = dm_op?;
        let eventfd = OpenEventFd::from_descriptor(request.fd)?;
        self.bury();
        if self.calls.iter().any(|call| call.eventfd.is(eventfd.counter())) {
            return Err(EBUSY);
        }
        let operation = dm_op.operation()?;
        let ours = eventfd.another_reference()?;
        self.calls.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let taken = self.join(request.dom)?;
        let assigned = taken.guest.assign_operation(operation, &eventfd);
        if assigned.is_ok() {
            let call = Call { taken, eventfd: ours };
            self.calls.push_within_capacity(call).map_err(|_| ENOMEM)?;
        } else {
            self.leave_unused();
        }
        assigned
    }

    fn deassign_call(&mut self, request: &IrqFd) -> Result {
        let eventfd = EventFd::from_descriptor(request.fd)?;
        let index = self.calls.iter().position(|call| call.eventfd.is(&eventfd));
        let Some(call) = index.and_then(|index| self.calls.remove(index).ok()) else {
            // The patch does not mind.
            return Ok(());
        };
        let _ = call.taken.guest.deassign_irq(None, &call.eventfd);
        drop(call);
        self.leave_unused();
        Ok(())
    }

    /// The guest of this number, with this file as one more of its users.
    fn join(&mut self, dom: DomId) -> Result<Arc<Taken>> {
        if let Some(taken) = self.guests.iter().find(|taken| taken.guest.dom() == dom) {
            return Ok(taken.clone());
        }
        if !dom.is_guest() {
            return Err(ENODEV);
        }
        self.guests.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let taken = guests::take(dom, Interface::Seed, None)?;
        self.guests.push_within_capacity(taken.clone()).map_err(|_| ENOMEM)?;
        Ok(taken)
    }

    /// Lets go of guests for which nothing is assigned.
    fn leave_unused(&mut self) {
        while let Some(index) = self.guests.iter().position(|taken| !self.uses(taken.guest.dom())) {
            let Ok(taken) = self.guests.remove(index) else { return };
            guests::leave(&taken);
        }
    }

    /// Forgets what was assigned for guests that have died, and irqfds whose eventfd was closed; and
    /// lets go of guests for which nothing is left.
    fn bury(&mut self) {
        self.bells.retain(|bell| !bell.taken.guest.is_dead());
        self.calls.retain(|call| call.taken.guest.has_irq(&call.eventfd));
        self.leave_unused();
    }

    fn uses(&self, dom: DomId) -> bool {
        self.bells.iter().any(|bell| bell.dom() == dom)
            || self.calls.iter().any(|call| call.dom() == dom)
    }

    /// The file is closed.
    pub(crate) fn end(&mut self) {
        for bell in self.bells.drain_all() {
            let _ = bell.taken.guest.unregister(&bell.doorbell, &bell.eventfd);
        }
        for call in self.calls.drain_all() {
            let _ = call.taken.guest.deassign_irq(None, &call.eventfd);
        }
        for taken in self.guests.drain_all() {
            guests::leave(&taken);
        }
    }

    /// For fdinfo: what this file has assigned, then each guest as its other users see it too.
    pub(crate) fn show(&self, out: &mut impl Write) -> fmt::Result {
        for bell in &self.bells {
            let addr = bell.doorbell.bytes().first();
            writeln!(out, "ioeventfd:\tdom {} key {:#x} addr {addr:#x}", bell.dom().0, bell.key)?;
        }
        for call in &self.calls {
            writeln!(out, "irqfd:\tdom {}", call.dom().0)?;
        }
        self.guests.iter().try_for_each(|taken| show::taken(taken, out))
    }
}

impl Bell {
    fn dom(&self) -> DomId {
        self.taken.guest.dom()
    }

    /// Whether a request is about this server.
    fn is_for(&self, request: &IoEventFd) -> bool {
        (self.key, self.dom(), self.vcpus) == (request.ioreq, request.dom, request.vcpus)
    }
}

impl Call {
    fn dom(&self) -> DomId {
        self.taken.guest.dom()
    }
}
