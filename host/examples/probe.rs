//! Makes the calls of the host trait on this machine's Xen and prints every result.
//!
//! ```text
//! probe domains                    list the domains
//! probe serve DOMID ADDR KICKS     serve the doorbell of 4 bytes at ADDR (hex), answer KICKS kicks
//! probe death DOMID ADDR           the same until the guest is destroyed, then call each method on it
//! probe errors DOMID               the errors of invalid calls; leaves the guest as it was
//! ```
//!
//! Start the guest paused, and unpause it when the probe prints `ready`.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{Debug, Display};
use std::process::ExitCode;
use std::time::Duration;
use xen_eventfd_core::doorbell::Bytes;
use xen_eventfd_core::irq::Line;
use xen_eventfd_core::{DomId, IoServerId, Port, Request, Space};
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_host::{EventChannels, Host, HostError, IoreqPage, LocalPort};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How long to wait without an event.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let host = LinuxHost::open()?;
    match words[..] {
        ["domains"] => domains(&host),
        ["serve", dom, addr, kicks] => serve(&host, domain(dom)?, doorbell(addr)?, kicks.parse()?),
        ["death", dom, addr] => death(&host, domain(dom)?, doorbell(addr)?),
        ["errors", dom] => errors(&host, domain(dom)?),
        _ => Err("probe domains | serve DOMID ADDR KICKS | death DOMID ADDR | errors DOMID".into()),
    }
}

fn domain(word: &str) -> Outcome<DomId> {
    Ok(DomId(word.parse()?))
}

fn doorbell(word: &str) -> Outcome<Bytes> {
    let first = u64::from_str_radix(word.trim_start_matches("0x"), 16)?;
    Ok(Bytes::new(Space::Mmio, first, first.saturating_add(3))?)
}

fn say(what: impl Display, answer: impl Debug) {
    println!("{what} = {answer:?}");
}

/// An errno by number, for a table.
fn errno<T>(answer: Result<T, HostError>) -> String {
    match answer {
        Ok(_) => "ok".into(),
        Err(error) => format!("{} ({error})", error.errno.raw_os_error()),
    }
}

fn domains(host: &dyn Host) -> Outcome {
    for domain in host.domains()? {
        println!("{domain:?}");
    }
    Ok(())
}

/// A doorbell server with its page and ports.
struct Server<'a> {
    host: &'a dyn Host,
    dom: DomId,
    id: IoServerId,
    page: Box<dyn IoreqPage>,
    channels: Box<dyn EventChannels>,
    /// The slot of each port.
    ports: BTreeMap<LocalPort, (usize, Port)>,
}

impl<'a> Server<'a> {
    fn start(host: &'a dyn Host, dom: DomId, bytes: Bytes) -> Outcome<Self> {
        let vcpus = host.vcpus(dom)? as usize;
        say("vcpus", vcpus);
        let id = host.create_server(dom)?;
        say("server", id);
        let page = host.map_page(dom, id)?;
        host.map_range(dom, id, bytes)?;
        host.set_server_state(dom, id, true)?;
        let channels = host.event_channels()?;
        let mut ports = BTreeMap::new();
        for (vcpu, slot) in page.slots().iter().enumerate().take(vcpus) {
            let remote = slot.vp_eport();
            let before = host.binding(dom, remote)?;
            let local = channels.bind(dom, remote)?;
            ports.insert(local, (vcpu, remote));
            let after = host.binding(dom, remote)?;
            println!("vcpu {vcpu}: {remote} {before:?}, now {after:?} as {local:?}");
        }
        say("slots beyond the vcpus", page.slots()[vcpus..].iter().any(|s| s.vp_eport().0 != 0));
        Ok(Self { host, dom, id, page, channels, ports })
    }

    /// Takes one request for each event.
    fn answer(&self, count: &mut BTreeMap<&'static str, u64>) -> Outcome {
        let mut pending = Vec::new();
        self.channels.pending(&mut pending)?;
        *count.entry("wakeups").or_default() += 1;
        for port in pending {
            let (vcpu, _) = self.ports[&port];
            let served = self.page.slots()[vcpu].serve(|_| 0);
            let name = match served {
                Some(Request::Kick(_)) => "kicks",
                Some(Request::Read(_)) => "reads",
                Some(Request::Config(_)) => "configuration accesses",
                Some(Request::Broadcast) => "broadcasts",
                Some(Request::Odd { .. }) => "odd",
                None => "empty",
            };
            *count.entry(name).or_default() += 1;
            if served.is_some() {
                self.channels.notify(port)?;
            }
            self.channels.eoi(port)?;
        }
        Ok(())
    }

