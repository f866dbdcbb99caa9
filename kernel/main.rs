// SPDX-License-Identifier: GPL-2.0

//! ioeventfd and irqfd for Xen guests.

use kernel::{
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
};

mod bindings;
#[path = "../core/src/protocol/mod.rs"]
pub mod protocol;

module! {
    type: XenEventfd,
    name: "xen_eventfd",
    authors: ["The xen-eventfd developers"],
    description: "ioeventfd and irqfd for Xen guests",
    license: "GPL",
}

#[pin_data]
struct XenEventfd {
    #[pin]
    _device: MiscDeviceRegistration<Control>,
}

impl kernel::InPlaceModule for XenEventfd {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: It only reads what the kernel found out at boot.
        let xen = unsafe { bindings::shim_xen_domain() };
        // The node's path below /dev, as Xen's other devices have it; 0600 is the default.
        let options = MiscDeviceOptions { name: c"xen/eventfd" };
        try_pin_init!(Self {
            _: { if !xen { return Err(ENODEV) } },
            _device <- MiscDeviceRegistration::register(options),
        })
    }
}

/// An open `/dev/xen/eventfd`.
struct Control;

#[vtable]
impl MiscDevice for Control {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _device: &MiscDeviceRegistration<Self>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self, GFP_KERNEL)?)
    }
}
