//! The module's tracepoints.

use super::common::{DOORBELL, Notifier};
use super::fdinfo::mounted;
use crate::device::GuestFile;
use crate::device::structs::{Doorbell, Irq};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use xen_eventfd_scenarios::TestContext;
use xen_eventfd_scenarios::test_context::{new_eventfd, signal};

const TRACING: &str = "/sys/kernel/tracing";

/// Whether the kernel has tracing.
pub(super) fn is_there() -> bool {
    let there = mounted("tracefs", TRACING).is_ok() && Path::new(TRACING).join("events").exists();
    if !there {
        println!("this kernel has no tracing: its tracepoints were not tested");
    }
    there
}

/// Tracepoints that are enabled while this exists.
pub(super) struct On(Vec<String>);

impl On {
    /// Each is `SYSTEM/EVENT`.
    pub(super) fn switch(names: &[&str]) -> Result<Self> {
        fs::write(format!("{TRACING}/trace"), "")?;
        let path = |name| format!("{TRACING}/events/{name}/enable");
        let on = Self(names.iter().map(path).collect());
        on.0.iter().try_for_each(|switch| fs::write(switch, "1"))?;
        Ok(on)
    }
}

impl Drop for On {
    fn drop(&mut self) {
        for switch in &self.0 {
            let _ = fs::write(switch, "0");
        }
    }
}

/// Traces events of one thread alone, while this exists.
pub(super) struct ForThread;

impl ForThread {
    pub(super) fn this() -> Result<Self> {
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        fs::write(format!("{TRACING}/set_event_pid"), thread)?;
        Ok(Self)
    }
}

impl Drop for ForThread {
    fn drop(&mut self) {
        let _ = fs::write(format!("{TRACING}/set_event_pid"), "");
    }
}

/// The occurrences of one event, in order, without CPU and time.
pub(super) fn traced(event: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("{TRACING}/trace"))?;
    let mark = format!(" {event}: ");
    let lines = text.lines().filter_map(|line| line.split_once(&mark));
    Ok(lines.map(|(_, what)| what.to_owned()).collect())
}

/// Has the kernel trace how many events came before each in its upcall: `count` of `struct evtchn_loop_ctrl` of
/// `drivers/xen/events/events_base.c`.
pub(super) fn probe_upcalls() -> Result<()> {
    let probe = "p:upcall_event handle_irq_for_port count=+8($arg2):u32\n";
    Ok(fs::write(format!("{TRACING}/kprobe_events"), probe)?)
}

/// The most events that one upcall has handled, as far as it was traced.
pub(super) fn longest_upcall() -> Result<u64> {
    let counts = traced("upcall_event")?;
    let before = counts.iter().filter_map(|line| line.rsplit_once("count=")?.1.parse::<u64>().ok());
    Ok(before.max().map_or(0, |before| before + 1))
}

/// Has the kernel trace each wait for a lock, and whence it came.
pub(super) struct Waits {
    #[expect(dead_code, reason = "held")]
    on: On,
}

const CONTENTION: &str = "lock/contention_begin";

impl Waits {
    /// `None`: the kernel has no such tracepoint.
    pub(super) fn trace() -> Result<Option<Self>> {
        let trigger = format!("{TRACING}/events/{CONTENTION}/trigger");
        if !Path::new(&trigger).exists() {
            println!("this kernel does not trace waits for locks: they were not counted");
            return Ok(None);
        }
        let on = On::switch(&[CONTENTION])?;
        fs::write(trigger, "stacktrace")?;
        Ok(Some(Self { on }))
    }

    /// The stacks of those in the module's handlers of events so far, innermost function first.
    pub(super) fn of_handlers(&self) -> Result<Vec<Vec<String>>> {
        let symbols = fs::read_to_string("/proc/kallsyms")?;
        let of_module = |line: &&str| line.ends_with("[xen_eventfd]");
        let names = symbols.lines().filter(of_module).filter_map(|line| line.split(' ').nth(2));
        let names = names.filter_map(|name| name.split('\t').next());
        // `handle` of `kernel/port.rs`, as Rust mangles it, for each kind of port.
        let names: BTreeSet<&str> = names.filter(|name| name.contains("4port6handle")).collect();
        ensure!(!names.is_empty(), "the module has no handler");
        let text = fs::read_to_string(format!("{TRACING}/trace"))?;
        let stacks = text.split("<stack trace>").skip(1).map(|stack| {
            let calls = stack.lines().skip(1).map_while(|line| line.trim().strip_prefix("=> "));
            calls.map(str::to_owned).collect::<Vec<_>>()
        });
        let function = |call: &String| call.split(['+', ' ']).next().unwrap_or_default().to_owned();
        let is_handlers =
            |stack: &Vec<String>| stack.iter().any(|call| names.contains(&*function(call)));
        Ok(stacks.filter(is_handlers).collect())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let _ = fs::write(format!("{TRACING}/events/{CONTENTION}/trigger"), "!stacktrace");
    }
}

pub(super) fn kicks(test: &mut TestContext<'_>) -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let mut guest = test.guest(&format!(
        "listen msi 0x41 call; say ready; listen evtchn go; wait go; \
         repeat 3; write mmio:{DOORBELL:#x} 4 i+6; end; read mmio:{DOORBELL:#x} 4; \
         write pio:0xc050 2 1; meet; wait call | meet; write mmio:{DOORBELL:#x} 4 7"
    ))?;
    let (file, kick, call) = (GuestFile::of(guest.dom())?, new_eventfd()?, new_eventfd()?);
    file.assign(&Doorbell::value(DOORBELL, 4, 7, &kick))?;
    file.assign(&Doorbell::value(0xC050, 2, 1, &kick).pio())?;
    guest.start()?;
    guest.await_message(0, "ready")?;
    let on = On::switch(&["xen_eventfd/xen_eventfd_kick", "xen_eventfd/xen_eventfd_irq"])?;
    file.assign_irq(&Irq::msi(0x41, &call))?;
    Notifier::to(test, &mut guest, "go")?.notify()?;
    signal(&call)?;
    guest.finish()?;
    let dom = guest.dom().0;
    let (kicks, irqs) = (traced("xen_eventfd_kick")?, traced("xen_eventfd_irq")?);
    let mmio = |vcpu, value, end| {
        format!("dom={dom} vcpu={vcpu} mmio={DOORBELL:#x} len=4 value={value:#x} {end}")
    };
    let wanted = [
        mmio(0, 6, "held"),
        mmio(0, 7, "delivered"),
        mmio(0, 8, "held"),
        format!("dom={dom} vcpu=0 pio=0xc050 len=2 value=0x1 delivered"),
        mmio(1, 7, "delivered"),
    ];
    ensure!(kicks == wanted, "{kicks:#?}");
    let wanted = [format!("dom={dom} msi 0xfee00000 data=0x41 error=0")];
    ensure!(irqs == wanted, "{irqs:#?}");
    drop(on);
    signal(&call)?;
    ensure!(traced("xen_eventfd_irq")?.len() == 1, "traced while it is off");
    Ok(())
}
