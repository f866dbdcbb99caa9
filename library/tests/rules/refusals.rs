//! What each call refuses, and that nothing is half done then.

use crate::bench::{
    AT, Bench, DOORBELL, balloon, config, count, event, is_readable, until, until_readable,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use xen_eventfd::IoEventAddress::{Mmio, Pio};
use xen_eventfd::{
    AnyValue, Datamatch, DomId, EngineKind, Error, Guardian, Guest, Invalid, InvalidIrq, Irq, Line,
    Masked, NoDatamatch, Port, Space, Trigger, Width, Xen,
};
use xen_eventfd_host::Host;
use xen_eventfd_model::{CallKind, Kind, Verdict};

const FOUR: AnyValue = AnyValue(Width::Four);

#[test]
fn a_domain_that_is_not_there() {
    let bench = Bench::new();
    for dom in [DomId(77), DomId::SELF, DomId(u16::MAX)] {
        let refused = bench.xen().guest(dom).unwrap_err();
        assert!(matches!(&refused, Error::UnknownDomain(name) if *name == dom.0.to_string()));
        assert_eq!(refused.errno(), Errno::SRCH);
    }
    bench.assert_let_go();
}

#[test]
fn a_pv_guest_has_no_ioreq_servers() {
    let bench = Bench::with(config().kind(Kind::Pv));
    let refused = bench.xen().guest(bench.dom).unwrap_err();
    assert_eq!(refused.errno(), Errno::INVAL);
    assert!(refused.to_string().contains("PVH or HVM"), "{refused}");
    bench.assert_let_go();
}

#[test]
fn domain_0_is_no_guest_of_ours() {
    let bench = Bench::new();
    let refused = bench.xen().guest(DomId(0)).unwrap_err();
    assert_eq!(refused.errno(), Errno::PERM, "{refused}");
    bench.assert_let_go();
}

#[test]
fn all_servers_are_taken() {
    let bench = Bench::new();
    let vmm = bench.model.client("vmm");
    let taken: Vec<_> = (0..8).map(|_| vmm.create_server(bench.dom).unwrap()).collect();
    let refused = bench.xen().guest(bench.dom).unwrap_err();
    assert_eq!(refused.errno(), Errno::NOSPC);
    assert!(refused.to_string().contains("reap"), "{refused}");
    assert_eq!(bench.model.servers(bench.dom).len(), 8, "none of the VMM's was touched");
    vmm.destroy_server(bench.dom, taken[3]).unwrap();
    assert_eq!(bench.attach().server(), taken[3]);
}

#[test]
fn the_257th_range_is_refused_and_the_others_work() {
    let bench = Bench::new();
    let guest = bench.attach();
    let at = |n: u64| Mmio(DOORBELL + n * 0x1000);
    let queue = event();
    let register = |n| guest.register_ioevent(&queue, &at(n), FOUR);
    let mut registered: Vec<_> = (0..256).map(|n| register(n).unwrap()).collect();
    let refused = register(256).unwrap_err();
    assert_eq!(refused.errno(), Errno::NOMEM);
    assert!(refused.to_string().contains("256"), "{refused}");
    for n in 0..257 {
        bench.vcpu(0).write(Space::Mmio, at(n).addr(), Width::Four, n).unwrap();
    }
    assert_eq!(count(&queue), 256);
    assert_eq!(guest.counters().held + guest.counters().late, 0);
    registered.remove(100).end().unwrap();
    registered.push(register(256).unwrap());
    bench.vcpu(0).write(Space::Mmio, at(256).addr(), Width::Four, 0).unwrap();
    assert_eq!(count(&queue), 1);
}

#[test]
fn bytes_that_xen_does_not_take_back_are_answered_until_it_does() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let register = |addr| guest.register_ioevent(&queue, &Mmio(addr), FOUR).unwrap();
    // Three that Xen merges into one range, and as many others as there may be.
    let _left = register(DOORBELL - 4);
    let middle = register(DOORBELL);
    let _right = register(DOORBELL + 4);
    let mut others: Vec<_> = (1..256).map(|n| register(DOORBELL + n * 0x1000)).collect();
    middle.end().unwrap();
    bench.kick(0, 1);
    assert_eq!((guest.counters().late, count(&queue)), (1, 0));
    // Room for the second half: now the bytes are the VMM's again.
    others.pop().unwrap().end().unwrap();
    let claimed = |addr: u64| {
        let ranges = &bench.model.servers(bench.dom)[0].ranges;
        ranges.iter().any(|bytes| bytes.first() <= addr && addr <= bytes.last())
    };
    assert!(claimed(DOORBELL - 1) && claimed(DOORBELL + 4));
    assert!(!claimed(DOORBELL) && !claimed(DOORBELL + 3));
    let _again = register(DOORBELL);
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
}

