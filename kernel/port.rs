// SPDX-License-Identifier: GPL-2.0

//! One vCPU's event channel: bound by us, served in its interrupt, ended by us.
//!
//! # Invariants
//! * Each event is ended exactly once, at the end of the handler, and never as a spurious one: only
//!   Xen rings these ports, and two such ends in a row would delay the next kick.
//! * A handler takes at most one request.
//! * The handler's context outlives it: the interrupt is released, which waits for a handler that
//!   runs, before the context goes.

use crate::bindings;
use crate::guest::Guest;
use crate::protocol::{self, DomId};
use crate::xen;
use kernel::bindings as kernel_bindings;
use kernel::prelude::*;
use kernel::str::CStrExt;
use kernel::sync::Arc;

/// What the handler is told.
struct Context {
    guest: Arc<Guest>,
    vcpu: usize,
    local: protocol::Port,
}

/// A bound port; unbound when dropped.
pub(crate) struct Port {
    irq: u32,
    /// Given to [`bindings::bind_evtchn_to_irqhandler_lateeoi`].
    context: *mut Context,
    local: protocol::Port,
}

// SAFETY: The context is only read, and what it holds may be shared; the kernel lets any thread
// release an interrupt.
unsafe impl Send for Port {}
// SAFETY: As above; `&Port` only notifies.
unsafe impl Sync for Port {}

impl Port {
    /// Binds the port that Xen wrote into the slot of a vCPU.
    pub(crate) fn bind(
        guest: Arc<Guest>,
        dom: DomId,
        remote: protocol::Port,
        vcpu: usize,
    ) -> Result<Self> {
        let context = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let local = xen::bind_interdomain(dom, remote)?;
        let context = KBox::into_raw(context.write(Context { guest, vcpu, local }));
        // SAFETY: The handler fits its context, which lives until `drop` has released the interrupt,
        // and the name is static. The port is ours alone: we have just bound it.
        let irq = unsafe {
            bindings::bind_evtchn_to_irqhandler_lateeoi(
                local.0,
                Some(handle),
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

    /// Wakes the vCPU.
    pub(crate) fn notify(&self) {
        xen::send(self.local);
    }
}

impl Drop for Port {
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
unsafe extern "C" fn handle(irq: c_int, context: *mut c_void) -> kernel_bindings::irqreturn_t {
    // SAFETY: The caller's promise; the port keeps it until no handler runs.
    let context = unsafe { &*context.cast::<Context>() };
    if context.guest.serve(context.vcpu) {
        xen::send(context.local);
    }
    // SAFETY: It is the interrupt that we are called for, and it is ended here only.
    unsafe { bindings::xen_irq_lateeoi(irq as c_uint, 0) };
    kernel_bindings::irqreturn::IRQ_HANDLED
}
