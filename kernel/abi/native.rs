// SPDX-License-Identifier: GPL-2.0

//! The requests of `uapi/xen-eventfd.h`. What is in them is the core's.

use super::{answer, read};
use crate::doorbells::{MAX_DOORBELLS, MAX_HELD, MAX_UNMATCHED};
use crate::eventfd::EventFd;
use crate::irqs::MAX_IRQS;
use crate::kicks::Stats;
use crate::protocol::interrupt_status::Registers;
use crate::protocol::irq::Irq;
use crate::protocol::status::{DeviceStatus, DoorbellStatus, Interface};
use crate::protocol::unmatched::UnmatchedKick;
pub(crate) use crate::protocol::wire::native::{
    Listed, StatusChange, ASSIGN, ASSIGN_CHANNEL, ASSIGN_IRQ, ASSIGN_STATUS, CHANGE_STATUS, CREATE, DEASSIGN,
    DEASSIGN_CHANNEL, DEASSIGN_IRQ, DEASSIGN_STATUS, IRQ_STATE, IRQ_STATS, LIST, LOWER, MASK_IRQ, MEMORY,
    MISSED, OWNER, QUERY, SET_IRQ, STATS, UNMASK_IRQ,
};
pub(crate) use crate::protocol::wire::native::MemoryRange;
use crate::protocol::wire::native::{
    self, ChannelArg, CreateArg, DoorbellArg, EntryArg, IrqArg, IrqChangeArg, IrqStateArg, MemoryArg, MissedArg,
    OwnerArg, QueryArg, StatsArg, StatusArg, StatusChangeArg,
};
use crate::protocol::wire::Invalid;
use crate::protocol::{DomId, Doorbell, Kick, Port};
use crate::taken::Owner;
use kernel::prelude::*;
use kernel::uaccess::UserPtr;

const FEATURES: u64 = native::FEATURE_DOORBELLS
    | native::FEATURE_IRQS
    | native::FEATURE_CHANNELS
    | native::FEATURE_PRIVCMD
    | native::FEATURE_IRQ_CHANGES
    | native::FEATURE_SHARE
    | native::FEATURE_OWN
    | native::FEATURE_MEMORY
    | native::FEATURE_STATUS;

fn valid<T>(value: Result<T, Invalid>) -> Result<T> {
    value.map_err(|_| EINVAL)
}

/// Answers [`QUERY`].
pub(crate) fn query(arg: UserPtr) -> Result {
    read::<QueryArg>(arg)?;
    let info = QueryArg {
        abi: native::ABI,
        features: FEATURES,
        max_doorbells: MAX_DOORBELLS as u32,
        max_held: MAX_HELD as u32,
        max_missed: MAX_UNMATCHED as u32,
        max_irqs: MAX_IRQS as u32,
    };
    answer(arg, &info)
}

/// What [`CREATE`] asks for.
pub(crate) struct Create {
    pub(crate) dom: DomId,
    pub(crate) interface: Interface,
    /// The file ends with the calling process's descriptor.
    pub(crate) own: bool,
    gone: i32,
}

impl Create {
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let create = read::<CreateArg>(arg)?;
        let (dom, interface) = valid(create.taken())?;
        Ok(Self { dom, interface, own: create.is_own(), gone: create.gone })
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
    valid(read::<OwnerArg>(arg)?.guest())
}

/// Answers [`OWNER`].
pub(crate) fn owner(arg: UserPtr, owner: &Owner) -> Result {
    answer(arg, &OwnerArg { pid: owner.pid(), name: *owner.name(), ..OwnerArg::default() })
}

/// The guest and the part of its memory that [`MEMORY`] asks for.
pub(crate) fn memory(arg: UserPtr) -> Result<(DomId, MemoryRange)> {
    valid(read::<MemoryArg>(arg)?.part())
}

/// The doorbell and the file descriptor that [`ASSIGN`] and [`DEASSIGN`] name.
pub(crate) fn doorbell(arg: UserPtr) -> Result<(Doorbell, i32)> {
    let named = read::<DoorbellArg>(arg)?;
    Ok((valid(named.doorbell())?, named.eventfd))
}

