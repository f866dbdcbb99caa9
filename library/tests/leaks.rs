//! Nothing of this process grows with the guests that come and go. Alone in its program, as all
//! threads of one share their descriptors.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use xen_eventfd::{Guest, IoEventAddress, Irq, NoDatamatch, VcpuId, Xen};
use xen_eventfd_model::{Config, Model, Vcpu};

fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn entries(path: &str) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

/// Descriptors and threads, once nothing is on its way out any more: a thread that was joined, or a
/// guest that the engine is about to bury, is still there for a moment.
fn held() -> (usize, usize) {
    let now = || (entries("/proc/self/fd"), entries("/proc/self/task"));
    let (mut last, mut calm) = (now(), 0);
    while calm < 10 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let next = now();
        calm = if next == last { calm + 1 } else { 0 };
        last = next;
    }
    last
}

/// One of everything; half of it dropped, half of it left to the guest's end.
fn use_all(guest: &Guest, vcpu: &Vcpu) {
    let (at, port) = (IoEventAddress::Mmio(0xFE00_0050), vcpu.alloc_unbound().unwrap());
    let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
    guest.register_ioevent(&event(), &at, 1_u32).unwrap().keep();
    guest.register_irqfd(&event(), msi).unwrap().keep();
    guest.register_channel(&event(), port).unwrap().keep();
    let _queue = guest.register_ioevent(&event(), &at, NoDatamatch(4)).unwrap();
    let _rest = guest.register_fallback(&event(), &at, 4).unwrap();
    let _ring = guest.register_irqfd(&event(), Irq::EventChannel(port)).unwrap();
    assert!(guest.register_ioevent(&event(), &at, 1_u32).is_err());
    assert!(guest.register_channel(&event(), port).is_err());
}

#[test]
fn a_thousand_rounds_leave_nothing() {
    let model = Model::new();
    let client = model.client("backend");
    // In memory, as `/run` is.
    let run_dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let open = || Xen::builder().run_dir(run_dir.path()).open_on(client.clone()).unwrap();
    let round = |xen: &Xen| {
        let dom = model.domain(Config::new("guest"));
        let vcpu = model.vcpu(dom, VcpuId(0));
        let guest = xen.guest(dom).unwrap();
        use_all(&guest, &vcpu);
        if !dom.0.is_multiple_of(3) {
            assert!(guest.close().is_ok());
        }
        if dom.0.is_multiple_of(2) {
            model.destroy(dom);
        }
        drop(guest);
        model.destroy(dom);
    };
    let before = held();
    let xen = open();
    round(&xen);
    let serving = held();
    (0..1_000).for_each(|_| round(&xen));
    assert_eq!(held(), serving, "with the engine running");
    drop(xen);
    (0..100).for_each(|_| round(&open()));
    assert_eq!(held(), before, "without one");
    assert!(client.leftovers().is_empty(), "{:?}", client.leftovers());
    assert!(model.zombies().is_empty());
    assert_eq!(std::fs::read_dir(run_dir.path()).unwrap().count(), 0);
}
