// SPDX-License-Identifier: GPL-2.0

//! One interrupt of a guest, and how it is raised.

use crate::channel::Channel;
use crate::device::DeviceInterrupt;
use crate::protocol::irq::{Irq, IrqOp, Line, Raise};
use crate::protocol::DomId;
use crate::{trace, xen};
use kernel::prelude::*;
use kernel::sync::Arc;

/// What a signal does.
enum Action {
    /// Notifies an event channel.
    Notify(Arc<Channel>),
    /// One operation, or two.
    Operate(IrqOp, Option<IrqOp>),
    /// Sets bits of a device's InterruptStatus, and raises its interrupt.
    Set(Arc<DeviceInterrupt>, u32),
}

/// An interrupt of a guest.
pub(crate) struct Interrupt {
    dom: DomId,
    irq: Irq,
    action: Action,
    /// The line that it raises and does not lower.
    leaves_up: Option<Line>,
}

impl Interrupt {
    /// An event channel that is bound.
    pub(crate) fn channel(dom: DomId, channel: Arc<Channel>) -> Self {
        let irq = Irq::EventChannel(channel.remote());
        Self { dom, irq, action: Action::Notify(channel), leaves_up: None }
    }

    /// Bits of a device's InterruptStatus.
    pub(crate) fn of_device(dom: DomId, device: Arc<DeviceInterrupt>, bits: u32) -> Self {
        let irq = Irq::Status { addr: device.registers().addr(), bits };
        Self { dom, irq, action: Action::Set(device, bits), leaves_up: None }
    }

    /// A message or a line.
    ///
    /// # Errors
    /// `EINVAL` for an event channel, which has to be bound first, and for bits of a device.
    pub(crate) fn plain(dom: DomId, irq: Irq) -> Result<Self> {
        let action = match irq.raise() {
            Raise::Notify(_) | Raise::Set(..) => return Err(EINVAL),
            Raise::Operate(operation, then) => Action::Operate(operation, then),
        };
        Ok(Self { dom, irq, action, leaves_up: irq.leaves_up() })
    }

    /// What the privcmd ABI does: its caller raises and lowers a line by operations of their own.
    pub(crate) fn privcmd(dom: DomId, operation: IrqOp) -> Self {
        Self { dom, irq: operation.irq(), action: Action::Operate(operation, None), leaves_up: None }
    }

    /// Which it is.
    pub(crate) fn irq(&self) -> Irq {
        self.irq
    }

    /// Raises it. May be called from an interrupt.
    pub(crate) fn raise(&self) -> Result {
        let raised = match &self.action {
            Action::Notify(channel) => channel.ring(),
            Action::Operate(operation, None) => xen::operate(self.dom, *operation),
            Action::Operate(operation, Some(then)) => xen::operate(self.dom, *operation)
                .and_then(|()| xen::operate(self.dom, *then)),
            Action::Set(device, bits) => device.set(*bits),
        };
        trace::irq(self.dom, self.irq, raised);
        raised
    }

    /// The line that it raises and does not lower, and whose.
    pub(crate) fn leaves_up(&self) -> Option<(DomId, Line)> {
        self.leaves_up.map(|line| (self.dom, line))
    }

    /// Lowers a level-triggered line; nothing for any other.
    pub(crate) fn lower(&self) -> Result {
        self.leaves_up().map_or(Ok(()), |(dom, line)| xen::set_line(dom, line, false))
    }
}
