//! Instructions of a guest's vCPU: accesses, and the wait for their answers.
//!
//! An access that an ioreq server claims parks the vCPU as Xen parks it (`ioreq_send`,
//! `wait_for_io`): it runs on when an event comes through *any* of Xen's own channels for this
//! vCPU and its request has been answered. Nothing else wakes it: neither the answer without the
//! event nor the end of the server.
//!
//! Where Xen's behaviour depends on a race, the model takes the worse case: a state that goes backwards
//! crashes the domain whenever the vCPU checked in between, though on x86 Xen forgets the state
//! when it parks the vCPU (on Arm it does not).

use crate::Model;
use crate::access::{Piece, check_port, in_page, mask, pieces};
use crate::domain::Stopped;
use crate::running::{PATIENCE, Running};
use crate::server::Sent;
use crate::world::{Key, Locked, World};
use core::time::Duration;
use std::sync::{Arc, Condvar};
use xen_eventfd_core::ioreq::{COPY, DATA_IS_PTR, DIR_READ, INVALIDATE, Ioreq};
use xen_eventfd_core::irq::Arch;
use xen_eventfd_core::slot::State;
use xen_eventfd_core::{DomId, Space, VcpuId, Width};

#[derive(Debug, Default)]
pub(crate) struct VcpuState {
    /// An instruction is in progress.
    pub(crate) busy: bool,
    /// Waits for an event on one of Xen's own ports (`_VPF_blocked_in_xen`).
    pub(crate) blocked: bool,
    /// How often such an event found it waiting.
    pub(crate) wakes: u64,
    /// What its other threads wait for: events, interrupts.
    pub(crate) waiting: Vec<String>,
    pub(crate) woken: Arc<Condvar>,
}

impl VcpuState {
    /// `default_xen_notification_fn`.
    pub(crate) fn wake(&mut self) {
        if self.blocked {
            self.blocked = false;
            self.wakes += 1;
            self.woken.notify_all();
        }
    }
}

/// A vCPU, driven from a thread of the caller. A clone is another handle to the same
/// vCPU; instructions of one vCPU wait for each other.
#[derive(Debug, Clone)]
pub struct Vcpu {
    pub(crate) model: Model,
    pub(crate) key: Key,
    pub(crate) id: VcpuId,
}

impl Vcpu {
    /// Its domain.
    pub fn domain(&self) -> DomId {
        self.key.id
    }

    /// Its number.
    pub fn id(&self) -> VcpuId {
        self.id
    }

    /// Writes `value`, truncated to `width`, and waits until the write is answered. A write that no
    /// server claims has no effect, on Arm a data abort.
    ///
    /// A write to memory across a page boundary is split there, each half into powers of two, but on Arm.
    ///
    /// # Errors
    /// [`Stopped`], also while the vCPU is parked.
    ///
    /// # Panics
    /// On an 8-byte port access, or a port above 0xFFFF: x86 has none.
    pub fn write(&self, space: Space, addr: u64, width: Width, value: u64) -> Result<(), Stopped> {
        for piece in pieces(self.model.arch(), space, addr, width) {
            let data = (value >> (8 * piece.offset)) & mask(piece.size);
            self.access(&Ioreq { data, ..piece.request(space, 0) })?;
        }
        Ok(())
    }

    /// Reads and waits for the answer. A read that no server claims returns all ones, on
    /// Arm it is a data abort.
    ///
    /// # Errors
    /// As [`Vcpu::write`].
    ///
    /// # Panics
    /// As [`Vcpu::write`].
    pub fn read(&self, space: Space, addr: u64, width: Width) -> Result<u64, Stopped> {
        let mut value = 0;
        for piece in pieces(self.model.arch(), space, addr, width) {
            let data = self.access(&piece.request(space, DIR_READ))?;
            value |= (data & mask(piece.size)) << (8 * piece.offset);
        }
        Ok(value)
    }

    /// `rep stos` to memory: the same value, `count` times, upwards. Xen sends one request
    /// for each page, with the value in `data` and the repetitions in `count`. On Arm, so many stores that increment their
    /// address, which Xen decodes (`decode_arm64`): one request for each.
    ///
    /// # Errors
    /// As [`Vcpu::write`].
    pub fn rep_stos(&self, addr: u64, width: Width, value: u64, count: u32) -> Result<(), Stopped> {
        let size = u64::from(width.bytes());
        if self.model.arch() == Arch::Arm {
            let mut places = (0..count).map(|nth| addr.wrapping_add(size * u64::from(nth)));
            return places.try_for_each(|addr| self.write(Space::Mmio, addr, width, value));
        }
        let (mut addr, mut left) = (addr, count);
        while left > 0 {
            let now = in_page(addr, size).min(left);
            let request = Piece { addr, size: width.bytes(), offset: 0 }.request(Space::Mmio, 0);
            self.access(&Ioreq { data: value & width.mask(), count: now, ..request })?;
            addr = addr.wrapping_add(size * u64::from(now));
            left -= now;
        }
        Ok(())
    }