/// Whether [`STATS`] can be answered; before any work is done for it.
pub(crate) fn wants_stats(arg: UserPtr) -> Result {
    read::<StatsArg>(arg).map(|_| ())
}

/// Answers [`STATS`].
pub(crate) fn stats(arg: UserPtr, stats: &Stats) -> Result {
    answer(arg, &StatsArg::of(stats.server, stats.doorbells, &stats.counters))
}

/// The list and the index that [`LIST`] asks for.
pub(crate) fn listed(arg: UserPtr) -> Result<Listed> {
    valid(read::<EntryArg>(arg)?.listed())
}

/// Answers [`LIST`] with a registration.
pub(crate) fn list_doorbell(arg: UserPtr, status: &DoorbellStatus) -> Result {
    answer(arg, &EntryArg::default().with_doorbell(status))
}

/// Answers [`LIST`] with a held kick.
pub(crate) fn list_held(arg: UserPtr, kick: &Kick) -> Result {
    answer(arg, &EntryArg::default().with_kick(kick))
}

/// The fallback and the file descriptor that [`MISSED`] names.
pub(crate) fn fallback(arg: UserPtr) -> Result<(Doorbell, i32)> {
    let named = read::<MissedArg>(arg)?;
    Ok((valid(named.fallback())?, named.eventfd))
}

/// Answers [`MISSED`].
pub(crate) fn unmatched(arg: UserPtr, unmatched: &UnmatchedKick) -> Result {
    answer(arg, &MissedArg::default().with(unmatched))
}

/// The interrupt and the file descriptor that [`ASSIGN_IRQ`] and its kin name.
pub(crate) fn irq(arg: UserPtr) -> Result<(Irq, i32)> {
    let named = read::<IrqArg>(arg)?;
    Ok((valid(named.irq())?, named.eventfd))
}

/// Those that [`SET_IRQ`] names, and the interrupt that is to be raised from then on.
pub(crate) fn irq_change(arg: UserPtr) -> Result<(Irq, i32, Irq)> {
    let change = read::<IrqChangeArg>(arg)?;
    Ok((valid(change.irq())?, change.eventfd, valid(change.new_irq())?))
}

/// The interrupt and the file descriptor that [`IRQ_STATE`] names.
pub(crate) fn irq_asked(arg: UserPtr) -> Result<(Irq, i32)> {
    let named = read::<IrqStateArg>(arg)?;
    Ok((valid(named.irq())?, named.eventfd))
}

/// Answers [`IRQ_STATS`].
pub(crate) fn irq_stats(arg: UserPtr, (raised, failed): (u64, u64)) -> Result {
    answer(arg, &IrqArg { raised, failed, ..IrqArg::default() })
}

/// Answers [`IRQ_STATE`].
pub(crate) fn irq_state(arg: UserPtr, (masked, pending): (bool, bool)) -> Result {
    let (masked, pending) = (masked.into(), pending.into());
    answer(arg, &IrqStateArg { masked, pending, ..IrqStateArg::default() })
}

/// The registers and the interrupt that [`ASSIGN_STATUS`] and [`DEASSIGN_STATUS`] name.
pub(crate) fn status(arg: UserPtr) -> Result<(Registers, Irq)> {
    valid(read::<StatusArg>(arg)?.device())
}

/// Answers [`DEASSIGN_STATUS`].
pub(crate) fn status_bits(arg: UserPtr, bits: u32) -> Result {
    answer(arg, &StatusArg { bits, ..StatusArg::default() })
}

/// What [`CHANGE_STATUS`] asks for.
pub(crate) fn status_change(arg: UserPtr) -> Result<(Registers, StatusChange)> {
    valid(read::<StatusChangeArg>(arg)?.change())
}

/// Answers [`CHANGE_STATUS`].
pub(crate) fn status_changed(arg: UserPtr, status: &DeviceStatus) -> Result {
    answer(arg, &StatusChangeArg::default().with(status))
}

/// The port and the file descriptor that [`ASSIGN_CHANNEL`] and [`DEASSIGN_CHANNEL`] name.
pub(crate) fn channel(arg: UserPtr) -> Result<(Port, i32)> {
    let named = read::<ChannelArg>(arg)?;
    Ok((valid(named.port())?, named.eventfd))
}
