//! What the verbs take as an eventfd.

use std::os::fd::{AsFd, BorrowedFd};

/// An eventfd, as a caller has it: all that is [`AsFd`] (the standard library's descriptors, those of
/// rustix and nix), and, with the feature `vmm-sys-util`, the `EventFd` of rust-vmm, which is not.
///
/// `By` is which of the two it is, so that both may be implemented; the compiler finds it.
///
#[cfg_attr(feature = "vmm-sys-util", doc = example!(r#"
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
let (kick, call) = (EventFd::new(EFD_NONBLOCK)?, std::sync::Arc::new(EventFd::new(EFD_NONBLOCK)?));
let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0xfe00_0050), 3_u32)?;
let _irqfd = guest.register_irqfd(&call, Irq::Msi { addr: 0xfee0_0000, data: 0x41 })?;

// The guest writes 3; the backend reads, and answers with an interrupt.
# vcpu.write(Space::Mmio, 0xfe00_0050, Width::Four, 3)?;
assert_eq!(kick.read()?, 1);
call.write(1)?;
# vcpu.wait_msi(0x41)?;
"#))]
///
/// # The feature `vmm-sys-util`
/// It takes any version from 0.12 to 0.15, but the type must be that of the version which the
/// program uses. Where Cargo chose two, `cargo update -p vmm-sys-util@0.15.0 --precise 0.14.0`
/// (with the program's version) leaves one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not known as an eventfd",
    note = "for `EventFd` of vmm-sys-util, enable the feature `vmm-sys-util` of xen-eventfd and use \
        the version of that crate that it was built with"
)]
pub trait AsEventFd<By> {
    /// The descriptor, which the caller keeps.
    fn as_eventfd(&self) -> BorrowedFd<'_>;
}

/// How [`AsFd`] is an [`AsEventFd`].
#[derive(Debug, Clone, Copy)]
pub enum ByAsFd {}

impl<T: AsFd + ?Sized> AsEventFd<ByAsFd> for T {
    fn as_eventfd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// How the type of vmm-sys-util is an [`AsEventFd`].
#[cfg(feature = "vmm-sys-util")]
#[derive(Debug, Clone, Copy)]
pub enum ByVmmSysUtil {}

#[cfg(feature = "vmm-sys-util")]
mod vmm {
    use super::{AsEventFd, ByVmmSysUtil};
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;
    use std::sync::Arc;
    use vmm_sys_util::eventfd::EventFd;

    impl AsEventFd<ByVmmSysUtil> for EventFd {
        fn as_eventfd(&self) -> BorrowedFd<'_> {
            xen_eventfd_host::vmm_sys_util::borrow(self)
        }
    }

    macro_rules! through {
        ($($pointer:ty),*) => {$(
            impl<T: AsEventFd<ByVmmSysUtil> + ?Sized> AsEventFd<ByVmmSysUtil> for $pointer {
                fn as_eventfd(&self) -> BorrowedFd<'_> {
                    (**self).as_eventfd()
                }
            }
        )*};
    }

    // As the standard library does for `AsFd`.
    through!(&T, &mut T, Box<T>, Rc<T>, Arc<T>);
}
