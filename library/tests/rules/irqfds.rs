//! From an eventfd to an interrupt, and from an event channel to an eventfd.

use crate::bench::{Bench, Frost, config, count, event, signal, until, until_readable};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::os::fd::AsRawFd;
use xen_eventfd::{Arch, Guest, IoEventAddress, Irq, Line, Trigger, VcpuId, Xen};
use xen_eventfd_model::{CallKind, Kind, Model, Verdict};

const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
const ISA: Line = Line::Isa(5);
const INTX: Line = Line::PciIntx { device: 3, pin: 1 };

#[test]
fn a_pulse_is_an_edge_a_thousand_times() {
    for line in [ISA, INTX] {
        let bench = Bench::new();
        let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
        let irqfd = guest.register_irqfd(&call, Irq::Line(line, Trigger::Pulse)).unwrap();
        for seen in 0..1_000 {
            signal(&call);
            assert_eq!(vcpu.wait_edge(line, seen).unwrap(), seen + 1);
        }
        until("all are counted", || irqfd.raised() == 1_000);
        assert!(!bench.model.is_up(bench.dom, line));
    }
}

#[test]
fn a_level_stays_up_until_it_is_lowered() {
    for line in [ISA, INTX] {
        let bench = Bench::new();
        let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
        let irqfd = guest.register_irqfd(&call, Irq::Line(line, Trigger::Level)).unwrap();
        signal(&call);
        assert_eq!(vcpu.wait_edge(line, 0).unwrap(), 1);
        // Without lowering there is no second edge.
        signal(&call);
        until("the second signal is passed on", || irqfd.raised() == 2);
        assert_eq!(bench.model.edges(bench.dom, line), 1);
        assert!(bench.model.is_up(bench.dom, line));
        irqfd.lower().unwrap();
        assert!(!bench.model.is_up(bench.dom, line));
        signal(&call);
        assert_eq!(vcpu.wait_edge(line, 1).unwrap(), 2);
    }
}

#[test]
fn a_level_that_nobody_is_left_to_lower_goes_down() {
    for line in [ISA, INTX] {
        let bench = Bench::new();
        let (guest, calls) = (bench.attach(), [event(), event()]);
        let level = Irq::Line(line, Trigger::Level);
        let [one, other] = calls.each_ref().map(|call| guest.register_irqfd(call, level).unwrap());
        signal(&calls[0]);
        until("it is up", || bench.model.is_up(bench.dom, line));
        drop(one);
        assert!(bench.model.is_up(bench.dom, line), "the other can lower it");
        drop(other);
        assert!(!bench.model.is_up(bench.dom, line));
        let last = event();
        guest.register_irqfd(&last, level).unwrap().keep();
        signal(&last);
        until("it is up", || bench.model.is_up(bench.dom, line));
        guest.close().unwrap();
        assert!(!bench.model.is_up(bench.dom, line));
    }
}

/// What another architecture has is refused at once, with what there is instead.
#[test]
fn a_guest_has_the_interrupts_and_addresses_of_its_architecture() {
    let call = event();
    let line = |line| Irq::Line(line, Trigger::Level);
    let (spi, pci) = (line(Line::Spi(40)), line(INTX));
    for (arch, has, has_not, advice) in [
        (Arch::X86, vec![MSI, line(ISA), pci], vec![spi], "use an MSI or an event channel"),
        (Arch::Arm, vec![spi], vec![MSI, line(ISA), pci], "use an SPI or an event channel"),
    ] {
        let model = Model::on(arch);
        let (dom, run_dir) = (model.domain(config()), tempfile::tempdir().unwrap());
        let host = model.client("backend");
        let xen = Xen::builder().run_dir(run_dir.path()).open_on(host.clone()).unwrap();
        let guest = xen.guest(dom).unwrap();
        for irq in has {
            guest.register_irqfd(&call, irq).unwrap().set_irq(irq).unwrap();
        }
        let channel = Irq::EventChannel(model.vcpu(dom, VcpuId(0)).alloc_unbound().unwrap());
        let irqfd = guest.register_irqfd(&call, channel).unwrap();
        for irq in has_not {
            for refused in [irqfd.set_irq(irq), guest.register_irqfd(&event(), irq).map(drop)] {
                let refused = refused.unwrap_err();
                assert_eq!(refused.errno(), Errno::OPNOTSUPP, "{refused}");
                let sentence = refused.to_string();
                assert!(
                    sentence.contains(&arch.to_string()) && sentence.contains(advice),
                    "{sentence}"
                );
            }
        }
        drop(irqfd);
        let port = guest.register_ioevent(&call, &IoEventAddress::Pio(0xC050), 1_u16).map(drop);
        let fallback = guest.register_fallback(&call, &IoEventAddress::Pio(0xC050), 2).map(drop);
        for taken in [port, fallback] {
            match arch {
                Arch::X86 => taken.unwrap(),
                Arch::Arm => {
                    let refused = taken.unwrap_err();
                    assert_eq!(refused.errno(), Errno::OPNOTSUPP);
                    assert!(refused.to_string().contains("0xc050"), "{refused}");
                }
            }
        }
    }
}

