//! The module's own ABI.

use super::ModuleAbi;
use crate::Result;
use std::os::fd::BorrowedFd;
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::unmatched::UnmatchedKick;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port};
use xen_eventfd_host::linux::eventfd::{Control, GuestFile};
use xen_eventfd_host::{self as host, Host};
use xen_eventfd_ioreq::take_in_module;

/// A guest's file. The module signals its end by itself.
#[derive(Debug)]
pub(crate) struct Native(GuestFile);

impl ModuleAbi for Native {
    fn take(_: &dyn Host, control: &Control, dom: DomId, gone: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self(take_in_module(control, dom, || control.create(dom, gone))?))
    }

    fn server(&self) -> host::Result<IoServerId> {
        Ok(self.0.stats()?.server)
    }

    fn compared(doorbell: &Doorbell) -> Result<Doorbell> {
        Ok(*doorbell)
    }

    fn assign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.assign(doorbell, eventfd)?)
    }

    fn deassign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.deassign(doorbell, eventfd)?)
    }

    fn unmatched(&self, fallback: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<UnmatchedKick> {
        Ok(self.0.unmatched(fallback, eventfd)?)
    }

    fn assign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.assign_irq(irq, eventfd)?)
    }

    fn deassign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.deassign_irq(irq, eventfd)?)
    }

    fn set_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, new: &Irq) -> Result<()> {
        Ok(self.0.set_irq(irq, eventfd, new)?)
    }

    fn mask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, masked: bool) -> Result<()> {
        let change = if masked { GuestFile::mask_irq } else { GuestFile::unmask_irq };
        Ok(change(&self.0, irq, eventfd)?)
    }

    fn is_pending(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<bool> {
        Ok(self.0.is_pending(irq, eventfd)?)
    }

    fn irq_counts(&self, irq: &Irq, eventfd: BorrowedFd<'_>, _: usize) -> host::Result<(u64, u64)> {
        self.0.irq_counts(irq, eventfd)
    }

    fn lower(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.lower(irq, eventfd)?)
    }

    fn assign_status(&self, registers: Registers, irq: &Irq) -> Result<()> {
        Ok(self.0.assign_status(registers, irq)?)
    }

    fn deassign_status(&self, registers: Registers, irq: &Irq) -> Result<u32> {
        Ok(self.0.deassign_status(registers, irq)?)
    }

    fn change_status(
        &self,
        registers: Registers,
        irq: &Irq,
        change: StatusChange,
    ) -> Result<DeviceStatus> {
        Ok(self.0.change_status(registers, irq, change)?)
    }

    fn assign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.assign_channel(port, eventfd)?)
    }

    fn deassign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()> {
        Ok(self.0.deassign_channel(port, eventfd)?)
    }

    fn counters(&self) -> host::Result<Counters> {
        Ok(self.0.stats()?.counters)
    }

    fn assigned(&self) -> host::Result<Vec<(Doorbell, u64)>> {
        self.0.assigned()
    }

    fn held(&self) -> host::Result<Vec<Kick>> {
        self.0.held()
    }
}
