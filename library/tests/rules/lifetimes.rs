//! What happens when the host gives out under the engine.

use crate::bench::{AT, Bench, count, event, kick, until, until_readable};
use rustix::io::Errno;
use xen_eventfd::{Error, Irq};
use xen_eventfd_model::CallKind;

/// Nobody is left to serve, so the guests are let go of: their vCPUs go on.
#[test]
fn an_engine_that_stops_lets_go_of_its_guests() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.kick(0, 1);
    bench.backend.fail(CallKind::Pending, 1, Errno::IO);
    // This one finds nobody, or whoever is just about to let go.
    let kicking = bench.vcpu(0).run(|vcpu| kick(vcpu, 1));
    assert_eq!(kicking.join(), Ok(()));
    until("the engine has stopped", || !guest.is_served());
    until_readable(guest.gone(), "whoever watches is told");
    bench.assert_let_go();
    let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
    for refused in [
        guest.register_ioevent(&queue, &AT, 2_u32).err(),
        guest.unregister_ioevent(&queue, &AT, 1_u32).err(),
        guest.register_irqfd(&event(), msi).err(),
        registered.end().err(),
    ] {
        assert!(matches!(refused, Some(Error::EngineStopped(_))), "{refused:?}");
        assert_eq!(refused.unwrap().errno(), Errno::IO);
    }
    assert!(guest.close().is_ok());
    bench.assert_usable();
}

#[test]
fn an_engine_that_has_stopped_takes_no_guest() {
    let bench = Bench::new();
    let xen = bench.xen();
    let guest = xen.guest(bench.dom).unwrap();
    bench.backend.fail(CallKind::Pending, 1, Errno::NOMEM);
    assert_eq!(bench.vcpu(0).balloon(1), Ok(()));
    until("the engine has stopped", || !guest.is_served());
    drop(guest);
    until("it says so", || matches!(xen.guest(bench.dom), Err(Error::EngineStopped(_))));
    bench.assert_let_go();
}

#[test]
fn a_vcpu_that_cannot_be_woken_is_told_of_and_woken_in_the_end() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.kick(0, 1);
    bench.backend.fail(CallKind::Notify, 1, Errno::IO);
    let kicking = bench.vcpu(0).run(|vcpu| kick(vcpu, 1));
    until("it is told", || guest.last_error().is_some_and(|error| error.errno == Errno::IO));
    assert!(bench.vcpu(0).is_parked());
    guest.close().unwrap();
    assert_eq!(kicking.join(), Ok(()));
    assert_eq!(count(&queue), 2);
}

/// The watch breaks and another is set up; deaths meanwhile are noticed.
#[test]
fn a_watch_that_breaks_is_set_up_again() {
    let bench = Bench::new();
    let guest = bench.attach();
    bench.backend.fail(CallKind::Drain, 1, Errno::CONNRESET);
    let other = bench.model.domain(crate::bench::config());
    bench.model.destroy(other);
    bench.model.destroy(bench.dom);
    until_readable(guest.gone(), "the death is noticed");
    bench.assert_let_go();
}

/// As when xenstored is started again: for a while there is nobody to set a watch with.
#[test]
fn a_watch_that_cannot_be_set_up_at_once_is_tried_again() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.backend.fail(CallKind::Drain, 1, Errno::CONNRESET);
    bench.backend.fail(CallKind::Releases, 1, Errno::CONNREFUSED);
    let other = bench.model.domain(crate::bench::config());
    bench.model.destroy(other);
    until("the watch is gone", || bench.backend.leftovers().watches == 0);
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1, "doorbells are served meanwhile");
    bench.model.destroy(bench.dom);
    until_readable(guest.gone(), "the death is noticed");
    assert_eq!(bench.backend.leftovers().watches, 1);
}