    /// `stp`, a store of two registers. The processor reports neither of them, Xen does not decode it, and no server has a
    /// request: it is a data abort (`try_decode_instruction`). x86 has no such instruction.
    ///
    /// # Errors
    /// [`Stopped::Abort`], on x86 [`Stopped::Fault`]; as [`Vcpu::write`] if the vCPU does not run.
    pub fn store_pair(&self) -> Result<(), Stopped> {
        let stopped = match self.model.arch() {
            Arch::Arm => Stopped::Abort,
            Arch::X86 => Stopped::Fault,
        };
        self.instruction(|_| Err(stopped)).map(drop)
    }

    /// `rep outs` to a port: `count` times `value`, from guest memory at `buffer`. Xen sends
    /// one request for each page of the buffer, with its address in `data` (`data_is_ptr`); a
    /// single repetition, or the last one left, is sent as a plain write.
    ///
    /// # Errors
    /// As [`Vcpu::write`].
    ///
    /// # Panics
    /// As [`Vcpu::write`].
    pub fn rep_outs(
        &self,
        port: u64,
        width: Width,
        buffer: u64,
        value: u64,
        count: u32,
    ) -> Result<(), Stopped> {
        check_port(port, width);
        let size = u64::from(width.bytes());
        let (mut buffer, mut left) = (buffer, count);
        while left > 0 {
            if left == 1 {
                return self.write(Space::Pio, port, width, value);
            }
            let now = in_page(buffer, size).min(left);
            let piece = Piece { addr: port, size: width.bytes(), offset: 0 };
            let request = piece.request(Space::Pio, DATA_IS_PTR);
            self.access(&Ioreq { data: buffer, count: now, ..request })?;
            buffer = buffer.wrapping_add(size * u64::from(now));
            left -= now;
        }
        Ok(())
    }

