//! One vCPU's slot in the ioreq page, shared with Xen, and the only ways to touch it.
//!
//! Xen writes a request and moves `state` to READY; the owner of the ioreq server answers and
//! moves it to RESP_READY; Xen takes the answer and moves it to NONE. Xen crashes the domain if
//! the state goes backwards while it waits (`wait_for_io` in `xen/common/ioreq.c`).
//!
//! # Invariants
//! * `state` is written by us only to complete a request, with a release store, after everything
//!   else has been done for it. We never write INPROCESS.
//! * A request is read once, after an acquire load has seen READY; what is acted on is that copy.
//! * Whatever was READY when we looked is completed, also when the handler unwinds: a vCPU never
//!   waits for us in vain.

use super::id::Port;
use super::ioreq::{Ioreq, Request, DATA_IS_PTR, DIR_READ, STATE};
use super::sync::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};
use core::mem::{align_of, size_of};

/// How often, and with how many microseconds between, it is looked whether vCPUs that were answered and woken have taken
/// their answers: they need a turn on a CPU. One that is paused takes none.
pub const TAKE_LOOKS: u32 = 2000;
/// See [`TAKE_LOOKS`].
pub const TAKE_PAUSE_MICROS: u32 = 500;

/// Where a slot is in its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No request (`STATE_IOREQ_NONE`).
    None,
    /// A request waits (`STATE_IOREQ_READY`).
    Ready,
    /// A process works on it (`STATE_IOREQ_INPROCESS`).
    InProcess,
    /// The answer waits (`STATE_IORESP_READY`).
    Answered,
    /// A value that the protocol does not have.
    Unknown(u8),
}

impl State {
    const fn from_flags(flags: u8) -> Self {
        match flags & STATE {
            0 => Self::None,
            1 => Self::Ready,
            2 => Self::InProcess,
            3 => Self::Answered,
            other => Self::Unknown(other),
        }
    }

    const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Ready => 1,
            Self::InProcess => 2,
            Self::Answered => 3,
            Self::Unknown(bits) => bits & STATE,
        }
    }
}

/// A slot in shared memory: [`Ioreq`] with every field atomic.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Slot {
    addr: AtomicU64,
    data: AtomicU64,
    count: AtomicU32,
    size: AtomicU32,
    vp_eport: AtomicU32,
    pad: AtomicU16,
    flags: AtomicU8,
    kind: AtomicU8,
}

// Loom's atomics are larger than the processor's.
const _: () = assert!(cfg!(loom) || size_of::<Slot>() == size_of::<Ioreq>());
const _: () = assert!(cfg!(loom) || align_of::<Slot>() == align_of::<Ioreq>());

impl Slot {
    /// The guest's port for this vCPU, as Xen wrote it when the server was enabled.
    pub fn vp_eport(&self) -> Port {
        Port(self.vp_eport.load(Ordering::Relaxed))
    }

    /// The state, read with acquire: what Xen wrote before it is visible after.
    pub fn state(&self) -> State {
        State::from_flags(self.flags.load(Ordering::Acquire))
    }

    /// Serves the request that waits here, if one does.
    ///
    /// `act` sees a copy and does all that the request asks for (signals the eventfd); its result
    /// is the answer to a read. Only then is the answer published. The caller still owes the vCPU
    /// an event.
    pub fn serve(&self, act: impl FnOnce(&Request) -> u64) -> Option<Request> {
        self.serve_in(&[State::Ready], act)
    }

    /// What waits here, READY or INPROCESS, and is left as it is: to be put down before a
    /// [`Slot::sweep`].
    pub fn waiting(&self) -> Option<Request> {
        let flags = self.flags.load(Ordering::Acquire);
        let waits = matches!(State::from_flags(flags), State::Ready | State::InProcess);
        waits.then(|| Request::decode(&self.copy(flags)))
    }

    /// Completes whatever waits here on behalf of an owner that is gone, INPROCESS included.
    /// The caller notifies the vCPU in any case: the old owner may have died between its answer
    /// and its event.
    pub fn sweep(&self) -> Option<Request> {
        self.serve_in(&[State::Ready, State::InProcess], |_| 0)
    }

    fn serve_in(&self, states: &[State], act: impl FnOnce(&Request) -> u64) -> Option<Request> {
        let flags = self.flags.load(Ordering::Acquire);
        if !states.contains(&State::from_flags(flags)) {
            return None;
        }
        let copy = self.copy(flags);
        let request = Request::decode(&copy);
        let mut completion = Completion { slot: self, flags, answer: 0 };
        completion.answer = act(&request);
        drop(completion);
        Some(request)
    }

    fn copy(&self, flags: u8) -> Ioreq {
        Ioreq {
            addr: self.addr.load(Ordering::Relaxed),
            data: self.data.load(Ordering::Relaxed),
            count: self.count.load(Ordering::Relaxed),
            size: self.size.load(Ordering::Relaxed),
            vp_eport: self.vp_eport.load(Ordering::Relaxed),
            pad: 0,
            flags,
            kind: self.kind.load(Ordering::Relaxed),
        }
    }
}

