//! What happens when the host gives out under the engine.

use crate::bench::{AT, Bench, config, count, event, kick, pause, signal, until, until_readable};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use xen_eventfd::host::{EventChannels, Host, IoreqPage};
use xen_eventfd::{Error, IoServerId, Irq};
use xen_eventfd_model::{CallKind, Client, ServerInfo, Verdict};

const MSI: Irq = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };

/// A xenstored that accepts and never answers, until this is dropped.
struct Silence {
    over: Arc<AtomicBool>,
    /// How often it was asked for a watch.
    asked: Arc<AtomicU64>,
}

impl Silence {
    /// The next watch that is set waits.
    fn begin(bench: &Bench) -> Self {
        let silence = Self { over: Arc::default(), asked: Arc::default() };
        let (over, asked) = (Arc::clone(&silence.over), Arc::clone(&silence.asked));
        bench.backend.on_call(Box::new(move |site| {
            if site.kind == CallKind::Releases {
                asked.fetch_add(1, SeqCst);
                while !over.load(SeqCst) {
                    pause();
                }
            }
            Verdict::Proceed
        }));
        silence
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
    }
}

/// Breaks the watch that is set.
fn break_watch(bench: &Bench) {
    bench.backend.fail(CallKind::Drain, 1, Errno::CONNRESET);
    let other = bench.model.domain(config());
    bench.model.destroy(other);
}

/// No process is left to serve, so the guests are let go of: their vCPUs go on.
#[test]
fn an_engine_that_stops_lets_go_of_its_guests() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.kick(0, 1);
    bench.backend.fail(CallKind::Pending, 1, Errno::IO);
    // This one finds no engine, or one that is about to let go.
    let kicking = bench.vcpu(0).run(|vcpu| kick(vcpu, 1));
    assert_eq!(kicking.join(), Ok(()));
    until("the engine has stopped", || !guest.is_served());
    until_readable(guest.gone(), "the end is reported");
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
    until("it is reported", || guest.last_error().is_some_and(|error| error.errno == Errno::IO));
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
    let other = bench.model.domain(config());
    bench.model.destroy(other);
    bench.model.destroy(bench.dom);
    until_readable(guest.gone(), "the death is noticed");
    bench.assert_let_go();
}

/// `kexec` in the guest: Xen keeps the ioreq servers.
#[test]
fn a_guest_that_is_reset_is_served_on() {
    let bench = Bench::new();
    let guest = bench.attach();
    let (queue, call) = (event(), event());
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    let old = bench.vcpu(0).alloc_unbound().unwrap();
    let stale = guest.register_irqfd(&call, Irq::EventChannel(old)).unwrap();
    bench.kick(0, 1);
    let looks = Arc::new(AtomicU64::new(0));
    bench.backend.on_call(Box::new({
        let looks = Arc::clone(&looks);
        move |site| {
            looks.fetch_add(u64::from(site.kind == CallKind::ServerAlive), SeqCst);
            Verdict::Proceed
        }
    }));
    bench.vcpu(0).soft_reset().unwrap();
    until("the engine has looked after the guest", || looks.load(SeqCst) > 1);
    assert!(guest.is_served());
    bench.kick(0, 1);
    assert_eq!(count(&queue), 2);
    drop(stale);
    // Most likely by the same number.
    let new = bench.vcpu(0).alloc_unbound().unwrap();
    let _irqfd = guest.register_irqfd(&call, Irq::EventChannel(new)).unwrap();
    signal(&call);
    bench.vcpu(0).wait(new).unwrap();
}

/// Another process of the domain destroys the server: xenstore reports nothing.
#[test]
fn a_guest_that_lost_its_server_is_gone_and_can_be_taken_again() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.kick(0, 1);
    bench.destroy_server();
    until_readable(guest.gone(), "the loss is noticed");
    assert!(!guest.is_served());
    drop((registered, guest));
    bench.assert_let_go();
    bench.assert_usable();
}

/// Another process's server with the id that ours had.
struct Foreign {
    found: Vec<ServerInfo>,
    _held: (Arc<Client>, Box<dyn IoreqPage>, Box<dyn EventChannels>),
}

impl Foreign {
    /// Destroys our server and creates the other one, which gets the guest's ports that ours had.
    fn begin(bench: &Bench) -> Self {
        let ours = bench.destroy_server();
        let host = bench.model.client("another engine");
        while host.create_server(bench.dom).unwrap() != ours {}
        (0..ours.0).for_each(|id| host.destroy_server(bench.dom, IoServerId(id)).unwrap());
        let page = host.map_page(bench.dom, ours).unwrap();
        host.set_server_state(bench.dom, ours, true).unwrap();
        let events = host.event_channels().unwrap();
        events.bind(bench.dom, page.slots()[0].vp_eport()).unwrap();
        Self { found: bench.model.servers(bench.dom), _held: (host, page, events) }
    }
}

#[test]
fn a_server_of_another_that_has_the_id_of_ours_is_not_ours() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let registered = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    let theirs = Foreign::begin(&bench);
    until_readable(guest.gone(), "the loss is noticed");
    let refused = guest.register_ioevent(&queue, &AT, 2_u32);
    assert!(matches!(refused, Err(Error::GuestDied(_))), "{refused:?}");
    drop((registered, guest));
    assert_eq!(bench.model.servers(bench.dom), theirs.found);
}

