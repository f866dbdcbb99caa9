//! One measurement of calls: a backend writes an eventfd, and a guest's handler runs.

use crate::device::Device;
use crate::floor::Floor;
use crate::guest::Guest;
use crate::switches::{Processes, Role, Switches};
use crate::way::Program;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use xen_eventfd::{Arch, DomId, Guardian, Irq, Line, Port, Xen};
use xen_eventfd_bench::{Calls, Figures, Interrupt, Spread, Way, arch};
use xen_eventfd_host::linux::LinuxHost;
use xen_eventfd_host::{EventChannels, Host, LocalPort};
use xen_eventfd_scenarios::{TestContext, call_irq};

/// Calls that are measured.
const CALLS: usize = 1000;
/// Calls that warm up.
const WARM_UP: usize = 16;
/// The delay between two calls: longer than any call takes.
const PAUSE: Duration = Duration::from_millis(1);
/// The vector of the MSI. On Arm the same script makes the guest listen to the SPI of that number.
const VECTOR: u32 = 0x41;

/// What a guest that listens takes: its event channel, or the interrupt that its architecture has.
fn irq(arch: Arch, port: Option<Port>) -> Irq {
    port.map_or_else(|| call_irq(arch, 0, VECTOR), Irq::EventChannel)
}

fn script(interrupt: Interrupt) -> String {
    let listen = match interrupt {
        Interrupt::Channel => "listen evtchn call".to_owned(),
        Interrupt::Msi => format!("listen msi {VECTOR:#x} call"),
    };
    let all = CALLS + WARM_UP;
    format!("listen evtchn go; {listen}; wait go; stamp wait call {all}; send go; wait go; stamps")
}

/// How the calls are made.
enum Caller {
    /// The eventfd is written, and the module, an engine or a VMM raises the interrupt.
    Eventfd(OwnedFd),
    /// Without an eventfd: the bench raises it itself.
    Direct(Raiser),
}

/// Raises a guest's interrupt.
struct Raiser {
    host: Arc<dyn Host>,
    dom: DomId,
    irq: Irq,
    channel: Option<(Box<dyn EventChannels>, LocalPort)>,
}

impl Raiser {
    fn new(host: Arc<dyn Host>, dom: DomId, port: Option<Port>) -> Result<Self> {
        let bind = |port| -> Result<_> {
            let events = host.event_channels()?;
            let port = events.bind(dom, port)?;
            Ok((events, port))
        };
        let channel = port.map(bind).transpose()?;
        let irq = irq(host.arch(), port);
        Ok(Self { host, dom, irq, channel })
    }

    fn raise(&self) -> Result<()> {
        match (&self.channel, self.irq) {
            (Some((events, port)), _) => events.notify(*port)?,
            (None, Irq::Line(line, _)) => {
                self.host.set_line(self.dom, line, true)?;
                self.host.set_line(self.dom, line, false)?;
            }
            (None, Irq::Msi { addr, data }) => self.host.inject_msi(self.dom, addr, data)?,
            (None, other) => bail!("{other} is not measured"),
        }
        Ok(())
    }
}

