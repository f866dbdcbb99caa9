// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of `trace.h`. May be called from an interrupt.

use crate::bindings;
use crate::protocol::irq::{Irq, Line};
use crate::protocol::{DomId, Kick, Space};
use kernel::prelude::*;

/// What became of a kick.
#[derive(Clone, Copy)]
pub(crate) enum KickEnd {
    Delivered = 0,
    Held = 1,
    Late = 2,
}

/// A kick.
pub(crate) fn kick(dom: DomId, vcpu: usize, kick: &Kick, end: KickEnd) {
    let access = &kick.access;
    let pio = access.space == Space::Pio;
    let (len, end) = (access.width.bytes(), end as u8);
    // SAFETY: It takes values alone.
    unsafe {
        bindings::shim_trace_kick(dom.0, vcpu as u32, pio, access.addr, len, kick.value, end)
    };
}

/// An interrupt.
pub(crate) fn irq(dom: DomId, irq: Irq, raised: Result) {
    let (kind, number, data) = match irq {
        Irq::EventChannel(port) => (0, u64::from(port.0), 0),
        Irq::Msi { addr, data } => (1, addr, data),
        Irq::Line(Line::Isa(line), _) => (2, u64::from(line), 0),
        Irq::Line(Line::PciIntx { device, pin }, _) => (3, u64::from(device), u32::from(pin)),
        Irq::Line(Line::Spi(line), _) => (4, u64::from(line), 0),
    };
    let error = raised.err().map_or(0, Error::to_errno);
    // SAFETY: It takes values alone.
    unsafe { bindings::shim_trace_irq(dom.0, kind, number, data, error) };
}
