//! The engine, explored: loom runs these under every order in which the threads can meet, and with
//! every value that the memory model lets a load see.
//!
//! What is explored is what is shipped: [`UserspaceGuest`] and its doorbells, the event loop, the server and
//! its teardown in `xen-eventfd-ioreq`, and the core's slots, on a Xen of a few lines ([`xen`]). The same Xen runs the
//! protocol of two owners who share a slot ([`shared_slot`]), and there the faults that this
//! project is about are found: the net catches fish.
//!
//! `cargo xtask loom` runs it.

mod shared_slot;
mod status;
mod xen;

use super::{Shared, UserspaceEngine, UserspaceGuest};
use crate::engine::Attachment;
use crate::eventfd::{self, EventFd};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use xen::{DOM, DOORBELL, End, Xen};
use xen_eventfd_core::irq::Irq;
use xen_eventfd_core::{Doorbell, Filter, Space, Width};
use xen_eventfd_ioreq::{Reserve, Role, RunDir};

/// Tries every order with so many switches that no thread asked for; loom's authors find that few
/// faults need more than two.
const PREEMPTIONS: usize = 2;

const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };

/// Runs `scene` under every order, each of which says what came of it. Returns all that came.
fn explore<T: Ord + Send + 'static>(
    preemptions: usize,
    scene: impl Fn() -> T + Send + Sync + 'static,
) -> BTreeSet<T> {
    let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let mut loom = loom::model::Builder::new();
    loom.preemption_bound.get_or_insert(preemptions);
    loom.max_branches = 10_000;
    let all = Arc::clone(&seen);
    loom.check(move || _ = all.lock().unwrap().insert(scene()));
    std::mem::take(&mut seen.lock().unwrap())
}

/// A guest in the hands of the engine, and the threads around it.
struct Scene {
    xen: Xen,
    engine: Arc<UserspaceEngine>,
    guest: UserspaceGuest,
    threads: Vec<loom::thread::JoinHandle<Vec<End>>>,
}

impl Scene {
    /// `threads`: the caller, the engine's and the vCPUs'.
    fn new(run_dir: &RunDir, vcpus: usize, threads: usize) -> Self {
        let xen = Xen::new(vcpus, threads);
        let shared = Shared::new(Arc::new(xen.clone()), run_dir.clone(), Reserve::No).unwrap();
        let engine = Arc::new(UserspaceEngine { shared: Arc::new(shared), threads: None });
        let guest = UserspaceGuest::new(&engine, DOM).unwrap();
        Self { xen, engine, guest, threads: Vec::new() }
    }

    /// Starts what the engine's thread does when an event comes.
    fn engine(&mut self) {
        let (xen, shared) = (self.xen.clone(), Arc::clone(&self.engine.shared));
        self.threads.push(loom::thread::spawn(move || {
            let mut ports = Vec::new();
            while xen.event() {
                shared.events().pending(&mut ports).unwrap();
                ports.drain(..).for_each(|port| shared.event_loop.event(port));
            }
            xen.leave();
            Vec::new()
        }));
    }

    /// Starts a thread that signals an eventfd, and then does what the engine's thread for interrupts
    /// does when it is notified of that.
    fn caller(&mut self, call: &Arc<Queue>, serial: u64) {
        let (xen, shared) = (self.xen.clone(), Arc::clone(&self.engine.shared));
        let call = Arc::clone(call);
        self.threads.push(loom::thread::spawn(move || {
            call.signal();
            shared.event_loop.ready(serial);
            xen.leave();
            Vec::new()
        }));
    }

    /// Starts a vCPU that writes 7 so many times.
    fn vcpu(&mut self, vcpu: usize, writes: u64) {
        let xen = self.xen.clone();
        self.threads.push(loom::thread::spawn(move || {
            let ends = (0..writes).map(|_| xen.write(vcpu, 7)).collect();
            xen.leave();
            ends
        }));
    }

    /// Waits for the threads. Returns how each access ended.
    fn join(&mut self) -> Vec<End> {
        self.xen.leave();
        self.threads.drain(..).flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn doorbell() -> Doorbell {
    let filter = Filter::Value { width: Width::Four, value: 7, mask: 0xFFFF_FFFF };
    Doorbell::new(Space::Mmio, DOORBELL, filter).unwrap()
}

/// A backend's eventfd.
struct Queue(OwnedFd);

impl Queue {
    fn new() -> Self {
        Self(eventfd::new().unwrap())
    }

    fn reference(&self) -> EventFd {
        EventFd::new(self.0.as_fd()).unwrap()
    }

    /// Adds 1 to it.
    fn signal(&self) {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).unwrap();
    }

    /// How often it was signalled since it was last asked.
    fn taken(&self) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }
}