#[test]
fn what_cannot_be_is_invalid() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let invalid = |at, datamatch: Datamatch| match guest
        .register_ioevent(&queue, &at, datamatch)
        .unwrap_err()
    {
        Error::Invalid { addr, why } if addr == at.addr() => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(invalid(AT, NoDatamatch(0).into()), Invalid::Length);
    assert_eq!(invalid(AT, NoDatamatch(9).into()), Invalid::Length);
    assert_eq!(invalid(Mmio(u64::MAX - 2), FOUR.into()), Invalid::Range);
    assert_eq!(invalid(Mmio(u64::MAX), NoDatamatch(2).into()), Invalid::Range);
    assert_eq!(invalid(Pio(0xFFFD), 0_u32.into()), Invalid::Range);
    assert_eq!(invalid(Pio(0x1_0000), 0_u8.into()), Invalid::Range);
    let masked = |value, mask| Masked { width: Width::Two, value, mask }.into();
    assert_eq!(invalid(AT, masked(0x1_0000, 0xFFFF)), Invalid::Value);
    assert_eq!(invalid(AT, masked(0x103, 0xFF)), Invalid::Value);
    assert_eq!(invalid(AT, masked(0, 0)), Invalid::Mask);
    assert_eq!(invalid(AT, masked(0, 0x1_0000)), Invalid::Mask);
    assert_eq!(guest.register_fallback(&queue, &AT, 9).unwrap_err().errno(), Errno::INVAL);
    assert_eq!(guest.registered(), []);
    assert_eq!(bench.model.servers(bench.dom)[0].ranges, []);
}

#[test]
fn the_ends_of_both_spaces_are_served() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _mmio = guest.register_ioevent(&queue, &Mmio(u64::MAX - 3), 1_u32).unwrap();
    let _pio = guest.register_ioevent(&queue, &Pio(0xFFFC), 1_u32).unwrap();
    bench.vcpu(0).write(Space::Mmio, u64::MAX - 3, Width::Four, 1).unwrap();
    bench.vcpu(0).write(Space::Pio, 0xFFFC, Width::Four, 1).unwrap();
    assert_eq!(count(&queue), 2);
}

/// Whether two registrations at one address can stand side by side, in either order.
fn side_by_side(guest: &Guest, one: Datamatch, other: Datamatch) -> bool {
    let (a, b) = (event(), event());
    let mut verdicts = [(one, other), (other, one)].map(|(first, second)| {
        let _first = guest.register_ioevent(&a, &AT, first).unwrap();
        match guest.register_ioevent(&b, &AT, second) {
            Ok(_second) => true,
            Err(error) => {
                assert_eq!(error.errno(), Errno::EXIST, "{error}");
                assert_eq!(guest.registered().len(), 1);
                false
            }
        }
    });
    verdicts.sort_unstable();
    assert_eq!(verdicts[0], verdicts[1], "{one:?} and {other:?}: the order matters");
    assert_eq!(guest.registered(), []);
    verdicts[0]
}

