// SPDX-License-Identifier: GPL-2.0

//! An event channel of a guest: bound by us, served in its interrupt, ended by us.
//!
//! # Invariants
//! * The handler's context outlives it: the interrupt is released, which waits for a handler that
//!   runs, before the context goes.
//! * An event is ended here alone, as the handler's answer says. While it is not ended its port is
//!   masked. An upcall ends a few events itself (`ENDED_IN_UPCALL` of `shim.c`) and leaves the others to
//!   when it is over, so it handles that few and then each port once, however fast guests ring. An upcall
//!   that goes on for long would have Linux defer the end of whatever event comes last in it, which is
//!   some other guest's as well (`handle_irq_for_port` of `drivers/xen/events/events_base.c`: the 256th
//!   event sets a time, `event_loop_timeout` later, and every 256th one compares with it; the end is
//!   deferred by `event_eoi_delay`).
//! * No port outlives a suspension of this domain: see `suspend.rs`.

use crate::bindings;
use crate::protocol::{self, DomId};
use crate::xen;
use core::ptr::NonNull;
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

/// The context of the interrupt's handler.
struct Context<H> {
    handler: H,
    local: protocol::Port,
    end: End,
}

/// Ends events, one at a time: within the upcall, or once it is over.
struct End(NonNull<bindings::shim_end>);

// SAFETY: It is used by the interrupt's handler, which does not run twice at once, and by the one that
// owns the port once no handler runs.
unsafe impl Send for End {}
// SAFETY: As above.
unsafe impl Sync for End {}

impl End {
    fn new() -> Result<Self> {
        // SAFETY: It may be called at any time that may sleep.
        NonNull::new(unsafe { bindings::shim_end_alloc() }).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: `new` got it, and there is no interrupt that might schedule it.
        unsafe { bindings::shim_end_free(self.0.as_ptr()) };
    }
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
        let (context, end) = (KBox::new_uninit(GFP_KERNEL_ACCOUNT)?, End::new()?);
        let local = xen::bind_interdomain(dom, remote)?;
        let context = KBox::into_raw(context.write(Context { handler, local, end }));
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

    /// Rings the other end. May be called from an interrupt.
    ///
    /// # Errors
    /// The other end is gone.
    pub(crate) fn ring(&self) -> Result {
        xen::send(self.local)
    }

    /// Whether it still leads to this port of a guest, who has lost that if not.
    pub(crate) fn is_bound_to(&self, dom: DomId, remote: protocol::Port) -> bool {
        xen::is_bound_to(self.local, dom, remote)
    }

    /// The handler.
    pub(crate) fn handler(&self) -> &H {
        // SAFETY: The context lives as long as `self`, and is only read.
        unsafe { &(*self.context).handler }
    }

    /// Waits until no handler runs that runs now. May sleep.
    pub(crate) fn wait(&self) {
        // SAFETY: It may be called with any number wherever one may sleep.
        unsafe { kernel_bindings::synchronize_irq(self.irq) };
    }

    /// Has no handler run any more; waits for one that does. May sleep.
    pub(crate) fn stop(&self) {
        // SAFETY: The interrupt is bound as long as `self` lives, and so does the context.
        unsafe { bindings::shim_end_stop((*self.context).end.0.as_ptr(), self.irq) };
    }

    /// Ends an event that the handler has not ended.
    pub(crate) fn end(&self) {
        // SAFETY: The interrupt is bound as long as `self` lives.
        unsafe { bindings::xen_irq_lateeoi(self.irq, 0) };
    }
}

impl<H: Handler> Drop for Port<H> {
    fn drop(&mut self) {
        // Afterwards nothing ends an event of the interrupt, whose number may be another's then.
        self.stop();
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
    // SAFETY: It is the interrupt that we are called for, and no further event comes before this one
    // is ended.
    unsafe { bindings::shim_end_event(context.end.0.as_ptr(), irq as c_uint, flags) };
    kernel_bindings::irqreturn::IRQ_HANDLED
}