/// A run directory in memory, of this test alone.
fn run_dir() -> (tempfile::TempDir, RunDir) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let run_dir = RunDir::open(folder.path(), Role::Doorbells).unwrap();
    (folder, run_dir)
}

fn count(ends: &[End], end: End) -> u64 {
    ends.iter().filter(|other| **other == end).count() as u64
}

/// With two threads that serve kicks, though the engine has one: its dispatch alone keeps them apart.
#[test]
fn every_kick_is_delivered_once_and_its_vcpu_goes_on() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 4);
        let queue = Queue::new();
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        scene.engine();
        scene.vcpu(0, 1);
        (scene.join(), queue.taken())
    });
    assert_eq!(seen, [(vec![End::Answered], 1)].into());
}

#[test]
fn one_kick_after_the_other() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 3);
        let queue = Queue::new();
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        scene.vcpu(0, 3);
        (scene.join(), queue.taken())
    });
    assert_eq!(seen, [(vec![End::Answered; 3], 3)].into());
}

#[test]
fn two_vcpus_do_not_meet() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(1, move || {
        let mut scene = Scene::new(&run_dir, 2, 4);
        let queue = Queue::new();
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        scene.vcpu(0, 1);
        scene.vcpu(1, 1);
        (scene.join(), queue.taken())
    });
    assert_eq!(seen, [(vec![End::Answered; 2], 2)].into());
}

/// The backend's eventfd is signalled before the guest goes on, in every order.
#[test]
fn a_kick_is_signalled_before_the_guest_goes_on() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 3);
        let queue = Arc::new(Queue::new());
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        let (xen, signalled) = (scene.xen.clone(), Arc::clone(&queue));
        scene.threads.push(loom::thread::spawn(move || {
            let end = xen.write(0, 7);
            assert_eq!(signalled.taken(), 1);
            xen.leave();
            vec![end]
        }));
        scene.join()
    });
    assert_eq!(seen, [vec![End::Answered]].into());
}

#[test]
fn after_deassign_nothing_is_signalled_and_nothing_waits() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 3);
        let queue = Queue::new();
        let serial = scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        scene.vcpu(0, 1);
        scene.guest.unregister(&doorbell(), None, Some(serial)).unwrap();
        let before = queue.taken();
        let ends = scene.join();
        assert_eq!(queue.taken(), 0, "signalled after deassign");
        let counters = scene.guest.counters();
        // It may also have come between the table and the claim, and be forgotten with it.
        let (answered, known) =
            (count(&ends, End::Answered), counters.delivered + counters.late + counters.held);
        assert_eq!((answered, counters.delivered), (known, before), "{counters:?}");
        assert_eq!(scene.guest.held(), []);
        (ends, counters.delivered, counters.late + counters.held)
    });
    let all = [(vec![End::Answered], 0, 1), (vec![End::Answered], 1, 0), (vec![End::ToVmm], 0, 0)];
    assert_eq!(seen, all.into(), "delivered, late or the VMM's: each of them happens");
}

#[test]
fn no_kick_is_lost_while_its_doorbell_is_registered() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 3);
        let queue = Queue::new();
        scene.engine();
        scene.vcpu(0, 1);
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        let ends = scene.join();
        let counters = scene.guest.counters();
        (ends, queue.taken(), counters.held)
    });
    let all = [(vec![End::Answered], 1, 0), (vec![End::Answered], 1, 1), (vec![End::ToVmm], 0, 0)];
    assert_eq!(seen, all.into(), "delivered, held and then delivered, or the VMM's");
}

#[test]
fn a_teardown_leaves_no_vcpu_behind_and_loses_no_kick() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 3);
        let queue = Queue::new();
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        scene.vcpu(0, 1);
        scene.guest.close().unwrap();
        let signalled = queue.taken();
        let ends = scene.join();
        assert_eq!(queue.taken(), 0, "signalled after close");
        assert!(!scene.xen.leftovers());
        (ends, signalled)
    });
    assert_eq!(seen, [(vec![End::Answered], 1), (vec![End::ToVmm], 0)].into());
}

