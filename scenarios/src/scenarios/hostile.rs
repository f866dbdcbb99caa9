//! Hostile guests and backends, and a neighbour that the same engine serves.
//!
//! The scenario fails if a kick of the neighbour is lost. The duration of its kicks, alone and
//! beside the attack, is printed only: it depends on how the machine schedules its CPUs.

use super::{BASE, DOORBELL, call_irq};
use crate::report_lines::{Accesses, Neighbour};
use crate::roles::vmm::{Place, Seen};
use crate::test_context::{Guest, await_count, new_eventfd, signal, take_count};
use crate::{Engine, PATIENCE, TestContext};
use anyhow::{Context, Result, anyhow, ensure};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use xen_eventfd::IoEventAddress::{Mmio, Pio};
use xen_eventfd::{Counters, IoEvent, Irq, Xen};
use xen_eventfd_core::Space;
use xen_eventfd_core::irq::Arch;
use xen_eventfd_guest_script::Ticks;

/// A doorbell with a page boundary in its middle.
const CROSSING: u64 = BASE + 0x1FFE;
/// A doorbell whose device is removed and registered again.
const TRANSIENT: u64 = BASE + 0x3050;
/// A doorbell of 2 bytes among the I/O ports.
const PORT: u64 = 0xC050;
/// The VMM's memory and ports: everything that a guest here accesses.
const DEVICES: [(Place, u64, u64); 2] = [(Place::Mmio, BASE, 0x4000), (Place::Pio, 0xC000, 0x100)];

/// The expected receiver of an access, by the bytes that it touches and by what is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The queue of its vCPU.
    Queue,
    /// No eventfd: the engine holds it.
    Held,
    /// A read of a doorbell.
    Read,
    /// A string instruction that touches nothing but a doorbell.
    Odd,
    /// The VMM, which gets every access that is not wholly inside a doorbell.
    VmmWrite,
    VmmRead,
    VmmOdd,
    /// The transient device: the engine or the VMM.
    Transient,
    /// The doorbell across a page, in one request: its eventfd.
    Crossing,
    /// Nothing: the guest has a data abort.
    Aborted,
}
use Expected::{Aborted, Crossing, Held, Odd, Queue, Read, Transient, VmmOdd, VmmRead, VmmWrite};

/// The accesses of a vCPU in each round: a statement, the number of requests that Xen makes of it, and the
/// expected receiver. An Arm guest maps its devices as memory where an access is not aligned.
fn accesses(queue: u64, arch: Arch, ports: bool) -> Vec<(String, u64, Expected)> {
    let mmio = |verb: &str, addr: u64, rest: &str| format!("{verb} mmio:{addr:#x} {rest}");
    let pio = |verb: &str, port: u64, rest: &str| format!("{verb} pio:{port:#x} {rest}");
    let of_queue = |width: u64| format!("{width} {queue}");
    let mut all = vec![
        (mmio("write", DOORBELL, &of_queue(4)), 1, Queue),
        // Widths without an eventfd, with a new value each time.
        (mmio("write", DOORBELL, "1 i"), 1, Held),
        (mmio("write", DOORBELL, "2 i"), 1, Held),
        (mmio("write", DOORBELL + 1, "1 0"), 1, Held),
        (mmio("write", DOORBELL + 2, &of_queue(2)), 1, Held),
        // Beyond the end of the doorbell.
        (mmio("write", DOORBELL, &of_queue(8)), 1, VmmWrite),
        (mmio("peek", DOORBELL, "4"), 1, Read),
        (mmio("peek", DOORBELL + 3, "1"), 1, Read),
        (mmio("peek", DOORBELL, "8"), 1, VmmRead),
        (mmio("write", TRANSIENT, "4 0"), 1, Transient),
        // Straddling an end of the doorbell.
        (mmio("write", DOORBELL - 2, &of_queue(4)), 1, VmmWrite),
        (mmio("write", DOORBELL + 1, &of_queue(4)), 1, VmmWrite),
        // One repetition is a plain write.
        (mmio("rep", DOORBELL, &format!("{} 1", of_queue(4))), 1, Queue),
    ];
    match arch {
        Arch::X86 => all.extend([
            // Across a page, where Xen splits it into two requests.
            (mmio("write", CROSSING, "4 0"), 2, Held),
            (mmio("peek", CROSSING, "4"), 2, Read),
            (mmio("rep", DOORBELL, "2 7 2"), 1, Odd),
            (mmio("rep", DOORBELL, "4 7 64"), 1, VmmOdd),
        ]),
        Arch::Arm => all.extend([
            // Not aligned, inside of the doorbell.
            (mmio("write", DOORBELL + 1, "2 i"), 1, Held),
            (mmio("peek", DOORBELL + 1, "2"), 1, Read),
            // Across a page, of which Xen makes one request.
            (mmio("write", CROSSING, "4 0"), 1, Crossing),
            (mmio("peek", CROSSING, "4"), 1, Read),
            // Stores that Xen decodes, and one that it does not.
            (mmio("rep", DOORBELL, "2 7 2"), 2, Held),
            (mmio("pair", DOORBELL, &of_queue(4)), 0, Aborted),
        ]),
    }
    if ports {
        all.extend([
            (pio("write", PORT, &of_queue(2)), 1, Queue),
            (pio("write", PORT + 1, "1 i"), 1, Held),
            (pio("write", PORT, &of_queue(4)), 1, VmmWrite),
            (pio("write", PORT + 1, &of_queue(2)), 1, VmmWrite),
            (pio("peek", PORT, "2"), 1, Read),
            (pio("rep", PORT, "2 7 8"), 1, Odd),
            (pio("rep", PORT, "4 7 8"), 1, VmmOdd),
        ]);
    }
    all
}