/// Kicks and interrupts have a thread each.
#[test]
fn interrupts_do_not_wait_for_kicks() {
    let bench = Bench::with(config().kind(Kind::Pvh));
    let (guest, call) = (bench.attach(), event());
    let _irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let _frozen = Frost::new(&bench, &bench.backend, &guest);
    signal(&call);
    until("it is raised", || bench.model.msis(bench.dom, 0x41) == 1);
}

#[test]
fn an_msi_each_time() {
    let bench = Bench::with(config().kind(Kind::Pvh));
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(1), event());
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    for _ in 0..1_000 {
        signal(&call);
        vcpu.wait_msi(0x41).unwrap();
    }
    until("all are counted", || irqfd.raised() == 1_000);
    assert_eq!(bench.model.msis(bench.dom, 0x41), 1_000);
    assert!(irqfd.lower().is_ok(), "nothing to lower");
}

#[test]
fn an_event_channel_each_time() {
    let bench = Bench::with(config().kind(Kind::Pvh));
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    let port = vcpu.alloc_unbound().unwrap();
    let _irqfd = guest.register_irqfd(&call, Irq::EventChannel(port)).unwrap();
    for _ in 0..1_000 {
        signal(&call);
        vcpu.wait(port).unwrap();
    }
    assert!(!vcpu.try_take(port).unwrap());
}

#[test]
fn what_was_signalled_before_counts_once() {
    let bench = Bench::new();
    let (guest, vcpu, call) = (bench.attach(), bench.vcpu(0), event());
    (0..5).for_each(|_| signal(&call));
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    vcpu.wait_msi(0x41).unwrap();
    until("it is counted", || irqfd.raised() == 1);
    assert_eq!(count(&call), 0);
}

/// The engine's thread is kept busy while the signals come.
#[test]
fn several_signals_at_once_are_one_interrupt() {
    let bench = Bench::new();
    let (guest, call, other) = (bench.attach(), event(), event());
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let _other = guest.register_irqfd(&other, Irq::Line(ISA, Trigger::Level)).unwrap();
    let signals = call.try_clone().unwrap();
    bench.backend.on_call(Box::new(move |site| {
        if site.kind == CallKind::SetLine {
            (0..7).for_each(|_| signal(&signals));
        }
        Verdict::Proceed
    }));
    signal(&other);
    until("the signals are passed on", || irqfd.raised() == 1);
    bench.vcpu(0).wait_edge(ISA, 0).unwrap();
    assert_eq!(bench.model.msis(bench.dom, 0x41), 1);
}

/// What the thread for interrupts was to do before this, it has done when this returns.
fn settle(bench: &Bench, guest: &Guest) {
    let (fence, line) = (event(), Line::Isa(9));
    let _fence = guest.register_irqfd(&fence, Irq::Line(line, Trigger::Pulse)).unwrap();
    let seen = bench.model.edges(bench.dom, line);
    signal(&fence);
    bench.vcpu(0).wait_edge(line, seen).unwrap();
}

