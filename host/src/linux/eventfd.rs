//! `/dev/xen/eventfd`: the kernel module, if it is loaded.
//!
//! `kernel/uapi/xen-eventfd.h` is its reference. A [`Control`] takes guests; the registrations of
//! a guest go through its [`GuestFile`], and end with it.

use super::door::{ioctl, open};
use super::sys::eventfd::{self as sys, Argument, Request};
use crate::{Call, HostError, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use xen_eventfd_core::irq::{Irq, Line, Trigger};
use xen_eventfd_core::{Counters, DomId, Doorbell, Filter, IoServerId, Kick, Port, Space, Width};

pub(super) const DEVICE: &str = "/dev/xen/eventfd";

/// Makes a request. Its result, where it has a meaning, is not negative.
fn issue<A: Argument>(
    fd: BorrowedFd<'_>,
    request: &Request<A>,
    argument: &mut A,
) -> core::result::Result<u32, Errno> {
    // SAFETY: the request is declared with its struct, for which any bytes are a value, and which
    // holds no address.
    unsafe { ioctl(fd, request.0, argument) }
}

/// The module's version and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// The version of its interface.
    pub abi: u32,
    /// Whether it supports doorbells, interrupts, their changes, and channels: all that [`GuestFile`]
    /// can request.
    pub complete: bool,
    /// Doorbells that one guest can have.
    pub max_doorbells: u32,
    /// Distinct kicks that are held for one guest.
    pub max_held: u32,
    /// Distinct kicks that are kept for one fallback.
    pub max_missed: u32,
    /// Irqfds that one guest can have, and as many channels.
    pub max_irqs: u32,
}

/// The process that holds a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id, if it is visible in this PID namespace.
    pub pid: Option<u32>,
    /// Its name.
    pub name: String,
}

/// The module's device, open.
#[derive(Debug)]
pub struct Control {
    device: OwnedFd,
    info: Info,
}

impl Control {
    /// Opens the device and queries its version and limits.
    ///
    /// # Errors
    /// [`Call::Open`]: [`Errno::NOENT`] or [`Errno::NXIO`] if the module is not loaded,
    /// [`Errno::ACCESS`] without root, [`Errno::PROTO`] if it has another interface version.
    pub fn open() -> Result<Self> {
        let failed = |errno| HostError::new(Call::Open(DEVICE), errno);
        let device = open(DEVICE, OFlags::RDWR).map_err(failed)?;
        Self::over(device)
    }

