// SPDX-License-Identifier: GPL-2.0

//! The irqfds of a guest that is served, its devices with InterruptStatus, and its event channels: which file
//! assigned them, and what they have in common.

use crate::channel::Channel;
use crate::device::DeviceInterrupt;
use crate::eventfd::{EventFd, OpenEventFd};
use crate::interrupt::Interrupt;
use crate::irqfd::{Attached, IrqFd};
use crate::protocol::interrupt_status::Registers;
use crate::protocol::irq::{Irq, Line};
use crate::protocol::status::{DeviceStatus, IrqStatus};
use crate::protocol::{DomId, Port};
use crate::xen;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Irqfds that one guest can have.
pub(crate) const MAX_IRQS: usize = 1024;
/// Event channels of one guest that can be bound for callers, in either direction. Each is an interrupt
/// descriptor, for which no process is charged.
const MAX_CHANNELS: usize = 256;

/// Which of a guest's files assigned something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberId(pub(crate) u64);

/// All of one guest.
pub(crate) struct Irqs {
    irqfds: KVec<Raising>,
    devices: KVec<Arc<DeviceInterrupt>>,
    channels: KVec<Bound>,
}

/// An irqfd, and whose it is.
struct Raising {
    by: MemberId,
    irqfd: Attached,
}

/// A channel and how many use it: irqfds that ring it, and an eventfd that receives it.
struct Bound {
    channel: Arc<Channel>,
    users: usize,
    /// Whose the eventfd is.
    heard_by: Option<MemberId>,
}

impl Irqs {
    /// None.
    pub(crate) fn new() -> Self {
        Self { irqfds: KVec::new(), devices: KVec::new(), channels: KVec::new() }
    }

    /// Has an eventfd raise an interrupt.
    pub(crate) fn assign(
        &mut self,
        by: MemberId,
        dom: DomId,
        irq: Irq,
        eventfd: &OpenEventFd,
    ) -> Result {
        let interrupt = self.interrupt(dom, irq)?;
        let attached = self.attach(by, interrupt, eventfd);
        if attached.is_err() {
            self.leave(irq);
        }
        attached
    }

    /// Has an assigned eventfd raise another interrupt. If it fails, nothing has changed.
    pub(crate) fn set(
        &mut self,
        by: MemberId,
        dom: DomId,
        irq: Irq,
        eventfd: &EventFd,
        new: Irq,
    ) -> Result {
        self.irq(by, Some(irq), eventfd)?;
        self.check_line(new)?;
        let interrupt = self.interrupt(dom, new)?;
        let before = self.irq(by, Some(irq), eventfd)?.set(interrupt);
        let left_up = before.leaves_up();
        drop(before);
        self.leave(irq);
        self.lower_unused(left_up);
        Ok(())
    }

    /// Takes an eventfd's interrupts back: when this returns, they are not raised again.
    ///
    /// # Errors
    /// `ENOENT` if it raises none, or not this one if one is given.
    pub(crate) fn deassign(
        &mut self,
        by: MemberId,
        irq: Option<Irq>,
        eventfd: &EventFd,
    ) -> Result {
        self.irq(by, irq, eventfd)?;
        self.drop_irqs(|raising| raising.is_of(by, eventfd));
        Ok(())
    }

    /// Forgets eventfds that were closed: no process can signal them any more.
    pub(crate) fn drop_closed(&mut self) {
        self.drop_irqs(|raising| raising.irqfd.is_closed());
    }

    /// Takes all interrupts back. What was signalled until now is still raised.
    pub(crate) fn drop_all(&mut self) {
        self.drop_irqs(|_| true);
        while let Some(device) = self.devices.last() {
            let registers = device.registers();
            let _ = self.remove_device(registers);
        }
    }

    /// A device whose registers are to be answered, with the interrupt that is raised for it.
    pub(crate) fn add_device(
        &mut self,
        dom: DomId,
        registers: Registers,
        irq: Irq,
    ) -> Result<Arc<DeviceInterrupt>> {
        self.check_line(irq)?;
        if self.irqfds.iter().any(|raising| raising.irqfd.irq().clashes_with(&irq)) {
            return Err(EBUSY);
        }
        self.devices.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let interrupt = self.interrupt(dom, irq)?;
        let device = DeviceInterrupt::new(registers, interrupt).inspect_err(|_| self.leave(irq))?;
        self.devices.push_within_capacity(device.clone()).map_err(|_| ENOMEM)?;
        Ok(device)
    }

