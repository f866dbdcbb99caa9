//! The driver's processor: a vCPU of the model.

use core::cell::{Cell, RefCell};
use std::rc::Rc;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use xen_eventfd::{Space, Width};
use xen_eventfd_model::{Stopped, Vcpu};

/// The ports of PCI's configuration mechanism 1.
const CONFIG_ADDRESS: u64 = 0xCF8;
const CONFIG_DATA: u64 = 0xCFC;

/// A vCPU. virtio-drivers cannot be notified that it has stopped: then reads are all ones, and [`Cpu::check`] returns why.
#[derive(Debug, Clone)]
pub(crate) struct Cpu {
    vcpu: Vcpu,
    stopped: Rc<RefCell<Option<Stopped>>>,
    kicks: Rc<Cell<u64>>,
}

impl Cpu {
    pub(crate) fn new(vcpu: &Vcpu) -> Self {
        Self { vcpu: vcpu.clone(), stopped: Rc::default(), kicks: Rc::default() }
    }

    pub(crate) fn read(&self, space: Space, addr: u64, width: Width) -> u64 {
        self.note(self.vcpu.read(space, addr, width)).unwrap_or(width.mask())
    }

    pub(crate) fn write(&self, space: Space, addr: u64, width: Width, value: u64) {
        self.note(self.vcpu.write(space, addr, width, value));
    }

    /// Writes to a doorbell.
    pub(crate) fn kick(&self, port: u64, queue: u16) {
        self.kicks.set(self.kicks.get() + 1);
        self.write(Space::Pio, port, Width::Two, queue.into());
    }

    /// How many kicks there were.
    pub(crate) fn kicks(&self) -> u64 {
        self.kicks.get()
    }

    /// Waits for an interrupt.
    pub(crate) fn wait(&self, vector: u8) {
        self.note(self.vcpu.wait_msi(vector));
    }

    /// Whether it runs.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        self.stopped.borrow().clone().map_or(Ok(()), Err)
    }

    fn note<T>(&self, done: Result<T, Stopped>) -> Option<T> {
        done.map_err(|why| self.stopped.borrow_mut().get_or_insert(why).clone()).ok()
    }
}

impl ConfigurationAccess for Cpu {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        self.write(Space::Pio, CONFIG_ADDRESS, Width::Four, address(at, register));
        u32::try_from(self.read(Space::Pio, CONFIG_DATA, Width::Four)).unwrap_or(u32::MAX)
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        self.write(Space::Pio, CONFIG_ADDRESS, Width::Four, address(at, register));
        self.write(Space::Pio, CONFIG_DATA, Width::Four, data.into());
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

fn address(at: DeviceFunction, register: u8) -> u64 {
    let function =
        u64::from(at.bus) << 16 | u64::from(at.device) << 11 | u64::from(at.function) << 8;
    1 << 31 | function | u64::from(register & !3)
}
