// SPDX-License-Identifier: GPL-2.0

//! The requests of `uapi/xen-eventfd.h`.

use super::{read, Answer, Fields};
use crate::doorbells::{Taken, MAX_DOORBELLS, MAX_HELD, MAX_MISSED};
use crate::eventfd::EventFd;
use crate::guest::{Stats, MAX_IRQS};
use crate::protocol::irq::{Irq, Line, Trigger};
use crate::protocol::status::{DoorbellStatus, Interface};
use crate::protocol::{DomId, Doorbell, Filter, Kick, Port, Space, Width};
use crate::taken::Owner;
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

const MAGIC: u32 = 0xEF;
pub(crate) const QUERY: u32 = kernel::ioctl::_IO(MAGIC, 0x00);
pub(crate) const CREATE: u32 = kernel::ioctl::_IO(MAGIC, 0x01);
pub(crate) const OWNER: u32 = kernel::ioctl::_IO(MAGIC, 0x02);
pub(crate) const ASSIGN: u32 = kernel::ioctl::_IO(MAGIC, 0x10);
pub(crate) const DEASSIGN: u32 = kernel::ioctl::_IO(MAGIC, 0x11);
pub(crate) const STATS: u32 = kernel::ioctl::_IO(MAGIC, 0x12);
pub(crate) const LIST: u32 = kernel::ioctl::_IO(MAGIC, 0x13);
pub(crate) const MISSED: u32 = kernel::ioctl::_IO(MAGIC, 0x14);
pub(crate) const ASSIGN_IRQ: u32 = kernel::ioctl::_IO(MAGIC, 0x20);
pub(crate) const DEASSIGN_IRQ: u32 = kernel::ioctl::_IO(MAGIC, 0x21);
pub(crate) const IRQ_STATS: u32 = kernel::ioctl::_IO(MAGIC, 0x22);
pub(crate) const LOWER: u32 = kernel::ioctl::_IO(MAGIC, 0x23);
pub(crate) const SET_IRQ: u32 = kernel::ioctl::_IO(MAGIC, 0x24);
pub(crate) const MASK_IRQ: u32 = kernel::ioctl::_IO(MAGIC, 0x25);
pub(crate) const UNMASK_IRQ: u32 = kernel::ioctl::_IO(MAGIC, 0x26);
pub(crate) const IRQ_STATE: u32 = kernel::ioctl::_IO(MAGIC, 0x27);
pub(crate) const ASSIGN_CHANNEL: u32 = kernel::ioctl::_IO(MAGIC, 0x30);
pub(crate) const DEASSIGN_CHANNEL: u32 = kernel::ioctl::_IO(MAGIC, 0x31);

const ABI: u32 = 1;
/// Doorbells, irqs, channels, the requests of privcmd, changes of irqs, guests shared with the requests.
const FEATURES: u64 = 0b11_1111;

const QUERY_SIZE: usize = 32;
const CREATE_SIZE: usize = 16;
const OWNER_SIZE: usize = 28;
const DOORBELL_SIZE: usize = 48;
const STATS_SIZE: usize = 72;
const ENTRY_SIZE: usize = 64;
const MISSED_SIZE: usize = 56;
const IRQ_SIZE: usize = 56;
const IRQ_CHANGE_SIZE: usize = 72;
const IRQ_STATE_SIZE: usize = 48;
const CHANNEL_SIZE: usize = 16;

/// Reads what every struct begins with: its size, which is for [`read`] alone.
fn begin<const N: usize>(known: &[u8; N]) -> Result<Fields<'_>> {
    let mut fields = Fields(known);
    fields.u32()?;
    Ok(fields)
}

