// SPDX-License-Identifier: GPL-2.0

//! An open `/dev/xen/eventfd`: where guests are taken.
//!
//! The file operations pin the module, so it cannot go while a file is open. What was done by the
//! seed ABI ends with this file; guests' files live on.

use crate::abi::{native, privcmd};
use crate::access::{self, Confined};
use crate::file;
use crate::guests::{self, Interface};
use crate::protocol::DomId;
use crate::seed::Assigned;
use crate::show::Sequence;
use kernel::fmt::Write;
use kernel::fs::File;
use kernel::miscdevice::{MiscDevice, MiscDeviceRegistration};
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::sync::{new_mutex, Mutex};
use kernel::uaccess::UserPtr;

/// What an open file stands for.
#[pin_data]
pub(crate) struct Control {
    #[pin]
    confined: Mutex<Confined>,
    /// By the seed ABI.
    #[pin]
    assigned: Mutex<Assigned>,
}

#[vtable]
impl MiscDevice for Control {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _device: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let confined = access::confined()?;
        KBox::try_pin_init(
            try_pin_init!(Self {
                confined <- new_mutex!(confined, "Control::confined"),
                assigned <- new_mutex!(Assigned::new(), "Control::assigned"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn release(device: Self::Ptr, _file: &File) {
        let mut assigned = device.assigned.lock();
        assigned.end();
    }

    fn ioctl(device: Pin<&Self>, _file: &File, request: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        match request {
            native::QUERY => native::query(arg)?,
            native::CREATE => return device.create(&native::Create::read(arg)?),
            native::OWNER => {
                let dom = native::owned(arg)?;
                device.may(dom)?;
                guests::with_owner(dom, |owner| native::owner(arg, owner)).ok_or(ENOENT)??;
            }
            privcmd::RESTRICT => device.restrict(privcmd::restrict(arg)?)?,
            privcmd::IOEVENTFD => {
                let request = privcmd::ioeventfd(arg)?;
                device.may(request.dom)?;
                // The caller's memory may be slow, so it is read under no lock.
                let readable = privcmd::check_key(&request);
                device.assigned.lock().ioeventfd(&request, readable)?;
            }
            privcmd::IRQFD => {
                let request = privcmd::irqfd(arg)?;
                device.may(request.dom)?;
                let dm_op = privcmd::DmOp::copy(&request);
                device.assigned.lock().irqfd(&request, dm_op)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn show_fdinfo(device: Pin<&Self>, sequence: &SeqFile, _file: &File) {
        let mut out = Sequence(sequence);
        // A sequence is cut where it is full, and begun again with more room.
        let _ = match *device.confined.lock() {
            Confined::Free => out.write_str("confined:\tno\n"),
            Confined::To(dom) => writeln!(out, "confined:\t{}", dom.0),
            Confined::Barred => out.write_str("confined:\tbarred\n"),
        };
        let _ = device.assigned.lock().show(&mut out);
    }
}

impl Control {
    fn may(&self, dom: DomId) -> Result {
        self.confined.lock().may(dom)
    }

    /// Confines the file to one guest, for good.
    fn restrict(&self, dom: DomId) -> Result {
        let mut confined = self.confined.lock();
        match *confined {
            Confined::Free => *confined = Confined::To(dom),
            Confined::To(ours) if ours == dom => {}
            Confined::To(_) | Confined::Barred => return Err(EINVAL),
        }
        Ok(())
    }

    fn create(&self, create: &native::Create) -> Result<isize> {
        self.may(create.dom)?;
        let interface = if create.reserve { Interface::Reserved } else { Interface::Native };
        file::install(guests::take(create.dom, interface, create.gone()?)?)
    }
}
