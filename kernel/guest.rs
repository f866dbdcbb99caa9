// SPDX-License-Identifier: GPL-2.0

//! One guest in the hands of the module: how it stands with us, and who may change that.
//!
//! # Locks, in the order in which they are taken
//! * `Control::assigned`, a mutex: what one file has assigned by the privcmd ABI.
//! * [`Guest::changes`], a mutex: held by the one that changes what is assigned, across the hypercalls
//!   that this takes and while it waits for handlers. Nothing is asked of xenstore under it, or under any
//!   other lock.
//! * `DispatchState::unserved`, a spinlock: taken by a handler whose kick finds no registration.
//! * `Registration::received`, a spinlock: taken by a handler whose kick is a fallback's. A channel's
//!   listener is one more, alone.
//! * An eventfd's own, inside a signal.
//! * `IrqFd::state`, a spinlock, under an eventfd's own: taken while an interrupt is raised.
//! * `DeviceInterrupt::state`, a spinlock: taken by a handler whose access is to a device's registers, and
//!   by the one that sets bits.
//!
//! Alone, and for a moment each: `GUESTS` of `guests.rs`, a spinlock, for the list of guests; the stage
//! of a guest in `taken.rs`, a spinlock.

use crate::access;
use crate::doorbells;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::interrupt::Interrupt;
use crate::irqfd::IrqFd;
use crate::irqs::{Irqs, MemberId};
use crate::kicks::{Kicks, Stats};
use crate::protocol::interrupt_status::Registers;
use crate::protocol::irq::{Arch, Irq, IrqOp, Owner};
use crate::protocol::status::{DeviceStatus, DoorbellStatus, IrqStatus};
use crate::protocol::unmatched::UnmatchedKick;
use crate::protocol::wire::native::StatusChange;
use crate::protocol::{DomId, Doorbell, Kick, Port};
use crate::server::{self, dead_or, is_dying};
use crate::xenstore;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};

/// How a guest stands with us.
enum Life {
    /// Not yet, or no longer.
    Apart,
    /// Kept for another process's engine.
    Reserved,
    Served(Served),
    Dead,
}

/// What is assigned for a guest that is served.
struct Served {
    kicks: Kicks,
    irqs: Irqs,
}

/// What the one that changes a guest holds.
struct Changes {
    life: Life,
    /// Signalled once when it dies.
    gone: Listeners,
}

/// Eventfds, and whose they are.
pub(crate) type Listeners = KVec<(MemberId, EventFd)>;

impl Changes {
    fn served(&mut self) -> Result<&mut Served> {
        match &mut self.life {
            Life::Served(served) => {
                served.irqs.drop_closed();
                Ok(served)
            }
            Life::Reserved => Err(EOPNOTSUPP),
            Life::Apart | Life::Dead => Err(ENODEV),
        }
    }

    fn kicks(&self) -> Option<&Kicks> {
        match &self.life {
            Life::Served(served) => Some(&served.kicks),
            Life::Apart | Life::Reserved | Life::Dead => None,
        }
    }
}

/// A guest, as long as a file of it is open.
#[pin_data]
pub(crate) struct Guest {
    dom: DomId,
    members: Atomic<u64>,
    #[pin]
    changes: Mutex<Changes>,
}

impl Guest {
    /// A guest that is not served yet.
    pub(crate) fn new(dom: DomId) -> Result<Arc<Self>> {
        let apart = Changes { life: Life::Apart, gone: KVec::new() };
        let guest = pin_init!(Self {
            dom,
            members: Atomic::new(0),
            changes <- new_mutex!(apart, "Guest::changes"),
        });
        Arc::pin_init(guest, GFP_KERNEL_ACCOUNT)
    }

    /// Sets a doorbell server up in it.
    pub(crate) fn begin(&self) -> Result {
        let served = Served { kicks: Kicks::begin(self.dom)?, irqs: Irqs::new() };
        self.changes.lock().life = Life::Served(served);
        Ok(())
    }

