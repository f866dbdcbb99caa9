// SPDX-License-Identifier: GPL-2.0

//! ioeventfd and irqfd for Xen guests.

use access::Access;
use death::Clock;
use guests::Registry;
use memory::Memories;
use kernel::miscdevice::{MiscDeviceOptions, MiscDeviceRegistration};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use suspend::BeforeSuspend;

mod abi;
mod access;
mod bindings;
mod channel;
mod claimed;
mod control;
mod death;
mod debugfs;
mod device;
mod dispatch;
mod doorbells;
mod eventfd;
mod file;
mod guest;
mod guests;
mod interrupt;
mod irqfd;
mod irqs;
mod kicks;
mod loaded;
mod mapping;
mod member;
mod memory;
mod operations;
mod page;
mod port;
mod ports;
#[forbid(unsafe_code)]
#[path = "../core/src/protocol/mod.rs"]
pub mod protocol;
mod privcmd;
mod server;
mod show;
mod suspend;
mod taken;
mod task;
mod trace;
mod unpopulated;
mod workqueue;
mod xen;
mod xenstore;

module! {
    type: XenEventfd,
    name: "xen_eventfd",
    authors: ["The xen-eventfd developers"],
    description: "ioeventfd and irqfd for Xen guests",
    license: "GPL",
    params: {
        max_channels: u32 {
            default: 4096,
            description: "Event channels that callers may have bound, of all guests together",
        },
    },
}

/// The loaded module. It can go once no file of it is open, debugfs's included: each pins it.
#[pin_data]
struct XenEventfd {
    #[pin]
    device: MiscDeviceRegistration<control::Control>,
    /// After the device: no process can open it any more.
    access: Access,
    clock: Clock,
    before_suspend: BeforeSuspend,
    /// After all that has guests looked at or let go of; the watch is `access`'s.
    registry: Registry,
    memories: Memories,
}

/// Some domain went: has each guest looked at of which we have something. It waits for nothing.
extern "C" fn look_at_all() {
    guests::look_at_all();
    memory::look_at_all();
}

/// This domain is about to be suspended.
extern "C" fn let_go_of_all() {
    guests::let_go_of_all();
    memory::let_go_of_all();
}

/// Why the module does not serve this kernel.
#[cold]
fn refuse_pages() -> Error {
    pr_err!("this kernel has pages of {} bytes, and Xen has 4096\n", PAGE_SIZE);
    pr_err!("boot a kernel with pages of 4 KiB, or use the userspace engine\n");
    EOPNOTSUPP
}

impl kernel::InPlaceModule for XenEventfd {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // The node's path below /dev, as Xen's other devices have it; 0600 is the default.
        let options = MiscDeviceOptions { name: c"xen/eventfd" };
        try_pin_init!(Self {
            _: { if !xen::is_domain() { return Err(ENODEV) } },
            _: { if PAGE_SIZE != xen::PAGE_SIZE { return Err(refuse_pages()) } },
            // SAFETY: A module is initialised once, and its device comes next.
            registry: unsafe { Registry::open() }?,
            // SAFETY: As above.
            memories: unsafe { Memories::open() }?,
            // SAFETY: As above.
            access: unsafe { Access::settle(look_at_all) }?,
            clock: Clock::start(look_at_all)?,
            before_suspend: BeforeSuspend::call(let_go_of_all)?,
            device <- MiscDeviceRegistration::register(options),
        })
    }
}