    /// Queries a device that is open.
    ///
    /// # Errors
    /// As [`Control::open`].
    pub fn over(device: OwnedFd) -> Result<Self> {
        let failed = |errno| HostError::new(Call::Open(DEVICE), errno);
        let mut answer = sys::Query::default();
        match issue(device.as_fd(), &sys::QUERY, &mut answer) {
            Ok(_) if answer.abi == sys::ABI => Ok(Self { device, info: info(&answer) }),
            // A device that is not the module returns NOTTY.
            Ok(_) | Err(Errno::NOTTY | Errno::INVAL) => Err(failed(Errno::PROTO)),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Its version and limits.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Takes a guest and creates a doorbell server in it. `gone` is signalled once when the guest dies.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if another process holds it; see [`Control::owner`]. [`Errno::NODEV`] if there is no
    /// such guest, [`Errno::OPNOTSUPP`] for a PV guest, [`Errno::NOSPC`] if all of its ioreq
    /// servers are in use, [`Errno::PERM`] if Xen does not let this domain serve it.
    pub fn create(&self, dom: DomId, gone: BorrowedFd<'_>) -> Result<GuestFile> {
        let fd = self.new_file(dom, 0, gone.as_raw_fd())?;
        Ok(GuestFile { dom, fd })
    }

    /// Keeps a guest from being taken through the module, for as long as the result lives.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn reserve(&self, dom: DomId) -> Result<Reservation> {
        self.new_file(dom, sys::CREATE_RESERVE, -1).map(Reservation)
    }

    fn new_file(&self, dom: DomId, flags: u32, gone: i32) -> Result<OwnedFd> {
        let mut argument = sys::Create { flags, dom: dom.0, gone, ..Default::default() };
        let answer = issue(self.device.as_fd(), &sys::CREATE, &mut argument)
            .and_then(|fd| i32::try_from(fd).map_err(|_| Errno::PROTO));
        match answer {
            // SAFETY: the request returns a new descriptor, which this process alone owns.
            Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(errno) => Err(HostError::new(Call::Take(dom), errno)),
        }
    }

    /// The process that holds a guest, if there is one.
    ///
    /// # Errors
    /// [`Call::Query`].
    pub fn owner(&self, dom: DomId) -> Result<Option<Owner>> {
        let mut answer = sys::Owner { dom: dom.0, ..Default::default() };
        match issue(self.device.as_fd(), &sys::OWNER, &mut answer) {
            Ok(_) => Ok(Some(owner(&answer))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(HostError::new(Call::Query(dom), errno)),
        }
    }
}

fn info(answer: &sys::Query) -> Info {
    let all = sys::FEATURE_DOORBELLS
        | sys::FEATURE_IRQS
        | sys::FEATURE_CHANNELS
        | sys::FEATURE_IRQ_CHANGES;
    Info {
        abi: answer.abi,
        complete: answer.features & all == all,
        max_doorbells: answer.max_doorbells,
        max_held: answer.max_held,
        max_missed: answer.max_missed,
        max_irqs: answer.max_irqs,
    }
}

fn owner(answer: &sys::Owner) -> Owner {
    let name = answer.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Owner {
        pid: u32::try_from(answer.pid).ok().filter(|pid| *pid != 0),
        name: String::from_utf8_lossy(name).into_owned(),
    }
}

/// A guest that is reserved, and not served by the module.
#[derive(Debug)]
pub struct Reservation(
    #[expect(dead_code, reason = "it reserves the guest while it is open")] OwnedFd,
);

/// Counters of a guest's doorbells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// The module's ioreq server in the guest.
    pub server: IoServerId,
    /// Without the counters that only a userspace engine has.
    pub counters: Counters,
}

/// One entry of a fallback's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Missed {
    /// A distinct kick and its count; `None`: the list is empty.
    pub kick: Option<(Kick, u64)>,
    /// Kicks that did not fit the list, of which only the number is known.
    pub overflowed: u64,
}

/// A guest that the module serves. Dropping it ends that.
///
/// Every method fails with [`Errno::NODEV`] once the guest is dead ([`HostError::is_gone`]).
#[derive(Debug)]
pub struct GuestFile {
    dom: DomId,
    fd: OwnedFd,
}