#[test]
fn two_registrations_collide_if_a_write_is_for_both_at_one_rank() {
    let bench = Bench::new();
    let guest = bench.attach();
    let masked = |value| Masked { width: Width::Four, value, mask: 0xFFFF };
    let all: [(Datamatch, &str); 7] = [
        (1_u32.into(), "value"),
        (2_u32.into(), "other value"),
        (1_u16.into(), "value of another width"),
        (masked(1).into(), "value under a mask"),
        (FOUR.into(), "wildcard"),
        (AnyValue(Width::Two).into(), "wildcard of another width"),
        (NoDatamatch(4).into(), "any width"),
    ];
    let collisions = [
        ("value", "value under a mask"),
        ("other value", "value under a mask"),
        ("wildcard", "any width"),
        ("wildcard of another width", "any width"),
    ];
    for (one, name) in all {
        for (other, beside) in all {
            let collide = name == beside
                || collisions.contains(&(name, beside))
                || collisions.contains(&(beside, name));
            assert_eq!(side_by_side(&guest, one, other), !collide, "{name} and {beside}");
        }
    }
    assert_eq!(bench.model.servers(bench.dom)[0].ranges, [], "no claim is left behind");
}

#[test]
fn a_mask_that_differs_is_named() {
    let bench = Bench::new();
    let guest = bench.attach();
    let _first = guest.register_ioevent(&event(), &AT, 1_u32).unwrap();
    let masked = Masked { width: Width::Four, value: 2, mask: 0xFFFF };
    let refused = guest.register_ioevent(&event(), &AT, masked).unwrap_err();
    assert!(refused.to_string().contains("0xffffffff"), "{refused}");
}

#[test]
fn one_fallback_an_address() {
    let bench = Bench::new();
    let guest = bench.attach();
    let _rest = guest.register_fallback(&event(), &AT, 4).unwrap();
    let refused = guest.register_fallback(&event(), &AT, 8).unwrap_err();
    assert_eq!(refused.errno(), Errno::EXIST);
    assert!(guest.register_ioevent(&event(), &AT, NoDatamatch(4)).is_ok());
}

#[test]
fn unregister_wants_the_full_tuple() {
    let bench = Bench::new();
    let guest = bench.attach();
    let (queue, other) = (event(), event());
    let registered = Masked { width: Width::Four, value: 3, mask: 0xFFFF };
    guest.register_ioevent(&queue, &AT, registered).unwrap().keep();
    let refused = |fd, at, datamatch: Datamatch| {
        guest.unregister_ioevent(fd, &at, datamatch).unwrap_err().errno()
    };
    let with = |value, mask| Masked { value, mask, ..registered };
    assert_eq!(refused(&queue, Mmio(DOORBELL + 4), registered.into()), Errno::NOENT);
    assert_eq!(refused(&queue, Pio(0x50), registered.into()), Errno::NOENT);
    assert_eq!(refused(&queue, AT, 3_u16.into()), Errno::NOENT);
    assert_eq!(refused(&queue, AT, 3_u32.into()), Errno::NOENT);
    assert_eq!(refused(&queue, AT, with(4, 0xFFFF).into()), Errno::NOENT);
    assert_eq!(refused(&queue, AT, FOUR.into()), Errno::NOENT);
    assert_eq!(refused(&other, AT, registered.into()), Errno::NOENT);
    bench.kick(0, 0x10003);
    assert_eq!(count(&queue), 1, "it is still registered");
    // Another descriptor of the same eventfd names it as well.
    let twin = queue.try_clone().unwrap();
    guest.unregister_ioevent(&twin, &AT, registered).unwrap();
    assert_eq!(refused(&queue, AT, registered.into()), Errno::NOENT);
}