#[test]
fn a_guest_may_die_at_any_moment() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 3);
        let queue = Queue::new();
        scene.guest.register(doorbell(), queue.reference(), None).unwrap();
        scene.engine();
        scene.vcpu(0, 1);
        scene.xen.destroy();
        scene.engine.shared.event_loop.reap_dead_guests();
        assert!(!scene.guest.is_served());
        queue.taken();
        let ends = scene.join();
        assert_eq!(queue.taken(), 0, "signalled after the guest's death was seen");
        assert!(!scene.xen.leftovers());
        ends
    });
    assert_eq!(seen, [vec![End::Answered], vec![End::Destroyed]].into());
}

/// The other direction: what was signalled before a deassign is raised once, whichever thread comes first, and
/// nothing after it.
#[test]
fn a_signal_is_raised_once_and_not_after_deassign() {
    for signals_before in [0, 1] {
        let (_folder, run_dir) = run_dir();
        let seen = explore(PREEMPTIONS, move || {
            let mut scene = Scene::new(&run_dir, 1, 2);
            let call = Arc::new(Queue::new());
            let (serial, _) = scene.guest.register_irq(call.reference(), MSI).unwrap();
            (0..signals_before).for_each(|_| call.signal());
            scene.caller(&call, serial);
            scene.guest.unregister_irq(serial).unwrap();
            let raised = scene.xen.msis();
            scene.join();
            assert_eq!(scene.xen.msis(), raised, "raised after deassign");
            raised.len() as u64
        });
        // Signals that are not passed on yet are one.
        let all: &[u64] = if signals_before == 0 { &[0, 1] } else { &[1] };
        assert!(seen.iter().eq(all), "{seen:?}");
    }
}

/// A signal amid a change of the interrupt raises the one or the other; the one before is not raised
/// once the change has returned.
#[test]
fn a_signal_amid_a_change_is_raised_once_and_not_by_what_was() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 2);
        let call = Arc::new(Queue::new());
        let (serial, _) = scene.guest.register_irq(call.reference(), MSI).unwrap();
        scene.caller(&call, serial);
        scene.guest.set_irq(serial, Irq::Msi { addr: 0xFEE0_0000, data: 0x42 }).unwrap();
        let before = scene.xen.msis();
        scene.join();
        let raised = scene.xen.msis();
        assert!(before == raised || raised == [0x42], "stale: {before:?}, then {raised:?}");
        raised
    });
    assert_eq!(seen, [vec![0x41], vec![0x42]].into());
}

/// A signal amid a mask is raised before the mask returns, or pending and raised by the unmask.
#[test]
fn a_signal_amid_a_mask_is_raised_once() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 2);
        let call = Arc::new(Queue::new());
        let (serial, _) = scene.guest.register_irq(call.reference(), MSI).unwrap();
        scene.caller(&call, serial);
        scene.guest.mask_irq(serial, true).unwrap();
        let before = scene.xen.msis().len();
        // The guest may ask while the signal comes.
        let asked = scene.guest.is_pending(serial).unwrap();
        scene.join();
        assert_eq!(scene.xen.msis().len(), before, "raised while it was masked");
        let pending = scene.guest.is_pending(serial).unwrap();
        assert!(pending || !asked, "what was pending is forgotten");
        assert_eq!(before + usize::from(pending), 1);
        scene.guest.mask_irq(serial, false).unwrap();
        assert_eq!(scene.xen.msis().len(), 1);
        (before, asked)
    });
    assert_eq!(seen, [(0, false), (0, true), (1, false)].into());
}

/// And amid an unmask: the thread and the caller do not both raise it.
#[test]
fn a_signal_amid_an_unmask_is_raised_once() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 2);
        let call = Arc::new(Queue::new());
        let (serial, _) = scene.guest.register_irq(call.reference(), MSI).unwrap();
        scene.guest.mask_irq(serial, true).unwrap();
        scene.caller(&call, serial);
        scene.guest.mask_irq(serial, false).unwrap();
        scene.join();
        assert!(!scene.guest.is_pending(serial).unwrap());
        scene.xen.msis().len()
    });
    assert_eq!(seen, [1].into());
}
