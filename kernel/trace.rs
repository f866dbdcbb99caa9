// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of `trace.h`. May be called from an interrupt.

use crate::bindings;
use crate::protocol::irq::Irq;
use crate::protocol::wire::native::IrqArg;
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
    // The kinds are those of the native ABI. Of each kind some of these are zero.
    let IrqArg { kind, number, pin, msi_data, msi_addr, .. } = IrqArg::of(&irq, 0);
    let (number, data) = match irq {
        Irq::Status { addr, bits } => (addr, bits),
        _ => (msi_addr | u64::from(number), msi_data | pin),
    };
    let error = raised.err().map_or(0, Error::to_errno);
    // SAFETY: It takes values alone.
    unsafe { bindings::shim_trace_irq(dom.0, kind as u8, number, data, error) };
}
