// SPDX-License-Identifier: GPL-2.0

//! An open `/dev/xen/eventfd`: at first nobody's, then one guest's.
//!
//! The file operations pin the module, so it cannot go while a file is open; closing the last
//! descriptor undoes all that was done through it, whatever the process died of.

use crate::eventfd::EventFd;
use crate::guest::Guest;
use crate::protocol::DomId;
use crate::{abi, xen};
use kernel::fs::File;
use kernel::miscdevice::{MiscDevice, MiscDeviceRegistration};
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::uaccess::UserPtr;

/// What an open file stands for.
#[pin_data]
pub(crate) struct Control {
    #[pin]
    guest: Mutex<Option<Arc<Guest>>>,
}

#[vtable]
impl MiscDevice for Control {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _device: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        // Another domain would have to be confined to its target.
        if !xen::is_initial_domain() {
            return Err(EPERM);
        }
        KBox::try_pin_init(
            try_pin_init!(Self { guest <- new_mutex!(None, "Control::guest") }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn release(device: Self::Ptr, _file: &File) {
        let guest = device.guest.lock().take();
        if let Some(guest) = guest {
            guest.close();
        }
    }

    fn ioctl(device: Pin<&Self>, _file: &File, request: u32, arg: usize) -> Result<isize> {
        let arg = UserPtr::from_addr(arg);
        match request {
            abi::QUERY => abi::query(arg)?,
            abi::BIND => device.bind(abi::bind(arg)?)?,
            abi::ASSIGN => {
                let (doorbell, eventfd) = abi::doorbell(arg)?;
                let eventfd = EventFd::from_descriptor(eventfd)?;
                device.guest()?.register(doorbell, eventfd)?;
            }
            abi::DEASSIGN => {
                let (doorbell, eventfd) = abi::doorbell(arg)?;
                let eventfd = EventFd::from_descriptor(eventfd)?;
                device.guest()?.unregister(&doorbell, &eventfd)?;
            }
            abi::STATS => {
                abi::wants_stats(arg)?;
                let stats = device.guest()?.stats()?;
                abi::stats(arg, stats.server.0, stats.doorbells, &stats.counters)?;
            }
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

impl Control {
    fn bind(&self, dom: DomId) -> Result {
        let mut guest = self.guest.lock();
        if guest.is_some() {
            return Err(EBUSY);
        }
        *guest = Some(Guest::take(dom)?);
        Ok(())
    }

    fn guest(&self) -> Result<Arc<Guest>> {
        self.guest.lock().clone().ok_or(ENOTCONN)
    }
}
