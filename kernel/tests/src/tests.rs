//! The tests. Each is a scenario on real Xen with the module as its engine.

use crate::device::{ANY, ASSIGN, BIND, DEASSIGN, Device, Doorbell, NODE, QUERY, STATS, WIDTH};
use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use xen_eventfd::{DomId, Port};
use xen_eventfd_host::{EventChannels, LocalPort};
use xen_eventfd_scenarios::play::{Guest, await_count, new_eventfd, taken};
use xen_eventfd_scenarios::roles::vmm::Place;
use xen_eventfd_scenarios::{PATIENCE, Play, Scenario};

/// The first device's registers.
const BASE: u64 = 0xFE00_0000;
/// Its doorbell.
const DOORBELL: u64 = BASE + 0x50;
const MODULE: &str = "/lib/modules/xen-eventfd.ko";

macro_rules! tests {
    ($($name:ident, $race:literal, $about:literal;)*) => {
        /// All of them, in the order in which they build on each other.
        pub(crate) const ALL: &[Scenario] = &[$(Scenario {
            name: stringify!($name),
            about: $about,
            race: $race,
            play: $name,
        }),*];
    };
}

tests! {
    node, false, "the node is root's, and says what it is";
    arguments, false, "every mistake has its errno";
    one_queue, false, "every one of 1,000 kicks is delivered";
    many_queues, false, "2 vCPUs, 3 devices, 4 queues: none lost, none on the wrong eventfd";
    vmm_beside, false, "a VMM keeps its registers and is never woken for a kick";
    widths, false, "a doorbell is matched by width";
    notification_data, false, "a mask leaves NOTIFICATION_DATA out";
    wildcards, false, "a wildcard gets what the datamatches leave";
    ports, false, "doorbells in I/O space";
    reads, false, "a read of a doorbell answers 0";
    odd, false, "string instructions and broadcasts are answered";
    held, false, "an unmatched kick is held and delivered when its eventfd comes";
    full_eventfd, false, "an eventfd that is full stops nobody";
    limit, false, "as many doorbells as the module says, and not one more";
    one_owner, false, "a guest has one file, and the next one when that is closed";
    highest_id, false, "the server has the highest id";
    assign_under_load, true, "nothing is signalled after deassign returns";
    claim_under_load, true, "bytes are claimed and given back while others ring";
    close_under_load, true, "close with vCPUs in the middle of kicks: the guest goes on";
    owner_killed, true, "SIGKILL of the owner: the guest goes on, no server is left";
    guest_destroyed, true, "the guest is destroyed amid kicks: ENODEV, and no zombie is left";
    module_goes, false, "the module cannot go while a file is open, and goes then";
    kernel_log, true, "the kernel has nothing to complain of";
}

/// What is refused, and with which errno.
fn refused<T: Debug>(result: Result<T, Errno>, errno: Errno, what: &str) -> Result<()> {
    match result {
        Err(found) if found == errno => Ok(()),
        other => anyhow::bail!("{what}: {other:?} instead of {errno:?}"),
    }
}

/// A way to end a guest's loops: the other end of one of its event channels.
struct Bell {
    events: Box<dyn EventChannels>,
    port: LocalPort,
}

impl Bell {
    fn to(play: &Play<'_>, guest: &mut Guest, name: &str) -> Result<Self> {
        let port: Port = guest.port(name)?;
        let events = play.stage().host().event_channels()?;
        let port = events.bind(guest.dom(), port)?;
        Ok(Self { events, port })
    }

    fn ring(&self) -> Result<()> {
        Ok(self.events.notify(self.port)?)
    }
}