    /// Keeps it for another engine.
    pub(crate) fn reserve(&self) -> Result {
        server::vcpus(self.dom)?;
        if is_dying(self.dom) {
            return Err(ENODEV);
        }
        self.changes.lock().life = Life::Reserved;
        Ok(())
    }

    /// A number for one more file that uses it.
    pub(crate) fn next_member(&self) -> MemberId {
        MemberId(self.members.fetch_add(1, Relaxed))
    }

    /// Has an eventfd signalled when it dies.
    pub(crate) fn tell(&self, member: MemberId, gone: EventFd) -> Result {
        let mut changes = self.changes.lock();
        if matches!(changes.life, Life::Apart | Life::Dead) {
            return Err(ENODEV);
        }
        Ok(changes.gone.push((member, gone), GFP_KERNEL_ACCOUNT)?)
    }

    /// Its number.
    pub(crate) fn dom(&self) -> DomId {
        self.dom
    }
}

/// Doorbells.
impl Guest {
    /// Registers a doorbell.
    pub(crate) fn register(&self, doorbell: Doorbell, eventfd: EventFd) -> Result {
        let mut changes = self.changes.lock();
        let served = changes.served()?;
        if !Arch::NATIVE.has_space(doorbell.bytes().space()) {
            return Err(EOPNOTSUPP);
        }
        served.kicks.register(doorbell, eventfd)
    }

    /// Takes a registration back. When this returns, its eventfd is not signalled again. It needs no
    /// memory.
    pub(crate) fn unregister(&self, doorbell: &Doorbell, eventfd: &EventFd) -> Result {
        self.changes.lock().served()?.kicks.unregister(doorbell, eventfd)
    }

    /// Takes one kick that a fallback received. What cannot be reported stays.
    pub(crate) fn take_unmatched(
        &self,
        doorbell: &Doorbell,
        eventfd: &EventFd,
        tell: impl FnOnce(&UnmatchedKick) -> Result,
    ) -> Result {
        let mut changes = self.changes.lock();
        let table = changes.served()?.kicks.table();
        let taken = doorbells::find(table, doorbell, eventfd)?.take_received()?;
        drop(changes);
        // Under no lock: it may be as slow as the caller's memory.
        let copied = tell(&taken);
        if copied.is_err() {
            let changes = self.changes.lock();
            let table = changes.kicks().map(Kicks::table);
            if let Some(Ok(fallback)) = table.map(|all| doorbells::find(all, doorbell, eventfd)) {
                fallback.put_back(&taken);
            }
        }
        copied
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        Ok(self.changes.lock().served()?.kicks.stats())
    }

    /// The registration at an index.
    pub(crate) fn shown(&self, index: usize) -> Option<DoorbellStatus> {
        self.changes.lock().kicks()?.table().get(index).map(|found| found.status())
    }

    /// The held kick at an index.
    pub(crate) fn waiting(&self, index: usize) -> Option<Kick> {
        self.changes.lock().kicks()?.waiting(index)
    }
}

/// Interrupts and event channels.
impl Guest {
    /// Has an eventfd raise an interrupt.
    pub(crate) fn assign_irq(&self, by: MemberId, irq: Irq, eventfd: &OpenEventFd) -> Result {
        self.check_irq(irq)?;
        let mut changes = self.changes.lock();
        let Served { kicks, irqs } = changes.served()?;
        let refused = |error| kicks.server().refused(self.dom, error);
        irqs.assign(by, self.dom, irq, eventfd).map_err(refused)
    }

    /// Has an assigned eventfd raise another interrupt. When this returns, the one before is not
    /// raised again, and no signal was lost. If it fails, nothing has changed.
    pub(crate) fn set_irq(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
        new: Irq,
    ) -> Result {
        self.irqfd(by, irq, eventfd, |_| ())?;
        self.check_irq(new)?;
        let mut changes = self.changes.lock();
        let Served { kicks, irqs } = changes.served()?;
        let refused = |error| kicks.server().refused(self.dom, error);
        irqs.set(by, self.dom, irq, eventfd, new).map_err(refused)
    }