#[test]
fn only_an_eventfd_will_do() {
    let bench = Bench::new();
    let guest = bench.attach();
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let file = tempfile::tempfile().unwrap();
    // SAFETY: no descriptor has this number; all that is done with it is to ask the kernel.
    let closed = unsafe { BorrowedFd::borrow_raw(1_000_000) };
    let (pipe, file) = (pipe.as_fd(), file.as_fd());
    for (fd, errno) in [(pipe, Errno::INVAL), (file, Errno::INVAL), (closed, Errno::BADF)] {
        let refusals = [
            guest.register_ioevent(&fd, &AT, 1_u32).err(),
            guest.unregister_ioevent(&fd, &AT, 1_u32).err(),
            guest.register_fallback(&fd, &AT, 4).err(),
            guest.register_irqfd(&fd, Irq::Msi { addr: 0xFEE0_0000, data: 0x41 }).err(),
            guest.register_channel(&fd, Port(9)).err(),
        ];
        for refused in refusals {
            assert_eq!(refused.map(|error| error.errno()), Some(errno));
        }
    }
    assert_eq!(guest.registered(), []);
}

#[test]
fn a_guest_that_is_let_go_of_takes_no_registration() {
    let bench = Bench::new();
    let guest = bench.attach();
    let registered = guest.register_ioevent(&event(), &AT, 1_u32).unwrap();
    guest.close().unwrap();
    assert_refuses_all(&guest);
    assert!(!guest.is_served());
    assert!(!is_readable(guest.gone()), "no guest died");
    drop(registered);
    assert!(guest.close().is_ok(), "a second time does nothing");
    bench.assert_let_go();
}

#[test]
fn a_guest_that_died_takes_no_registration() {
    let bench = Bench::new();
    let guest = bench.attach();
    let registered = guest.register_ioevent(&event(), &AT, 1_u32).unwrap();
    bench.model.destroy(bench.dom);
    until_readable(guest.gone(), "the death is noticed");
    assert_refuses_all(&guest);
    assert!(matches!(registered.end(), Err(Error::GuestDied(_))));
    assert!(guest.close().is_ok());
    bench.assert_let_go();
}

fn assert_refuses_all(guest: &Guest) {
    let refusals = [
        guest.register_ioevent(&event(), &AT, 7_u32).err(),
        guest.register_fallback(&event(), &AT, 4).err(),
        guest.register_irqfd(&event(), Irq::Msi { addr: 0xFEE0_0000, data: 0x41 }).err(),
        guest.register_channel(&event(), Port(9)).err(),
        guest.unregister_ioevent(&event(), &AT, 1_u32).err(),
    ];
    for refused in refusals {
        assert!(matches!(refused, Some(Error::GuestDied(_))), "{refused:?}");
    }
}

#[test]
fn an_eventfd_raises_one_interrupt_of_a_guest() {
    let bench = Bench::new();
    let guest = bench.attach();
    let call = event();
    let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
    let first = guest.register_irqfd(&call, msi).unwrap();
    let twin = call.try_clone().unwrap();
    for irq in [msi, Irq::Line(Line::Isa(5), Trigger::Pulse)] {
        assert_eq!(guest.register_irqfd(&twin, irq).unwrap_err().errno(), Errno::BUSY);
    }
    drop(first);
    assert!(guest.register_irqfd(&call, msi).is_ok());
}

#[test]
fn a_guest_without_lines_gets_none() {
    let bench = Bench::with(config().kind(Kind::Pvh));
    let guest = bench.attach();
    for line in [Line::Isa(5), Line::PciIntx { device: 3, pin: 1 }] {
        let refused = guest.register_irqfd(&event(), Irq::Line(line, Trigger::Pulse)).unwrap_err();
        assert!(matches!(refused, Error::NoLines(dom) if dom == bench.dom), "{refused:?}");
    }
    assert_eq!(bench.model.host_crashed(), None);
}