fn node(_play: &mut Play<'_>) -> Result<()> {
    let node = std::fs::metadata(NODE)?;
    ensure!((node.mode() & 0o777, node.uid(), node.gid()) == (0o600, 0, 0), "{node:?}");
    let device = Device::open()?;
    let mut bytes = vec![0; 24];
    bytes[..4].copy_from_slice(&24_u32.to_ne_bytes());
    device.ask(QUERY, &mut bytes)?;
    let words: Vec<u32> =
        bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    ensure!(words == [24, 1, 1, 0, 4096, 64], "{words:?}");
    // A later version's struct: the tail is zero, and stays so.
    let mut longer = vec![0; 4096];
    longer[..4].copy_from_slice(&4096_u32.to_ne_bytes());
    device.ask(QUERY, &mut longer)?;
    ensure!(longer[..24] == bytes && longer[24..].iter().all(|byte| *byte == 0));
    Ok(())
}

fn arguments(play: &mut Play<'_>) -> Result<()> {
    let guest = play.guest("say never")?;
    let kick = new_eventfd()?;
    let good = Doorbell::value(DOORBELL, 4, 1, &kick);
    let device = Device::open()?;

    for request in [BIND + 0x40, STATS + 1, 0x4030_5009] {
        refused(device.ask(request, &mut [0; 64]), Errno::NOTTY, "an unknown request")?;
    }
    for (request, size) in [(QUERY, 24), (BIND, 8), (ASSIGN, 48), (DEASSIGN, 48), (STATS, 72)] {
        let sized = |said: u32, len: usize| {
            let mut bytes = vec![0; len];
            bytes[..4].copy_from_slice(&said.to_ne_bytes());
            bytes
        };
        refused(device.ask_at(request, 0), Errno::FAULT, "no struct")?;
        refused(device.ask_at(request, usize::MAX - 16), Errno::FAULT, "a kernel address")?;
        for said in [0, 1, size - 1] {
            let bytes = &mut sized(said, 4096);
            refused(device.ask(request, bytes), Errno::INVAL, "a size too small")?;
        }
        for said in [4097, u32::MAX] {
            refused(device.ask(request, &mut sized(said, 8192)), Errno::TOOBIG, "too large")?;
        }
        for place in [size as usize, 200, 299] {
            let mut bytes = sized(300, 4096);
            bytes[place] = 1;
            refused(device.ask(request, &mut bytes), Errno::TOOBIG, "an unknown tail")?;
        }
    }

    refused(device.assign(&good), Errno::NOTCONN, "assign before bind")?;
    refused(device.deassign(&good), Errno::NOTCONN, "deassign before bind")?;
    refused(device.stats(), Errno::NOTCONN, "stats before bind")?;
    let mut padded = 8_u32.to_ne_bytes().to_vec();
    padded.extend([1, 0, 0, 1]);
    refused(device.ask(BIND, &mut padded), Errno::INVAL, "padding")?;
    for dom in [0x7FF0, 0x7FF1, 0xFFFF] {
        refused(device.bind(DomId(dom)), Errno::INVAL, "a reserved domain")?;
    }
    refused(device.bind(DomId(0x7000)), Errno::NODEV, "no such domain")?;
    refused(device.bind(DomId(0)), Errno::PERM, "our own domain")?;
    device.bind(guest.dom())?;
    refused(device.bind(guest.dom()), Errno::BUSY, "bound twice")?;

    let cannot_be = [
        ("a flag", Doorbell { flags: 1, ..good }),
        ("an unknown space", Doorbell { space: 2, ..good }),
        ("an unknown kind", Doorbell { kind: 3, ..good }),
        ("length 0", Doorbell { len: 0, ..good }),
        ("length 3", Doorbell { len: 3, ..good }),
        ("length 16", Doorbell { len: 16, ..good }),
        ("a span of 0", Doorbell { len: 0, ..Doorbell::wildcard(DOORBELL, ANY, 4, &kick) }),
        ("a span of 9", Doorbell { len: 9, ..Doorbell::wildcard(DOORBELL, ANY, 4, &kick) }),
        ("a span of 260", Doorbell { len: 260, ..Doorbell::wildcard(DOORBELL, ANY, 4, &kick) }),
        ("a wildcard's value", Doorbell { kind: WIDTH, datamask: 0, ..good }),
        ("a wildcard's mask", Doorbell { kind: WIDTH, datamatch: 0, ..good }),
        ("an empty mask", Doorbell { datamask: 0, datamatch: 0, ..good }),
        ("a wide mask", Doorbell { datamask: 1 << 32, datamatch: 0, ..good }),
        ("a value beyond its mask", Doorbell { datamask: 0xFF, datamatch: 0x100, ..good }),
        ("bytes that wrap", Doorbell { addr: u64::MAX - 2, ..good }),
        ("a port too high", Doorbell { addr: 0xFFFD, ..good }.pio()),
        ("no eventfd", Doorbell { eventfd: std::io::stdin().as_raw_fd(), ..good }),
    ];
    for (what, doorbell) in cannot_be {
        refused(device.assign(&doorbell), Errno::INVAL, what)?;
        refused(device.deassign(&doorbell), Errno::INVAL, what)?;
    }
    for eventfd in [-1, i32::MIN, 9999] {
        let closed = Doorbell { eventfd, ..good };
        refused(device.assign(&closed), Errno::BADF, "a closed descriptor")?;
        refused(device.deassign(&closed), Errno::BADF, "a closed descriptor")?;
    }

    let other = new_eventfd()?;
    refused(device.deassign(&good), Errno::NOENT, "what is not there")?;
    device.assign(&good)?;
    refused(device.assign(&good), Errno::EXIST, "the same again")?;
    let twin = Doorbell { eventfd: other.as_raw_fd(), ..good };
    refused(device.assign(&twin), Errno::EXIST, "the same for another eventfd")?;
    refused(device.assign(&good.masked(0xFF)), Errno::EXIST, "another mask")?;
    let not_quite = [
        ("eventfd", twin),
        ("address", Doorbell { addr: DOORBELL + 4, ..good }),
        ("space", Doorbell { addr: 0x50, ..good }.pio()),
        ("length", Doorbell { len: 8, ..good }),
        ("value", Doorbell { datamatch: 2, ..good }),
        ("mask", good.masked(0xFF)),
        ("kind", Doorbell::wildcard(DOORBELL, WIDTH, 4, &kick)),
    ];
    for (what, doorbell) in not_quite {
        refused(device.deassign(&doorbell), Errno::NOENT, what)?;
    }
    let stats = device.stats()?;
    ensure!(stats.doorbells == 1 && stats.delivered == 0, "{stats:?}");
    device.deassign(&good)?;
    refused(device.deassign(&good), Errno::NOENT, "what is gone")?;
    ensure!(device.stats()?.doorbells == 0);
    Ok(())
}

