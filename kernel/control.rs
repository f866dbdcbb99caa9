// SPDX-License-Identifier: GPL-2.0

//! An open `/dev/xen/eventfd`: where guests are taken.
//!
//! The file operations pin the module, so it cannot go while a file is open. What was done by the
//! privcmd ABI ends with this file; guests' files live on.

use crate::abi::{native, privcmd};
use crate::access::{self, Confined};
use crate::file;
use crate::guests;
use crate::mapping;
use crate::memory::Memory;
use crate::member::Member;
use crate::privcmd::Assigned;
use crate::protocol::DomId;
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
    /// The guest that it was confined to, beyond what this domain is.
    #[pin]
    restricted: Mutex<Option<DomId>>,
    /// By the privcmd ABI.
    #[pin]
    assigned: Mutex<Assigned>,
}

#[vtable]
impl MiscDevice for Control {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _device: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        // Nothing is waited for: all misc devices are opened under one lock.
        KBox::try_pin_init(
            try_pin_init!(Self {
                restricted <- new_mutex!(None, "Control::restricted"),
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
            native::MEMORY => {
                let (dom, range) = native::memory(arg)?;
                device.may(dom)?;
                return mapping::install(Memory::create(dom, range)?);
            }
            privcmd::RESTRICT => device.restrict(privcmd::restrict(arg)?)?,
            privcmd::IOEVENTFD => {
                let request = privcmd::ioeventfd(arg)?;
                device.may(request.dom)?;
                // The caller's memory may be slow, so it is read under no lock.
                let assignment = privcmd::assignment(&request)?;
                crate::privcmd::ioeventfd(&device.assigned, &request, assignment)?;
            }
            privcmd::IRQFD => {
                let request = privcmd::irqfd(arg)?;
                device.may(request.dom)?;
                let dm_op = privcmd::DmOpBytes::copy(&request)?;
                crate::privcmd::irqfd(&device.assigned, &request, dm_op)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }

    fn show_fdinfo(device: Pin<&Self>, sequence: &SeqFile, _file: &File) {
        let mut out = Sequence(sequence);
        // A sequence is cut where it is full, and begun again with more room.
        let _ = match (access::confined_so_far(), *device.restricted.lock()) {
            (Some(Confined::Barred), _) => out.write_str("confined:\tbarred\n"),
            (Some(Confined::To(dom)), _) | (_, Some(dom)) => writeln!(out, "confined:\t{}", dom.0),
            (Some(Confined::Free), None) => out.write_str("confined:\tno\n"),
            (None, None) => out.write_str("confined:\tunknown\n"),
        };
        let _ = device.assigned.lock().show(&mut out);
    }
}

impl Control {
    /// Whether this guest may be served through this file. Waits until xenstore has spoken.
    fn may(&self, dom: DomId) -> Result {
        access::confined()?.may(dom)?;
        match *self.restricted.lock() {
            Some(ours) if ours != dom => Err(EPERM),
            Some(_) | None => Ok(()),
        }
    }

    /// Confines the file to one guest, for good.
    fn restrict(&self, dom: DomId) -> Result {
        let own = access::confined()?;
        let mut restricted = self.restricted.lock();
        // One that it may not serve is none that it could be confined to.
        if own.may(dom).is_err() || restricted.is_some_and(|ours| ours != dom) {
            return Err(EINVAL);
        }
        *restricted = Some(dom);
        Ok(())
    }

    fn create(&self, create: &native::Create) -> Result<isize> {
        self.may(create.dom)?;
        let member = Member::take(create.dom, create.interface, create.gone()?)?;
        file::install(if create.own { member.of_this_process() } else { member })
    }
}