    /// Returns memory to Xen in one hypercall, however many pages: Xen sends one INVALIDATE to every
    /// enabled server, and the vCPU waits for all of them.
    ///
    /// # Errors
    /// As [`Vcpu::write`]; a server whose slot is in use is left out, as in Xen.
    pub fn balloon(&self, pages: u32) -> Result<(), Stopped> {
        if pages == 0 {
            return Ok(());
        }
        let request = Ioreq { data: u64::MAX, size: 4, kind: INVALIDATE, ..Ioreq::default() };
        self.instruction(|world| {
            for server in world.enabled(self.key) {
                world.request(self.key, self.id, server, &request);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Shuts the domain down for a soft reset (`SHUTDOWN_soft_reset`), lets the toolstack carry it out, and
    /// returns when the domain runs again. As in Xen, requests in flight are answered first, and
    /// no vCPU begins another one (`vcpu_start_shutdown_deferral`).
    ///
    /// # Errors
    /// As [`Vcpu::write`].
    pub fn soft_reset(&self) -> Result<(), Stopped> {
        let mut world = self.model.shared.lock();
        let first = !std::mem::replace(&mut world.running(self.key)?.is_shut_down, true);
        loop {
            let domain = world.running(self.key)?;
            let waits_for = if first {
                domain.vcpus.iter().find(|vcpu| vcpu.busy)
            } else {
                // Another vCPU shut it down.
                domain.vcpus.get(self.id.0 as usize).filter(|_| domain.is_shut_down)
            };
            let Some(woken) = waits_for.map(|vcpu| Arc::clone(&vcpu.woken)) else { break };
            world.wait(&woken);
        }
        if first {
            // Xenstored is notified of the shutdown.
            world.announce_release();
            world.soft_reset(self.key.id);
            let domain = world.running(self.key)?;
            domain.is_shut_down = false;
            domain.wake_all_vcpus();
        }
        Ok(())
    }

    /// Whether it is parked on an ioreq and no event has arrived for it.
    pub fn is_parked(&self) -> bool {
        let mut world = self.model.shared.peek();
        let vcpu = world.find(self.key).and_then(|domain| domain.vcpus.get(self.id.0 as usize));
        vcpu.is_some_and(|vcpu| vcpu.busy && vcpu.blocked)
    }

    /// How many events arrived while it was parked, with or without an answer.
    pub fn wakes(&self) -> u64 {
        let mut world = self.model.shared.peek();
        let vcpu = world.find(self.key).and_then(|domain| domain.vcpus.get(self.id.0 as usize));
        vcpu.map_or(0, |vcpu| vcpu.wakes)
    }

    /// Waits until it is parked.
    ///
    /// # Panics
    /// With a description of the world, if that takes more than 30 s.
    pub fn until_parked(&self) {
        self.model
            .until(&format!("{} of {} is parked", self.id, self.key.id), |_| self.is_parked());
    }

    /// Runs guest code in a thread of its own.
    pub fn run<T: Send + 'static>(
        &self,
        guest: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Running<T> {
        let vcpu = self.clone();
        let what = format!("{} of {}", self.id, self.key.id);
        Running::start(self.model.clone(), what, move || guest(&vcpu))
    }

    /// The time limit of [`Running::join`] and [`Vcpu::until_parked`].
    pub const PATIENCE: Duration = PATIENCE;

    /// Makes one access; returns the result of a read, or all ones (`try_fwd_ioserv` on Arm).
    fn access(&self, request: &Ioreq) -> Result<u64, Stopped> {
        self.instruction(|world| {
            let is_arm = world.arch() == Arch::Arm;
            let Some((server, request)) = world.select(self.key, request) else {
                return if is_arm { Err(Stopped::Abort) } else { Ok(()) };
            };
            if world.request(self.key, self.id, server, &request) == Sent::Waiting {
                return Ok(());
            }
            world.running(self.key)?;
            if is_arm {
                return Err(Stopped::Abort);
            }
            if request.kind == COPY {
                return Err(Stopped::Fault);
            }
            world.crash(self.key, "a port access found its ioreq slot in an unexpected state");
            Ok(())
        })
    }

    /// Begins an instruction when the vCPU is free, and returns when all its requests are complete.
    fn instruction(
        &self,
        begin: impl FnOnce(&mut World) -> Result<(), Stopped>,
    ) -> Result<u64, Stopped> {
        let mut world = self.model.shared.lock();
        while self.state(&mut world)?.busy || world.running(self.key)?.is_halted() {
            let woken = Arc::clone(&self.state(&mut world)?.woken);
            world.wait(&woken);
        }
        self.state(&mut world)?.busy = true;
        let done = begin(&mut world).and_then(|()| self.complete(&mut world));
        if let Ok(vcpu) = self.state(&mut world) {
            vcpu.busy = false;
            vcpu.woken.notify_all();
        }
        done
    }

    pub(crate) fn state<'a>(&self, world: &'a mut World) -> Result<&'a mut VcpuState, Stopped> {
        world.running(self.key)?.vcpus.get_mut(self.id.0 as usize).ok_or(Stopped::Destroyed)
    }

    /// Waits until each request is answered, the highest server's first
    /// (`vcpu_ioreq_handle_completion`). A request whose server is gone reads as 0.
    fn complete(&self, world: &mut Locked<'_>) -> Result<u64, Stopped> {
        let sent = self.state(world)?.blocked;
        let mut data = if sent { 0 } else { u64::MAX };
        loop {
            while self.state(world)?.blocked || world.running(self.key)?.is_paused {
                let woken = Arc::clone(&self.state(world)?.woken);
                world.wait(&woken);
            }
            match self.look(world)? {
                Look::Nothing => return Ok(data),
                Look::Answer(found) => data = found,
                Look::Unchanged => self.state(world)?.blocked = true,
                Look::Weird(before, now) => {
                    let why = format!("ioreq state of {} went from {before:?} to {now:?}", self.id);
                    world.crash(self.key, &why);
                }
            }
        }
    }

    /// Checks the first request in flight (`wait_for_io`).
    fn look(&self, world: &mut World) -> Result<Look, Stopped> {
        let index = self.id.0 as usize;
        let mut servers = world.running(self.key)?.servers.iter_mut().rev().flatten();
        let Some(server) = servers.find(|server| server.pending[index].is_some()) else {
            return Ok(Look::Nothing);
        };
        let (Some(page), Some(before)) = (&server.page, server.pending[index]) else {
            return Ok(Look::Nothing);
        };
        let slot = &page[index];
        let now = slot.state();
        let look = match now {
            // Only a device model that clears the slot itself causes this.
            State::None => Look::Answer(u64::MAX),
            _ if now < before => Look::Weird(before, now),
            State::Ready | State::InProcess => {
                server.pending[index] = Some(now);
                return Ok(Look::Unchanged);
            }
            State::Answered => Look::Answer(slot.collect().unwrap_or(u64::MAX)),
            State::Unknown(_) => Look::Weird(before, now),
        };
        server.pending[index] = None;
        Ok(look)
    }
}

/// The result of checking a slot.
enum Look {
    /// No request is in flight.
    Nothing,
    /// A request was answered.
    Answer(u64),
    /// The request is not answered yet.
    Unchanged,
    /// The domain must crash.
    Weird(State, State),
}
