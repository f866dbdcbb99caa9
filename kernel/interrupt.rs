// SPDX-License-Identifier: GPL-2.0

//! One interrupt of a guest, and how it is raised.

use crate::channel::Channel;
use crate::protocol::irq::{Irq, Line, Trigger};
use crate::protocol::wire::dm_op::IrqOp;
use crate::protocol::DomId;
use crate::{trace, xen};
use kernel::prelude::*;
use kernel::sync::Arc;

/// What a signal does.
enum Action {
    /// Rings an event channel.
    Ring(Arc<Channel>),
    Msi { addr: u64, data: u32 },
    Line(Line, Trigger),
    /// Raises or lowers a line and leaves it so: the privcmd ABI says each step itself.
    Set { line: Line, up: bool },
}

/// An interrupt of a guest.
pub(crate) struct Interrupt {
    dom: DomId,
    irq: Irq,
    action: Action,
}

impl Interrupt {
    /// An event channel that is bound.
    pub(crate) fn channel(dom: DomId, channel: Arc<Channel>) -> Self {
        let irq = Irq::EventChannel(channel.remote());
        Self { dom, irq, action: Action::Ring(channel) }
    }

    /// A message or a line.
    ///
    /// # Errors
    /// `EINVAL` for an event channel, which has to be bound first.
    pub(crate) fn plain(dom: DomId, irq: Irq) -> Result<Self> {
        let action = match irq {
            Irq::EventChannel(_) => return Err(EINVAL),
            Irq::Msi { addr, data } => Action::Msi { addr, data },
            Irq::Line(line, trigger) => Action::Line(line, trigger),
        };
        Ok(Self { dom, irq, action })
    }

    /// What the privcmd ABI does.
    pub(crate) fn privcmd(dom: DomId, operation: IrqOp) -> Self {
        let action = match operation {
            IrqOp::Msi { addr, data } => Action::Msi { addr, data },
            IrqOp::Set { line, up } => Action::Set { line, up },
        };
        Self { dom, irq: operation.irq(), action }
    }

    /// Which it is.
    pub(crate) fn irq(&self) -> Irq {
        self.irq
    }

    /// Raises it. May be called from an interrupt.
    pub(crate) fn raise(&self) -> Result {
        let raised = match &self.action {
            Action::Ring(channel) => channel.ring(),
            Action::Msi { addr, data } => xen::inject_msi(self.dom, *addr, *data),
            Action::Line(line, Trigger::Level) => xen::set_line(self.dom, *line, true),
            // Xen's lines are test-and-set: without lowering, the next pulse would be lost.
            Action::Line(line, Trigger::Pulse) => xen::set_line(self.dom, *line, true)
                .and_then(|()| xen::set_line(self.dom, *line, false)),
            Action::Set { line, up } => xen::set_line(self.dom, *line, *up),
        };
        trace::irq(self.dom, self.irq, raised);
        raised
    }

    /// The line that it raises and does not lower, and whose.
    pub(crate) fn leaves_up(&self) -> Option<(DomId, Line)> {
        match self.action {
            Action::Line(line, Trigger::Level) => Some((self.dom, line)),
            _ => None,
        }
    }

    /// Lowers a level-triggered line; nothing for any other.
    pub(crate) fn lower(&self) -> Result {
        self.leaves_up().map_or(Ok(()), |(dom, line)| xen::set_line(dom, line, false))
    }
}