#[test]
fn a_write_to_a_semaphore_is_one_interrupt_and_its_rest_none() {
    let bench = Bench::new();
    let guest = bench.attach();
    let call = eventfd(3, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE).unwrap();
    let add = |count: u64| rustix::io::write(&call, &count.to_ne_bytes()).unwrap();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let raised = |times| {
        until("it is raised", || irqfd.raised() >= times);
        settle(&bench, &guest);
        assert_eq!((irqfd.raised(), bench.model.msis(bench.dom, 0x41)), (times, times));
    };
    // What it had counted is one.
    raised(1);
    add(1_000);
    raised(2);
    // As much as it takes beside the 2 and the 999 that are there.
    add(u64::MAX - 1 - 1_001);
    raised(3);
    add(1);
    raised(4);
    drop(irqfd);
    assert_eq!(bench.model.msis(bench.dom, 0x41), 4, "its end raises none for the rest");
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", call.as_raw_fd())).unwrap();
    let left = u64::MAX - 2;
    assert!(info.contains(&format!("eventfd-count: {left:16x}")), "{info}");
}

#[test]
fn a_signal_just_before_the_end_of_a_semaphore_is_not_lost() {
    let bench = Bench::new();
    let guest = bench.attach();
    for round in 1..=50 {
        let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::SEMAPHORE).unwrap();
        let irqfd = guest.register_irqfd(&call, MSI).unwrap();
        signal(&call);
        drop(irqfd);
        assert_eq!(bench.model.msis(bench.dom, 0x41), round);
    }
}

#[test]
fn nothing_is_raised_after_unregister() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    assert_eq!(guest.unregister_irqfd(&event(), MSI).unwrap_err().errno(), Errno::NOENT);
    let other = Irq::Line(ISA, Trigger::Pulse);
    assert_eq!(guest.unregister_irqfd(&call, other).unwrap_err().errno(), Errno::NOENT);
    guest.unregister_irqfd(&call, MSI).unwrap();
    signal(&call);
    // What the thread was to do before this, it has done once this is raised.
    let fence = event();
    let _fence = guest.register_irqfd(&fence, other).unwrap();
    signal(&fence);
    bench.vcpu(0).wait_edge(ISA, 0).unwrap();
    assert_eq!((irqfd.raised(), bench.model.msis(bench.dom, 0x41)), (0, 0));
    assert_eq!(count(&call), 1, "the signal is still in the counter");
    assert_eq!(guest.unregister_irqfd(&call, MSI).unwrap_err().errno(), Errno::NOENT);
}

/// The port is free again at once, though the caller still has the value that stood for it.
#[test]
fn an_irqfd_that_is_unregistered_holds_no_port() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let irq = Irq::EventChannel(port);
    let irqfd = guest.register_irqfd(&call, irq).unwrap();
    guest.unregister_irqfd(&call, irq).unwrap();
    assert!(!bench.backend.leftovers().ports.contains(&(bench.dom, port)));
    let _again = guest.register_irqfd(&call, irq).unwrap();
    drop(irqfd);
    assert!(bench.backend.leftovers().ports.contains(&(bench.dom, port)), "that one's port stays");
    signal(&call);
    bench.vcpu(0).wait(port).unwrap();
}

#[test]
fn what_the_host_refuses_is_counted_and_the_next_one_is_tried() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    bench.backend.fail(CallKind::InjectMsi, 1, Errno::SRCH);
    signal(&call);
    until("it is counted", || irqfd.failed() == 1);
    signal(&call);
    until("the next one is raised", || irqfd.raised() == 1);
}

#[test]
fn an_interrupt_of_a_guest_that_dies_is_the_last() {
    let bench = Bench::new();
    let (guest, call) = (bench.attach(), event());
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    bench.backend.on_call(Box::new({
        let (model, dom) = (bench.model.clone(), bench.dom);
        move |site| {
            if site.kind == CallKind::InjectMsi {
                model.destroy(dom);
            }
            Verdict::Proceed
        }
    }));
    signal(&call);
    // Xen takes interrupts for a dead guest as long as a page of it is mapped.
    until("it is counted", || irqfd.raised() + irqfd.failed() == 1);
    until_readable(guest.gone(), "the death is noticed");
    signal(&call);
    assert_eq!(irqfd.raised() + irqfd.failed(), 1);
    assert_eq!(count(&call), 1, "the signal is still in the counter");
    drop(irqfd);
    drop(guest);
    bench.assert_let_go();
}

