//! `/dev/xen/eventfd`: the kernel module, if it is loaded.
//!
//! `kernel/uapi/xen-eventfd.h` is its reference. A [`Control`] takes guests; the registrations of
//! a guest go through its [`GuestFile`], and end with it.

use super::door::{ioctl, open};
use crate::{Call, HostError, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use xen_eventfd_core::interrupt_status::Registers;
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::status::{DeviceStatus, Interface};
use xen_eventfd_core::unmatched::UnmatchedKick;
use xen_eventfd_core::wire::Invalid;
use xen_eventfd_core::wire::native::{
    self, Argument, ChannelArg, CreateArg, DoorbellArg, EntryArg, IrqArg, IrqChangeArg,
    IrqStateArg, Listed, MemoryArg, MissedArg, OwnerArg, QueryArg, Request, StatsArg, StatusArg,
    StatusChange, StatusChangeArg, request,
};
use xen_eventfd_core::{Counters, DomId, Doorbell, IoServerId, Kick, Port};

pub(super) const DEVICE: &str = "/dev/xen/eventfd";

/// Issues a request. The result, if it means something, is not negative.
fn issue<A: Argument>(
    fd: BorrowedFd<'_>,
    request: &Request<A>,
    argument: &mut A,
) -> core::result::Result<u32, Errno> {
    let mut bytes = argument.emit();
    // SAFETY: the request takes these bytes, which hold no address, and any bytes are a value of them.
    let result = unsafe { ioctl(fd, request.0, &mut bytes) }?;
    *argument = A::parse(&bytes).map_err(|_| Errno::PROTO)?;
    Ok(result)
}

/// The struct of a request whose result is a new descriptor.
trait MakesFile: Argument {}

impl MakesFile for CreateArg {}

impl MakesFile for MemoryArg {}

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
        let mut answer = QueryArg::default();
        match issue(device.as_fd(), &request::QUERY, &mut answer) {
            Ok(_) if answer.abi == native::ABI => Ok(Self { device, info: info(&answer) }),
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
    /// The guest is let go of when this process drops the result or ends, whatever descriptors a forked
    /// child has.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if another process holds it; see [`Control::owner`]. [`Errno::NODEV`] if there is no
    /// such guest, [`Errno::OPNOTSUPP`] for a PV guest, [`Errno::NOSPC`] if all of its ioreq
    /// servers are in use, [`Errno::PERM`] if Xen does not let this domain serve it.
    pub fn create(&self, dom: DomId, gone: BorrowedFd<'_>) -> Result<GuestFile> {
        let fd = self.new_file(dom, Interface::Native, gone.as_raw_fd())?;
        Ok(GuestFile { dom, fd })
    }

    /// Keeps a guest from being taken through the module, for as long as the result lives.
    ///
    /// # Errors
    /// As [`Control::create`].
    pub fn reserve(&self, dom: DomId) -> Result<Reservation> {
        self.new_file(dom, Interface::Reserved, -1).map(Reservation)
    }

    /// Makes a part of a guest's memory an object, whose `mmap` shows it. It does not take the guest.
    ///
    /// # Errors
    /// [`Call::Memory`]: [`Errno::NODEV`] if there is no such guest, [`Errno::OPNOTSUPP`] for a PV guest,
    /// [`Errno::INVAL`] if this is not a part of whole pages within it, [`Errno::NOTTY`] if the module is
    /// older than this request.
    pub fn memory(&self, dom: DomId, guest_address: u64, length: u64) -> Result<OwnedFd> {
        self.make(&request::MEMORY, MemoryArg::of(dom, guest_address, length))
            .map_err(|errno| HostError::new(Call::Memory(dom), errno))
    }

    fn new_file(&self, dom: DomId, interface: Interface, gone: i32) -> Result<OwnedFd> {
        self.make(&request::CREATE, CreateArg::of(dom, interface, gone).own())
            .map_err(|errno| HostError::new(Call::Take(dom), errno))
    }

    /// Issues a request that makes a file.
    fn make<A: MakesFile>(
        &self,
        request: &Request<A>,
        mut argument: A,
    ) -> core::result::Result<OwnedFd, Errno> {
        let fd = issue(self.device.as_fd(), request, &mut argument)?;
        let fd = i32::try_from(fd).map_err(|_| Errno::PROTO)?;
        // SAFETY: the request returns a new descriptor, which this process alone owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The process that holds a guest, if there is one.
    ///
    /// # Errors
    /// [`Call::Query`].
    pub fn owner(&self, dom: DomId) -> Result<Option<Owner>> {
        let mut answer = OwnerArg { dom: dom.0, ..Default::default() };
        match issue(self.device.as_fd(), &request::OWNER, &mut answer) {
            Ok(_) => Ok(Some(owner(&answer))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(HostError::new(Call::Query(dom), errno)),
        }
    }
}

fn info(answer: &QueryArg) -> Info {
    let all = native::FEATURE_DOORBELLS
        | native::FEATURE_IRQS
        | native::FEATURE_CHANNELS
        | native::FEATURE_IRQ_CHANGES
        | native::FEATURE_OWN;
    Info {
        abi: answer.abi,
        complete: answer.features & all == all,
        max_doorbells: answer.max_doorbells,
        max_held: answer.max_held,
        max_missed: answer.max_missed,
        max_irqs: answer.max_irqs,
    }
}

fn owner(answer: &OwnerArg) -> Owner {
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
        self.change(
            &request::ASSIGN,
            DoorbellArg::of(doorbell, eventfd.as_raw_fd()),
            Call::Assign(self.dom),
        )
    }

    /// Removes a doorbell. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such doorbell.
    pub fn deassign(&self, doorbell: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(
            &request::DEASSIGN,
            DoorbellArg::of(doorbell, eventfd.as_raw_fd()),
            Call::Assign(self.dom),
        )
    }

    /// The counters of the doorbells.
    ///
    /// # Errors
    /// [`Errno::NODEV`] only.
    pub fn stats(&self) -> Result<Stats> {
        let answer = self.query(&request::STATS, StatsArg::default())?;
        Ok(Stats { server: IoServerId(answer.server), counters: answer.counters() })
    }

    /// The assigned doorbells, in the order of addresses, with the number of kicks of each.
    ///
    /// # Errors
    /// [`Errno::NODEV`] only.
    pub fn assigned(&self) -> Result<Vec<(Doorbell, u64)>> {
        self.list(Listed::Doorbell, |entry| {
            entry.doorbell().map(|status| (status.doorbell, status.kicks))
        })
    }

    /// The held kicks, in order.
    ///
    /// # Errors
    /// [`Errno::NODEV`] only.
    pub fn held(&self) -> Result<Vec<Kick>> {
        self.list(Listed::Held, EntryArg::kick)
    }

    fn list<T>(
        &self,
        listed: fn(u32) -> Listed,
        read: impl Fn(&EntryArg) -> core::result::Result<T, Invalid>,
    ) -> Result<Vec<T>> {
        let mut list = Vec::new();
        for index in 0.. {
            match self.query(&request::LIST, EntryArg::of(listed(index))) {
                Ok(entry) => list.push(read(&entry).map_err(|_| self.query_error(Errno::PROTO))?),
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
    pub fn unmatched(&self, fallback: &Doorbell, eventfd: BorrowedFd<'_>) -> Result<UnmatchedKick> {
        let question = MissedArg::of(fallback, eventfd.as_raw_fd());
        let answer = self.query(&request::MISSED, question)?;
        answer.unmatched().map_err(|_| self.query_error(Errno::PROTO))
    }

    /// Raises an interrupt whenever an eventfd is signalled; a counter that is not 0 raises one at
    /// once.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the eventfd raises an interrupt already; [`Errno::INVAL`] if the interrupt is invalid,
    /// or the guest has not allocated the port for this domain; [`Errno::NOSPC`] beyond
    /// [`Info::max_irqs`], or if too many event channels are bound ([`GuestFile::assign_channel`]).
    pub fn assign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&request::ASSIGN_IRQ, IrqArg::of(irq, eventfd.as_raw_fd()), self.call_of(irq))
    }

    /// The call that an error of an interrupt names.
    fn call_of(&self, irq: &Irq) -> Call {
        match irq {
            Irq::EventChannel(port) => Call::Bind(self.dom, *port),
            _ => Call::Interrupt(self.dom),
        }
    }

    /// Makes an eventfd raise another interrupt. When this returns, `irq` is not raised again, and no
    /// signal was lost.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment; else as [`GuestFile::assign_irq`].
    pub fn set_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>, new: &Irq) -> Result<()> {
        self.change(
            &request::SET_IRQ,
            IrqChangeArg::of(irq, eventfd.as_raw_fd()).to(new),
            self.call_of(new),
        )
    }

    /// Keeps an eventfd from raising its interrupt. When this returns, it is not raised again until
    /// [`GuestFile::unmask_irq`].
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn mask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(
            &request::MASK_IRQ,
            IrqArg::of(irq, eventfd.as_raw_fd()),
            Call::Assign(self.dom),
        )
    }

    /// Unmasks it, and raises the interrupt once if it is pending.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn unmask_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(
            &request::UNMASK_IRQ,
            IrqArg::of(irq, eventfd.as_raw_fd()),
            Call::Assign(self.dom),
        )
    }

    /// Whether an eventfd was signalled since its interrupt was masked.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn is_pending(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<bool> {
        let answer = self.query(&request::IRQ_STATE, IrqStateArg::of(irq, eventfd.as_raw_fd()))?;
        Ok(answer.pending != 0)
    }

    /// Removes an interrupt. When this returns, it is not raised again.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn deassign_irq(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(
            &request::DEASSIGN_IRQ,
            IrqArg::of(irq, eventfd.as_raw_fd()),
            Call::Assign(self.dom),
        )
    }

    /// The number of interrupts that were raised, and that Xen refused.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment.
    pub fn irq_counts(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<(u64, u64)> {
        let answer = self.query(&request::IRQ_STATS, IrqArg::of(irq, eventfd.as_raw_fd()))?;
        Ok((answer.raised, answer.failed))
    }

    /// Lowers the line of a level-triggered interrupt.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is no such assignment, or Xen's error.
    pub fn lower(&self, irq: &Irq, eventfd: BorrowedFd<'_>) -> Result<()> {
        self.change(&request::LOWER, IrqArg::of(irq, eventfd.as_raw_fd()), Call::Assign(self.dom))
    }

    /// Answers InterruptStatus and InterruptACK of a device, and raises its interrupt while a bit is set.
    ///
    /// # Errors
    /// [`Errno::EXIST`] if one of their bytes is a doorbell's or another device's; [`Errno::NOSPC`] if the
    /// guest has 256; [`Errno::NOTTY`] if the module is older than this request; else as
    /// [`GuestFile::assign`] and [`GuestFile::assign_irq`].
    pub fn assign_status(&self, registers: Registers, irq: &Irq) -> Result<()> {
        let argument = StatusArg::of(registers, irq);
        self.change(&request::ASSIGN_STATUS, argument, Call::Status(self.dom))
    }

    /// Takes that back, and first the eventfds that set its bits. Returns the bits that are set.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is none with this interrupt.
    pub fn deassign_status(&self, registers: Registers, irq: &Irq) -> Result<u32> {
        let mut argument = StatusArg::of(registers, irq);
        self.issue(&request::DEASSIGN_STATUS, &mut argument, Call::Status(self.dom))?;
        Ok(argument.bits)
    }

    /// Changes an InterruptStatus whose interrupt is `irq`, and says how it stands.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if there is none, or Xen's error if the interrupt was refused.
    pub fn change_status(
        &self,
        registers: Registers,
        irq: &Irq,
        change: StatusChange,
    ) -> Result<DeviceStatus> {
        let mut argument = StatusChangeArg::of(registers, change);
        self.issue(&request::CHANGE_STATUS, &mut argument, Call::Status(self.dom))?;
        Ok(argument.status(registers, *irq))
    }

    /// Signals an eventfd whenever the guest notifies its event channel.
    ///
    /// # Errors
    /// [`Errno::BUSY`] if the port has an eventfd; [`Errno::INVAL`] if the guest has not allocated
    /// it for this domain; [`Errno::NOSPC`] if 256 channels of the guest are bound, or of all guests
    /// as many as the module's parameter `max_channels` says.
    pub fn assign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()> {
        let call = Call::Bind(self.dom, port);
        self.change(&request::ASSIGN_CHANNEL, ChannelArg::of(port, eventfd.as_raw_fd()), call)
    }

    /// Removes a channel. When this returns, the eventfd is not signalled again.
    ///
    /// # Errors
    /// [`Errno::NOENT`] if the port does not signal this eventfd.
    pub fn deassign_channel(&self, port: Port, eventfd: BorrowedFd<'_>) -> Result<()> {
        let call = Call::Assign(self.dom);
        self.change(&request::DEASSIGN_CHANNEL, ChannelArg::of(port, eventfd.as_raw_fd()), call)
    }

    fn change<A: Argument>(&self, request: &Request<A>, mut argument: A, call: Call) -> Result<()> {
        self.issue(request, &mut argument, call)
    }

    fn issue<A: Argument>(&self, request: &Request<A>, argument: &mut A, call: Call) -> Result<()> {
        match issue(self.fd.as_fd(), request, argument) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use xen_eventfd_core::{Filter, Space};

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
        refused(Call::Query(dom), file.unmatched(&doorbell, fd).map(drop));
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
        let (registers, change) = (Registers::new(0x60).unwrap(), StatusChange::default());
        refused(Call::Status(dom), file.assign_status(registers, &msi));
        refused(Call::Status(dom), file.deassign_status(registers, &msi).map(drop));
        refused(Call::Status(dom), file.change_status(registers, &msi, change).map(drop));
        refused(Call::Bind(dom, port), file.assign_channel(port, fd));
        refused(Call::Assign(dom), file.deassign_channel(port, fd));
    }

    #[test]
    fn an_owner_that_has_ended_has_no_process_id() {
        let mut name = [0; 16];
        name[..7].copy_from_slice(b"a name\0");
        let of = |pid| owner(&OwnerArg { pid, name, ..Default::default() });
        assert_eq!(of(0), Owner { pid: None, name: "a name".to_owned() });
        assert_eq!(of(7).pid, Some(7));
    }

    #[test]
    fn a_module_that_lacks_a_feature_is_not_complete() {
        let of = |features| info(&QueryArg { features, ..Default::default() }).complete;
        assert!(of(0b111_1111) && of(0b101_0111));
        for lacks in [0b11_1111, 0b110_1111, 0b101_0011, 0] {
            assert!(!of(lacks), "{lacks:#b}");
        }
    }
}
