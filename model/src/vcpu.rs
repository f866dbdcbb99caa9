//! What a vCPU of a guest does: accesses, hypercalls, waiting.
//!
//! An access that an ioreq server claims parks the vCPU as Xen parks it (`ioreq_send`,
//! `wait_for_io`): it runs on when an event comes through *any* of Xen's own channels for this
//! vCPU and its request has been answered. Nothing else wakes it: not the answer without the
//! event, not the end of the server.
//!
//! Where Xen's answer depends on a race, the model takes the worse: a state that goes backwards
//! crashes the domain whenever the vCPU looked in between, though on x86 Xen forgets what it saw
//! when it parks (on Arm it does not).

use crate::Model;
use crate::domain::Stopped;
use crate::running::{PATIENCE, Running};
use crate::server::Sent;
use crate::world::{Key, Locked, World};
use core::time::Duration;
use rustix::io::Errno;
use std::sync::{Arc, Condvar};
use xen_eventfd_core::ioreq::{COPY, DATA_IS_PTR, DIR_READ, INVALIDATE, Ioreq, PIO};
use xen_eventfd_core::irq::Line;
use xen_eventfd_core::slot::State;
use xen_eventfd_core::{DomId, Port, Space, VcpuId, Width};

const PAGE: u64 = 0x1000;

#[derive(Debug, Default)]
pub(crate) struct VcpuState {
    /// An instruction is under way.
    pub(crate) busy: bool,
    /// Waits for an event of Xen's own (`_VPF_blocked_in_xen`).
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

/// A vCPU, to be driven from a thread of the caller. Cloning gives another handle to the same
/// one; instructions of one vCPU wait for each other.
#[derive(Debug, Clone)]
pub struct Vcpu {
    pub(crate) model: Model,
    pub(crate) key: Key,
    pub(crate) id: VcpuId,
}

impl Vcpu {
    /// Which domain's.
    pub fn domain(&self) -> DomId {
        self.key.id
    }

    /// Which one.
    pub fn id(&self) -> VcpuId {
        self.id
    }

    /// Writes `value`, cut to `width`, and waits until the write is answered. A write that no
    /// server claims vanishes.
    ///
    /// A write to memory across a page boundary is split there, each half into powers of two.
    ///
    /// # Errors
    /// [`Stopped`], also while the vCPU is parked.
    ///
    /// # Panics
    /// On an 8-byte port access, or a port above 0xFFFF: x86 has none.
    pub fn write(&self, space: Space, addr: u64, width: Width, value: u64) -> Result<(), Stopped> {
        for piece in pieces(space, addr, width) {
            let data = (value >> (8 * piece.offset)) & mask(piece.size);
            self.access(&Ioreq { data, ..piece.request(space, 0) })?;
        }
        Ok(())
    }

    /// Reads and waits for the answer. What no server claims reads as all ones.
    ///
    /// # Errors
    /// As [`Vcpu::write`].
    ///
    /// # Panics
    /// As [`Vcpu::write`].
    pub fn read(&self, space: Space, addr: u64, width: Width) -> Result<u64, Stopped> {
        let mut value = 0;
        for piece in pieces(space, addr, width) {
            let data = self.access(&piece.request(space, DIR_READ))?;
            value |= (data & mask(piece.size)) << (8 * piece.offset);
        }
        Ok(value)
    }

    /// `rep stos` to memory: the same value, `count` times, upwards. Xen sends it in one request
    /// for each page, with the value in `data` and the repetitions in `count`.
    ///
    /// # Errors
    /// As [`Vcpu::write`].
    pub fn rep_stos(&self, addr: u64, width: Width, value: u64, count: u32) -> Result<(), Stopped> {
        let size = u64::from(width.bytes());
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

    /// `rep outs` to a port: `count` values from guest memory at `buffer`. Xen sends it in one
    /// request for each page of the buffer, with its address in `data` (`data_is_ptr`).
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
        count: u32,
    ) -> Result<(), Stopped> {
        check_port(port, width);
        let size = u64::from(width.bytes());
        let (mut buffer, mut left) = (buffer, count);
        while left > 0 {
            let now = in_page(buffer, size).min(left);
            let piece = Piece { addr: port, size: width.bytes(), offset: 0 };
            let request = piece.request(Space::Pio, DATA_IS_PTR);
            self.access(&Ioreq { data: buffer, count: now, ..request })?;
            buffer = buffer.wrapping_add(size * u64::from(now));
            left -= now;
        }
        Ok(())
    }

