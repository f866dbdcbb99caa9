//! The calls to Xen by which the module finds out whether its guests are alive: none may pause a guest or
//! create an ioreq server.

use super::common::{IDLE, until};
use super::fdinfo::mounted;
use crate::device::request::CREATE_RESERVE;
use crate::device::structs::Create;
use crate::device::{Control, GuestFile};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use xen_eventfd::DomId;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{await_count, new_eventfd};

const TRACING: &str = "/sys/kernel/tracing";
const EVENT: &str = "events/kprobes/dm_op_of";
/// `XEN_DMOP_get_ioreq_server_info`, and `XEN_DMOP_track_dirty_vram` with no room for its result. Xen on Arm does not
/// have the latter, so the module then asks `XEN_DMOP_nr_vcpus`.
const HARMLESS: &[u32] = if cfg!(target_arch = "aarch64") { &[2, 7, 20] } else { &[2, 7] };

/// A probe on each device model operation of the module, while this exists.
struct Probe;

impl Probe {
    fn set() -> Result<Self> {
        fs::write(format!("{TRACING}/trace"), "")?;
        // The function's arguments: a domain, and an operation, which begins with its number.
        let probe = "p:kprobes/dm_op_of xen_eventfd:shim_dm_op dom=$arg1:u16 op=+0($arg2):u32\n";
        let mut probes =
            fs::OpenOptions::new().append(true).open(format!("{TRACING}/kprobe_events"))?;
        probes.write_all(probe.as_bytes()).context("a probe")?;
        fs::write(format!("{TRACING}/{EVENT}/enable"), "1")?;
        Ok(Self)
    }

    /// The operations on a domain so far.
    fn operations(&self, dom: DomId) -> Result<BTreeSet<u32>> {
        let text = fs::read_to_string(format!("{TRACING}/trace"))?;
        let about = format!(" dom={} op=", dom.0);
        let numbers =
            text.lines().filter_map(|line| line.split_once(&about)?.1.trim().parse().ok());
        Ok(numbers.collect())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::write(format!("{TRACING}/{EVENT}/enable"), "0");
        let _ = fs::write(format!("{TRACING}/kprobe_events"), "");
    }
}

pub(super) fn alive(test: &mut TestContext<'_>) -> Result<()> {
    mounted("tracefs", TRACING)?;
    let (served, kept) = (test.guest(IDLE)?, test.guest(IDLE)?);
    let mut doomed = test.guest(IDLE)?;
    let control = Control::open()?;
    let file = GuestFile::of(served.dom())?;
    let keeps = Create { flags: CREATE_RESERVE, ..Create::of(kept.dom()) };
    let keeping = control.create(&keeps)?;
    let probe = Probe::set()?;
    doomed.destroy()?;
    for guest in [&served, &kept] {
        until("the module checks it", || Ok(!probe.operations(guest.dom())?.is_empty()))?;
        let operations = probe.operations(guest.dom())?;
        ensure!(
            operations.iter().all(|op| HARMLESS.contains(op)),
            "{operations:?} on a guest that is alive"
        );
    }
    file.stats()?;
    drop((file, keeping));
    Ok(())
}

pub(super) fn dead_and_findable(test: &mut TestContext<'_>) -> Result<()> {
    let (mut kept, gone) = (test.guest(IDLE)?, new_eventfd()?);
    let host = test.environment().host();
    // As another engine does: its mapping keeps the domain in Xen after the guest's death.
    let server = host.create_server(kept.dom())?;
    let page = host.map_page(kept.dom(), server)?;
    let keeps = Create { flags: CREATE_RESERVE, ..Create::of(kept.dom()).notify_gone(&gone) };
    let keeping = Control::open()?.create(&keeps)?;
    kept.destroy()?;
    ensure!(await_count(&gone, 1)? == 1);
    drop((page, keeping));
    Ok(())
}
