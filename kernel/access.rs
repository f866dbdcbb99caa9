// SPDX-License-Identifier: GPL-2.0

//! Whom this domain may serve: any guest if Xen started it, else the one that xenstore calls its
//! target, as `privcmd` has it. Nothing switches this off.

use crate::bindings;
use crate::protocol::DomId;
use crate::{xen, xenstore};
use kernel::bindings as kernel_bindings;
use kernel::prelude::*;
use kernel::sync::{global_lock, new_condvar, new_mutex, Arc, CondVar, Mutex};
use kernel::types::Opaque;

/// To which guests an open file is confined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confined {
    /// To none in particular.
    Free,
    /// To one.
    To(DomId),
    /// It may serve nobody.
    Barred,
}

impl Confined {
    /// Whether this guest may be served.
    ///
    /// # Errors
    /// `EPERM`.
    pub(crate) fn may(self, dom: DomId) -> Result {
        match self {
            Self::Free => Ok(()),
            Self::To(ours) if ours == dom => Ok(()),
            Self::To(_) | Self::Barred => Err(EPERM),
        }
    }
}

/// What xenstore has to say, once it is up.
#[pin_data]
struct Target {
    #[pin]
    known: Mutex<Option<Confined>>,
    #[pin]
    told: CondVar,
}

global_lock! {
    // SAFETY: `init` below comes first.
    unsafe(uninit) static TARGET: Mutex<Option<Arc<Target>>> = None;
}

/// The confinement of files that are opened, for as long as the module is there.
pub(crate) struct Access(Option<Pin<KBox<Opaque<kernel_bindings::notifier_block>>>>);

// SAFETY: The kernel locks its chain of notifiers; any thread may take one out.
unsafe impl Send for Access {}
// SAFETY: `&Access` does nothing.
unsafe impl Sync for Access {}

impl Access {
    /// # Safety
    /// To be called once, before any file can be opened.
    pub(crate) unsafe fn settle() -> Result<Self> {
        // SAFETY: The caller's promise.
        unsafe { TARGET.init() };
        if xen::is_initial_domain() {
            return Ok(Self(None));
        }
        let target = Arc::pin_init(
            pin_init!(Target {
                known <- new_mutex!(None, "Target::known"),
                told <- new_condvar!("Target::told"),
            }),
            GFP_KERNEL,
        )?;
        *TARGET.lock() = Some(target);
        let notifier = kernel_bindings::notifier_block {
            notifier_call: Some(xenstore_is_up),
            ..Default::default()
        };
        let notifier = KBox::pin(Opaque::new(notifier), GFP_KERNEL)?;
        // SAFETY: It stays where it is until `drop` has taken it out of the chain. It is called at
        // once if xenstore is up.
        unsafe { bindings::register_xenstore_notifier(notifier.get()) };
        Ok(Self(Some(notifier)))
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(notifier) = &self.0 {
            // SAFETY: `settle` gave it to the chain, which has it or, as xenstore was there, never
            // took it; it is taken out nowhere else.
            unsafe { bindings::unregister_xenstore_notifier(notifier.get()) };
        }
        let target = TARGET.lock().take();
        drop(target);
    }
}

/// To which guests a file is confined that is opened now. Outside the domain that Xen started this
/// waits until xenstore has spoken.
pub(crate) fn confined() -> Result<Confined> {
    let Some(target) = TARGET.lock().clone() else { return Ok(Confined::Free) };
    let mut known = target.known.lock();
    loop {
        if let Some(confined) = *known {
            return Ok(confined);
        }
        if target.told.wait_interruptible(&mut known) {
            return Err(EINTR);
        }
    }
}

/// Reads this domain's target. Without a word from xenstore there is none.
fn target() -> Confined {
    let number = xenstore::ask(c"target", c"", |text| text.parse().ok());
    if let Err(error) = &number {
        pr_warn!("xenstore does not tell this domain's target: {error:?}\n");
    }
    let number = number.ok().flatten().flatten();
    number.map_or(Confined::Barred, |dom| Confined::To(DomId(dom)))
}

/// # Safety
/// None is asked for: it uses no argument.
unsafe extern "C" fn xenstore_is_up(
    _notifier: *mut kernel_bindings::notifier_block,
    _event: c_ulong,
    _data: *mut c_void,
) -> c_int {
    let waiting = TARGET.lock().clone();
    if let Some(waiting) = waiting {
        let confined = target();
        *waiting.known.lock() = Some(confined);
        waiting.told.notify_all();
    }
    // NOTIFY_DONE
    0
}
