//! What a process that serves devices asks of Xen, beside what an engine does.

use super::DOORBELL;
use crate::test_context::readable;
use crate::{TestContext, Unsupported};
use anyhow::{Context, Result, ensure};
use std::os::fd::AsFd;
use xen_eventfd::DomId;
use xen_eventfd_core::irq::Arch;
use xen_eventfd_host::linux::{LinuxHost, XenstoreClient};
use xen_eventfd_host::memory::{FRAME, ForeignMemory};
use xen_eventfd_host::xenstore::{Access, Transaction, WatchEvent, Xenstore};
use xen_eventfd_host::{Binding, Errno, GuestPorts, Host};

/// The frame at which a guest's kernel begins.
const fn kernel(arch: Arch) -> u64 {
    match arch {
        // 1 MiB.
        Arch::X86 => 0x100,
        // Where its memory begins.
        Arch::Arm => 0x4_0000,
    }
}
/// No guest of the tests has so much memory.
const BEYOND: u64 = 0xFFFF_FFFF;

pub(super) fn device_process(test: &mut TestContext<'_>) -> Result<()> {
    if test.environment().engine().is_none() {
        return Err(Unsupported("devices of a machine").into());
    }
    let mut guest = test.guest(&format!("write mmio:{DOORBELL:#x} 4 0; say over"))?;
    let host = LinuxHost::open()?;
    foreign_memory(&host, guest.dom(), kernel(test.arch()))?;
    guest_ports(&host, guest.dom())?;
    xenstore(guest.dom())?;
    // It is none the worse.
    guest.start()?;
    guest.finish()
}

fn foreign_memory(host: &LinuxHost, dom: DomId, at: u64) -> Result<()> {
    let (one, two) = (host.map(dom, &[at + 1, at])?, host.map(dom, &[at])?);
    let (mut kernel, mut same) = ([0; FRAME], [0; FRAME]);
    two.read(0, &mut kernel);
    ensure!(kernel.iter().any(|byte| *byte != 0), "there is nothing where the kernel is");
    one.read(FRAME, &mut same);
    ensure!(kernel == same, "frames are not mapped in the order in which they were named");
    one.write(2 * FRAME - 3, &[1, 2, 3]);
    two.read(FRAME - 3, &mut same[..3]);
    ensure!(same[..3] == [1, 2, 3], "what one mapping writes another does not read");
    one.write(FRAME, &kernel);
    let beyond = host.map(dom, &[at, BEYOND]).err().context("a frame that is not there")?;
    ensure!(beyond.to_string().contains("0xffffffff"), "the frame is not named: {beyond}");
    Ok(())
}

fn guest_ports(host: &LinuxHost, dom: DomId) -> Result<()> {
    let port = host.allocate_port(dom)?;
    let unbound = host.binding(dom, port)?;
    ensure!(
        unbound == Binding::Unbound { by: DomId(0) },
        "the port that was allocated is {unbound:?}"
    );
    let channels = host.event_channels()?;
    let local = channels.bind(dom, port)?;
    let bound = host.binding(dom, port)?;
    ensure!(
        bound == Binding::Bound { by: DomId(0), port: local },
        "the port that was bound is {bound:?}"
    );
    channels.unbind(local)?;
    let gone = host.allocate_port(DomId(0x7FE0)).err().context("a port of no domain")?;
    ensure!(gone.errno == Errno::SRCH, "{gone}");
    Ok(())
}

fn xenstore(dom: DomId) -> Result<()> {
    let (mut store, mut other) = (XenstoreClient::open()?, XenstoreClient::open()?);
    let (node, none) = (format!("/xen-eventfd-test/{}", dom.0), Transaction::NONE);
    let (state, value) = (format!("{node}/state"), b"4\x01");
    store.watch(&node, "ours")?;
    let transaction = store.begin()?;
    store.write(transaction, &state, value)?;
    let guest = [(dom, Access::Read)];
    store.set_permissions(transaction, &state, DomId(0), Access::None, &guest)?;
    let early = other.read(none, &state).err().context("it is seen before it is committed")?;
    ensure!(early.errno == Errno::NOENT, "{early}");
    store.commit(transaction)?;
    ensure!(other.read(none, &state)? == value, "another value");
    ensure!(other.directory(none, &node)? == ["state"], "other children");
    let events = events_until(&mut store, &state)?;
    let ours = |event: &WatchEvent| event.token == "ours" && event.path.starts_with(&node);
    // The first comes with the watch.
    ensure!(events[0].path == node && events.iter().all(ours), "other events came: {events:?}");

    let late = store.begin()?;
    store.write(late, &state, b"5")?;
    other.write(none, &state, b"6")?;
    let again = store.commit(late).err().context("a conflict is committed")?;
    ensure!(again.errno == Errno::AGAIN, "{again}");
    store.unwatch(&node, "ours")?;
    store.remove(none, "/xen-eventfd-test")?;
    let gone = other.read(none, &state).err().context("it is there though it was removed")?;
    ensure!(gone.errno == Errno::NOENT, "{gone}");
    Ok(())
}

/// The events of watches, until one of this node comes.
fn events_until(store: &mut XenstoreClient, path: &str) -> Result<Vec<WatchEvent>> {
    let mut events = store.events()?;
    while !events.iter().any(|event| event.path == path) {
        ensure!(readable(store.fd().as_fd(), crate::PATIENCE)?, "no event came: {events:?}");
        events.extend(store.events()?);
    }
    Ok(events)
}