    /// Gives memory back in one hypercall, however many pages: one INVALIDATE to every enabled
    /// server, and the vCPU waits for all of them.
    ///
    /// # Errors
    /// As [`Vcpu::write`]; a server that cannot be asked is left out, as in Xen.
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

    /// Allocates an event channel for domain 0 (`EVTCHNOP_alloc_unbound`).
    ///
    /// # Errors
    /// [`Stopped::Refused`] with ENOSPC if all ports are taken.
    pub fn alloc_unbound(&self) -> Result<Port, Stopped> {
        let mut world = self.model.shared.lock();
        world.running(self.key)?.allocate_port(None).map_err(Stopped::Refused)
    }

    /// Closes an event channel of the guest.
    ///
    /// # Errors
    /// [`Stopped::Refused`] with EINVAL if it is Xen's, or none.
    pub fn close(&self, port: Port) -> Result<(), Stopped> {
        let mut world = self.model.shared.lock();
        match world.running(self.key)?.ports.get(&port.0) {
            Some(channel) if channel.waits.is_none() => {}
            _ => return Err(Stopped::Refused(Errno::INVAL)),
        }
        world.close_port(self.key.id, port);
        Ok(())
    }

    /// Rings domain 0 (`EVTCHNOP_send`). To an unbound port the event is lost.
    ///
    /// # Errors
    /// [`Stopped::Refused`] with EINVAL if the port is Xen's, or none.
    pub fn send(&self, port: Port) -> Result<(), Stopped> {
        let mut world = self.model.shared.lock();
        world.running(self.key)?;
        world.send(self.key, port).map_err(Stopped::Refused)
    }

    /// Waits for an event of a port and takes it. Events that come before they are taken are one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait(&self, port: Port) -> Result<(), Stopped> {
        self.until_arrival(&format!("an event on {port}"), |vcpu| {
            vcpu.try_take(port).map(|taken| taken.then_some(()))
        })
    }

    /// Takes the event of a port, if there is one.
    ///
    /// # Errors
    /// [`Stopped::Refused`] with EINVAL if there is no such port.
    pub fn try_take(&self, port: Port) -> Result<bool, Stopped> {
        let mut world = self.model.shared.lock();
        let channel = world.running(self.key)?.ports.get_mut(&port.0);
        let channel = channel.ok_or(Stopped::Refused(Errno::INVAL))?;
        Ok(core::mem::take(&mut channel.pending))
    }

