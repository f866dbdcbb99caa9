//! `/dev/xen/eventfd`, as `kernel/uapi/xen-eventfd.h` defines it.

use anyhow::{Context, Result};
use core::ffi::c_void;
use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use xen_eventfd::DomId;
use xen_eventfd_bench::{Filter, Space};

const NODE: &str = "/dev/xen/eventfd";
const CREATE: Opcode = 0xEF01;
const ASSIGN: Opcode = 0xEF10;
const ASSIGN_IRQ: Opcode = 0xEF20;

/// A guest's file.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

/// `struct xen_eventfd_create`.
#[repr(C)]
struct Create {
    size: u32,
    flags: u32,
    dom: u16,
    pad: u16,
    gone: i32,
}

/// `struct xen_eventfd_doorbell`.
#[repr(C)]
struct Doorbell {
    size: u32,
    flags: u32,
    space: u32,
    kind: u32,
    len: u32,
    eventfd: i32,
    addr: u64,
    datamatch: u64,
    datamask: u64,
}

/// `struct xen_eventfd_irq`.
#[repr(C)]
#[derive(Default)]
struct Irq {
    size: u32,
    flags: u32,
    kind: u32,
    eventfd: i32,
    trigger: u32,
    number: u32,
    pin: u32,
    msi_data: u32,
    msi_addr: u64,
    raised: u64,
    failed: u64,
}

const _: () = {
    assert!(size_of::<Create>() == 16);
    assert!(size_of::<Doorbell>() == 48);
    assert!(size_of::<Irq>() == 56);
};

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

impl Device {
    /// Takes a guest.
    pub(crate) fn of(dom: DomId) -> Result<Self> {
        let control = open(NODE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .with_context(|| format!("{NODE}: is the module loaded?"))?;
        let mut create = Create { size: size::<Create>(), flags: 0, dom: dom.0, pad: 0, gone: -1 };
        let guest = issue(&control, CREATE, &mut create).context("XEN_EVENTFD_CREATE")?;
        // SAFETY: the module has just created it, and nothing else uses it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(guest) }))
    }

    /// Assigns an eventfd to writes of 4 bytes.
    pub(crate) fn assign(
        &self,
        (space, addr): (Space, u64),
        filter: Filter,
        value: u32,
        eventfd: &OwnedFd,
    ) -> Result<()> {
        let (kind, datamask) = match filter {
            Filter::Datamatch => (0, u64::from(u32::MAX)),
            Filter::Wildcard => (1, 0),
            Filter::None => return Ok(()),
        };
        let mut doorbell = Doorbell {
            size: size::<Doorbell>(),
            flags: 0,
            space: u32::from(space == Space::Pio),
            kind,
            len: 4,
            eventfd: eventfd.as_raw_fd(),
            addr,
            datamatch: u64::from(value) & datamask,
            datamask,
        };
        issue(&self.0, ASSIGN, &mut doorbell).context("XEN_EVENTFD_ASSIGN").map(drop)
    }

    /// Makes an eventfd notify an event channel of the guest.
    pub(crate) fn assign_channel(&self, eventfd: &OwnedFd, port: u32) -> Result<()> {
        self.assign_irq(Irq { number: port, ..Irq::default() }, eventfd)
    }

    /// Makes an eventfd raise an MSI.
    pub(crate) fn assign_msi(&self, eventfd: &OwnedFd, addr: u64, data: u32) -> Result<()> {
        self.assign_irq(Irq { kind: 1, msi_addr: addr, msi_data: data, ..Irq::default() }, eventfd)
    }

    /// Makes an eventfd pulse a shared peripheral interrupt.
    pub(crate) fn assign_spi(&self, eventfd: &OwnedFd, number: u32) -> Result<()> {
        self.assign_irq(Irq { kind: 4, number, ..Irq::default() }, eventfd)
    }

    fn assign_irq(&self, mut irq: Irq, eventfd: &OwnedFd) -> Result<()> {
        irq.size = size::<Irq>();
        irq.eventfd = eventfd.as_raw_fd();
        issue(&self.0, ASSIGN_IRQ, &mut irq).context("XEN_EVENTFD_ASSIGN_IRQ").map(drop)
    }
}

fn issue<T>(file: &OwnedFd, request: Opcode, argument: &mut T) -> rustix::io::Result<i32> {
    // SAFETY: each request above takes the struct of its name, which contains its size; the module
    // reads and writes no more than that, and any bytes are a value of it.
    unsafe { rustix::ioctl::ioctl(file, Call { request, argument }) }
}

struct Call<'a, T> {
    request: Opcode,
    argument: &'a mut T,
}

// SAFETY: the opcode and the argument are those of `issue`.
unsafe impl<T> Ioctl for Call<'_, T> {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.request
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(result)
    }
}