#[test]
fn interrupts_that_cannot_be() {
    let bench = Bench::new();
    let guest = bench.attach();
    let line = |line| Irq::Line(line, Trigger::Level);
    for (irq, why) in [
        (Irq::EventChannel(Port(0)), InvalidIrq::Port),
        (Irq::Msi { addr: 0xFED0_0000, data: 0 }, InvalidIrq::MsiAddress),
        (line(Line::Isa(16)), InvalidIrq::IsaLine),
        (line(Line::PciIntx { device: 32, pin: 0 }), InvalidIrq::PciPin),
        (line(Line::PciIntx { device: 0, pin: 4 }), InvalidIrq::PciPin),
        (line(Line::Spi(31)), InvalidIrq::SpiLine),
    ] {
        let refused = guest.register_irqfd(&event(), irq).unwrap_err();
        assert!(matches!(refused, Error::InvalidIrq(found) if found == why), "{refused:?}");
    }
    assert_eq!(guest.register_channel(&event(), Port(0)).unwrap_err().errno(), Errno::INVAL);
}

#[test]
fn an_event_channel_must_be_allocated_and_free() {
    let bench = Bench::new();
    let guest = bench.attach();
    let vmm = bench.model.client("vmm");
    let channels = vmm.event_channels().unwrap();
    let theirs = bench.vcpu(0).alloc_unbound().unwrap();
    channels.bind(bench.dom, theirs).unwrap();
    for port in [Port(500), theirs] {
        let refusals = [
            guest.register_irqfd(&event(), Irq::EventChannel(port)).err(),
            guest.register_channel(&event(), port).err(),
        ];
        for refused in refusals.map(Option::unwrap) {
            assert_eq!(refused.errno(), Errno::INVAL);
            assert!(refused.to_string().contains("allocated"), "{refused}");
        }
    }
    assert_eq!(bench.backend.leftovers().ports.len(), 2, "those of the two vCPUs");
}

#[test]
fn an_event_channel_has_one_listener() {
    let bench = Bench::new();
    let (guest, vcpu) = (bench.attach(), bench.vcpu(0));
    let port = vcpu.alloc_unbound().unwrap();
    let rung = event();
    let listener = guest.register_channel(&rung, port).unwrap();
    assert_eq!(guest.register_channel(&event(), port).unwrap_err().errno(), Errno::BUSY);
    until_readable(&rung, "the event of every new channel");
    count(&rung);
    vcpu.send(port).unwrap();
    until_readable(&rung, "the first listener still listens");
    drop(listener);
    assert_eq!(bench.backend.leftovers().ports.len(), 2);
    assert!(guest.register_channel(&rung, port).is_ok());
}

#[test]
fn a_second_engine_is_told_who_serves() {
    let bench = Bench::new();
    let xen = bench.xen();
    let guest = xen.guest(bench.dom).unwrap();
    let other = bench.model.client("other");
    let engines = [xen.clone(), bench.xen(), bench.xen_of(&other, bench.run_dir.path()).unwrap()];
    for engine in engines {
        let refused = engine.guest(bench.dom).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(matches!(&refused, Error::InUse { holder, .. } if holder.contains(&me)));
        assert_eq!(refused.errno(), Errno::BUSY);
    }
    assert_eq!(other.leftovers().servers, []);
    // The first one has not noticed.
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
}

#[test]
fn a_run_dir_that_is_none() {
    let bench = Bench::new();
    let file = bench.run_dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refused = bench.xen_of(&bench.backend, &path).unwrap_err();
        assert!(matches!(&refused, Error::RunDir { .. }), "{refused:?}");
        let reaped = Xen::builder().run_dir(&path).reap_on(&*bench.backend);
        assert!(matches!(reaped, Err(Error::RunDir { .. })));
    }
    assert!(bench.backend.leftovers().is_empty());
}

#[test]
fn a_run_dir_that_disappears() {
    let bench = Bench::new();
    let xen = bench.xen();
    std::fs::remove_dir(bench.run_dir.path()).unwrap();
    let refused = xen.guest(bench.dom).unwrap_err();
    assert!(matches!(refused, Error::RunDir { errno: Errno::NOENT, .. }), "{refused:?}");
    std::fs::create_dir(bench.run_dir.path()).unwrap();
    assert!(xen.guest(bench.dom).is_ok());
}