/// A field that must be zero, as nothing is known of it.
fn zero(field: u32) -> Result {
    if field == 0 {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// A domain and its padding.
fn guest(fields: &mut Fields<'_>) -> Result<DomId> {
    let (dom, pad) = (DomId(fields.u16()?), fields.u16()?);
    zero(u32::from(pad))?;
    if dom.is_guest() {
        Ok(dom)
    } else {
        Err(EINVAL)
    }
}

/// Answers [`QUERY`].
pub(crate) fn query(arg: UserPtr) -> Result {
    read::<QUERY_SIZE>(arg)?;
    Answer::<{ QUERY_SIZE - 4 }>::new()
        .u32(ABI)
        .u64(FEATURES)
        .u32(MAX_DOORBELLS as u32)
        .u32(MAX_HELD as u32)
        .u32(MAX_MISSED as u32)
        .u32(MAX_IRQS as u32)
        .write(arg, 4)
}

/// What [`CREATE`] asks for.
pub(crate) struct Create {
    pub(crate) dom: DomId,
    pub(crate) interface: Interface,
    gone: i32,
}

impl Create {
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let known = read::<CREATE_SIZE>(arg)?;
        let mut fields = begin(&known)?;
        let interface = match fields.u32()? {
            0 => Interface::Native,
            1 => Interface::Reserved,
            2 => Interface::Privcmd,
            _ => return Err(EINVAL),
        };
        Ok(Self { dom: guest(&mut fields)?, interface, gone: fields.i32()? })
    }

    /// The eventfd that is signalled when the guest dies.
    pub(crate) fn gone(&self) -> Result<Option<EventFd>> {
        if self.gone == -1 {
            return Ok(None);
        }
        EventFd::from_descriptor(self.gone).map(Some)
    }
}

/// The guest that [`OWNER`] asks about.
pub(crate) fn owned(arg: UserPtr) -> Result<DomId> {
    let known = read::<OWNER_SIZE>(arg)?;
    guest(&mut begin(&known)?)
}

/// Answers [`OWNER`].
pub(crate) fn owner(arg: UserPtr, owner: &Owner) -> Result {
    let answer = Answer::<{ OWNER_SIZE - 8 }>::new().put(&owner.pid().to_ne_bytes());
    answer.put(owner.name()).write(arg, 8)
}

/// The doorbell and the file descriptor that [`ASSIGN`] and [`DEASSIGN`] name.
pub(crate) fn doorbell(arg: UserPtr) -> Result<(Doorbell, i32)> {
    let known = read::<DOORBELL_SIZE>(arg)?;
    let mut fields = begin(&known)?;
    zero(fields.u32()?)?;
    let (space, kind) = (space(fields.u32()?)?, fields.u32()?);
    let (len, eventfd) = (fields.u32()?, fields.i32()?);
    let (addr, value, mask) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let width = || Width::new(len).ok_or(EINVAL);
    let span = || u8::try_from(len).map_err(|_| EINVAL);
    let filter = match kind {
        0 => Filter::Value { width: width()?, value, mask },
        _ if value != 0 || mask != 0 => return Err(EINVAL),
        1 => Filter::Width(width()?),
        2 => Filter::Any { span: span()? },
        3 => Filter::Fallback { span: span()? },
        _ => return Err(EINVAL),
    };
    Ok((Doorbell::new(space, addr, filter).map_err(|_| EINVAL)?, eventfd))
}

fn space(space: u32) -> Result<Space> {
    match space {
        0 => Ok(Space::Mmio),
        1 => Ok(Space::Pio),
        _ => Err(EINVAL),
    }
}

/// Whether [`STATS`] can be answered; before any work is done for it.
pub(crate) fn wants_stats(arg: UserPtr) -> Result {
    read::<STATS_SIZE>(arg).map(|_| ())
}

/// Answers [`STATS`].
pub(crate) fn stats(arg: UserPtr, stats: &Stats) -> Result {
    let doorbells = u16::try_from(stats.doorbells).unwrap_or(u16::MAX);
    let mut answer =
        Answer::<{ STATS_SIZE - 4 }>::new().u16(stats.server.0).u16(doorbells);
    for (_, count) in stats.counters.named() {
        answer = answer.u64(count);
    }
    answer.write(arg, 4)
}

/// The list and the index that [`LIST`] asks for.
pub(crate) enum Listed {
    Doorbell(usize),
    Held(usize),
}

impl Listed {
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let known = read::<ENTRY_SIZE>(arg)?;
        let mut fields = begin(&known)?;
        let (what, index) = (fields.u32()?, fields.u32()? as usize);
        match what {
            0 => Ok(Self::Doorbell(index)),
            1 => Ok(Self::Held(index)),
            _ => Err(EINVAL),
        }
    }
}

/// Answers [`LIST`] with a registration.
pub(crate) fn list_doorbell(arg: UserPtr, shown: &DoorbellStatus) -> Result {
    let bytes = shown.doorbell.bytes();
    let (kind, len, value, mask) = match shown.doorbell.filter() {
        Filter::Value { width, value, mask } => (0, width.bytes(), value, mask),
        Filter::Width(width) => (1, width.bytes(), 0, 0),
        Filter::Any { span } => (2, span, 0, 0),
        Filter::Fallback { span } => (3, span, 0, 0),
    };
    entry(arg, bytes.space(), (kind, len), [bytes.first(), value, mask, shown.kicks, shown.held])
}

/// Answers [`LIST`] with a held kick.
pub(crate) fn list_held(arg: UserPtr, kick: &Kick) -> Result {
    let width = kick.access.width;
    let longs = [kick.access.addr, kick.value, width.mask(), 0, 0];
    entry(arg, kick.access.space, (0, width.bytes()), longs)
}

fn entry(arg: UserPtr, space: Space, (kind, len): (u32, u8), longs: [u64; 5]) -> Result {
    let space = match space {
        Space::Mmio => 0,
        Space::Pio => 1,
    };
    let mut answer =
        Answer::<{ ENTRY_SIZE - 12 }>::new().u32(space).u32(kind).u32(u32::from(len));
    for long in longs {
        answer = answer.u64(long);
    }
    answer.write(arg, 12)
}

