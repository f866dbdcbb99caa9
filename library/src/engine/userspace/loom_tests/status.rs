//! InterruptStatus: a driver that reads, acknowledges and then looks, beside signals and the VMM.

use super::xen::Xen;
use super::{MSI, PREEMPTIONS, Queue, Scene, explore, run_dir};
use crate::engine::Attachment;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use xen_eventfd_core::interrupt_status::{ACK, CONFIG_CHANGE, Registers, USED_BUFFER};
use xen_eventfd_core::irq::{Irq, Line, Trigger};
use xen_eventfd_core::wire::native::StatusChange;
use xen_eventfd_core::{Access, Kick, Request, Space, VcpuId, Width};
use xen_eventfd_ioreq::Handler;

const STATUS: u64 = 0xFE00_0060;
const LINE: Line = Line::Isa(5);

fn registers() -> Registers {
    Registers::new(STATUS).unwrap()
}

/// What the device has to say, by the bit: how much it has said.
type News = [AtomicU64; 2];

/// The guest's driver, until no interrupt will come any more. Returns how far it has looked.
fn driver(scene: &Scene, news: &Arc<News>, irq: Irq) -> loom::thread::JoinHandle<[u64; 2]> {
    let (xen, core, news) = (scene.xen.clone(), Arc::clone(&scene.guest.core), Arc::clone(news));
    loom::thread::spawn(move || {
        let (mut taken, mut looked) = (0, [0; 2]);
        let request = |request| core.request(VcpuId(0), &request);
        let access = Access { space: Space::Mmio, addr: STATUS, width: Width::Four };
        while interrupted(&xen, irq, &mut taken) {
            let bits = request(Request::Read(access));
            request(Request::Kick(Kick::new(Space::Mmio, STATUS + ACK, Width::Four, bits)));
            for (bit, (looked, news)) in looked.iter_mut().zip(&*news).enumerate() {
                if bits & 1 << bit != 0 {
                    *looked = news.load(SeqCst);
                }
            }
        }
        xen.leave();
        looked
    })
}

fn interrupted(xen: &Xen, irq: Irq, taken: &mut usize) -> bool {
    match irq {
        Irq::Line(..) => xen.is_up(),
        _ => xen.msi(taken),
    }
}

/// Whatever the order: once all is quiet, the driver has looked after the last of each.
#[test]
fn no_bit_and_no_interrupt_is_lost() {
    for irq in [MSI, Irq::Line(LINE, Trigger::Level)] {
        let (_folder, run_dir) = run_dir();
        let seen = explore(PREEMPTIONS, move || {
            let mut scene = Scene::new(&run_dir, 1, 3);
            let (call, news) = (Arc::new(Queue::new()), Arc::new(News::default()));
            let device = scene.guest.register_status(registers(), irq).unwrap();
            let used = Irq::Status { addr: STATUS, bits: USED_BUFFER };
            let (serial, _) = scene.guest.register_irq(call.reference(), used).unwrap();
            let driver = driver(&scene, &news, irq);
            let (xen, shared) = (scene.xen.clone(), Arc::clone(&scene.engine.shared));
            let (signalled, said) = (Arc::clone(&call), Arc::clone(&news));
            scene.threads.push(loom::thread::spawn(move || {
                for _ in 0..2 {
                    said[0].fetch_add(1, SeqCst);
                    signalled.signal();
                    shared.event_loop.ready(serial);
                }
                xen.leave();
                Vec::new()
            }));
            news[1].fetch_add(1, SeqCst);
            let change = StatusChange { clear: 0, set: CONFIG_CHANGE };
            scene.guest.change_status(registers(), device, change).unwrap();
            scene.join();
            let looked = driver.join().unwrap();
            let left = scene.guest.change_status(registers(), device, StatusChange::default());
            assert_eq!(left.unwrap().bits, 0, "no bit is left");
            assert!(!scene.xen.line(), "a line is up without a bit");
            looked
        });
        assert_eq!(seen, [[2, 1]].into(), "{irq}");
    }
}

/// A signal amid the end of the registers is in the bits that are returned, or left in the eventfd.
#[test]
fn a_signal_amid_the_end_is_returned_or_left() {
    let (_folder, run_dir) = run_dir();
    let seen = explore(PREEMPTIONS, move || {
        let mut scene = Scene::new(&run_dir, 1, 2);
        let call = Arc::new(Queue::new());
        let device = scene.guest.register_status(registers(), MSI).unwrap();
        let used = Irq::Status { addr: STATUS, bits: USED_BUFFER };
        let (serial, _) = scene.guest.register_irq(call.reference(), used).unwrap();
        scene.caller(&call, serial);
        let bits = scene.guest.unregister_status(registers(), None, Some(device)).unwrap();
        let raised = scene.xen.msis().len();
        scene.join();
        assert_eq!(scene.xen.msis().len(), raised, "raised after the end");
        (bits, raised, call.taken())
    });
    assert_eq!(seen, [(0, 0, 1), (1, 1, 0)].into());
}