#[test]
fn a_server_of_another_that_has_the_id_of_ours_outlives_us() {
    let bench = Bench::new();
    let guest = bench.attach();
    let theirs = Foreign::begin(&bench);
    // At once, before the engine looks after its guests.
    guest.close().unwrap();
    assert_eq!(bench.model.servers(bench.dom), theirs.found);
}

/// As when xenstored is started again: for a while no watch can be set.
#[test]
fn a_watch_that_cannot_be_set_up_at_once_is_tried_again() {
    let bench = Bench::new();
    let guest = bench.attach();
    let queue = event();
    let _queue = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    bench.backend.fail(CallKind::Drain, 1, Errno::CONNRESET);
    bench.backend.fail(CallKind::Releases, 1, Errno::CONNREFUSED);
    let other = bench.model.domain(config());
    bench.model.destroy(other);
    until("the watch is gone", || bench.backend.leftovers().watches == 0);
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1, "doorbells are served meanwhile");
    bench.model.destroy(bench.dom);
    until_readable(guest.gone(), "the death is noticed");
    until("there is a watch again", || bench.backend.leftovers().watches == 1);
}

/// xenstored breaks the connection, accepts another one, and is silent from then on.
#[test]
fn a_silent_xenstored_delays_no_interrupt_no_kick_and_no_end() {
    let bench = Bench::new();
    let xen = bench.xen();
    let guest = xen.guest(bench.dom).unwrap();
    let (queue, call) = (event(), event());
    let kicks = guest.register_ioevent(&queue, &AT, 1_u32).unwrap();
    let irqfd = guest.register_irqfd(&call, MSI).unwrap();
    let silence = Silence::begin(&bench);
    break_watch(&bench);
    until("a thread waits for xenstored", || silence.asked.load(SeqCst) == 1);
    signal(&call);
    until("the interrupt is raised", || irqfd.raised() == 1);
    bench.kick(0, 1);
    assert_eq!(count(&queue), 1);
    drop((kicks, irqfd, guest, xen));
    bench.assert_no_server();
    assert!(!silence.over.load(SeqCst), "the engine ended while xenstored was silent");
    drop(silence);
    until("the thread that was left behind ends", || bench.backend.leftovers().is_empty());
}

/// Xen itself is asked about the guests then.
#[test]
fn without_a_watch_a_death_is_noticed_all_the_same() {
    for errno in [Errno::OPNOTSUPP, Errno::CONNREFUSED] {
        let bench = Bench::new();
        let absent = errno == Errno::OPNOTSUPP;
        if absent {
            bench.backend.fail(CallKind::Releases, 1, errno);
        }
        let guest = bench.attach();
        if !absent {
            bench.backend.on_call(Box::new(move |site| match site.kind {
                CallKind::Releases => Verdict::Fail(errno),
                _ => Verdict::Proceed,
            }));
            break_watch(&bench);
        }
        until("there is no watch", || bench.backend.leftovers().watches == 0);
        let call = event();
        let irqfd = guest.register_irqfd(&call, MSI).unwrap();
        signal(&call);
        until("the interrupt is raised", || irqfd.raised() == 1);
        bench.model.destroy(bench.dom);
        until_readable(guest.gone(), "the death is noticed");
        assert!(!guest.is_served());
        bench.assert_let_go();
    }
}

/// `XEN_DMOP_set_ioreq_server_state` pauses a guest, also where it changes nothing.
#[test]
fn a_guest_is_not_paused_to_learn_whether_it_lives() {
    let bench = Bench::new();
    let guest = bench.attach();
    let asked: Arc<[AtomicU64; 2]> = Arc::default();
    let calls = Arc::clone(&asked);
    bench.backend.on_call(Box::new(move |site| {
        match site.kind {
            CallKind::ServerAlive => _ = calls[0].fetch_add(1, SeqCst),
            CallKind::SetServerState => _ = calls[1].fetch_add(1, SeqCst),
            _ => {}
        }
        Verdict::Proceed
    }));
    let other = bench.model.domain(config());
    bench.model.destroy(other);
    until("Xen was asked", || asked[0].load(SeqCst) > 0);
    // A port that is not there may be that of a dead guest.
    let before = asked[0].load(SeqCst);
    let refused = guest.register_irqfd(&event(), Irq::EventChannel(xen_eventfd::Port(500)));
    assert!(matches!(refused, Err(Error::Host(_))), "{refused:?}");
    assert!(asked[0].load(SeqCst) > before, "it was asked once more");
    assert!(guest.is_served());
    assert_eq!(asked[1].load(SeqCst), 0, "times that the guest was paused");
}

/// Else one that the program waits for by a signalfd, or blocks in its own threads, would end it.
#[test]
fn no_signal_of_the_program_reaches_a_thread_of_the_engine() {
    let bench = Bench::new();
    let _xen = bench.xen();
    // All but SIGKILL and SIGSTOP, which nothing blocks, and 32 and 33, which the C library keeps.
    let all = ![9, 19, 32, 33].map(|signal| 1 << (signal - 1)).iter().sum::<u64>();
    let mut names = std::collections::BTreeSet::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // Threads of other tests come and go.
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
                .unwrap()
        };
        let name = field("Name:");
        if name.starts_with("xen-") {
            let blocked = u64::from_str_radix(&field("SigBlk:"), 16).unwrap();
            assert_eq!(blocked & all, all, "{name} takes {:#x}", all & !blocked);
            names.insert(name);
        }
    }
    let ours = ["xen-ioeventfd", "xen-irqfd", "xen-watch"];
    assert!(ours.iter().all(|name| names.contains(*name)), "{names:?}");
}
