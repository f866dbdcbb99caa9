// SPDX-License-Identifier: GPL-2.0

//! What a kick goes through: a vCPU's slot, the table of doorbells, an eventfd.
//!
//! A handler serves the slot of its own vCPU, counts in its own counters, and reads the table as
//! [`Ports`](crate::ports::Ports) lets it. So the handlers of a guest's vCPUs do not wait for one another, but
//! where a kick finds no registration: what is claimed and what is held is under one lock for all of them.
//! The kicks of a fallback are under a lock of its own, and so is the InterruptStatus of a device.

use crate::claimed::Claims;
use crate::device::Devices;
use crate::doorbells::{Registration, Table, MAX_HELD};
use crate::page::IoreqPage;
use crate::port::Ended;
use crate::ports::Reader;
use crate::protocol::dispatch::{matched, unmatched, Leftover, Outcome};
use crate::protocol::doorbell::Bytes;
use crate::protocol::held::Held;
use crate::protocol::status::Counter;
use crate::protocol::{table, Counters, DomId, Kick, Port, Request};
use crate::trace::{self, KickEnd};
use crate::xen;
use core::mem;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::barrier::{ordering::Full, smp_mb};
use kernel::sync::lock::spinlock::{new_spinlock_irq, SpinLockIrq};
use kernel::sync::Arc;

/// What the handlers of one guest look accesses up in, without a lock.
pub(crate) struct Routes {
    pub(crate) doorbells: Table,
    /// Whose registers are answered.
    pub(crate) devices: Devices,
}

impl Routes {
    /// None.
    pub(crate) fn new() -> Self {
        Self { doorbells: Table::new(), devices: Devices::new() }
    }
}

/// What a kick that finds no registration is looked up in.
struct Unserved {
    claims: Claims,
    held: KBox<Held<MAX_HELD>>,
    redelivered: u64,
}

/// What the handlers of one guest share besides the table.
#[pin_data]
pub(crate) struct DispatchState {
    dom: DomId,
    #[pin]
    unserved: SpinLockIrq<Unserved>,
}

/// On a stack frame of its own, as the marks pass through it.
#[inline(never)]
fn nothing_held() -> Result<KBox<Held<MAX_HELD>>> {
    Ok(KBox::new(Held::new(), GFP_KERNEL_ACCOUNT)?)
}

impl DispatchState {
    /// Nothing is claimed and nothing held.
    pub(crate) fn new(dom: DomId) -> Result<Arc<Self>> {
        let unserved = Unserved { claims: Claims::new(), held: nothing_held()?, redelivered: 0 };
        let state = pin_init!(Self {
            dom,
            unserved <- new_spinlock_irq!(unserved, "DispatchState::unserved"),
        });
        Arc::pin_init(state, GFP_KERNEL_ACCOUNT)
    }

    /// The guest.
    pub(crate) fn dom(&self) -> DomId {
        self.dom
    }

    /// Swaps the claims.
    pub(crate) fn swap_claims(&self, claims: &mut Claims) {
        mem::swap(&mut self.unserved.lock().claims, claims);
    }

    /// The same, and forgets the kicks held for bytes that are no longer claimed.
    pub(crate) fn release(&self, claims: &mut Claims, bytes: Bytes) {
        let mut unserved = self.unserved.lock();
        let Unserved { claims: current, held, .. } = &mut *unserved;
        mem::swap(current, claims);
        held.forget(bytes, current);
    }

    /// Forgets the kicks held for bytes that are a device's registers by now.
    pub(crate) fn discard(&self, bytes: Bytes) {
        self.unserved.lock().held.discard(bytes);
    }

    /// Delivers what was held for a registration that all handlers find in the table by now.
    pub(crate) fn redeliver(&self, table: &Table, new: &Registration) {
        let Some(index) = table::position(table, new.doorbell()) else { return };
        let mut unserved = self.unserved.lock();
        if unserved.held.take_for(table, index, |kick| new.remember(kick)) {
            new.signal();
            unserved.redelivered = unserved.redelivered.wrapping_add(1);
        }
    }

    /// The held kick at an index.
    pub(crate) fn waiting(&self, index: usize) -> Option<Kick> {
        self.unserved.lock().held.marks().get(index).copied()
    }