pub(crate) fn measure(test: &TestContext<'_>, calls: &Calls) -> Result<Figures> {
    let mut guest = Guest::create(test.environment(), &script(calls.interrupt))?;
    guest.start()?;
    let port = match calls.interrupt {
        Interrupt::Channel => Some(guest.port("call")?),
        Interrupt::Msi => None,
    };
    let dom = guest.dom();
    // The module and upstream's code wait in the kernel, the other ways read it.
    let call = eventfd(0, EventfdFlags::CLOEXEC)?;
    let mut processes = vec![(std::process::id(), Role::Bench)];
    let mut program = None;
    let mut device = None;
    let words = [dom.0.to_string(), port.map_or(0, |port| port.0).to_string()];
    let caller = match calls.way {
        Way::Floor | Way::FloorSilent => {
            Caller::Direct(Raiser::new(test.environment().host(), dom, port)?)
        }
        Way::Module => {
            let guest = Device::of(dom)?;
            match irq(test.arch(), port) {
                Irq::EventChannel(port) => guest.assign_channel(&call, port.0)?,
                Irq::Line(Line::Spi(number), _) => guest.assign_spi(&call, number)?,
                Irq::Msi { addr, data } => guest.assign_msi(&call, addr, data)?,
                other => bail!("{other} is not measured"),
            }
            device = Some(guest);
            Caller::Eventfd(call)
        }
        Way::Vmm => {
            let command = &mut Command::new("/proc/self/exe");
            program = Some(Program::start(command.arg("raiser").args(words), Role::Vmm, &call)?);
            Caller::Eventfd(call)
        }
        Way::Engine => {
            let command = &mut Command::new("/proc/self/exe");
            command.arg("caller").arg(test.environment().run_dir()).args(words);
            program = Some(Program::start(command, Role::Engine, &call)?);
            Caller::Eventfd(call)
        }
        Way::Upstream => {
            ensure!(port.is_none(), "upstream's irqfd raises MSIs and lines only");
            let command = &mut Command::new("bench-vmm");
            program = Some(Program::start(command.arg("irqfd").arg(&words[0]), Role::Vmm, &call)?);
            Caller::Eventfd(call)
        }
    };
    processes.extend(program.as_ref().map(Program::process));
    let processes = Processes(processes);

    guest.resume()?;
    let mut called = Vec::with_capacity(CALLS + WARM_UP);
    let mut before = Switches::now()?;
    for call in 0..CALLS + WARM_UP {
        if call == WARM_UP {
            before = Switches::now()?;
        }
        std::thread::sleep(PAUSE);
        called.push(arch::now());
        match &caller {
            Caller::Eventfd(call) => {
                rustix::io::write(call, &1_u64.to_ne_bytes())?;
            }
            Caller::Direct(raiser) => raiser.raise()?,
        }
    }
    guest.come_back()?;
    let after = Switches::now()?;
    guest.resume()?;
    let stamps = guest.finish()?;
    let (dom0, in_guest) = (Floor::open()?.clock()?, guest.clock()?);
    drop((device, program));
    let handled = stamps.get(&0).context("the guest recorded nothing")?;
    ensure!(handled.len() == called.len(), "{} of {} calls arrived", handled.len(), called.len());
    let across: Option<Vec<u64>> = called
        .iter()
        .zip(handled)
        .skip(WARM_UP)
        .map(|(called, handled)| dom0.translate(in_guest, *handled).checked_sub(*called))
        .collect();
    let across = across.context("a call arrived before it was made: the clocks do not agree")?;
    Ok(Figures {
        samples: CALLS as u64,
        ticks: None,
        across: Spread::of(across),
        found: 0,
        delivered: handled.len().saturating_sub(WARM_UP) as u64,
        dom0: 0,
        wakeups: before.until(&after, &processes),
    })
}

fn port(number: u32) -> Option<Port> {
    (number > 0).then_some(Port(number))
}

/// The code of a device model that reads the eventfd, which is standard input, and raises the interrupt.
pub(crate) fn run_raiser(dom: DomId, number: u32) -> Result<()> {
    let raiser = Raiser::new(Arc::new(LinuxHost::open()?), dom, port(number))?;
    let call = std::io::stdin();
    println!("ready");
    loop {
        rustix::io::read(call.as_fd(), &mut [0; 8])?;
        raiser.raise()?;
    }
}

/// The code of the userspace engine with one irqfd; the eventfd is standard input.
pub(crate) fn run_caller(run_dir: &Path, dom: DomId, number: u32) -> Result<()> {
    let host = Arc::new(LinuxHost::open()?);
    let irq = irq(host.arch(), port(number));
    let xen = Xen::builder().run_dir(run_dir).guardian(Guardian::None).open_on(host)?;
    let guest = xen.guest(dom)?;
    let _irqfd = guest.register_irqfd(&std::io::stdin(), irq)?;
    println!("ready");
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_guest_script::Program;

    #[test]
    fn script_can_be_carried_out() {
        for interrupt in [Interrupt::Channel, Interrupt::Msi] {
            let script = script(interrupt);
            assert_eq!(Program::parse(&script).map(|program| program.vcpus()), Ok(1));
        }
    }
}