    /// The device with these registers.
    pub(crate) fn device(&self, registers: Registers) -> Result<&Arc<DeviceInterrupt>> {
        self.devices.iter().find(|device| device.registers() == registers).ok_or(ENOENT)
    }

    /// The device at an index.
    pub(crate) fn shown_device(&self, index: usize) -> Option<DeviceStatus> {
        self.devices.get(index).map(|device| device.status())
    }

    /// Ends the irqfds that set bits of a device. What was signalled until now is still set.
    pub(crate) fn end_of_device(&mut self, registers: Registers) {
        self.drop_irqs(|raising| {
            matches!(raising.irqfd.irq(), Irq::Status { addr, .. } if addr == registers.addr())
        });
    }

    /// Forgets a device whose registers no handler answers, and that no irqfd sets. Returns the bits that
    /// are set.
    pub(crate) fn remove_device(&mut self, registers: Registers) -> Result<u32> {
        let index = self.devices.iter().position(|device| device.registers() == registers);
        let device = self.devices.remove(index.ok_or(ENOENT)?).map_err(|_| ENOENT)?;
        let interrupt = device.interrupt();
        self.leave(interrupt.irq());
        self.lower_unused(interrupt.leaves_up());
        Ok(device.status().bits)
    }

    /// The irqfd at an index.
    pub(crate) fn shown(&self, index: usize) -> Option<IrqStatus> {
        let irqfd = &self.irqfds.get(index)?.irqfd;
        let (raised, failed) = irqfd.counts();
        let (masked, pending) = irqfd.is_masked();
        Some(IrqStatus { irq: irqfd.irq(), raised, failed, masked, pending })
    }

    /// Has a guest's event channel signal an eventfd.
    pub(crate) fn assign_channel(
        &mut self,
        by: MemberId,
        dom: DomId,
        port: Port,
        eventfd: OpenEventFd,
    ) -> Result {
        let listening = self.use_channel(dom, port)?.listen(eventfd);
        if listening.is_err() {
            self.leave_channel(port);
        } else if let Some(bound) = self.bound(port) {
            bound.heard_by = Some(by);
        }
        listening
    }

    /// Takes that back. When this returns, the eventfd is not signalled again.
    pub(crate) fn deassign_channel(
        &mut self,
        by: MemberId,
        port: Port,
        eventfd: &EventFd,
    ) -> Result {
        let found = self.bound(port).filter(|bound| bound.heard_by == Some(by));
        if !found.is_some_and(|bound| bound.channel.stop_listening(Some(eventfd))) {
            return Err(ENOENT);
        }
        self.leave_heard(port);
        Ok(())
    }

    /// The channel at an index, and how often its eventfd was signalled if it has one.
    pub(crate) fn shown_channel(&self, index: usize) -> Option<(Port, Option<u64>)> {
        let channel = &self.channels.get(index)?.channel;
        Some((channel.remote(), channel.signals()))
    }

    /// Has an eventfd raise an interrupt that is ready to be raised.
    pub(crate) fn attach(&mut self, by: MemberId, interrupt: Interrupt, eventfd: &OpenEventFd) -> Result {
        self.check_line(interrupt.irq())?;
        if self.irqfds.len() >= MAX_IRQS {
            return Err(ENOSPC);
        }
        self.irqfds.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let irqfd = IrqFd::attach(eventfd, interrupt)?;
        self.irqfds.push_within_capacity(Raising { by, irqfd }).map_err(|_| ENOMEM)
    }

    /// Refuses a line that a device with InterruptStatus has.
    fn check_line(&self, irq: Irq) -> Result {
        let clashes = self.devices.iter().any(|d| d.interrupt().irq().clashes_with(&irq));
        if clashes { Err(EBUSY) } else { Ok(()) }
    }