/// As when `/run` is full.
#[test]
fn a_guest_is_not_taken_without_a_record() {
    let bench = Bench::beside_a_vmm();
    let draft = bench.run_dir.path().join(format!("{}.new", bench.dom.0));
    std::fs::create_dir(&draft).unwrap();
    let refused = bench.xen().guest(bench.dom).unwrap_err();
    assert!(matches!(refused, Error::RunDir { .. }), "{refused:?}");
    std::fs::remove_dir(draft).unwrap();
    bench.assert_let_go();
    bench.assert_usable();
}

/// A record that cannot be written once the server is enabled: as when `/run` is full. A vCPU that
/// rang the server meanwhile must not pay for it.
#[test]
fn a_record_that_cannot_be_written_leaves_no_vcpu_behind() {
    let bench = Bench::new();
    let (draft, vcpu) = (bench.run_dir.path().join(format!("{}.new", bench.dom.0)), bench.vcpu(1));
    let parked = Arc::new(Mutex::new(None));
    bench.backend.on_call(Box::new({
        let (parked, draft, enabled) = (Arc::clone(&parked), draft.clone(), AtomicBool::new(false));
        move |site| {
            if site.kind == CallKind::SetServerState && !enabled.swap(true, SeqCst) {
                std::fs::create_dir(&draft).unwrap();
            } else if enabled.load(SeqCst) {
                let mut parked = parked.lock().unwrap();
                let parked = parked.get_or_insert_with(|| balloon(&vcpu));
                // It must go on before the server does: then nothing could wake it.
                let last = site.kind == CallKind::DestroyServer;
                until("the vCPU goes on", || !last || parked.is_finished());
            }
            Verdict::Proceed
        }
    }));
    let refused = bench.xen().guest(bench.dom).unwrap_err();
    assert!(matches!(refused, Error::RunDir { .. }), "{refused:?}");
    let parked = parked.lock().unwrap().take().unwrap();
    assert_eq!(parked.join(), Ok(()));
    assert_eq!(bench.model.servers(bench.dom), []);
    std::fs::remove_dir(draft).unwrap();
    bench.assert_usable();
}

#[test]
fn an_engine_that_does_not_exist() {
    let refused = "kernal".parse::<EngineKind>().unwrap_err();
    assert!(matches!(&refused, Error::NoEngine(_)) && refused.to_string().contains("kernal"));
    assert_eq!(refused.errno(), Errno::NODEV);
    for kind in [EngineKind::Auto, EngineKind::Kernel, EngineKind::Userspace] {
        assert_eq!(kind.to_string().parse::<EngineKind>().unwrap(), kind);
    }
}

#[test]
fn the_kernel_module_serves_no_other_host() {
    let bench = Bench::new();
    let builder = Xen::builder().run_dir(bench.run_dir.path()).engine(EngineKind::Kernel);
    let refused = builder.open_on(Arc::clone(&bench.backend) as Arc<_>).unwrap_err();
    assert!(matches!(refused, Error::NoEngine(_)), "{refused}");
}

#[test]
fn a_guardian_that_cannot_be_started() {
    let bench = Bench::new();
    let xen = Xen::builder()
        .run_dir(bench.run_dir.path())
        .guardian(Guardian::Program("/nonexistent/guardian".into()))
        .open_on(Arc::clone(&bench.backend) as Arc<_>)
        .unwrap();
    for _ in 0..2 {
        let refused = xen.guest(bench.dom).unwrap_err();
        assert!(matches!(&refused, Error::NoGuardian(_)), "{refused:?}");
        assert!(refused.to_string().contains("/nonexistent/guardian"), "{refused}");
    }
    bench.assert_let_go();
}