fn one_queue(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!("repeat 1000; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let (device, kick) = (Device::of(guest.dom())?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.finish()?;
    let (kicks, stats) = (taken(&kick)?, device.stats()?);
    ensure!(kicks == 1000 && stats.delivered == 1000, "{kicks} kicks, {stats:?}");
    ensure!((stats.held, stats.late, stats.odd, stats.reads) == (0, 0, 0, 0), "{stats:?}");
    Ok(())
}

fn many_queues(play: &mut Play<'_>) -> Result<()> {
    const ROUNDS: u64 = 50;
    let devices: Vec<u64> = (0..3).map(|device| DOORBELL + device * 0x200).collect();
    let writes: String =
        devices.iter().map(|at| format!("repeat 4; write mmio:{at:#x} 4 i; end; ")).collect();
    let vcpu = format!("meet; repeat {ROUNDS}; {writes}end");
    let mut guest = play.guest(&format!("{vcpu} | {vcpu}"))?;
    let device = Device::of(guest.dom())?;
    let mut queues = Vec::new();
    for at in &devices {
        for queue in 0..4 {
            let kick = new_eventfd()?;
            device.assign(&Doorbell::value(*at, 4, queue, &kick))?;
            queues.push(kick);
        }
    }
    guest.start()?;
    guest.finish()?;
    for kick in &queues {
        let kicks = taken(kick)?;
        ensure!(kicks == 2 * ROUNDS, "{kicks} kicks");
    }
    ensure!(device.stats()?.delivered == 2 * ROUNDS * 12);
    Ok(())
}

fn vmm_beside(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "read mmio:{BASE:#x} 4; repeat 1000; write mmio:{DOORBELL:#x} 4 0; end; read mmio:{:#x} 4",
        BASE + 4
    ))?;
    let vmm = play.vmm(guest.dom(), &[(Place::Mmio, BASE, 0x200)])?;
    let (device, kick) = (Device::of(guest.dom())?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.finish()?;
    let (kicks, seen) = (taken(&kick)?, vmm.seen()?);
    ensure!(kicks == 1000, "{kicks} kicks");
    ensure!(seen.writes_to(DOORBELL) == 0 && seen.reads == 2 && seen.wakeups <= 2, "{seen:?}");
    vmm.stop()
}

