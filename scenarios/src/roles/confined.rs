//! An engine in a process without privileges: the test opens its devices and confines them to one
//! guest, and its threads may make only the system calls that `docs/embedding.md` lists.

use super::{Helper, HelperCommand, HelperReply};
use crate::link::Link;
use crate::scenarios::call_irq;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use seccompiler::{BpfMap, apply_filter, compile_from_json};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::chown;
use xen_eventfd::{
    Devices, DomId, Domain, Driver, EngineKind, Guest, IoEventAddress, KnownGuest, Xen,
};
use xen_eventfd_core::irq::Arch;

/// The user and group `nobody`.
const NOBODY: u32 = 65534;
const PAGE: &str = include_str!("../../../docs/embedding.md");

/// What the engine serves. The message carries its kick and its call eventfd, and then its devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The guest.
    pub dom: u16,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Another guest, which the devices must not reach.
    pub other: u16,
    /// Which engine.
    pub engine: String,
    /// Whether the process drives the engine from its own loop.
    pub driven: bool,
    /// The doorbell, of 4 bytes, and the value to match.
    pub doorbell: (u64, u32),
    /// The vector of the message that the call raises, to the first vCPU.
    pub vector: u32,
}

/// Those of the page that only x86 has; a C library for another architecture makes their successors.
const OF_X86: [&str; 4] = ["poll", "epoll_wait", "rename", "unlink"];

/// The system calls of each thread of an engine, by the thread's name.
fn filters() -> Result<BpfMap> {
    let quoted = |text: &str| -> Vec<String> {
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let table = PAGE.split("| thread | system calls |").nth(1).context("the page has no table")?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut threads: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut all = Vec::new();
    for row in rows {
        let (name, calls) = row.trim_matches('|').split_once('|').context("a row has two cells")?;
        match quoted(name).pop() {
            Some(name) => _ = threads.insert(name, quoted(calls)),
            None => all.extend(quoted(calls)),
        }
    }
    let filter = |calls: &Vec<String>| {
        let here =
            |call: &&String| cfg!(target_arch = "x86_64") || !OF_X86.contains(&call.as_str());
        let calls = calls
            .iter()
            .chain(&all)
            .filter(here)
            .map(|call| serde_json::json!({ "syscall": call }));
        serde_json::json!({
            "mismatch_action": "kill_process",
            "match_action": "allow",
            "filter": calls.collect::<Vec<_>>(),
        })
    };
    let filters: BTreeMap<_, _> =
        threads.iter().map(|(name, calls)| (name, filter(calls))).collect();
    let arch = std::env::consts::ARCH.try_into().context("a filter for this architecture")?;
    Ok(compile_from_json(serde_json::to_vec(&filters)?.as_slice(), arch)?)
}

/// Installs the filter of the page for a thread of that name; any other call ends the process.
fn filter() -> Result<impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static> {
    let filters = filters()?;
    Ok(move |name: &str| {
        let filter = filters.get(name).ok_or(std::io::Error::other("no filter for it"))?;
        apply_filter(filter).map_err(std::io::Error::other)
    })
}

pub(super) fn run(helper: Helper, spec: &Spec, fds: Vec<OwnedFd>) -> Result<()> {
    let Helper { host, link, .. } = helper;
    // A directory of root is not accessible to a process without privileges.
    drop(host);
    let run_dir = tempfile::tempdir()?;
    chown(run_dir.path(), Some(NOBODY), Some(NOBODY))?;
    let filter = filter()?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let opened = std::fs::File::open("/dev/xen/privcmd").err();
    ensure!(opened.is_some(), "this process can open devices by itself");

    let mut fds = fds.into_iter();
    let mut next = || fds.next().context("a descriptor is missing");
    let (kick, call) = (next()?, next()?);
    let devices = Devices::new(next()?, next()?, fds.next());
    let of = |dom, uuid| KnownGuest::new(Domain::new(DomId(dom), None, uuid), false);
    let known = [of(spec.dom, spec.uuid.clone()), of(spec.other, None)];
    let mut builder = Xen::builder().run_dir(run_dir.path()).on_thread_start(filter);
    if spec.driven {
        builder = builder.without_threads();
    }
    let xen = builder.engine(spec.engine.parse::<EngineKind>()?).open_with(devices, known)?;
    let driver = xen.driver();

    match xen.guest(DomId(spec.other)) {
        Ok(_) => bail!("the engine served a guest to which the devices are not confined"),
        Err(error) => ensure!(error.errno() == Errno::PERM, "refused with another error: {error}"),
    }
    let guest = xen.guest(DomId(spec.dom))?;
    let (addr, value) = spec.doorbell;
    let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(addr), value)?;
    let _irqfd = guest.register_irqfd(&call, call_irq(Arch::NATIVE, 0, spec.vector))?;
    link.send(&HelperReply::Ready { server: guest.server().0 }, &[])?;
    serve(&guest, driver, &link)
}

/// Serves until the guest is dead, or the test sends a message or is gone.
fn serve(guest: &Guest, mut driver: Option<Driver>, link: &Link) -> Result<()> {
    loop {
        let gone = guest.gone();
        let mut fds = vec![PollFd::new(&gone, PollFlags::IN), PollFd::new(link, PollFlags::IN)];
        fds.extend(driver.as_ref().map(|driver| PollFd::new(driver, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[0] {
            return Ok(());
        }
        if ready[1] {
            let command = link.receive::<HelperCommand>(crate::PATIENCE)?;
            return if command.is_some() { Ok(guest.close()?) } else { Ok(()) };
        }
        if let Some(driver) = &mut driver {
            driver.process()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_filter_for_each_thread() {
        let filters = filters().unwrap();
        for name in ["xen-ioeventfd", "xen-irqfd", "xen-watch"] {
            assert!(filters[name].len() > 10, "{name}");
        }
    }

    /// As far as the model makes the calls of a real host: a call that is not on the page ends the test
    /// with SIGSYS.
    #[test]
    fn an_engine_on_the_model_makes_no_call_but_those_of_the_page() {
        use crate::test_context::{await_count, new_eventfd, signal};
        use xen_eventfd::{Guardian, Irq, Space, VcpuId, Width};
        use xen_eventfd_model::{Config, Kind, Model};
        let (model, run_dir) = (Model::new(), tempfile::tempdir().unwrap());
        let builder = Xen::builder().guardian(Guardian::None).run_dir(run_dir.path());
        let builder = builder.on_thread_start(filter().unwrap());
        let xen = builder.open_on(model.client("backend")).unwrap();
        for dies in [false, true] {
            let dom = model.domain(Config::new("guest").kind(Kind::Hvm));
            let vcpu = model.vcpu(dom, VcpuId(0));
            let guest = xen.guest(dom).unwrap();
            let (kick, call) = (new_eventfd().unwrap(), new_eventfd().unwrap());
            let _queue = guest.register_ioevent(&kick, &IoEventAddress::Mmio(0x50), 3_u32).unwrap();
            let msi = Irq::Msi { addr: 0xFEE0_0000, data: 0x41 };
            let _irqfd = guest.register_irqfd(&call, msi).unwrap();
            for _ in 0..10 {
                vcpu.write(Space::Mmio, 0x50, Width::Four, 3).unwrap();
                await_count(&kick, 1).unwrap();
                signal(&call).unwrap();
                vcpu.wait_msi(0x41).unwrap();
            }
            if dies {
                model.destroy(dom);
                assert!(crate::test_context::readable(guest.gone(), crate::PATIENCE).unwrap());
            }
        }
    }
}
