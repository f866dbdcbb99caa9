//! The engine in the kernel: the module serves a guest, and ends with its file.
//!
//! There is no thread, no record and no guardian. What is kept here is what the module does not
//! report: which registration is whose, and kicks that a dead userspace engine left, which are
//! signalled when their eventfd comes.
//!
//! The requests are those of the module's own ABI ([`native`]). It has another one, that of Linux's privcmd
//! (`docs/privcmd-abi.md`), which the scenarios use for the same guests: each is a [`ModuleAbi`].

mod guest;
mod native;

pub(crate) use native::Native;

use super::{Attachment, Engine};
use crate::eventfd;
use crate::{EngineKind, Result};
use core::fmt;
use core::marker::PhantomData;
use guest::ModuleGuest;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::unmatched::UnmatchedKick;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port};
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::{self as host, Host};
use xen_eventfd_ioreq::{Hold, Reserve, RunDir};

/// The requests by which the module serves one guest, which is this engine's as long as the value lives.
///
/// Every request for a guest that is dead fails with [`host::Errno::NODEV`].
pub trait ModuleAbi: fmt::Debug + Send + Sized + 'static {
    /// Takes a guest. `gone` is signalled once it is dead, if the ABI has a way to.
    fn take(host: &dyn Host, control: &Control, dom: DomId, gone: BorrowedFd<'_>) -> Result<Self>;

    /// The ioreq server that serves the guest.
    fn server(&self) -> host::Result<IoServerId>;

    /// A doorbell as the module compares it.
    fn compared(doorbell: &Doorbell) -> Result<Doorbell>;

    /// Has an eventfd signalled for a doorbell.
    fn assign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// When this returns, the eventfd is not signalled again.
    fn deassign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// One kick that a fallback received.
    fn unmatched(&self, fallback: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<UnmatchedKick>;

    /// Has an eventfd raise an interrupt.
    fn assign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// When this returns, the interrupt is not raised again.
    fn deassign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// Has an irqfd raise another interrupt.
    fn set_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, new: &Irq) -> Result<()>;

    /// Masks or unmasks an irqfd.
    fn mask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, masked: bool) -> Result<()>;

    /// Whether an irqfd was signalled since it was masked.
    fn is_pending(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<bool>;

    /// Fails if the guest is dead.
    fn alive(&self) -> host::Result<()> {
        self.counters().map(drop)
    }

    /// How often an irqfd raised its interrupt, and how often it failed to. `before` others of the
    /// same interrupt were assigned earlier.
    fn irq_counts(
        &self,
        irq: &Irq,
        eventfd: BorrowedFd<'_>,
        before: usize,
    ) -> host::Result<(u64, u64)>;

    /// Lowers the line of a level-triggered irqfd.
    fn lower(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// Answers the registers of a device, and raises its interrupt while a bit is set.
    fn assign_status(&self, registers: Registers, irq: &Irq) -> Result<()>;

    /// Takes that back, and the irqfds that set its bits. Returns the bits that are set.
    fn deassign_status(&self, registers: Registers, irq: &Irq) -> Result<u32>;

    /// Changes an InterruptStatus whose interrupt is `irq`, and says how it stands.
    fn change_status(
        &self,
        registers: Registers,
        irq: &Irq,
        change: StatusChange,
    ) -> Result<DeviceStatus>;

    /// Has an eventfd signalled for each event of a guest's port.
    fn assign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// When this returns, the eventfd is not signalled again.
    fn deassign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// What the module counted.
    fn counters(&self) -> host::Result<Counters>;

    /// What is assigned, and how often each was signalled.
    fn assigned(&self) -> host::Result<Vec<(Doorbell, u64)>>;

    /// The kicks that the module holds.
    fn held(&self) -> host::Result<Vec<Kick>>;
}

/// What stands in the lock of a guest.
const SERVES: &str = "kernel engine";

/// The module, as this process uses it by one ABI.
#[derive(Debug)]
pub(crate) struct ModuleEngine<I> {
    host: Arc<dyn Host>,
    run_dir: RunDir,
    control: Control,
    interface: PhantomData<fn() -> I>,
}

impl<I: ModuleAbi> ModuleEngine<I> {
    pub(crate) fn new(host: Arc<dyn Host>, run_dir: RunDir, control: Control) -> Self {
        Self { host, run_dir, control, interface: PhantomData }
    }
}

impl<I: ModuleAbi> Engine for ModuleEngine<I> {
    fn kind(&self) -> EngineKind {
        EngineKind::Kernel
    }

    fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>> {
        // By serving it, the module keeps it from others.
        let hold = Hold::take(&*self.host, None, &self.run_dir, dom, SERVES, &Reserve::No)?;
        let gone = eventfd::new()?;
        let interface = I::take(&*self.host, &self.control, dom, gone.as_fd())?;
        Ok(Arc::new(ModuleGuest::new(self, hold, gone, interface)?))
    }
}
