//! What stands for a registration does nothing once that has ended, whatever ended it: its number, its
//! line or its guest may be another's by then.

use crate::bench::{AT, Bench, config, event, signal, until, until_readable};
use rustix::io::Errno;
use std::sync::Arc;
use xen_eventfd::{ChannelFd, DomId, Error, Fallback, Guest, IoEvent, Irq, IrqFd, Line, Port};
use xen_eventfd::{Trigger, Xen};
use xen_eventfd_model::CallKind;

const ISA: Line = Line::Isa(5);
const LEVEL: Irq = Irq::Line(ISA, Trigger::Level);
const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };

/// Everything that a guest can have registered.
struct Handles {
    guest: Guest,
    level: IrqFd,
    queue: IoEvent,
    rest: Fallback,
    channel: ChannelFd,
    call: std::os::fd::OwnedFd,
    rung: std::os::fd::OwnedFd,
    port: Port,
}

impl Handles {
    fn new(bench: &Bench, guest: Guest) -> Self {
        let port = bench.model.vcpu(guest.dom(), xen_eventfd::VcpuId(0)).alloc_unbound().unwrap();
        let (call, rung) = (event(), event());
        Self {
            level: guest.register_irqfd(&call, LEVEL).unwrap(),
            queue: guest.register_ioevent(&event(), &AT, 1_u32).unwrap(),
            rest: guest.register_fallback(&event(), &AT, 4).unwrap(),
            channel: guest.register_channel(&rung, port).unwrap(),
            guest,
            call,
            rung,
            port,
        }
    }

    /// Raises the line that these stand for.
    fn raise(&self, bench: &Bench) {
        signal(&self.call);
        until("the line is up", || bench.model.is_up(self.guest.dom(), ISA));
    }

    /// Does with each of them what can be done; then drops them.
    fn try_everything(self, ended: impl Fn(&Error) -> bool) {
        let Self { guest, level, queue, rest, channel, call, rung, port } = self;
        let tried = [
            ("lower", level.lower()),
            ("set_irq", level.set_irq(MSI)),
            ("mask", level.mask()),
            ("unmask", level.unmask()),
            ("is_pending", level.is_pending().map(drop)),
            ("unregister_irqfd", guest.unregister_irqfd(&call, LEVEL)),
            ("unregister_channel", guest.unregister_channel(&rung, port)),
            ("unregister_ioevent", guest.unregister_ioevent(&call, &AT, 1_u32)),
            ("unregister_all", guest.unregister_all(&call, None).map(drop)),
            ("register_irqfd", guest.register_irqfd(&event(), MSI).map(drop)),
            ("register_ioevent", guest.register_ioevent(&call, &AT, 3_u32).map(drop)),
            ("register_channel", guest.register_channel(&event(), port).map(drop)),
            ("end", queue.end()),
        ];
        for (what, result) in tried {
            assert!(result.as_ref().is_err_and(&ended), "{what}: {result:?}");
        }
        assert!(rest.take().kicks.is_empty());
        assert!(guest.registered().is_empty() && !guest.is_served());
        guest.close().unwrap();
        drop((level, rest, channel, guest));
    }
}

/// Another guest or engine with the same number, line and doorbell, of which nothing may be touched.
struct Successor {
    _xen: Xen,
    handles: Handles,
    dom: DomId,
}

impl Successor {
    fn new(bench: &Bench, xen: Xen, dom: DomId) -> Self {
        let handles = Handles::new(bench, xen.guest(dom).unwrap());
        handles.raise(bench);
        Self { _xen: xen, handles, dom }
    }

    fn is_untouched(&self, bench: &Bench) {
        assert!(bench.model.is_up(self.dom, ISA), "its line was lowered");
        assert_eq!(self.handles.guest.registered().len(), 2);
        let Handles { guest, rung, port, call, .. } = &self.handles;
        assert!(guest.register_channel(&event(), *port).is_err(), "its channel was let go of");
        guest.unregister_channel(rung, *port).unwrap();
        guest.unregister_irqfd(call, LEVEL).unwrap();
        assert!(!bench.model.is_up(self.dom, ISA));
    }
}

#[test]
fn of_a_dead_guest_nothing_acts_on_the_next_one_of_its_number() {
    let bench = Bench::new();
    let xen = bench.xen();
    let stale = Handles::new(&bench, xen.guest(bench.dom).unwrap());
    stale.raise(&bench);
    bench.model.destroy(bench.dom);
    until_readable(stale.guest.gone(), "the death is noticed");
    let again = bench.model.domain(config().id(bench.dom));
    assert_eq!(again, bench.dom);
    let next = Successor::new(&bench, xen, again);
    stale.try_everything(|error| matches!(error, Error::GuestDied(_)));
    next.is_untouched(&bench);
}

#[test]
fn of_a_guest_that_was_let_go_of_nothing_acts_on_who_took_it_next() {
    let bench = Bench::new();
    let xen = bench.xen();
    let stale = Handles::new(&bench, xen.guest(bench.dom).unwrap());
    stale.guest.close().unwrap();
    // By the same engine, and by another.
    for xen in [xen, bench.xen()] {
        let next = Successor::new(&bench, xen, bench.dom);
        let Error::GuestDied(_) = stale.level.lower().unwrap_err() else { panic!("lowered") };
        next.is_untouched(&bench);
    }
    let next = Successor::new(&bench, bench.xen(), bench.dom);
    stale.try_everything(|error| matches!(error, Error::GuestDied(_)));
    next.is_untouched(&bench);
}

#[test]
fn of_an_engine_that_stopped_nothing_acts_on_the_next_one() {
    let bench = Bench::new();
    let stale = Handles::new(&bench, bench.attach());
    bench.backend.fail(CallKind::Pending, 1, Errno::IO);
    assert_eq!(bench.vcpu(0).balloon(1), Ok(()));
    until_readable(stale.guest.gone(), "the engine has stopped");
    let other = bench.model.client("another");
    let xen =
        Xen::builder().run_dir(bench.run_dir.path()).open_on(Arc::clone(&other) as _).unwrap();
    let next = Successor::new(&bench, xen, bench.dom);
    stale.try_everything(|error| matches!(error, Error::EngineStopped(_)));
    next.is_untouched(&bench);
}

#[test]
fn an_irqfd_that_was_unregistered_by_what_it_was_lowers_nothing() {
    let bench = Bench::new();
    let guest = bench.attach();
    let (call, other) = (event(), event());
    let stale = guest.register_irqfd(&call, LEVEL).unwrap();
    guest.unregister_irqfd(&call, LEVEL).unwrap();
    let next = guest.register_irqfd(&other, LEVEL).unwrap();
    signal(&other);
    until("the line is up", || bench.model.is_up(bench.dom, ISA));
    for refused in [
        stale.lower(),
        stale.mask(),
        stale.unmask(),
        stale.set_irq(MSI),
        stale.is_pending().map(drop),
    ] {
        assert!(matches!(refused, Err(Error::NotRegistered { .. })), "{refused:?}");
    }
    drop(stale);
    assert!(bench.model.is_up(bench.dom, ISA));
    next.lower().unwrap();
    assert!(!bench.model.is_up(bench.dom, ISA));
}
