// SPDX-License-Identifier: GPL-2.0

//! An event channel of a guest: bound by us, served in its interrupt, ended by us.
//!
//! # Invariants
//! * The handler's context outlives it: the interrupt is released, which waits for a handler that
//!   runs, before the context goes.
//! * An event is ended here alone, as the handler's answer says.

use crate::bindings;
use crate::protocol::{self, DomId};
use crate::xen;
use kernel::bindings as kernel_bindings;
use kernel::prelude::*;
use kernel::str::CStrExt;

/// How an event ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The next one may come.
    Served,
    /// The next one may come, and later if this goes on.
    Spurious,
    /// None may come before [`Port::end`].
    Not,
}

/// What is done for an event.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Runs in the interrupt, for one event of this port of ours.
    fn handle(&self, port: protocol::Port) -> Ended;
}

/// What the interrupt is told.
struct Context<H> {
    handler: H,
    local: protocol::Port,
}

/// A bound port; unbound when dropped, which may sleep.
pub(crate) struct Port<H: Handler> {
    irq: u32,
    /// Given to [`bindings::bind_evtchn_to_irqhandler_lateeoi`].
    context: *mut Context<H>,
    local: protocol::Port,
}

// SAFETY: The context is only read, and a handler may be shared; the kernel lets any thread release
// an interrupt.
unsafe impl<H: Handler> Send for Port<H> {}
// SAFETY: As above; `&Port` only rings and ends.
unsafe impl<H: Handler> Sync for Port<H> {}

impl<H: Handler> Port<H> {
    /// Binds a guest's port that is allocated for us.
    pub(crate) fn bind(handler: H, dom: DomId, remote: protocol::Port) -> Result<Self> {
        let context = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let local = xen::bind_interdomain(dom, remote)?;
        let context = KBox::into_raw(context.write(Context { handler, local }));
        // SAFETY: The handler fits its context, which lives until `drop` has released the interrupt,
        // and the name is static. The port is ours alone: we have just bound it.
        let irq = unsafe {
            bindings::bind_evtchn_to_irqhandler_lateeoi(
                local.0,
                Some(handle::<H>),
                0,
                c"xen-eventfd".as_char_ptr(),
                context.cast(),
            )
        };
        match u32::try_from(irq) {
            Ok(irq) => Ok(Self { irq, context, local }),
            Err(_) => {
                // Depending on how far it came, the kernel has closed the port or not.
                xen::close_if_bound_to(local, dom, remote);
                // SAFETY: It came from `into_raw`, and no handler was left with it.
                drop(unsafe { KBox::from_raw(context) });
                Err(Error::from_errno(irq))
            }
        }
    }

    /// Its number in this domain.
    pub(crate) fn local(&self) -> protocol::Port {
        self.local
    }

    /// Ends an event that the handler has not ended.
    pub(crate) fn end(&self) {
        // SAFETY: The interrupt is bound as long as `self` lives.
        unsafe { bindings::xen_irq_lateeoi(self.irq, 0) };
    }
}

impl<H: Handler> Drop for Port<H> {
    fn drop(&mut self) {
        // SAFETY: `bind` bound this very interrupt with this context. It also closes the port.
        unsafe { bindings::unbind_from_irqhandler(self.irq, self.context.cast()) };
        // SAFETY: It came from `into_raw`, and no handler runs any more.
        drop(unsafe { KBox::from_raw(self.context) });
    }
}

/// Serves one event.
///
/// # Safety
/// `context` is that of the [`Port`] which this interrupt belongs to.
unsafe extern "C" fn handle<H: Handler>(
    irq: c_int,
    context: *mut c_void,
) -> kernel_bindings::irqreturn_t {
    // SAFETY: The caller's promise; the port keeps it until no handler runs.
    let context = unsafe { &*context.cast::<Context<H>>() };
    let flags = match context.handler.handle(context.local) {
        Ended::Served => 0,
        Ended::Spurious => bindings::XEN_EOI_FLAG_SPURIOUS,
        Ended::Not => return kernel_bindings::irqreturn::IRQ_HANDLED,
    };
    // SAFETY: It is the interrupt that we are called for, and it is ended here only.
    unsafe { bindings::xen_irq_lateeoi(irq as c_uint, flags) };
    kernel_bindings::irqreturn::IRQ_HANDLED
}