fn widths(play: &mut Play<'_>) -> Result<()> {
    let writes: String = [1, 2, 4, 8]
        .iter()
        .map(|w| format!("repeat {w}; write mmio:{DOORBELL:#x} {w} 1; end; "))
        .collect();
    let mut guest = play.guest(writes.trim_end_matches("; "))?;
    let device = Device::of(guest.dom())?;
    let mut kicks = Vec::new();
    for width in [1, 2, 4, 8] {
        let kick = new_eventfd()?;
        device.assign(&Doorbell::value(DOORBELL, width, 1, &kick))?;
        kicks.push((u64::from(width), kick));
    }
    guest.start()?;
    guest.finish()?;
    for (width, kick) in &kicks {
        let found = taken(kick)?;
        ensure!(found == *width, "{found} kicks of {width} bytes");
    }
    Ok(())
}

fn notification_data(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 0x80010003; write mmio:{DOORBELL:#x} 4 3; \
         write mmio:{DOORBELL:#x} 4 0x30004"
    ))?;
    let device = Device::of(guest.dom())?;
    let (three, four) = (new_eventfd()?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 3, &three).masked(0xFFFF))?;
    device.assign(&Doorbell::value(DOORBELL, 4, 4, &four).masked(0xFFFF))?;
    guest.start()?;
    guest.finish()?;
    let found = (taken(&three)?, taken(&four)?);
    ensure!(found == (2, 1), "{found:?}");
    Ok(())
}

fn wildcards(play: &mut Play<'_>) -> Result<()> {
    let other = DOORBELL + 0x200;
    let mut guest = play.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 i; end; write mmio:{DOORBELL:#x} 2 1; \
         write mmio:{other:#x} 1 9; write mmio:{other:#x} 4 9; write mmio:{other:#x} 8 9"
    ))?;
    let device = Device::of(guest.dom())?;
    let (one, rest, any) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 1, &one))?;
    device.assign(&Doorbell::wildcard(DOORBELL, WIDTH, 4, &rest))?;
    device.assign(&Doorbell::wildcard(other, ANY, 4, &any))?;
    let fixed = Doorbell::wildcard(other, WIDTH, 4, &rest);
    refused(device.assign(&fixed), Errno::EXIST, "a wildcard beside one of any width")?;
    guest.start()?;
    guest.finish()?;
    let found = (taken(&one)?, taken(&rest)?, taken(&any)?);
    ensure!(found == (1, 4, 2), "{found:?}");
    // The half word matched nothing; the long word was never ours.
    ensure!(device.stats()?.held == 1, "{:?}", device.stats());
    Ok(())
}