impl GuestFile {
    /// Signals an eventfd for the writes that match a doorbell.
    ///
    /// # Errors
    /// [`Errno::EXIST`] if another matches the same writes; [`Errno::NOSPC`] beyond
    /// [`Info::max_doorbells`]; [`Errno::NOMEM`] if Xen has no room for one more range.
    pub fn assign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::ASSIGN, argument_of(doorbell, eventfd), Call::Assign(self.dom))
    }

    /// Removes a doorbell. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such doorbell.
    pub fn deassign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::DEASSIGN, argument_of(doorbell, eventfd), Call::Assign(self.dom))
    }

    /// The counters of the doorbells.
    ///
    /// # Errors
    /// [`Errno::NODEV`] only.
    pub fn stats(&self) -> Result<Stats> {
        let answer = self.query(&sys::STATS, sys::Stats::default())?;
        let mut counters = Counters::default();
        counters.delivered = answer.delivered;
        counters.held = answer.held;
        counters.redelivered = answer.redelivered;
        counters.late = answer.late;
        counters.reads = answer.reads;
        counters.broadcasts = answer.broadcasts;
        counters.odd = answer.odd;
        counters.spurious = answer.spurious;
        Ok(Stats { server: IoServerId(answer.server), counters })
    }

    /// The assigned doorbells, in the order of addresses, with the number of kicks of each.
    ///
    /// # Errors
    /// [`Errno::NODEV`] only.
    pub fn assigned(&self) -> Result<Vec<(Doorbell, u64)>> {
        self.list(sys::LIST_DOORBELLS, |entry| Some((doorbell_of(entry)?, entry.kicks)))
    }

    /// The held kicks, in order.
    ///
    /// # Errors
    /// [`Errno::NODEV`] only.
    pub fn held(&self) -> Result<Vec<Kick>> {
        self.list(sys::LIST_HELD, |entry| {
            let width = Width::new(entry.len)?;
            Some(Kick::new(space_of(entry.space)?, entry.addr, width, entry.datamatch))
        })
    }

    fn list<T>(&self, what: u32, read: impl Fn(&sys::Entry) -> Option<T>) -> Result<Vec<T>> {
        let mut list = Vec::new();
        for index in 0.. {
            match self.query(&sys::LIST, sys::Entry { what, index, ..Default::default() }) {
                Ok(entry) => list.push(read(&entry).ok_or_else(|| self.query_error(Errno::PROTO))?),
                Err(error) if error.errno == Errno::NOENT => break,
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    /// Takes one distinct kick from a fallback.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such fallback.
    pub fn missed(&self, fallback: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<Missed> {
        let sys::Doorbell { space, len, eventfd, addr, .. } = argument_of(fallback, eventfd);
        let question = sys::Missed { space, len, eventfd, addr, ..Default::default() };
        let answer = self.query(&sys::MISSED, question)?;
        if answer.kicks == 0 {
            return Ok(Missed { kick: None, overflowed: answer.overflowed });
        }
        let width = Width::new(answer.width).ok_or_else(|| self.query_error(Errno::PROTO))?;
        let kick = Kick::new(fallback.bytes().space(), addr, width, answer.value);
        Ok(Missed { kick: Some((kick, answer.kicks)), overflowed: answer.overflowed })
    }

    /// Raises an interrupt whenever an eventfd is signalled; a counter that is not 0 raises one at
    /// once.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the eventfd raises an interrupt already; [`Errno::INVAL`] if the interrupt is invalid,
    /// or the guest has not allocated the port for this domain; [`Errno::NOSPC`] beyond
    /// [`Info::max_irqs`], or if too many event channels are bound ([`GuestFile::assign_channel`]).
    pub fn assign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::ASSIGN_IRQ, irq_argument(irq, eventfd), self.call_of(irq))
    }

    /// The call that an error of an interrupt names.
    fn call_of(&self, irq: &Irq) -> Call {
        match irq {
            Irq::EventChannel(port) => Call::Bind(self.dom, *port),
            Irq::Msi { .. } | Irq::Line(..) => Call::Interrupt(self.dom),
        }
    }

    /// Makes an eventfd raise another interrupt. When this returns, `irq` is not raised again, and no
    /// signal was lost.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment; else as [`GuestFile::assign_irq`].
    pub fn set_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, new: &Irq) -> Result<()> {
        self.change(&sys::SET_IRQ, change_argument(irq, eventfd, new), self.call_of(new))
    }

    /// Keeps an eventfd from raising its interrupt. When this returns, it is not raised again until
    /// [`GuestFile::unmask_irq`].
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn mask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::MASK_IRQ, irq_argument(irq, eventfd), Call::Assign(self.dom))
    }

    /// Unmasks it, and raises the interrupt once if it is pending.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn unmask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::UNMASK_IRQ, irq_argument(irq, eventfd), Call::Assign(self.dom))
    }

    /// Whether an eventfd was signalled since its interrupt was masked.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn is_pending(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<bool> {
        let answer = self.query(&sys::IRQ_STATE, state_argument(irq, eventfd))?;
        Ok(answer.pending != 0)
    }

    /// Removes an interrupt. When this returns, it is not raised again.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn deassign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::DEASSIGN_IRQ, irq_argument(irq, eventfd), Call::Assign(self.dom))
    }

    /// The number of interrupts that were raised, and that Xen refused.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn irq_counts(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<(u64, u64)> {
        let answer = self.query(&sys::IRQ_STATS, irq_argument(irq, eventfd))?;
        Ok((answer.raised, answer.failed))
    }

    /// Lowers the line of a level-triggered interrupt.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment, or Xen's error.
    pub fn lower(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&sys::LOWER, irq_argument(irq, eventfd), Call::Assign(self.dom))
    }

    /// Signals an eventfd whenever the guest notifies its event channel.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the port has an eventfd; [`Errno::INVAL`] if the guest has not allocated
    /// it for this domain; [`Errno::NOSPC`] if 256 channels of the guest are bound, or of all guests
    /// as many as the module's parameter `max_channels` says.
    pub fn assign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()> {
        let call = Call::Bind(self.dom, port);
        self.change(&sys::ASSIGN_CHANNEL, channel_argument(port, eventfd), call)
    }

    /// Removes a channel. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if the port does not signal this eventfd.
    pub fn deassign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()> {
        let call = Call::Assign(self.dom);
        self.change(&sys::DEASSIGN_CHANNEL, channel_argument(port, eventfd), call)
    }

    fn change<A: Argument>(&self, request: &Request<A>, mut argument: A, call: Call) -> Result<()> {
        match issue(self.fd.as_fd(), request, &mut argument) {
            Ok(_) => Ok(()),
            Err(errno) => Err(HostError::new(call, errno)),
        }
    }

    fn query<A: Argument>(&self, request: &Request<A>, mut argument: A) -> Result<A> {
        issue(self.fd.as_fd(), request, &mut argument).map_err(|errno| self.query_error(errno))?;
        Ok(argument)
    }

    fn query_error(&self, errno: Errno) -> HostError {
        HostError::new(Call::Query(self.dom), errno)
    }
}