/// Of two that read one counter, one would read nothing.
#[test]
fn an_eventfd_interrupts_one_guest() {
    let bench = Bench::new();
    let xen = bench.xen();
    let other = bench.model.domain(config());
    let [guest, another] = [bench.dom, other].map(|dom| xen.guest(dom).unwrap());
    // A Xen of its own, in the same process.
    let third = bench.model.domain(config());
    let elsewhere = bench.xen().guest(third).unwrap();
    let (call, msi) = (event(), Irq::Msi { addr: 0xFEE0_0000, data: 0x42 });
    let again = call.try_clone().unwrap();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    for guest in [&guest, &another, &elsewhere] {
        for call in [&call, &again] {
            assert_eq!(guest.register_irqfd(call, msi).unwrap_err().errno(), Errno::BUSY);
        }
    }
    signal(&call);
    until("it is raised", || irqfd.raised() == 1);
    // Whatever ended the first, the next one has it.
    drop(irqfd);
    another.register_irqfd(&call, MSI).unwrap().keep();
    another.close().unwrap();
    elsewhere.register_irqfd(&again, MSI).unwrap().keep();
    bench.model.destroy(third);
    until_readable(elsewhere.gone(), "the death is noticed");
    let _last = guest.register_irqfd(&call, MSI).unwrap();
}

#[test]
fn a_channel_signals_an_eventfd_for_each_event() {
    let bench = Bench::new();
    let (guest, vcpu, rung) = (bench.attach(), bench.vcpu(0), event());
    let port = vcpu.alloc_unbound().unwrap();
    let channel = guest.register_channel(&rung, port).unwrap();
    for _ in 0..100 {
        until_readable(&rung, "an event");
        assert_eq!(count(&rung), 1);
        vcpu.send(port).unwrap();
    }
    until_readable(&rung, "the last event");
    count(&rung);
    drop(channel);
    vcpu.send(port).unwrap();
    assert_eq!(count(&rung), 0);
    assert!(!bench.backend.leftovers().ports.contains(&(bench.dom, port)));
}

#[test]
fn an_event_that_came_before_its_listener_is_not_lost() {
    let bench = Bench::new();
    let (guest, vcpu, rung) = (bench.attach(), bench.vcpu(0), event());
    let port = vcpu.alloc_unbound().unwrap();
    let _ring = guest.register_irqfd(&event(), Irq::EventChannel(port)).unwrap();
    for _ in 0..2 {
        vcpu.send(port).unwrap();
        let listener = guest.register_channel(&rung, port).unwrap();
        until_readable(&rung, "the event");
        drop(listener);
        count(&rung);
    }
}

/// If the host cannot end the event that waited for the listener, the next listener gets it.
#[test]
fn an_event_whose_listener_failed_is_not_lost() {
    let bench = Bench::new();
    let (guest, vcpu, rung) = (bench.attach(), bench.vcpu(0), event());
    let port = vcpu.alloc_unbound().unwrap();
    let ring = event();
    let _ring = guest.register_irqfd(&ring, Irq::EventChannel(port)).unwrap();
    // The event of the new channel is left alone before the eventfd is read.
    signal(&ring);
    vcpu.wait(port).unwrap();
    // Where the thread for kicks stops for the second time, it is through with what it had the first.
    drop(Frost::new(&bench, &bench.backend, &guest));
    let frozen = Frost::new(&bench, &bench.backend, &guest);
    bench.backend.fail(CallKind::Eoi, 1, Errno::IO);
    assert!(guest.register_channel(&rung, port).is_err());
    drop(frozen);
    count(&rung);
    let _listener = guest.register_channel(&rung, port).unwrap();
    until_readable(&rung, "the event that waited");
    count(&rung);
    vcpu.send(port).unwrap();
    until_readable(&rung, "the next event");
}

#[test]
fn the_interrupts_of_a_guest_end_with_it() {
    let bench = Bench::new();
    let (guest, call, rung) = (bench.attach(), event(), event());
    let port = bench.vcpu(0).alloc_unbound().unwrap();
    let _ring = guest.register_irqfd(&call, Irq::EventChannel(port)).unwrap();
    let _rung = guest.register_channel(&rung, port).unwrap();
    let _msi = guest.register_irqfd(&event(), MSI).unwrap();
    guest.close().unwrap();
    // The values are still there, what they stood for is not.
    bench.assert_let_go();
}