fn ports(play: &mut Play<'_>) -> Result<()> {
    let port = 0xC050;
    let mut guest = play.guest(&format!(
        "repeat 10; write pio:{port:#x} 2 1; end; write pio:{port:#x} 4 1; \
         write pio:{port:#x} 1 1; read pio:{port:#x} 2"
    ))?;
    let device = Device::of(guest.dom())?;
    let kicks = [new_eventfd()?, new_eventfd()?, new_eventfd()?];
    for (kick, width) in kicks.iter().zip([2, 4, 1]) {
        device.assign(&Doorbell::value(port, width, 1, kick).pio())?;
    }
    guest.start()?;
    guest.finish()?;
    let found = [taken(&kicks[0])?, taken(&kicks[1])?, taken(&kicks[2])?];
    ensure!(found == [10, 1, 1], "{found:?}");
    ensure!(device.stats()?.reads == 1);
    Ok(())
}

fn reads(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!("read mmio:{DOORBELL:#x} 4; read mmio:{DOORBELL:#x} 2"))?;
    let (device, kick) = (Device::of(guest.dom())?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 0, &kick))?;
    guest.start()?;
    guest.finish()?;
    guest.tell(play);
    let told = play.trace.to_string();
    let zeros = told.lines().filter(|line| line.contains("read") && line.ends_with("= 0x0"));
    ensure!(zeros.count() == 2, "{told}");
    ensure!(taken(&kick)? == 0 && device.stats()?.reads == 2);
    Ok(())
}

fn odd(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "rep mmio:{DOORBELL:#x} 2 7 2; rep pio:0xc050 2 3 8; write mmio:{DOORBELL:#x} 4 7; \
         repeat 10; balloon 1; write mmio:{DOORBELL:#x} 4 7; end; say on"
    ))?;
    let device = Device::of(guest.dom())?;
    let (memory, ports) = (new_eventfd()?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 7, &memory))?;
    device.assign(&Doorbell::wildcard(0xC050, ANY, 4, &ports).pio())?;
    guest.start()?;
    guest.finish()?;
    let (kicks, stats) = (taken(&memory)?, device.stats()?);
    ensure!(kicks == 11, "{kicks} kicks, {stats:?}");
    ensure!(stats.odd > 0 && stats.broadcasts > 0, "{stats:?}");
    Ok(())
}

fn held(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "repeat 5; write mmio:{DOORBELL:#x} 4 9; end; write mmio:{DOORBELL:#x} 4 8; say first; \
         listen evtchn go; wait go; repeat 100; write mmio:{DOORBELL:#x} 4 i+100; end"
    ))?;
    let device = Device::of(guest.dom())?;
    let (one, nine, seven) = (new_eventfd()?, new_eventfd()?, new_eventfd()?);
    let queue = |value, kick: &OwnedFd| Doorbell::value(DOORBELL, 4, value, kick);
    device.assign(&queue(1, &one))?;
    guest.start()?;
    guest.said(0, "first")?;
    ensure!(device.stats()?.held == 6, "{:?}", device.stats());
    device.assign(&queue(9, &nine))?;
    device.assign(&queue(7, &seven))?;
    let found = [taken(&one)?, taken(&nine)?, taken(&seven)?];
    ensure!(found == [0, 1, 0] && device.stats()?.redelivered == 1, "{found:?}");
    // More distinct kicks than there is room for: from then on every newcomer is signalled once.
    Bell::to(play, &mut guest, "go")?.ring()?;
    guest.finish()?;
    let late = new_eventfd()?;
    device.assign(&queue(199, &late))?;
    ensure!(taken(&late)? == 1, "an overflow is no reason to lose a kick");
    Ok(())
}

fn full_eventfd(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "repeat 10; write mmio:{DOORBELL:#x} 4 0; write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let device = Device::of(guest.dom())?;
    let (full, other) = (new_eventfd()?, new_eventfd()?);
    rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes())?;
    device.assign(&Doorbell::value(DOORBELL, 4, 0, &full))?;
    device.assign(&Doorbell::value(DOORBELL, 4, 1, &other))?;
    guest.start()?;
    guest.finish()?;
    ensure!(taken(&other)? == 10);
    Ok(())
}

