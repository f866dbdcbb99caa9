// SPDX-License-Identifier: GPL-2.0

//! The privcmd ABI on a control file: what was assigned by the requests of `<xen/privcmd.h>`.
//!
//! A request's `ioreq` and `ports` are the name of a server, and must be readable; nothing else is
//! done with them. The server is the module's own, one for each guest, and files that assign for
//! the same guest share it.

use crate::abi::privcmd::{Assignment, DmOpBytes};
use crate::eventfd::{EventFd, OpenEventFd};
use crate::irqs::MemberId;
use crate::member::Member;
use crate::protocol::irq::IrqOp;
use crate::protocol::status::Interface;
use crate::protocol::wire::privcmd::{IoEventFd, IrqFd};
use crate::protocol::{DomId, Doorbell};
use crate::show;
use crate::taken::Taken;
use kernel::fmt::{self, Write};
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};

/// One ioeventfd.
struct AssignedIoEventFd {
    key: u64,
    vcpus: u32,
    taken: Arc<Taken>,
    doorbell: Doorbell,
    eventfd: EventFd,
}

/// One irqfd.
struct AssignedIrqFd {
    taken: Arc<Taken>,
    by: MemberId,
    eventfd: EventFd,
}

/// All that one file has assigned.
pub(crate) struct Assigned {
    ioeventfds: KVVec<AssignedIoEventFd>,
    irqfds: KVVec<AssignedIrqFd>,
    /// The guests of these, each once.
    guests: KVVec<Member>,
}

/// `IOCTL_PRIVCMD_IOEVENTFD`. Without anything to assign it takes back.
pub(crate) fn ioeventfd(
    assigned: &Mutex<Assigned>,
    request: &IoEventFd,
    assignment: Option<Assignment>,
) -> Result {
    let Some(Assignment { doorbell, readable }) = assignment else {
        return assigned.lock().deassign_ioeventfd(request);
    };
    let open = OpenEventFd::from_descriptor(request.event_fd)?;
    let eventfd = open.another_reference()?;
    let mut joined = None;
    loop {
        let mut ours = assigned.lock();
        ours.drop_dead();
        ours.check_ioeventfd(request, &eventfd, readable)?;
        if ours.uses_guest(request.dom, &mut joined)? {
            return ours.assign_ioeventfd(request, doorbell, &open, eventfd);
        }
        drop(ours);
        // Not under the lock, as it may have to wait. Then all is checked again.
        joined = Some(join(request.dom)?);
    }
}

/// `IOCTL_PRIVCMD_IRQFD`. Without an operation it takes back.
pub(crate) fn irqfd(assigned: &Mutex<Assigned>, request: &IrqFd, dm_op: Option<DmOpBytes>) -> Result {
    let Some(dm_op) = dm_op else {
        return assigned.lock().deassign_irqfd(request);
    };
    let eventfd = OpenEventFd::from_descriptor(request.fd)?;
    let mut joined = None;
    loop {
        let mut ours = assigned.lock();
        ours.drop_dead();
        ours.check_call(eventfd.counter())?;
        let operation = dm_op.operation()?;
        if ours.uses_guest(request.dom, &mut joined)? {
            return ours.assign_call(request, operation, &eventfd);
        }
        drop(ours);
        // As above.
        joined = Some(join(request.dom)?);
    }
}

/// The guest of this number, with one more file as its user.
fn join(dom: DomId) -> Result<Member> {
    if !dom.is_guest() {
        return Err(ENODEV);
    }
    Member::take(dom, Interface::Privcmd, None)
}

impl Assigned {
    pub(crate) fn new() -> Self {
        Self { ioeventfds: KVVec::new(), irqfds: KVVec::new(), guests: KVVec::new() }
    }

    /// Whether a request fits what its key has already.
    fn check_ioeventfd(&self, request: &IoEventFd, eventfd: &EventFd, readable: Result) -> Result {
        let known = || self.ioeventfds.iter().filter(|ioeventfd| ioeventfd.key == request.ioreq);
        match known().next() {
            Some(ioeventfd) if !ioeventfd.is_for(request) => Err(EINVAL),
            Some(_) if known().any(|ioeventfd| ioeventfd.eventfd.is(eventfd)) => Err(EBUSY),
            Some(_) => Ok(()),
            None => readable,
        }
    }

    fn assign_ioeventfd(
        &mut self,
        request: &IoEventFd,
        doorbell: Doorbell,
        open: &OpenEventFd,
        eventfd: EventFd,
    ) -> Result {
        let assigned = self.try_assign_ioeventfd(request, doorbell, open, eventfd);
        self.leave_unused();
        assigned
    }

    fn try_assign_ioeventfd(
        &mut self,
        request: &IoEventFd,
        doorbell: Doorbell,
        open: &OpenEventFd,
        eventfd: EventFd,
    ) -> Result {
        self.ioeventfds.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let taken = self.member(request.dom)?.taken().clone();
        if request.vcpus as usize > taken.guest.stats()?.vcpus {
            return Err(EINVAL);
        }
        // One reference is the guest's, one is for us to know it by.
        taken.guest.register(doorbell, open.another_reference()?)?;
        let (key, vcpus) = (request.ioreq, request.vcpus);
        let ioeventfd = AssignedIoEventFd { key, vcpus, taken, doorbell, eventfd };
        self.ioeventfds.push_within_capacity(ioeventfd).map_err(|_| ENOMEM)
    }