/// The script of a vCPU that repeats this until it is stopped.
fn until_stopped(vcpu: usize, accesses: &[(String, u64, Expected)]) -> String {
    let body: String = accesses.iter().map(|(order, _, _)| format!("{order}; ")).collect();
    let name = STOPS[vcpu];
    format!("listen msi {:#x} {name}; meet; until {name}; {body}end", VECTORS[vcpu])
}

/// The listeners that stop the vCPUs of an attacker.
const STOPS: [&str; 2] = ["stop", "halt"];
const VECTORS: [u32; 2] = [0x41, 0x42];

pub(super) fn hostile_guest(test: &mut TestContext<'_>) -> Result<()> {
    let wanted = test.environment().accesses();
    let has_ports = test.arch().has_space(Space::Pio);
    // The privcmd ABI has no doorbells at ports.
    let ports = has_ports && test.environment().engine() != Some(Engine::Privcmd);
    let doings = [0, 1].map(|queue| accesses(queue, test.arch(), ports));
    let script = format!("{} | {}", until_stopped(0, &doings[0]), until_stopped(1, &doings[1]));
    let mut guest = test.guest(&script)?;
    let vmm = test.vmm(guest.dom(), &DEVICES[..if has_ports { 2 } else { 1 }])?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let queues = [new_eventfd()?, new_eventfd()?, new_eventfd()?, new_eventfd()?];
    let crossing = new_eventfd()?;
    let _registered = [
        Some(served.register_ioevent(&queues[0], &Mmio(DOORBELL), 0_u32)?),
        Some(served.register_ioevent(&queues[1], &Mmio(DOORBELL), 1_u32)?),
        ports.then(|| served.register_ioevent(&queues[2], &Pio(PORT), 0_u16)).transpose()?,
        ports.then(|| served.register_ioevent(&queues[3], &Pio(PORT), 1_u16)).transpose()?,
        Some(served.register_ioevent(&crossing, &Mmio(CROSSING), 0_u32)?),
    ];
    let mut neighbour = Kicker::new(test, &xen)?;
    neighbour.measure(test, "alone")?;

    // Once the engine has answered this many, one of the vCPUs has made each of its accesses.
    let engines = |of: Expected| !matches!(of, VmmWrite | VmmRead | VmmOdd);
    let round = doings.iter().flatten().filter(|(_, _, of)| engines(*of)).map(|(_, n, _)| n).sum();
    guest.start()?;
    let stops = stops_of(test.arch(), &served)?;
    let torn_down = AtomicBool::new(false);
    let transient = thread::scope(|scope| {
        let teardown = scope.spawn(|| register_and_remove(&served, round, &torn_down));
        let mut attack = || -> Result<()> {
            answered(&served, 1)?;
            neighbour.measure(test, "beside a hostile guest")?;
            answered(&served, wanted)?;
            stops.iter().try_for_each(|(stop, _)| signal(stop))?;
            guest.finish()
        };
        let attacked = attack();
        torn_down.store(true, Ordering::Relaxed);
        let transient = teardown.join().map_err(|_| anyhow!("the teardown panicked"))?;
        attacked?;
        transient
    })?;
    guest.trace_reports(test);
    neighbour.finish(test)?;
    for (vcpu, doing) in doings.iter().enumerate() {
        let aborted = doing.iter().any(|(_, _, of)| *of == Aborted);
        let first = format!("abort mmio:{DOORBELL:#x} 4");
        let found = guest.reports(vcpu).iter().find(|line| line.starts_with("abort "));
        ensure!(found == aborted.then_some(&first), "v{vcpu} reports {found:?}");
    }

    let rounds: Vec<u64> = STOPS.iter().map(|name| guest.rounds(name)).collect();
    let made = |of: Expected| -> u64 {
        let each = doings.iter().zip(&rounds).map(|(doing, rounds)| {
            let one: u64 =
                doing.iter().filter(|(_, _, expected)| *expected == of).map(|(_, n, _)| n).sum();
            one * rounds
        });
        each.sum()
    };
    let all: u64 = doings.iter().zip(&rounds).map(|(one, rounds)| one.len() as u64 * rounds).sum();
    ensure!(all >= wanted, "only {all} of {wanted} accesses");
    let (counters, seen) = (served.counters(), vmm.seen()?);
    let shown = format!("{all} accesses: {counters:?}, {seen:?}, transient {transient:?}");
    let signalled = queues.iter().map(take_count).sum::<Result<u64>>()?;
    ensure!(signalled == made(Queue), "{signalled} of {} kicks arrived: {shown}", made(Queue));
    let crossed = take_count(&crossing)?;
    ensure!(crossed == made(Crossing), "{crossed} kicks across a page were delivered: {shown}");
    ensure!(counters.reads == made(Read), "{} reads were made: {shown}", made(Read));
    ensure!(counters.odd == made(Odd), "{} odd requests were made: {shown}", made(Odd));
    ensure!(seen.reads == made(VmmRead), "{} reads of the VMM's: {shown}", made(VmmRead));
    ensure!(seen.odd == made(VmmOdd), "{} odd requests of the VMM's: {shown}", made(VmmOdd));
    // The transient device: each of its kicks has had one of all possible results.
    let signals = counters.delivered - signalled - crossed;
    let ends =
        signals + (counters.held - made(Held)) + counters.late + (writes(&seen) - made(VmmWrite));
    ensure!(
        ends == made(Transient),
        "{ends} of {} kicks are accounted for: {shown}",
        made(Transient)
    );
    let delivered = signals + counters.redelivered;
    ensure!(
        transient.signals == delivered,
        "{} signals for {delivered} kicks: {shown}",
        transient.signals
    );
    let ends = [
        ("kicks", counters.delivered),
        ("held", counters.held),
        ("too late", counters.late),
        ("reads", counters.reads),
        ("odd ones", counters.odd),
        ("writes of the VMM's", writes(&seen)),
        ("reads of the VMM's", seen.reads),
        ("odd ones of the VMM's", seen.odd),
    ];
    let ends = ends.map(|(end, count)| (end.to_owned(), count)).to_vec();
    test.print(&Accesses { all, ends, transient: transient.times }.to_string());
    test.note("accesses", "each answered once, by its expected receiver");
    vmm.stop()
}