fn argument_of(doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> sys::Doorbell {
    let space = match doorbell.bytes().space() {
        Space::Mmio => sys::MMIO,
        Space::Pio => sys::PIO,
    };
    let (kind, len, datamatch, datamask) = match doorbell.filter() {
        Filter::Value { width, value, mask } => (sys::VALUE, width.bytes(), value, mask),
        Filter::Width(width) => (sys::WIDTH, width.bytes(), 0, 0),
        Filter::Any { span } => (sys::ANY, span, 0, 0),
        Filter::Fallback { span } => (sys::FALLBACK, span, 0, 0),
    };
    sys::Doorbell {
        space,
        kind,
        len: len.into(),
        eventfd: eventfd.as_raw_fd(),
        addr: doorbell.bytes().first(),
        datamatch,
        datamask,
        ..Default::default()
    }
}

fn space_of(space: u32) -> Option<Space> {
    match space {
        sys::MMIO => Some(Space::Mmio),
        sys::PIO => Some(Space::Pio),
        _ => None,
    }
}

fn doorbell_of(entry: &sys::Entry) -> Option<Doorbell> {
    let (width, span) = (Width::new(entry.len), u8::try_from(entry.len).ok());
    let filter = match entry.kind {
        sys::VALUE => Filter::Value { width: width?, value: entry.datamatch, mask: entry.datamask },
        sys::WIDTH => Filter::Width(width?),
        sys::ANY => Filter::Any { span: span? },
        sys::FALLBACK => Filter::Fallback { span: span? },
        _ => return None,
    };
    Doorbell::new(space_of(entry.space)?, entry.addr, filter).ok()
}

fn irq_argument(irq: &Irq, eventfd: BorrowedFd<'_>) -> sys::Irq {
    sys::Irq { eventfd: eventfd.as_raw_fd(), ..irq_argument_of(irq) }
}

/// Without an eventfd.
fn irq_argument_of(irq: &Irq) -> sys::Irq {
    let mut argument = sys::Irq::default();
    match *irq {
        Irq::EventChannel(port) => (argument.kind, argument.number) = (sys::IRQ_CHANNEL, port.0),
        Irq::Msi { addr, data } => {
            (argument.kind, argument.msi_addr, argument.msi_data) = (sys::IRQ_MSI, addr, data);
        }
        Irq::Line(line, trigger) => {
            argument.trigger = match trigger {
                Trigger::Pulse => sys::PULSE,
                Trigger::Level => sys::LEVEL,
            };
            (argument.kind, argument.number, argument.pin) = match line {
                Line::Isa(line) => (sys::IRQ_ISA, line.into(), 0),
                Line::PciIntx { device, pin } => (sys::IRQ_INTX, device.into(), pin.into()),
                Line::Spi(line) => (sys::IRQ_SPI, line, 0),
            };
        }
    }
    argument
}

fn change_argument(irq: &Irq, eventfd: BorrowedFd<'_>, new: &Irq) -> sys::IrqChange {
    let sys::Irq { kind, eventfd, trigger, number, pin, msi_data, msi_addr, .. } =
        irq_argument(irq, eventfd);
    let new = irq_argument_of(new);
    sys::IrqChange {
        kind,
        eventfd,
        trigger,
        number,
        pin,
        msi_data,
        msi_addr,
        new_kind: new.kind,
        new_trigger: new.trigger,
        new_number: new.number,
        new_pin: new.pin,
        new_msi_data: new.msi_data,
        new_msi_addr: new.msi_addr,
        ..Default::default()
    }
}

fn state_argument(irq: &Irq, eventfd: BorrowedFd<'_>) -> sys::IrqState {
    let sys::Irq { kind, eventfd, trigger, number, pin, msi_data, msi_addr, .. } =
        irq_argument(irq, eventfd);
    sys::IrqState { kind, eventfd, trigger, number, pin, msi_data, msi_addr, ..Default::default() }
}

fn channel_argument(port: Port, eventfd: BorrowedFd<'_>) -> sys::Channel {
    sys::Channel { port: port.0, eventfd: eventfd.as_raw_fd(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    /// A guest's file that is /dev/null: every request is refused.
    fn dev_null() -> GuestFile {
        let fd = open("/dev/null", OFlags::RDWR).unwrap();
        GuestFile { dom: DomId(5), fd }
    }

    #[test]
    fn without_the_module_the_error_names_the_modprobe_command() {
        let Err(error) = Control::open() else { return };
        assert_eq!(error.call, Call::Open(DEVICE));
        if error.errno == Errno::NOENT {
            assert!(error.to_string().contains("modprobe xen-eventfd"), "{error}");
        }
    }

    #[test]
    fn errors_name_the_call() {
        let (file, eventfd) = (dev_null(), eventfd(0, EventfdFlags::empty()).unwrap());
        let filter = Filter::Fallback { span: 4 };
        let doorbell = Doorbell::new(Space::Mmio, 0x50, filter).unwrap();
        let refused = |call, result: Result<()>| {
            assert_eq!(result, Err(HostError::new(call, Errno::NOTTY)));
        };
        let (dom, port, fd) = (DomId(5), Port(3), eventfd.as_fd());
        let channel = Irq::EventChannel(port);
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        refused(Call::Assign(dom), file.assign(&doorbell, fd));
        refused(Call::Assign(dom), file.deassign(&doorbell, fd));
        refused(Call::Query(dom), file.stats().map(drop));
        refused(Call::Query(dom), file.assigned().map(drop));
        refused(Call::Query(dom), file.held().map(drop));
        refused(Call::Query(dom), file.missed(&doorbell, fd).map(drop));
        refused(Call::Bind(dom, port), file.assign_irq(&channel, fd));
        refused(Call::Interrupt(dom), file.assign_irq(&msi, fd));
        refused(Call::Assign(dom), file.deassign_irq(&msi, fd));
        refused(Call::Query(dom), file.irq_counts(&msi, fd).map(drop));
        refused(Call::Assign(dom), file.lower(&msi, fd));
        refused(Call::Interrupt(dom), file.set_irq(&channel, fd, &msi));
        refused(Call::Bind(dom, port), file.set_irq(&msi, fd, &channel));
        refused(Call::Assign(dom), file.mask_irq(&msi, fd));
        refused(Call::Assign(dom), file.unmask_irq(&msi, fd));
        refused(Call::Query(dom), file.is_pending(&msi, fd).map(drop));
        refused(Call::Bind(dom, port), file.assign_channel(port, fd));
        refused(Call::Assign(dom), file.deassign_channel(port, fd));
    }

    #[test]
    fn a_doorbell_survives_the_conversion_to_a_list_entry() {
        let null = open("/dev/null", OFlags::RDONLY).unwrap();
        let filters = [
            Filter::Value { width: Width::Four, value: 3, mask: 0xFFFF },
            Filter::Width(Width::Two),
            Filter::Any { span: 3 },
            Filter::Fallback { span: 8 },
        ];
        for (filter, space) in filters.into_iter().zip([Space::Mmio, Space::Pio].repeat(2)) {
            let doorbell = Doorbell::new(space, 0x50, filter).unwrap();
            let sys::Doorbell { space, kind, len, addr, datamatch, datamask, .. } =
                argument_of(&doorbell, null.as_fd());
            let entry =
                sys::Entry { space, kind, len, addr, datamatch, datamask, ..Default::default() };
            assert_eq!(doorbell_of(&entry), Some(doorbell));
            assert_eq!(doorbell_of(&sys::Entry { kind: 9, ..entry }), None);
        }
    }

    #[test]
    fn the_fields_that_an_interrupt_does_not_use_are_zero() {
        let null = open("/dev/null", OFlags::RDONLY).unwrap();
        let fields = |irq| {
            let sys::Irq { kind, trigger, number, pin, msi_data, msi_addr, .. } =
                irq_argument(&irq, null.as_fd());
            (kind, trigger, number, pin, msi_data, msi_addr)
        };
        let line = |line, trigger| fields(Irq::Line(line, trigger));
        assert_eq!(fields(Irq::EventChannel(Port(5))), (sys::IRQ_CHANNEL, 0, 5, 0, 0, 0));
        let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
        assert_eq!(fields(msi), (sys::IRQ_MSI, 0, 0, 0, 0x41, 0xFEE0_0000));
        assert_eq!(line(Line::Isa(4), Trigger::Pulse), (sys::IRQ_ISA, sys::PULSE, 4, 0, 0, 0));
        let intx = Line::PciIntx { device: 3, pin: 1 };
        assert_eq!(line(intx, Trigger::Level), (sys::IRQ_INTX, sys::LEVEL, 3, 1, 0, 0));
        assert_eq!(line(Line::Spi(33), Trigger::Level), (sys::IRQ_SPI, sys::LEVEL, 33, 0, 0, 0));
    }

    #[test]
    fn a_change_holds_the_old_and_the_new_interrupt() {
        let null = open("/dev/null", OFlags::RDONLY).unwrap();
        let (msi, channel) =
            (Irq::Msi { addr: 0xFEE0_1000, data: 0x41 }, Irq::EventChannel(Port(5)));
        let line = Irq::Line(Line::PciIntx { device: 3, pin: 1 }, Trigger::Level);
        for (was, is) in [(msi, channel), (channel, line), (line, msi)] {
            let change = change_argument(&was, null.as_fd(), &is);
            let fields = |irq: &sys::Irq| {
                (irq.kind, irq.trigger, irq.number, irq.pin, irq.msi_data, irq.msi_addr)
            };
            let sys::IrqChange { kind, trigger, number, pin, msi_data, msi_addr, .. } = change;
            let before = (kind, trigger, number, pin, msi_data, msi_addr);
            assert_eq!(before, fields(&irq_argument_of(&was)));
            let sys::IrqChange { new_kind, new_trigger, new_number, new_pin, .. } = change;
            let after = (new_kind, new_trigger, new_number, new_pin);
            let after =
                (after.0, after.1, after.2, after.3, change.new_msi_data, change.new_msi_addr);
            assert_eq!(after, fields(&irq_argument_of(&is)));
            assert_eq!(change.eventfd, null.as_raw_fd());
            let sys::IrqState { kind, trigger, number, pin, msi_data, msi_addr, eventfd, .. } =
                state_argument(&was, null.as_fd());
            assert_eq!((kind, trigger, number, pin, msi_data, msi_addr), before);
            assert_eq!(eventfd, null.as_raw_fd());
        }
    }

    #[test]
    fn an_owner_that_has_ended_has_no_process_id() {
        let mut name = [0; 16];
        name[..7].copy_from_slice(b"a name\0");
        let of = |pid| owner(&sys::Owner { pid, name, ..Default::default() });
        assert_eq!(of(0), Owner { pid: None, name: "a name".to_owned() });
        assert_eq!(of(7).pid, Some(7));
    }

    #[test]
    fn a_module_that_lacks_a_feature_is_not_complete() {
        let of = |features| info(&sys::Query { features, ..Default::default() }).complete;
        assert!(of(0b1_1111) && of(0b1_0111) && !of(0b1111) && !of(0b1_0011) && !of(0));
    }
}