    /// The irqfd of an eventfd, and of this interrupt if one is given.
    pub(crate) fn irq(&self, by: MemberId, irq: Option<Irq>, eventfd: &EventFd) -> Result<&IrqFd> {
        let wanted = |raising: &&Raising| {
            raising.is_of(by, eventfd) && irq.is_none_or(|irq| raising.irqfd.irq() == irq)
        };
        self.irqfds.iter().find(wanted).map(|raising| &*raising.irqfd).ok_or(ENOENT)
    }

    fn drop_irqs(&mut self, which: impl Fn(&Raising) -> bool) {
        while let Some(index) = self.irqfds.iter().position(&which) {
            let Ok(Raising { irqfd, .. }) = self.irqfds.remove(index) else { return };
            let (irq, left_up) = (irqfd.irq(), irqfd.leaves_up());
            drop(irqfd);
            self.leave(irq);
            self.lower_unused(left_up);
        }
    }

    /// A line stays up for as long as an assignment or a device is there that can lower it.
    fn lower_unused(&self, left_up: Option<(DomId, Line)>) {
        let Some((dom, line)) = left_up else { return };
        let irqfds = self.irqfds.iter().map(|raising| raising.irqfd.leaves_up());
        let devices = self.devices.iter().map(|device| device.interrupt().leaves_up());
        if !Iterator::chain(irqfds, devices).any(|line| line == left_up) {
            let _ = xen::set_line(dom, line, false);
        }
    }

    /// An interrupt that is ready to be raised: an event channel is bound for it. To be given back
    /// by [`Irqs::leave`].
    fn interrupt(&mut self, dom: DomId, irq: Irq) -> Result<Interrupt> {
        match irq {
            Irq::EventChannel(port) => Ok(Interrupt::channel(dom, self.use_channel(dom, port)?)),
            Irq::Status { addr, bits } => {
                let registers = Registers::new(addr).map_err(|_| EINVAL)?;
                Ok(Interrupt::of_device(dom, self.device(registers)?.clone(), bits))
            }
            irq => Interrupt::plain(dom, irq),
        }
    }

    /// One user less of what an interrupt needs.
    fn leave(&mut self, irq: Irq) {
        if let Irq::EventChannel(port) = irq {
            self.leave_channel(port);
        }
    }

    fn bound(&mut self, port: Port) -> Option<&mut Bound> {
        self.channels.iter_mut().find(|bound| bound.channel.remote() == port)
    }

    /// One more user of a guest's port; bound by the first.
    fn use_channel(&mut self, dom: DomId, port: Port) -> Result<Arc<Channel>> {
        if let Some(bound) = self.bound(port) {
            bound.users = bound.users.saturating_add(1);
            return Ok(bound.channel.clone());
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(ENOSPC);
        }
        self.channels.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let channel = Arc::new(Channel::bind(dom, port)?, GFP_KERNEL_ACCOUNT)?;
        let bound = Bound { channel: channel.clone(), users: 1, heard_by: None };
        self.channels.push_within_capacity(bound).map_err(|_| ENOMEM)?;
        Ok(channel)
    }

    /// One user less; unbound by the last.
    fn leave_channel(&mut self, port: Port) {
        self.channels.retain(|bound| {
            if bound.channel.remote() == port {
                bound.users = bound.users.saturating_sub(1);
            }
            bound.users > 0
        });
    }

    /// No process receives a channel any more.
    fn leave_heard(&mut self, port: Port) {
        if let Some(bound) = self.bound(port) {
            bound.heard_by = None;
        }
        self.leave_channel(port);
    }

    /// Ends what one file assigned.
    pub(crate) fn end_of(&mut self, member: MemberId) {
        self.drop_irqs(|raising| raising.by == member);
        while let Some(bound) = self.channels.iter().find(|bound| bound.heard_by == Some(member)) {
            let port = bound.channel.remote();
            bound.channel.stop_listening(None);
            self.leave_heard(port);
        }
    }
}

impl Raising {
    fn is_of(&self, by: MemberId, eventfd: &EventFd) -> bool {
        self.by == by && self.irqfd.is_of(eventfd)
    }
}