/// A request that is going to be completed, whatever happens.
struct Completion<'a> {
    slot: &'a Slot,
    flags: u8,
    answer: u64,
}

impl Drop for Completion<'_> {
    fn drop(&mut self) {
        // A pointer's answer would belong into guest memory; Xen reads `data` only otherwise.
        if self.flags & (DIR_READ | DATA_IS_PTR) == DIR_READ {
            self.slot.data.store(self.answer, Ordering::Relaxed);
        }
        let answered = (self.flags & !STATE) | State::Answered.bits();
        self.slot.flags.store(answered, Ordering::Release);
    }
}

/// Xen's side of a slot, for a model of Xen.
impl Slot {
    /// The owner of the server binds the port that this returns.
    pub fn announce(&self, port: Port) {
        self.vp_eport.store(port.0, Ordering::Relaxed);
    }

    /// Writes a request (its port and state aside) and makes it READY.
    pub fn publish(&self, request: &Ioreq) {
        self.addr.store(request.addr, Ordering::Relaxed);
        self.data.store(request.data, Ordering::Relaxed);
        self.count.store(request.count, Ordering::Relaxed);
        self.size.store(request.size, Ordering::Relaxed);
        self.kind.store(request.kind, Ordering::Relaxed);
        let ready = (request.flags & !STATE) | State::Ready.bits();
        self.flags.store(ready, Ordering::Release);
    }

    /// Takes the answer, if it is there, and frees the slot.
    pub fn collect(&self) -> Option<u64> {
        let flags = self.flags.load(Ordering::Acquire);
        if State::from_flags(flags) != State::Answered {
            return None;
        }
        let answer = self.data.load(Ordering::Relaxed);
        self.flags.store(flags & !STATE, Ordering::Release);
        Some(answer)
    }

    /// A copy of this slot, in memory of its own.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let from = self.copy(self.flags.load(Ordering::Acquire));
        let slot = Self::default();
        slot.announce(Port(from.vp_eport));
        slot.publish(&from);
        slot.flags.store(from.flags, Ordering::Release);
        slot
    }

    /// Writes a state as only a faulty device model would.
    pub fn force(&self, state: State) {
        let flags = self.flags.load(Ordering::Acquire);
        self.flags.store((flags & !STATE) | state.bits(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ioreq::{Kick, Space, Width, COPY};
    use super::*;

    fn request(flags: u8) -> Ioreq {
        Ioreq { addr: 0x50, data: 7, count: 1, size: 4, flags, kind: COPY, ..Ioreq::default() }
    }

    #[test]
    fn a_kick_is_acted_on_before_it_is_answered() {
        let slot = Slot::default();
        slot.publish(&request(0));
        let served = slot.serve(|request| {
            assert_eq!(*request, Request::Kick(Kick::new(Space::Mmio, 0x50, Width::Four, 7)));
            assert_eq!(slot.state(), State::Ready);
            0
        });
        assert!(served.is_some());
        assert_eq!(slot.state(), State::Answered);
    }

    #[test]
    fn only_a_ready_slot_is_served() {
        for state in [State::None, State::InProcess, State::Answered, State::Unknown(9)] {
            let slot = Slot::default();
            slot.publish(&request(0));
            slot.force(state);
            assert_eq!(slot.serve(|_| panic!("{state:?} was served")), None);
            assert_eq!(slot.state(), state);
        }
    }

    #[test]
    fn a_read_is_answered_with_data_and_a_write_keeps_it() {
        let slot = Slot::default();
        slot.publish(&request(DIR_READ));
        slot.serve(|_| 0x55);
        assert_eq!(slot.collect(), Some(0x55));
        slot.publish(&request(0));
        slot.serve(|_| 0x55);
        assert_eq!(slot.collect(), Some(7));
        assert_eq!(slot.state(), State::None);
    }

    #[test]
    fn a_sweep_completes_what_its_owner_left() {
        let slot = Slot::default();
        assert_eq!(slot.sweep(), None);
        for state in [State::Ready, State::InProcess] {
            slot.publish(&request(0));
            slot.force(state);
            let waiting = slot.waiting();
            assert_eq!(slot.state(), state);
            assert!(waiting.is_some());
            assert_eq!(slot.sweep(), waiting);
            assert_eq!(slot.waiting(), None);
            assert_eq!(slot.collect(), Some(7));
        }
    }

    #[test]
    fn a_handler_that_unwinds_still_completes() {
        let slot = Slot::default();
        slot.publish(&request(DIR_READ));
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            slot.serve(|_| panic!("on purpose"))
        }));
        assert!(served.is_err());
        assert_eq!(slot.collect(), Some(0));
    }
}