    fn deassign_ioeventfd(&mut self, request: &IoEventFd) -> Result {
        let eventfd = EventFd::from_descriptor(request.event_fd)?;
        let ours =
            |ioeventfd: &AssignedIoEventFd| ioeventfd.is_for(request) && ioeventfd.eventfd.is(&eventfd);
        let index = self.ioeventfds.iter().position(ours).ok_or(ENODEV)?;
        let ioeventfd = self.ioeventfds.remove(index).map_err(|_| ENODEV)?;
        // It fails only if the guest died; then it is gone already.
        let _ = ioeventfd.taken.guest.unregister(&ioeventfd.doorbell, &ioeventfd.eventfd);
        drop(ioeventfd);
        self.leave_unused();
        Ok(())
    }

    /// Whether an eventfd raises nothing yet.
    fn check_call(&self, eventfd: &EventFd) -> Result {
        if self.irqfds.iter().any(|irqfd| irqfd.eventfd.is(eventfd)) {
            return Err(EBUSY);
        }
        Ok(())
    }

    fn assign_call(
        &mut self,
        request: &IrqFd,
        operation: IrqOp,
        eventfd: &OpenEventFd,
    ) -> Result {
        let assigned = self.try_assign_call(request, operation, eventfd);
        self.leave_unused();
        assigned
    }

    fn try_assign_call(
        &mut self,
        request: &IrqFd,
        operation: IrqOp,
        eventfd: &OpenEventFd,
    ) -> Result {
        let ours = eventfd.another_reference()?;
        self.irqfds.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let member = self.member(request.dom)?;
        let (taken, by) = (member.taken().clone(), member.id());
        taken.guest.assign_operation(by, operation, eventfd)?;
        let irqfd = AssignedIrqFd { taken, by, eventfd: ours };
        self.irqfds.push_within_capacity(irqfd).map_err(|_| ENOMEM)
    }

    fn deassign_irqfd(&mut self, request: &IrqFd) -> Result {
        let eventfd = EventFd::from_descriptor(request.fd)?;
        let index = self.irqfds.iter().position(|irqfd| irqfd.eventfd.is(&eventfd));
        let Some(irqfd) = index.and_then(|index| self.irqfds.remove(index).ok()) else {
            // The patch does not mind.
            return Ok(());
        };
        let _ = irqfd.taken.guest.deassign_irq(irqfd.by, None, &irqfd.eventfd);
        drop(irqfd);
        self.leave_unused();
        Ok(())
    }

    /// Whether this file uses the guest of this number; from now on, if it has just joined it.
    fn uses_guest(&mut self, dom: DomId, joined: &mut Option<Member>) -> Result<bool> {
        if self.member(dom).is_ok() {
            return Ok(true);
        }
        let Some(member) = joined.take() else { return Ok(false) };
        self.guests.push(member, GFP_KERNEL_ACCOUNT)?;
        Ok(true)
    }

    fn member(&self, dom: DomId) -> Result<&Member> {
        self.guests.iter().find(|member| member.dom() == dom).ok_or(ENODEV)
    }

    /// Lets go of guests for which nothing is assigned.
    fn leave_unused(&mut self) {
        while let Some(index) = self.guests.iter().position(|member| !self.uses(member.dom())) {
            let Ok(member) = self.guests.remove(index) else { return };
            drop(member);
        }
    }

    /// Forgets what was assigned for guests that have died, and irqfds whose eventfd was closed; and
    /// lets go of guests for which nothing is left.
    fn drop_dead(&mut self) {
        self.ioeventfds.retain(|ioeventfd| !ioeventfd.taken.guest.is_dead());
        self.irqfds.retain(|irqfd| irqfd.taken.guest.has_irq(irqfd.by, &irqfd.eventfd));
        self.leave_unused();
    }

    fn uses(&self, dom: DomId) -> bool {
        self.ioeventfds.iter().any(|ioeventfd| ioeventfd.dom() == dom)
            || self.irqfds.iter().any(|irqfd| irqfd.dom() == dom)
    }

    /// The file is closed.
    pub(crate) fn end(&mut self) {
        for ioeventfd in self.ioeventfds.drain_all() {
            let _ = ioeventfd.taken.guest.unregister(&ioeventfd.doorbell, &ioeventfd.eventfd);
        }
        for irqfd in self.irqfds.drain_all() {
            let _ = irqfd.taken.guest.deassign_irq(irqfd.by, None, &irqfd.eventfd);
        }
        drop(core::mem::replace(&mut self.guests, KVVec::new()));
    }

    /// For fdinfo: what this file has assigned, then each guest as its other users see it too.
    pub(crate) fn show(&self, out: &mut impl Write) -> fmt::Result {
        for ioeventfd in &self.ioeventfds {
            let addr = ioeventfd.doorbell.bytes().first();
            let (dom, key) = (ioeventfd.dom().0, ioeventfd.key);
            writeln!(out, "ioeventfd:\tdom {dom} key {key:#x} addr {addr:#x}")?;
        }
        for irqfd in &self.irqfds {
            writeln!(out, "irqfd:\tdom {}", irqfd.dom().0)?;
        }
        self.guests.iter().try_for_each(|member| show::taken(member.taken(), out))
    }
}

impl AssignedIoEventFd {
    fn dom(&self) -> DomId {
        self.taken.guest.dom()
    }

    /// Whether a request is about this server.
    fn is_for(&self, request: &IoEventFd) -> bool {
        (self.key, self.dom(), self.vcpus) == (request.ioreq, request.dom, request.vcpus)
    }
}

impl AssignedIrqFd {
    fn dom(&self) -> DomId {
        self.taken.guest.dom()
    }
}