/// All writes that a VMM has received.
fn writes(seen: &Seen) -> u64 {
    seen.writes.values().flat_map(|values| values.values()).sum()
}

/// Counts for the transient device.
#[derive(Debug)]
struct TransientCounts {
    times: u64,
    signals: u64,
}

/// Registers the device's doorbell and removes it, until `over`. At least one of `round` requests is a kick
/// of it.
fn register_and_remove(
    served: &xen_eventfd::Guest,
    round: u64,
    over: &AtomicBool,
) -> Result<TransientCounts> {
    let kick = new_eventfd()?;
    let mut counts = TransientCounts { times: 0, signals: 0 };
    while !over.load(Ordering::Relaxed) {
        let registered = served.register_ioevent(&kick, &Mmio(TRANSIENT), 0_u32)?;
        thread::sleep(Duration::from_millis(1));
        registered.end()?;
        counts.signals += take_count(&kick)?;
        let wanted = requests(served) + round;
        while requests(served) < wanted && !over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        ensure!(take_count(&kick)? == 0, "signalled after deassign returned");
        counts.times += 1;
    }
    Ok(counts)
}

/// The requests of this guest that the engine has answered.
fn requests(served: &xen_eventfd::Guest) -> u64 {
    let Counters { delivered, held, late, reads, odd, .. } = served.counters();
    delivered + held + late + reads + odd
}