fn limit(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "write mmio:{DOORBELL:#x} 4 0; write mmio:{DOORBELL:#x} 4 4095; \
         write mmio:{DOORBELL:#x} 4 4096"
    ))?;
    let (device, kick) = (Device::of(guest.dom())?, new_eventfd()?);
    let queue = |value| Doorbell::value(DOORBELL, 4, value, &kick);
    for value in 0..4096 {
        device.assign(&queue(value)).with_context(|| format!("the {value}th"))?;
    }
    refused(device.assign(&queue(4096)), Errno::NOSPC, "one too many")?;
    guest.start()?;
    guest.finish()?;
    ensure!(taken(&kick)? == 2 && device.stats()?.held == 1);
    for value in (0..4096).step_by(3) {
        device.deassign(&queue(value)).with_context(|| format!("the {value}th"))?;
    }
    ensure!(device.stats()?.doorbells == 4096 - 1366, "{:?}", device.stats());
    // 256 ranges of a kind are all that Xen has; bytes apart from each other are one each.
    let apart = |nth: u64| Doorbell::value(BASE + 0x1000 + 16 * nth, 4, 0, &kick);
    let refused_at = (0..300).find(|nth| device.assign(&apart(*nth)) == Err(Errno::NOMEM));
    ensure!(refused_at == Some(255), "refused at {refused_at:?}");
    ensure!(usize::from(device.stats()?.doorbells) == 4096 - 1366 + 255);
    device.deassign(&apart(7))?;
    device.assign(&apart(300))?;
    Ok(())
}

fn one_owner(play: &mut Play<'_>) -> Result<()> {
    let guest = play.guest("say never")?;
    let first = Device::of(guest.dom())?;
    let second = Device::open()?;
    refused(second.bind(guest.dom()), Errno::BUSY, "a second file")?;
    refused(second.stats(), Errno::NOTCONN, "the second file")?;
    drop(first);
    ensure!(play.stage().servers(guest.dom())?.is_empty());
    second.bind(guest.dom())?;
    let other = play.guest("say never")?;
    let third = Device::of(other.dom())?;
    drop((second, third));
    for dom in [guest.dom(), other.dom()] {
        ensure!(play.stage().servers(dom)?.is_empty());
    }
    Ok(())
}

fn highest_id(play: &mut Play<'_>) -> Result<()> {
    let guest = play.guest("say never")?;
    let host = play.stage().host();
    let (zero, one) = (host.create_server(guest.dom())?, host.create_server(guest.dom())?);
    host.destroy_server(guest.dom(), zero)?;
    let device = Device::of(guest.dom())?;
    let server = device.stats()?.server;
    ensure!(server > one.0, "server {server} beside {one}");
    drop(device);
    let taken: Vec<_> = std::iter::from_fn(|| host.create_server(guest.dom()).ok()).collect();
    refused(Device::of(guest.dom()), Errno::NOSPC, "all servers taken")?;
    for server in taken {
        host.destroy_server(guest.dom(), server)?;
    }
    Device::of(guest.dom())?;
    Ok(())
}