    /// What an access that finds no registration comes to; a kick is held if its bytes are claimed.
    fn unserved<'a>(&self, leftover: Leftover<'a>) -> Outcome<'a> {
        if let Leftover::Read(_) = leftover {
            return unmatched(&[], leftover);
        }
        let mut unserved = self.unserved.lock();
        let outcome = unmatched(&unserved.claims, leftover);
        if let Outcome::Hold(kick) = outcome {
            unserved.held.insert(*kick);
        }
        outcome
    }

    /// What the guest's doorbells have seen.
    pub(crate) fn count<'a>(&self, vcpus: impl Iterator<Item = &'a Vcpu>) -> Counters {
        let mut counters = Counters::default();
        vcpus.for_each(|vcpu| vcpu.counters.add_to(&mut counters));
        counters.redelivered = self.unserved.lock().redelivered;
        counters
    }
}

/// What came of one vCPU's requests. Its handler alone counts; others read.
struct VcpuCounters([Atomic<u64>; Counter::ALL.len()]);

impl VcpuCounters {
    fn new() -> Self {
        Self([const { Atomic::new(0) }; Counter::ALL.len()])
    }

    fn count(&self, counter: Counter) {
        if let Some(count) = self.0.get(counter as usize) {
            count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    fn add_to(&self, counters: &mut Counters) {
        for (counter, count) in Counter::ALL.into_iter().zip(&self.0) {
            let sum = counters.of(counter);
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
    }
}

/// One vCPU, as its handler knows it.
pub(crate) struct Vcpu {
    state: Arc<DispatchState>,
    page: Arc<IoreqPage>,
    index: usize,
    counters: VcpuCounters,
}

impl Vcpu {
    /// The vCPU of the slot at an index of the page.
    pub(crate) fn new(state: &Arc<DispatchState>, page: &Arc<IoreqPage>, index: usize) -> Self {
        let (state, page) = (state.clone(), page.clone());
        Self { state, page, index, counters: VcpuCounters::new() }
    }

    /// Serves its request, if there is one. Returns whether the vCPU is owed an event. To be called by
    /// the handler, or when no handler runs any more.
    pub(crate) fn serve(&self, routes: &Routes) -> bool {
        let Some(slot) = self.page.slots().get(self.index) else { return false };
        slot.serve(|request| self.act(routes, request)).is_some()
    }

    /// Acts on one request; the result is the answer to a read.
    fn act(&self, routes: &Routes, request: &Request) -> u64 {
        let table = &routes.doorbells;
        let outcome = match matched(table, request) {
            Ok(outcome) => outcome,
            Err(leftover) => match leftover.device(&routes.devices) {
                Some(index) => {
                    return routes.devices.get(index).map_or(0, |device| device.answer(&leftover));
                }
                None => self.state.unserved(leftover),
            },
        };
        let end = |kick, end| trace::kick(self.state.dom, self.index, kick, end);
        match outcome {
            Outcome::Signal(index, kick) => {
                if let Some(registration) = table.get(index) {
                    registration.deliver(kick);
                }
                end(kick, KickEnd::Delivered);
            }
            Outcome::Hold(kick) => {
                let access = &kick.access;
                if let Some(first) = Registration::first_at(table, access.space, access.addr) {
                    first.count_held();
                }
                end(kick, KickEnd::Held);
            }
            Outcome::Late(kick) => end(kick, KickEnd::Late),
            Outcome::Odd { space: Some(space), addr } => {
                if let Some(first) = Registration::first_at(table, space, addr) {
                    first.count_odd();
                }
            }
            Outcome::Odd { space: None, .. } | Outcome::Answer(_) | Outcome::Broadcast => {}
        }
        self.counters.count(outcome.counter());
        outcome.answer()
    }
}

impl Reader<Routes> for Vcpu {
    fn handle(&self, port: Port, routes: &Routes) -> Ended {
        // The slot may have been looked at before Xen can see that the event's bit was cleared, as clearing it
        // orders nothing on Arm. Then a request that Xen published in between has no event of its own, as Xen
        // found the bit set. So a slot that seemed to have none is looked at again, behind a barrier; a kick
        // costs nothing for it. (The userspace engine reads its events by a system call, from what a handler
        // has stored after it cleared the bit.)
        let served = self.serve(routes) || {
            smp_mb(Full);
            self.serve(routes)
        };
        if served {
            // It fails only if the guest is gone.
            let _ = xen::send(port);
        } else {
            self.counters.count(Counter::Spurious);
        }
        // Only Xen rings this port. An event that found nothing (of a binding, of a sweep) is no
        // reason to have the next kick wait.
        Ended::Served
    }
}