    /// Waits for an MSI of this vector and takes it. Those that come before it is taken are one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait_msi(&self, vector: u8) -> Result<(), Stopped> {
        self.until_arrival(&format!("an MSI of vector {vector:#x}"), |vcpu| {
            vcpu.try_take_msi(vector).map(|taken| taken.then_some(()))
        })
    }

    /// Takes the MSI of this vector, if there is one.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn try_take_msi(&self, vector: u8) -> Result<bool, Stopped> {
        let mut world = self.model.shared.lock();
        Ok(world.running(self.key)?.interrupts.pending.remove(&vector))
    }

    /// Waits until a line has risen more than `seen` times; returns how often it has.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn wait_edge(&self, line: Line, seen: u64) -> Result<u64, Stopped> {
        self.until_arrival(&format!("edge {} of {line:?}", seen + 1), |vcpu| {
            let edges = vcpu.model.edges(vcpu.key.id, line);
            Ok((edges > seen).then_some(edges))
        })
    }

    fn until_arrival<T>(
        &self,
        what: &str,
        take: impl Fn(&Self) -> Result<Option<T>, Stopped>,
    ) -> Result<T, Stopped> {
        loop {
            let before = self.model.shared.lock().running(self.key)?.interrupts.arrivals;
            if let Some(taken) = take(self)? {
                return Ok(taken);
            }
            let mut world = self.model.shared.lock();
            let arrival = Arc::clone(&world.running(self.key)?.arrival);
            while world.running(self.key)?.interrupts.arrivals == before {
                self.state(&mut world)?.waiting.push(what.to_owned());
                world.wait(&arrival);
                let waiting = &mut self.state(&mut world)?.waiting;
                if let Some(done) = waiting.iter().position(|waits| waits == what) {
                    waiting.swap_remove(done);
                }
            }
        }
    }

    /// Whether it is parked on an ioreq and no event has come for it.
    pub fn is_parked(&self) -> bool {
        let mut world = self.model.shared.peek();
        let vcpu = world.find(self.key).and_then(|domain| domain.vcpus.get(self.id.0 as usize));
        vcpu.is_some_and(|vcpu| vcpu.busy && vcpu.blocked)
    }

    /// How often an event has found it parked, answered or not.
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

    /// Runs a piece of guest in a thread of its own.
    pub fn run<T: Send + 'static>(
        &self,
        guest: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Running<T> {
        let vcpu = self.clone();
        let what = format!("{} of {}", self.id, self.key.id);
        Running::start(self.model.clone(), what, move || guest(&vcpu))
    }

    /// How long [`Running::join`] and [`Vcpu::until_parked`] wait before they fail.
    pub const PATIENCE: Duration = PATIENCE;

    /// One access, whole; what a read found, or all ones.
    fn access(&self, request: &Ioreq) -> Result<u64, Stopped> {
        self.instruction(|world| {
            let Some(server) = world.select(self.key, request) else { return Ok(()) };
            if world.request(self.key, self.id, server, request) == Sent::Waiting {
                return Ok(());
            }
            world.running(self.key)?;
            if request.kind == COPY {
                return Err(Stopped::Fault);
            }
            world.crash(self.key, "a port access found its ioreq slot out of order");
            Ok(())
        })
    }

    /// Begins an instruction when the vCPU is free, and stays until nothing of it is under way.
    fn instruction(
        &self,
        begin: impl FnOnce(&mut World) -> Result<(), Stopped>,
    ) -> Result<u64, Stopped> {
        let mut world = self.model.shared.lock();
        while self.state(&mut world)?.busy {
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

    fn state<'a>(&self, world: &'a mut World) -> Result<&'a mut VcpuState, Stopped> {
        world.running(self.key)?.vcpus.get_mut(self.id.0 as usize).ok_or(Stopped::Destroyed)
    }

    /// Waits until each request is answered, the highest server's first
    /// (`vcpu_ioreq_handle_completion`). A request whose server is gone reads as 0.
    fn complete(&self, world: &mut Locked<'_>) -> Result<u64, Stopped> {
        let sent = self.state(world)?.blocked;
        let mut data = if sent { 0 } else { u64::MAX };
        loop {
            while self.state(world)?.blocked {
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

    /// Looks at the first request that is under way (`wait_for_io`).
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
            // Only a device model that clears the slot itself leads here.
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

/// What a look at a slot shows.
enum Look {
    /// No request is under way.
    Nothing,
    /// One has been answered.
    Answer(u64),
    /// It waits still.
    Unchanged,
    /// The domain must crash.
    Weird(State, State),
}

/// One access of an instruction that may need more.
struct Piece {
    addr: u64,
    size: u8,
    /// Where its bytes stand in the value.
    offset: u32,
}

impl Piece {
    fn request(&self, space: Space, flags: u8) -> Ioreq {
        let kind = match space {
            Space::Mmio => COPY,
            Space::Pio => PIO,
        };
        let (addr, size) = (self.addr, u32::from(self.size));
        Ioreq { addr, size, count: 1, flags, kind, ..Ioreq::default() }
    }
}

fn mask(size: u8) -> u64 {
    Width::new(u32::from(size)).map_or(u64::MAX, Width::mask)
}

fn check_port(port: u64, width: Width) {
    assert!(port <= 0xFFFF && width != Width::Eight, "x86 has no {width:?}-byte port {port:#x}");
}

/// How many accesses of `size` bytes lie in one page, but at least one.
fn in_page(addr: u64, size: u64) -> u32 {
    u32::try_from((PAGE - addr % PAGE) / size).unwrap_or(1).max(1)
}

/// Splits an access to memory at a page boundary (`hvmemul_phys_mmio_access`).
fn pieces(space: Space, addr: u64, width: Width) -> Vec<Piece> {
    if space == Space::Pio {
        check_port(addr, width);
        return vec![Piece { addr, size: width.bytes(), offset: 0 }];
    }
    let whole = u64::from(width.bytes());
    let first = (PAGE - addr % PAGE).min(whole);
    let mut pieces = Vec::new();
    let mut offset = 0;
    for mut left in [first, whole - first] {
        for size in [8_u8, 4, 2, 1] {
            if left >= u64::from(size) {
                pieces.push(Piece { addr: addr.wrapping_add(u64::from(offset)), size, offset });
                offset += u32::from(size);
                left -= u64::from(size);
            }
        }
    }
    pieces
}
