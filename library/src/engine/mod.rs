//! What serves guests. There are two engines, and everything above works on both:
//!
//! * [`userspace`]: threads of this process, which answer Xen themselves;
//! * [`module`]: the kernel module, which answers in the event's interrupt.
//!
//! What they share is what a guest's registrations mean (`doorbells`). How a guest is taken, and what a dead
//! engine left, is in `xen-eventfd-ioreq`.

pub(crate) mod doorbells;
pub(crate) mod module;
pub(crate) mod userspace;

use crate::eventfd::EventFd;
use crate::{EngineKind, Error, Result};
use core::fmt;
use doorbells::{Registered, Unmatched};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::{Arch, Irq, Owner};
use xen_eventfd_core::status::DeviceStatus;
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port, Space};
use xen_eventfd_host::{Host, HostError};
use xen_eventfd_ioreq::RunDir;
use xen_eventfd_ioreq::sync::Mutex;

/// Serves guests.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    /// Which one it is; never [`EngineKind::Auto`].
    fn kind(&self) -> EngineKind;

    /// The Xen whose guests it serves.
    fn host(&self) -> &Arc<dyn Host>;

    /// Where it keeps locks and records.
    fn run_dir(&self) -> &RunDir;

    /// Takes a guest: no other engine serves it as long as the result lives.
    fn attach(self: Arc<Self>, dom: DomId) -> Result<Arc<dyn Attachment>>;
}

/// A guest in the hands of an engine. Dropping it lets go of the guest.
///
/// A registration has a serial number, which distinguishes it from an equal one before or after it.
/// Once the guest is dead or let go of, whatever would change something fails with
/// [`crate::Error::GuestDied`].
pub(crate) trait Attachment: Send + Sync + fmt::Debug {
    fn dom(&self) -> DomId;

    /// The ioreq server that serves it.
    fn server(&self) -> IoServerId;

    /// Registers a doorbell; a fallback with a place for what it receives. Returns its serial
    /// number.
    fn register(
        &self,
        doorbell: Doorbell,
        eventfd: EventFd,
        unmatched: Option<Arc<Mutex<Unmatched>>>,
    ) -> Result<u64>;

    /// Takes a registration back: this doorbell, with this eventfd and this serial number if they
    /// are given. When this returns, its eventfd is not signalled again.
    fn unregister(
        &self,
        doorbell: &Doorbell,
        eventfd: Option<&EventFd>,
        serial: Option<u64>,
    ) -> Result<()>;

    /// A doorbell of this eventfd, at this place if one is given.
    fn find(&self, eventfd: &EventFd, place: Option<(Space, u64)>) -> Result<Option<Doorbell>>;

    /// Puts what a fallback has received so far into its place, if the engine does not do that as
    /// kicks come.
    fn collect(&self, fallback: &Doorbell, serial: u64, unmatched: &Mutex<Unmatched>);

    /// Registers an eventfd that raises an interrupt. Returns its serial number, and where its
    /// interrupts are counted.
    fn register_irq(&self, eventfd: EventFd, irq: Irq) -> Result<(u64, Arc<IrqCounts>)>;

    /// The serial number of the irqfd with this eventfd and interrupt.
    fn find_irq(&self, eventfd: &EventFd, irq: &Irq) -> Result<u64>;

    /// Takes an irqfd back. When this returns without an error, it raises nothing any more.
    fn unregister_irq(&self, serial: u64) -> Result<()>;

    /// Has an irqfd raise another interrupt. When this returns, the one before is not raised again;
    /// every signal raises the one or the other.
    fn set_irq(&self, serial: u64, irq: Irq) -> Result<()>;

    /// Keeps an irqfd from raising its interrupt, or lets it again: then it is raised once if it is
    /// pending.
    fn mask_irq(&self, serial: u64, masked: bool) -> Result<()>;

    /// Whether an irqfd was signalled since it was masked.
    fn is_pending(&self, serial: u64) -> Result<bool>;

    /// Brings the counts of an irqfd up to date, if the engine does not do that as interrupts are
    /// raised.
    fn count_irqs(&self, serial: u64);