/// Waits until the engine has answered this many requests of this guest.
fn answered(served: &xen_eventfd::Guest, wanted: u64) -> Result<()> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = requests(served);
        if now >= wanted {
            return Ok(());
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        ensure!(since.elapsed() < PATIENCE, "the guest makes no progress after {now} of {wanted}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The eventfds that stop an attacker's vCPUs.
fn stops_of(arch: Arch, served: &xen_eventfd::Guest) -> Result<Vec<(OwnedFd, xen_eventfd::IrqFd)>> {
    (0..)
        .zip(VECTORS)
        .map(|(vcpu, vector)| {
            let stop = new_eventfd()?;
            let irqfd = served.register_irqfd(&stop, call_irq(arch, vcpu, vector))?;
            Ok((stop, irqfd))
        })
        .collect()
}

pub(super) fn hostile_channel(test: &mut TestContext<'_>) -> Result<()> {
    let mut guest = test.guest(
        "listen evtchn stop; listen evtchn flood; meet; until stop; send flood 10; end; send flood 10 | \
         listen evtchn halt; meet; until halt; send flood 10; end; send flood 10",
    )?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    let flood = new_eventfd()?;
    // Before the neighbour is measured: not every engine supports this.
    guest.start()?;
    let flooded = served.register_channel(&flood, guest.port("flood")?)?;
    let mut neighbour = Kicker::new(test, &xen)?;
    // Not read from here on.
    await_count(&flood, 2)?;
    neighbour.measure(test, "beside a flooded event channel")?;
    drop(flooded);
    take_count(&flood)?;
    for name in STOPS {
        let stop = new_eventfd()?;
        signal(&stop)?;
        served.register_irqfd(&stop, Irq::EventChannel(guest.port(name)?))?.keep();
    }
    guest.finish()?;
    guest.trace_reports(test);
    ensure!(take_count(&flood)? == 0, "signalled after the end of the registration");
    neighbour.measure(test, "alone")?;
    neighbour.finish(test)
}

pub(super) fn hostile_backend(test: &mut TestContext<'_>) -> Result<()> {
    let kick = |queue: u64| vec![(format!("write mmio:{DOORBELL:#x} 4 {queue}"), 1, Queue)];
    let script = format!("{} | {}", until_stopped(0, &kick(0)), until_stopped(1, &kick(1)));
    let mut guest = test.guest(&script)?;
    let xen = test.xen()?;
    let served = xen.guest(guest.dom())?;
    // Blocking, and as full as a writer can make it: a plain write would sleep here.
    let full = [eventfd(0, EventfdFlags::CLOEXEC)?, eventfd(0, EventfdFlags::CLOEXEC)?];
    for eventfd in &full {
        rustix::io::write(eventfd, &(u64::MAX - 1).to_ne_bytes())?;
    }
    let _queues = [
        served.register_ioevent(&full[0], &Mmio(DOORBELL), 0_u32)?,
        served.register_ioevent(&full[1], &Mmio(DOORBELL), 1_u32)?,
    ];
    let mut neighbour = Kicker::new(test, &xen)?;
    neighbour.measure(test, "alone")?;
    guest.start()?;
    let stops = stops_of(test.arch(), &served)?;
    answered(&served, 2)?;
    neighbour.measure(test, "beside a full, blocking eventfd")?;
    stops.iter().try_for_each(|(stop, _)| signal(stop))?;
    guest.finish()?;
    guest.trace_reports(test);
    neighbour.finish(test)?;
    let (rounds, counters) = (guest.rounds("stop") + guest.rounds("halt"), served.counters());
    ensure!(counters.delivered + counters.failed == rounds, "{rounds} kicks, {counters:?}");
    for eventfd in &full {
        ensure!(take_count(eventfd)? >= u64::MAX - 1, "the counter was changed");
    }
    Ok(())
}

/// A guest that kicks in order, on request.
struct Kicker {
    guest: Guest,
    kick: OwnedFd,
    go: OwnedFd,
    _queue: IoEvent,
    _go: xen_eventfd::IrqFd,
}

impl Kicker {
    /// Kicks in each measurement.
    const KICKS: u64 = 100;

    /// Starts it, with a script for two measurements.
    fn new(test: &TestContext<'_>, xen: &Xen) -> Result<Self> {
        let once = format!("wait go; time write mmio:{DOORBELL:#x} 4 0 {}", Self::KICKS);
        let mut guest = test.guest(&format!("listen msi 0x41 go; say ready; {once}; {once}"))?;
        let served = xen.guest(guest.dom())?;
        let (kick, go) = (new_eventfd()?, new_eventfd()?);
        let _queue = served.register_ioevent(&kick, &Mmio(DOORBELL), 0_u32)?;
        let _go = served.register_irqfd(&go, call_irq(test.arch(), 0, 0x41))?;
        guest.start()?;
        guest.await_message(0, "ready")?;
        Ok(Self { guest, kick, go, _queue, _go })
    }

    /// Makes it kick; all kicks must be delivered.
    fn measure(&mut self, test: &TestContext<'_>, when: &str) -> Result<()> {
        signal(&self.go)?;
        let Ticks { min, median, max, n, .. } =
            self.guest.measured().with_context(|| format!("the neighbour, {when}"))?;
        let arrived = take_count(&self.kick)?;
        ensure!(
            arrived == Self::KICKS,
            "{arrived} of {n} kicks of the neighbour were delivered, {when}"
        );
        test.print(&Neighbour { when: when.to_owned(), min, median, max }.to_string());
        Ok(())
    }

    fn finish(mut self, test: &mut TestContext<'_>) -> Result<()> {
        self.guest.finish()?;
        self.guest.trace_reports(test);
        test.note("neighbour", "all kicks delivered");
        Ok(())
    }
}