    /// The order matters: parked vCPUs are answered and notified before the server is destroyed.
    fn stop(self) -> Outcome {
        say("disable", errno(self.host.set_server_state(self.dom, self.id, false)));
        for (port, (vcpu, _)) in &self.ports {
            let swept = self.page.slots()[*vcpu].sweep();
            println!("sweep vcpu {vcpu} = {swept:?}");
            self.channels.notify(*port)?;
        }
        for (port, (_, remote)) in &self.ports {
            say(format!("unbind {remote}"), errno(self.channels.unbind(*port)));
            say(format!("binding of {remote}"), self.host.binding(self.dom, *remote));
            say("notify when unbound", errno(self.channels.notify(*port)));
            say("unbind twice", errno(self.channels.unbind(*port)));
        }
        drop(self.page);
        say("destroy", errno(self.host.destroy_server(self.dom, self.id)));
        say("destroy twice", errno(self.host.destroy_server(self.dom, self.id)));
        Ok(())
    }
}

fn serve(host: &dyn Host, dom: DomId, bytes: Bytes, kicks: u64) -> Outcome {
    let mut releases = host.releases()?;
    say("releases at once", releases.drain()?);
    let server = Server::start(host, dom, bytes)?;
    println!("ready");
    let mut count = BTreeMap::new();
    while count.get("kicks").copied().unwrap_or_default() < kicks {
        let patience = Timespec::try_from(PATIENCE)?;
        let mut fds = [
            PollFd::from_borrowed_fd(server.channels.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(releases.fd(), PollFlags::IN),
        ];
        if poll(&mut fds, Some(&patience))? == 0 {
            println!("nothing happened for {PATIENCE:?}");
            break;
        }
        let (notified, released) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if notified {
            server.answer(&mut count)?;
        }
        if released && releases.drain()? {
            println!("some domain is gone");
        }
    }
    say("counted", count);
    server.stop()
}

fn death(host: &dyn Host, dom: DomId, bytes: Bytes) -> Outcome {
    let mut releases = host.releases()?;
    let server = Server::start(host, dom, bytes)?;
    println!("ready");
    let mut count = BTreeMap::new();
    let mut alive = true;
    while alive {
        let mut fds = [
            PollFd::from_borrowed_fd(server.channels.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(releases.fd(), PollFlags::IN),
        ];
        if poll(&mut fds, Some(&Timespec::try_from(PATIENCE)?))? == 0 {
            return Err("the guest is still alive".into());
        }
        let (notified, released) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if notified {
            server.answer(&mut count)?;
        }
        if released && releases.drain()? {
            alive = host.server_alive(dom, server.id)?;
            say("news; alive", alive);
        }
    }
    say("counted", count);
    println!("-- dead, page still mapped");
    ask(host, dom, server.id, bytes);
    for (port, (vcpu, remote)) in &server.ports {
        say("slot", server.page.slots()[*vcpu].state());
        say("notify", errno(server.channels.notify(*port)));
        say("eoi", errno(server.channels.eoi(*port)));
        say("binding", host.binding(dom, *remote));
        say("unbind", errno(server.channels.unbind(*port)));
        say("bind again", errno(server.channels.bind(dom, *remote)));
    }
    let id = server.id;
    drop(server);
    std::thread::sleep(Duration::from_secs(1));
    println!("-- dead, page unmapped");
    ask(host, dom, id, bytes);
    say("binding", host.binding(dom, Port(1)));
    Ok(())
}

/// Makes every call that names a guest once.
fn ask(host: &dyn Host, dom: DomId, id: IoServerId, bytes: Bytes) {
    say("domain", errno(host.domain(dom)));
    say("vcpus", errno(host.vcpus(dom)));
    let created = host.create_server(dom);
    if let Ok(id) = created {
        say("destroy what was created", errno(host.destroy_server(dom, id)));
    }
    say("create", errno(created));
    say("alive", host.server_alive(dom, id));
    say("page", errno(host.map_page(dom, id)));
    say("map", errno(host.map_range(dom, id, bytes)));
    say("unmap", errno(host.unmap_range(dom, id, bytes)));
    say("enable", errno(host.set_server_state(dom, id, true)));
    say("disable", errno(host.set_server_state(dom, id, false)));
    say("destroy", errno(host.destroy_server(dom, id)));
    say("msi", errno(host.inject_msi(dom, 0xFEE0_0000, 0x40)));
    if host.has_lines(dom) == Ok(true) {
        say("isa", errno(host.set_line(dom, Line::Isa(5), false)));
        say("intx", errno(host.set_line(dom, Line::PciIntx { device: 3, pin: 0 }, false)));
    }
    say("spi", errno(host.set_line(dom, Line::Spi(33), false)));
}

fn errors(host: &dyn Host, dom: DomId) -> Outcome {
    let bytes = |first: u64| Bytes::new(Space::Mmio, first, first + 3);
    let at = bytes(0xFE00_0050)?;
    for (name, dom) in
        [("no such domain", DomId(999)), ("domain 0", DomId(0)), ("self", DomId::SELF)]
    {
        println!("-- {name}");
        ask(host, dom, IoServerId(0), at);
        say("binding", host.binding(dom, Port(1)));
        say("bind", errno(host.event_channels()?.bind(dom, Port(9999))));
    }
    println!("-- a server that does not exist");
    ask(host, dom, IoServerId(7), at);
    println!("-- servers");
    let mut ids = Vec::new();
    let full = loop {
        match host.create_server(dom) {
            Ok(id) => ids.push(id),
            Err(full) => break full,
        }
    };
    say(format!("create after {ids:?}"), full.to_string());
    let id = *ids.last().ok_or("none could be created")?;
    ids.iter().filter(|other| **other != id).try_for_each(|id| host.destroy_server(dom, *id))?;
    println!("-- ranges");
    say("map", errno(host.map_range(dom, id, at)));
    say("map twice", errno(host.map_range(dom, id, at)));
    say("map a part", errno(host.map_range(dom, id, bytes(0xFE00_0052)?)));
    say("unmap beyond", errno(host.unmap_range(dom, id, bytes(0xFE00_0052)?)));
    say("map the end", errno(host.map_range(dom, id, bytes(u64::MAX - 3)?)));
    let beyond = Bytes::new(Space::Pio, 0xFFFF, 0xFFFF)?;
    say("map a port", errno(host.map_range(dom, id, beyond)));
    let full =
        (0..300).map(|n| host.map_range(dom, id, bytes(0xA000_0000 + n * 16)?).map_err(Box::from));
    let full = full.enumerate().find_map(|(n, answer): (_, Outcome)| Some((n, answer.err()?)));
    say("map many", full.map(|(n, error)| format!("{n} fit, then {error}")));
    let middle = Bytes::new(Space::Mmio, 0xFE00_0051, 0xFE00_0051)?;
    say("unmap that splits", errno(host.unmap_range(dom, id, middle)));
    println!("-- page and ports");
    let page = host.map_page(dom, id)?;
    say("page twice", errno(host.map_page(dom, id)));
    host.set_server_state(dom, id, true)?;
    say("enable twice", errno(host.set_server_state(dom, id, true)));
    let port = page.slots()[0].vp_eport();
    let channels = host.event_channels()?;
    let local = channels.bind(dom, port)?;
    say("bind twice", errno(channels.bind(dom, port)));
    say("bind elsewhere", errno(host.event_channels()?.bind(dom, port)));
    for port in
        [Port(0), Port(1), Port(2), Port(3), Port(4), Port(4095), Port(200_000), Port(u32::MAX)]
    {
        say(format!("binding of {port}"), host.binding(dom, port));
    }
    say("bind port 0", errno(channels.bind(dom, Port(0))));
    say("bind beyond", errno(channels.bind(dom, Port(u32::MAX))));
    say("eoi of another's", errno(channels.eoi(LocalPort(1))));
    say("notify another's", errno(channels.notify(LocalPort(1))));
    let mut ports = Vec::new();
    channels.pending(&mut ports)?;
    say("event of a new binding", ports == [local]);
    channels.unbind(local)?;
    for _ in 0..200 {
        channels.unbind(channels.bind(dom, port)?)?;
    }
    let local = channels.bind(dom, port)?;
    ports.clear();
    let mut fds = [PollFd::from_borrowed_fd(channels.fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default()))?;
    say("it overflowed", fds[0].revents().contains(PollFlags::ERR));
    say("queue after 200 bindings that were not read", errno(channels.pending(&mut ports)));
    say("event of the last", ports == [local]);
    drop(channels);
    say("binding after the device is closed", host.binding(dom, port));
    say("destroy while enabled", errno(host.destroy_server(dom, id)));
    say("binding after the server", host.binding(dom, port));
    say("page outlives its server", page.slots()[0].state());
    Ok(())
}