    /// Lowers the line of an irqfd if it is level-triggered.
    fn lower(&self, serial: u64) -> Result<()>;

    /// Answers the registers of a device, and raises its interrupt while a bit is set. Returns its
    /// serial number.
    fn register_status(&self, registers: Registers, irq: Irq) -> Result<u64>;

    /// Takes that back: with this interrupt and this serial number if they are given. The irqfds that set
    /// its bits end first. Returns the bits that are set.
    fn unregister_status(
        &self,
        registers: Registers,
        irq: Option<Irq>,
        serial: Option<u64>,
    ) -> Result<u32>;

    /// Changes an InterruptStatus, and says how it stands.
    fn change_status(
        &self,
        registers: Registers,
        serial: u64,
        change: StatusChange,
    ) -> Result<DeviceStatus>;

    /// Has an eventfd signalled for each event of a guest's port. Returns its serial number.
    fn listen(&self, eventfd: EventFd, port: Port) -> Result<u64>;

    /// The serial number of what has this eventfd signalled for this port.
    fn find_channel(&self, eventfd: &EventFd, port: Port) -> Result<u64>;

    /// When this returns Ok, the eventfd of a port is not signalled again.
    fn stop_listening(&self, port: Port, serial: u64) -> Result<()>;

    /// Lets go of the guest. Nothing happens if that was done, or if it is dead.
    fn close(&self) -> Result<()>;

    fn counters(&self) -> Counters;

    /// What is registered, in the order of addresses.
    fn registered(&self) -> Vec<Registered>;

    /// Kicks that wait for their eventfd, in order.
    fn held(&self) -> Vec<Kick>;

    fn last_error(&self) -> Option<HostError>;

    /// Readable once the guest is dead, or the engine has stopped.
    fn gone(&self) -> BorrowedFd<'_>;

    fn is_served(&self) -> bool;
}

/// Checks what Xen would refuse later, ignore, or not bear.
pub(crate) fn check_irq(host: &dyn Host, dom: DomId, irq: &Irq) -> Result<()> {
    irq.check()?;
    let arch = host.arch();
    match arch.owner(irq) {
        Some(Owner::EveryGuest) => Ok(()),
        Some(Owner::GuestsWithLines) if host.has_lines(dom)? => Ok(()),
        Some(Owner::GuestsWithLines) => Err(Error::NoLines(dom)),
        None => {
            let advice = match arch {
                Arch::X86 => "use an MSI or an event channel",
                Arch::Arm => "use an SPI or an event channel",
            };
            Err(Error::OtherArch { what: irq.to_string(), arch, advice })
        }
    }
}

/// Whether a guest can have an interrupt beside these, where it or they are those of devices with InterruptStatus.
pub(crate) fn check_line(irq: &Irq, others: impl IntoIterator<Item = Irq>) -> Result<()> {
    match others.into_iter().find(|other| other.clashes_with(irq)) {
        Some(_) => Err(Error::LineInUse { irq: *irq }),
        None => Ok(()),
    }
}

/// Whether a guest can write to such an address at all.
pub(crate) fn check_space(host: &dyn Host, doorbell: &Doorbell) -> Result<()> {
    let (arch, bytes) = (host.arch(), doorbell.bytes());
    if arch.has_space(bytes.space()) {
        return Ok(());
    }
    let what = format!("I/O port {:#x}", bytes.first());
    Err(Error::OtherArch { what, arch, advice: "use an address in memory" })
}

/// InterruptStatus as an error names it.
pub(crate) fn status_named(registers: Registers) -> String {
    format!("InterruptStatus at {:#x}", registers.addr())
}

/// A doorbell as an error names it.
pub(crate) fn named(doorbell: &Doorbell) -> String {
    format!("the doorbell at {:#x}", doorbell.bytes().first())
}

/// What an irqfd has done so far.
#[derive(Debug, Default)]
pub(crate) struct IrqCounts {
    pub(crate) raised: AtomicU64,
    /// Refused by the host.
    pub(crate) failed: AtomicU64,
}