/// The fallback and the file descriptor that [`MISSED`] names.
pub(crate) fn fallback(arg: UserPtr) -> Result<(Doorbell, i32)> {
    let known = read::<MISSED_SIZE>(arg)?;
    let mut fields = begin(&known)?;
    let (space, len) = (space(fields.u32()?)?, fields.u32()?);
    let (eventfd, addr, _width) = (fields.i32()?, fields.u64()?, fields.u32()?);
    zero(fields.u32()?)?;
    let span = u8::try_from(len).map_err(|_| EINVAL)?;
    let doorbell = Doorbell::new(space, addr, Filter::Fallback { span });
    Ok((doorbell.map_err(|_| EINVAL)?, eventfd))
}

/// Answers [`MISSED`].
pub(crate) fn missed(arg: UserPtr, taken: &Taken) -> Result {
    let (width, value, kicks) = match taken.kick {
        Some((kick, kicks)) => (u32::from(kick.access.width.bytes()), kick.value, kicks),
        None => (0, 0, 0),
    };
    Answer::<{ MISSED_SIZE - 24 }>::new()
        .u32(width)
        .u32(0)
        .u64(value)
        .u64(kicks)
        .u64(taken.overflowed)
        .write(arg, 24)
}

/// The interrupt and the file descriptor that [`ASSIGN_IRQ`] and its kin name.
pub(crate) fn irq(arg: UserPtr) -> Result<(Irq, i32)> {
    assigned(&mut begin(&read::<IRQ_SIZE>(arg)?)?)
}

/// Those that [`SET_IRQ`] names, and the interrupt that is to be raised from then on.
pub(crate) fn irq_change(arg: UserPtr) -> Result<(Irq, i32, Irq)> {
    let known = read::<IRQ_CHANGE_SIZE>(arg)?;
    let mut fields = begin(&known)?;
    let (irq, eventfd) = assigned(&mut fields)?;
    let (kind, trigger) = (fields.u32()?, fields.u32()?);
    let (number, pin, data, pad) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    zero(pad)?;
    let addr = fields.u64()?;
    Ok((irq, eventfd, interrupt(&IrqFields { kind, trigger, number, pin, data, addr })?))
}

/// The interrupt and the file descriptor that [`IRQ_STATE`] names.
pub(crate) fn irq_asked(arg: UserPtr) -> Result<(Irq, i32)> {
    assigned(&mut begin(&read::<IRQ_STATE_SIZE>(arg)?)?)
}

/// What names an assignment, behind the size.
fn assigned(fields: &mut Fields<'_>) -> Result<(Irq, i32)> {
    zero(fields.u32()?)?;
    let (kind, eventfd, trigger) = (fields.u32()?, fields.i32()?, fields.u32()?);
    let (number, pin, data, addr) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u64()?);
    Ok((interrupt(&IrqFields { kind, trigger, number, pin, data, addr })?, eventfd))
}

/// The fields that say which interrupt is meant.
struct IrqFields {
    kind: u32,
    trigger: u32,
    number: u32,
    pin: u32,
    data: u32,
    addr: u64,
}

fn interrupt(fields: &IrqFields) -> Result<Irq> {
    let IrqFields { kind, trigger, number, pin, data, addr } = *fields;
    let byte = |field| u8::try_from(field).map_err(|_| EINVAL);
    let line = |line| {
        if data != 0 || addr != 0 {
            return Err(EINVAL);
        }
        match trigger {
            0 => Ok(Irq::Line(line, Trigger::Pulse)),
            1 => Ok(Irq::Line(line, Trigger::Level)),
            _ => Err(EINVAL),
        }
    };
    let irq = match kind {
        0 if (trigger, pin, data, addr) == (0, 0, 0, 0) => Irq::EventChannel(Port(number)),
        1 if (trigger, number, pin) == (0, 0, 0) => Irq::Msi { addr, data },
        2 if pin == 0 => line(Line::Isa(byte(number)?))?,
        3 => line(Line::PciIntx { device: byte(number)?, pin: byte(pin)? })?,
        4 if pin == 0 => line(Line::Spi(number))?,
        _ => return Err(EINVAL),
    };
    irq.check().map_err(|_| EINVAL)?;
    Ok(irq)
}

/// Answers [`IRQ_STATS`].
pub(crate) fn irq_stats(arg: UserPtr, (raised, failed): (u64, u64)) -> Result {
    Answer::<16>::new().u64(raised).u64(failed).write(arg, IRQ_SIZE - 16)
}

/// Answers [`IRQ_STATE`].
pub(crate) fn irq_state(arg: UserPtr, (masked, pending): (bool, bool)) -> Result {
    Answer::<8>::new().u32(masked.into()).u32(pending.into()).write(arg, IRQ_STATE_SIZE - 8)
}

/// The port and the file descriptor that [`ASSIGN_CHANNEL`] and [`DEASSIGN_CHANNEL`] name.
pub(crate) fn channel(arg: UserPtr) -> Result<(Port, i32)> {
    let known = read::<CHANNEL_SIZE>(arg)?;
    let mut fields = begin(&known)?;
    zero(fields.u32()?)?;
    let (port, eventfd) = (Port(fields.u32()?), fields.i32()?);
    Irq::EventChannel(port).check().map_err(|_| EINVAL)?;
    Ok((port, eventfd))
}