fn assign_under_load(play: &mut Play<'_>) -> Result<()> {
    let mut guest = play.guest(&format!(
        "listen evtchn stop; until stop; write mmio:{DOORBELL:#x} 4 0; \
         write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    let device = Device::of(guest.dom())?;
    let (steady, fleeting) = (new_eventfd()?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 0, &steady))?;
    guest.start()?;
    let stop = Bell::to(play, &mut guest, "stop")?;
    let queue = Doorbell::value(DOORBELL, 4, 1, &fleeting);
    let mut count = 0;
    for _ in 0..60 {
        device.assign(&queue)?;
        await_count(&fleeting, 1)?;
        device.deassign(&queue)?;
        taken(&fleeting)?;
        // The guest rings both in turn, so three more of one are two of the other at least.
        count += await_count(&steady, 3)?;
        ensure!(taken(&fleeting)? == 0, "signalled after deassign returned");
    }
    stop.ring()?;
    guest.finish()?;
    count += taken(&steady)?;
    let (rounds, stats) = (guest.rounds("stop"), device.stats()?);
    ensure!(count == rounds, "{count} of {rounds} kicks on the steady queue");
    ensure!(stats.late == 0 && stats.delivered + stats.held == 2 * rounds, "{rounds}, {stats:?}");
    Ok(())
}

fn claim_under_load(play: &mut Play<'_>) -> Result<()> {
    let other = DOORBELL + 0x1000;
    let mut guest = play.guest(&format!(
        "listen evtchn stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end | \
         listen evtchn halt; meet; until halt; write mmio:{other:#x} 4 0; end"
    ))?;
    let device = Device::of(guest.dom())?;
    let (steady, fleeting) = (new_eventfd()?, new_eventfd()?);
    device.assign(&Doorbell::value(DOORBELL, 4, 0, &steady))?;
    guest.start()?;
    let bells = [Bell::to(play, &mut guest, "stop")?, Bell::to(play, &mut guest, "halt")?];
    let queue = Doorbell::value(other, 4, 0, &fleeting);
    for _ in 0..60 {
        device.assign(&queue)?;
        await_count(&fleeting, 1)?;
        device.deassign(&queue)?;
        taken(&fleeting)?;
        std::thread::sleep(Duration::from_millis(2));
        ensure!(taken(&fleeting)? == 0, "signalled after deassign returned");
    }
    bells.iter().try_for_each(Bell::ring)?;
    guest.finish()?;
    let (count, rounds) = (taken(&steady)?, guest.rounds("stop"));
    ensure!(count == rounds, "{count} of {rounds} kicks on the steady queue");
    Ok(())
}

/// A guest that rings two queues, each from a vCPU of its own, until told to stop.
fn ringing(play: &Play<'_>) -> Result<(Guest, [Bell; 2])> {
    let mut guest = play.guest(&format!(
        "listen evtchn stop; meet; until stop; write mmio:{DOORBELL:#x} 4 0; end | \
         listen evtchn halt; meet; until halt; write mmio:{DOORBELL:#x} 4 1; end"
    ))?;
    guest.start()?;
    let bells = [Bell::to(play, &mut guest, "stop")?, Bell::to(play, &mut guest, "halt")?];
    Ok((guest, bells))
}

fn close_under_load(play: &mut Play<'_>) -> Result<()> {
    let (mut guest, bells) = ringing(play)?;
    for _ in 0..20 {
        let device = Device::of(guest.dom())?;
        let queues = [new_eventfd()?, new_eventfd()?];
        for (value, queue) in queues.iter().enumerate() {
            device.assign(&Doorbell::value(DOORBELL, 4, value as u64, queue))?;
        }
        queues.iter().try_for_each(|queue| await_count(queue, 2).map(drop))?;
        drop(device);
        queues.iter().try_for_each(|queue| taken(queue).map(drop))?;
        std::thread::sleep(Duration::from_millis(2));
        for queue in &queues {
            ensure!(taken(queue)? == 0, "signalled after close returned");
        }
    }
    ensure!(play.stage().servers(guest.dom())?.is_empty());
    bells.iter().try_for_each(Bell::ring)?;
    guest.finish()
}

/// The other process of the next test.
pub(crate) fn own(dom: DomId) -> Result<()> {
    let device = Device::of(dom)?;
    let queues = [new_eventfd()?, new_eventfd()?];
    for (value, queue) in queues.iter().enumerate() {
        device.assign(&Doorbell::value(DOORBELL, 4, value as u64, queue))?;
    }
    queues.iter().try_for_each(|queue| await_count(queue, 2).map(drop))?;
    writeln!(std::io::stdout(), "serving")?;
    loop {
        std::thread::park();
    }
}

fn owner_killed(play: &mut Play<'_>) -> Result<()> {
    let (mut guest, bells) = ringing(play)?;
    for _ in 0..10 {
        let mut owner = Command::new("/proc/self/exe")
            .args(["own", &guest.dom().0.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(owner.stdout.take().context("a pipe")?).read_line(&mut line)?;
        ensure!(line.trim() == "serving", "the owner says {line:?}");
        owner.kill()?;
        owner.wait()?;
        let servers = play.stage().servers(guest.dom())?;
        ensure!(servers.is_empty(), "servers {servers:?} are left");
    }
    bells.iter().try_for_each(Bell::ring)?;
    guest.finish()
}

fn guest_destroyed(play: &mut Play<'_>) -> Result<()> {
    let endless = format!("listen evtchn never; until never; write mmio:{DOORBELL:#x} 4 0; end");
    let mut doomed =
        play.guest(&format!("{endless} | repeat 1000000; write mmio:{DOORBELL:#x} 4 1; end"))?;
    let mut other = play.guest(&format!("repeat 200; write mmio:{DOORBELL:#x} 4 0; end"))?;
    let kicks = [new_eventfd()?, new_eventfd()?, new_eventfd()?];
    let (device, others) = (Device::of(doomed.dom())?, Device::of(other.dom())?);
    let queue = |value, kick| Doorbell::value(DOORBELL, 4, value, kick);
    device.assign(&queue(0, &kicks[0]))?;
    device.assign(&queue(1, &kicks[1]))?;
    others.assign(&queue(0, &kicks[2]))?;
    doomed.start()?;
    await_count(&kicks[0], 10)?;
    doomed.destroy()?;
    // While the file is still open.
    play.no_zombies()?;
    let since = Instant::now();
    while device.stats().is_ok() {
        ensure!(since.elapsed() < PATIENCE, "the module did not notice that the guest died");
    }
    refused(device.stats(), Errno::NODEV, "stats of a dead guest")?;
    refused(device.assign(&queue(7, &kicks[0])), Errno::NODEV, "assign to a dead guest")?;
    refused(device.deassign(&queue(0, &kicks[0])), Errno::NODEV, "deassign from a dead guest")?;
    refused(device.bind(other.dom()), Errno::BUSY, "a file has one guest for good")?;
    refused(Device::of(doomed.dom()), Errno::NODEV, "bind to a dead guest")?;
    drop(device);
    // The others are served as before.
    other.start()?;
    other.finish()?;
    ensure!(taken(&kicks[2])? == 200);
    Ok(())
}

fn module(command: &str, what: &str) -> Result<bool> {
    Ok(Command::new(command).arg(what).stderr(Stdio::null()).status()?.success())
}

fn module_goes(play: &mut Play<'_>) -> Result<()> {
    let guest = play.guest("say never")?;
    let device = Device::open()?;
    ensure!(!module("rmmod", "xen_eventfd")?, "it went while a file was open");
    device.bind(guest.dom())?;
    ensure!(!module("rmmod", "xen_eventfd")?, "it went while a file was bound");
    drop(device);
    ensure!(module("rmmod", "xen_eventfd")?, "it does not go");
    ensure!(!std::path::Path::new(NODE).exists());
    ensure!(module("insmod", MODULE)?, "it does not come back");
    Device::of(guest.dom())?;
    Ok(())
}

fn kernel_log(_play: &mut Play<'_>) -> Result<()> {
    const COMPLAINTS: [&str; 10] = [
        "WARNING",
        "BUG",
        "Oops",
        "Call Trace",
        "general protection",
        "leak",
        "stays",
        "nobody cared",
        "blocked for more than",
        "rust_kernel: panicked",
    ];
    let log = Command::new("dmesg").output()?.stdout;
    let log = String::from_utf8_lossy(&log);
    let complaint = log.lines().find(|line| COMPLAINTS.iter().any(|mark| line.contains(mark)));
    ensure!(complaint.is_none(), "{}", complaint.unwrap_or_default());
    Ok(())
}
