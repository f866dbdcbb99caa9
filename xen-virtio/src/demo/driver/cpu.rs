//! The driver's processor: a vCPU of the model.

use core::cell::{Cell, RefCell};
use std::rc::Rc;
#[cfg(test)]
use xen_eventfd_core::irq::Line;
pub(super) use xen_eventfd_core::{Space, Width};
pub(super) use xen_eventfd_model::Stopped;
use xen_eventfd_model::Vcpu;

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
    pub(crate) fn kick(&self, space: Space, addr: u64, width: Width, queue: u16) {
        self.kicks.set(self.kicks.get() + 1);
        self.write(space, addr, width, queue.into());
    }

    /// How many kicks there were.
    pub(crate) fn kicks(&self) -> u64 {
        self.kicks.get()
    }

    /// Waits for an interrupt.
    pub(crate) fn wait(&self, vector: u8) {
        self.note(self.vcpu.wait_msi(vector));
    }

    /// Waits for a shared peripheral interrupt of Arm.
    #[cfg(test)]
    pub(super) fn wait_spi(&self, number: u32) {
        self.note(self.vcpu.wait_line(Line::Spi(number)));
    }

    /// Whether it runs.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        self.stopped.borrow().clone().map_or(Ok(()), Err)
    }

    fn note<T>(&self, done: Result<T, Stopped>) -> Option<T> {
        done.map_err(|why| self.stopped.borrow_mut().get_or_insert(why).clone()).ok()
    }
}
