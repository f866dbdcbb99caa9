//! The engines in the kernel: the module serves a guest, and ends with its file.
//!
//! There is no thread, no record and no guardian. What is kept here is what the module does not
//! tell: which registration is whose, and kicks that a dead userspace engine left, which are
//! signalled when their eventfd comes.
//!
//! The module is asked in one of two ways, its own ([`native`]) or the privcmd ABI
//! ([`privcmd`]): each is a [`ModuleAbi`].

mod guest;
mod native;
mod privcmd;

pub(crate) use native::Native;
pub(crate) use privcmd::Privcmd;

use super::doorbells::Registration;
use super::{Attachment, Engine};
use crate::eventfd::{self, EventFd};
use crate::{EngineKind, Result};
use core::fmt;
use core::marker::PhantomData;
use guest::ModuleGuest;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::unmatched::UnmatchedKick;
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port};
use xen_eventfd_host::linux::eventfd::Control;
use xen_eventfd_host::{self as host, Host};
use xen_eventfd_ioreq::{Hold, Reserve, RunDir};

/// A way to ask the module for one guest, which is ours as long as it lives.
///
/// Everything asked of a guest that is dead fails with [`host::Errno::NODEV`]. What this way has no
/// words for is [`crate::Error::Unsupported`].
pub(crate) trait ModuleAbi: fmt::Debug + Send + Sized + 'static {
    /// The engine that asks in this way.
    const KIND: EngineKind;

    /// What it says in the lock of a guest.
    const SERVES: &'static str;

    /// Takes a guest.
    fn take(engine: &ModuleEngine<Self>, dom: DomId, gone: BorrowedFd<'_>) -> Result<Self>;

    /// The ioreq server that serves the guest.
    fn server(&self) -> host::Result<IoServerId>;

    /// A doorbell as the module compares it.
    fn compared(doorbell: &Doorbell) -> Result<Doorbell>;

    /// Whether one more doorbell of an eventfd can be told from those that it has.
    fn tells_apart(others: &[Registration], eventfd: &EventFd) -> Result<()>;

    fn assign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()>;

    fn deassign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// One kick that a fallback received.
    fn unmatched(&self, fallback: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<UnmatchedKick>;

    fn assign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()>;

    fn deassign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()>;

    fn set_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, new: &Irq) -> Result<()>;

    fn mask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, masked: bool) -> Result<()>;

    fn is_pending(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<bool>;

    /// Fails if the guest is dead.
    fn alive(&self) -> host::Result<()> {
        self.counters().map(drop)
    }

    /// How often an irqfd raised its interrupt, and how often it failed to. So many others of the
    /// same interrupt were assigned before it.
    fn irq_counts(
        &self,
        irq: &Irq,
        eventfd: BorrowedFd<'_>,
        before: usize,
    ) -> host::Result<(u64, u64)>;

    fn lower(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()>;

    fn assign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()>;

    fn deassign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()>;

    /// What the module counted.
    fn counters(&self) -> host::Result<Counters>;

    /// What is assigned, and how often each was signalled.
    fn assigned(&self) -> host::Result<Vec<(Doorbell, u64)>>;

    /// The kicks that the module holds.
    fn held(&self) -> host::Result<Vec<Kick>>;
}

/// The module, as this process uses it in one way.
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
        I::KIND
    }

    fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    fn run_dir(&self) -> &RunDir {
        &self.run_dir
    }

    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>> {
        // By serving it, the module keeps it from others.
        let hold = Hold::take(&*self.host, &self.run_dir, dom, I::SERVES, &Reserve::No)?;
        let gone = eventfd::new()?;
        let interface = I::take(&self, dom, gone.as_fd())?;
        Ok(Arc::new(ModuleGuest::new(self, hold, gone, interface)?))
    }
}