    /// Keeps an assigned eventfd from raising its interrupt until it is unmasked.
    pub(crate) fn mask_irq(&self, by: MemberId, irq: Irq, eventfd: &EventFd) -> Result {
        self.irqfd(by, irq, eventfd, IrqFd::mask)
    }

    /// Takes that back, and raises the interrupt once if it is pending.
    pub(crate) fn unmask_irq(&self, by: MemberId, irq: Irq, eventfd: &EventFd) -> Result {
        self.irqfd(by, irq, eventfd, IrqFd::unmask)
    }

    /// Whether an assigned eventfd is masked, and whether it was signalled since.
    pub(crate) fn irq_state(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
    ) -> Result<(bool, bool)> {
        self.irqfd(by, irq, eventfd, IrqFd::is_masked)
    }

    /// Interrupts raised and refused.
    pub(crate) fn irq_counts(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
    ) -> Result<(u64, u64)> {
        self.irqfd(by, irq, eventfd, IrqFd::counts)
    }

    /// Lowers a line.
    pub(crate) fn lower(&self, by: MemberId, irq: Irq, eventfd: &EventFd) -> Result {
        self.irqfd(by, irq, eventfd, IrqFd::lower)?.map_err(dead_or)
    }

    /// Does something with an irqfd.
    fn irqfd<R>(
        &self,
        by: MemberId,
        irq: Irq,
        eventfd: &EventFd,
        act: impl FnOnce(&IrqFd) -> R,
    ) -> Result<R> {
        self.changes.lock().served()?.irqs.irq(by, Some(irq), eventfd).map(act)
    }

    /// Whether the guest, which is served, can have such an interrupt. It may have to ask xenstore:
    /// not to be called under a lock.
    fn check_irq(&self, irq: Irq) -> Result {
        irq.check().map_err(|_| EINVAL)?;
        self.changes.lock().served()?;
        match Arch::NATIVE.owner(&irq) {
            Some(Owner::EveryGuest) => Ok(()),
            Some(Owner::GuestsWithLines) => {
                let dom = self.dom;
                let has_lines = access::ask(move || xenstore::has_lines(dom))?;
                has_lines.then_some(()).ok_or(EOPNOTSUPP)
            }
            None => Err(EOPNOTSUPP),
        }
    }

    /// The same for an operation of the privcmd ABI.
    pub(crate) fn assign_operation(
        &self,
        by: MemberId,
        operation: IrqOp,
        eventfd: &OpenEventFd,
    ) -> Result {
        self.check_irq(operation.irq())?;
        let interrupt = Interrupt::privcmd(self.dom, operation);
        self.changes.lock().served()?.irqs.attach(by, interrupt, eventfd)
    }

    /// Takes that back: of this eventfd, and this interrupt if one is given. When this returns, it
    /// is not raised again.
    pub(crate) fn deassign_irq(
        &self,
        by: MemberId,
        irq: Option<Irq>,
        eventfd: &EventFd,
    ) -> Result {
        self.changes.lock().served()?.irqs.deassign(by, irq, eventfd)
    }

    /// Whether an eventfd raises an interrupt of this guest.
    pub(crate) fn has_irq(&self, by: MemberId, eventfd: &EventFd) -> bool {
        self.changes.lock().served().is_ok_and(|served| served.irqs.irq(by, None, eventfd).is_ok())
    }

    /// The irqfd at an index.
    pub(crate) fn shown_irq(&self, index: usize) -> Option<IrqStatus> {
        self.changes.lock().served().ok()?.irqs.shown(index)
    }

    /// Answers the registers of a device, and raises its interrupt while a bit is set.
    pub(crate) fn assign_status(&self, registers: Registers, irq: Irq) -> Result {
        self.check_irq(irq)?;
        let mut changes = self.changes.lock();
        let Served { kicks, irqs } = changes.served()?;
        kicks.check_device(registers)?;
        let added = irqs.add_device(self.dom, registers, irq);
        let device = added.map_err(|error| kicks.server().refused(self.dom, error))?;
        let registered = kicks.register_device(&device);
        if registered.is_err() {
            let _ = irqs.remove_device(registers);
        }
        registered
    }

    /// Takes that back, and first the irqfds that set its bits. Returns the bits that are set.
    pub(crate) fn deassign_status(&self, registers: Registers, irq: Irq) -> Result<u32> {
        let mut changes = self.changes.lock();
        let Served { kicks, irqs } = changes.served()?;
        if irqs.device(registers)?.interrupt().irq() != irq {
            return Err(ENOENT);
        }
        irqs.end_of_device(registers);
        kicks.unregister_device(registers)?;
        irqs.remove_device(registers)
    }

    /// Changes an InterruptStatus, and says how it stands.
    pub(crate) fn change_status(
        &self,
        registers: Registers,
        change: StatusChange,
    ) -> Result<DeviceStatus> {
        let mut changes = self.changes.lock();
        let device = changes.served()?.irqs.device(registers)?.clone();
        device.change(change).map_err(dead_or)
    }

    /// The device at an index.
    pub(crate) fn shown_device(&self, index: usize) -> Option<DeviceStatus> {
        self.changes.lock().served().ok()?.irqs.shown_device(index)
    }

    /// Has a guest's event channel signal an eventfd.
    pub(crate) fn assign_channel(&self, by: MemberId, port: Port, eventfd: OpenEventFd) -> Result {
        Irq::EventChannel(port).check().map_err(|_| EINVAL)?;
        let mut changes = self.changes.lock();
        let Served { kicks, irqs } = changes.served()?;
        let refused = |error| kicks.server().refused(self.dom, error);
        irqs.assign_channel(by, self.dom, port, eventfd).map_err(refused)
    }

    /// Takes that back. When this returns, the eventfd is not signalled again.
    pub(crate) fn deassign_channel(&self, by: MemberId, port: Port, eventfd: &EventFd) -> Result {
        self.changes.lock().served()?.irqs.deassign_channel(by, port, eventfd)
    }

    /// The channel at an index, and how often its eventfd was signalled if it has one.
    pub(crate) fn shown_channel(&self, index: usize) -> Option<(Port, Option<u64>)> {
        self.changes.lock().served().ok()?.irqs.shown_channel(index)
    }
}

/// The end.
impl Guest {
    /// Lets go of the guest: none of its vCPUs waits for us afterwards, and nothing of ours is left.
    pub(crate) fn close(&self) {
        self.end(Life::Apart);
    }

    /// Ends the interrupts and channels that one file assigned; others serve it still.
    pub(crate) fn end_of(&self, member: MemberId) {
        let mut changes = self.changes.lock();
        if let Ok(served) = changes.served() {
            served.irqs.end_of(member);
        }
        changes.gone.retain(|(theirs, _)| *theirs != member);
    }

    /// Drops everything of a guest, which is gone for us from then on. Returns whom to notify, once.
    pub(crate) fn die(&self) -> Option<Listeners> {
        self.end(Life::Dead)
    }

    /// Whether it is dead or dying, and we have something of it.
    pub(crate) fn is_dying(&self) -> bool {
        match &self.changes.lock().life {
            Life::Served(served) => !served.kicks.server().is_alive(self.dom),
            Life::Reserved => is_dying(self.dom),
            Life::Apart | Life::Dead => false,
        }
    }

    /// Whether it has died.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.changes.lock().life, Life::Dead)
    }

    /// Whether it is kept for another engine.
    pub(crate) fn is_reserved(&self) -> bool {
        matches!(self.changes.lock().life, Life::Reserved)
    }

    /// Returns who wants to know of its death, if this was the end of it.
    fn end(&self, how: Life) -> Option<Listeners> {
        let mut changes = self.changes.lock();
        if matches!(changes.life, Life::Apart | Life::Dead) {
            return None;
        }
        let before = core::mem::replace(&mut changes.life, how);
        let gone = core::mem::replace(&mut changes.gone, KVec::new());
        if let Life::Served(Served { kicks, mut irqs }) = before {
            // What was signalled until now is still raised.
            irqs.drop_all();
            drop(irqs);
            kicks.end();
        }
        Some(gone)
    }
}
