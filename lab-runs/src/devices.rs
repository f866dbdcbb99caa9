//! `cargo xtask devices`: stock Linux guests with virtio devices, whose backends know nothing of Xen.

mod arm;
pub(crate) mod guest;

use crate::boots::{Boots, place};
use crate::is_asked_for;
use crate::kmod::kernel_log::{MARK, TROUBLE};
use crate::kmod::{self, Module};
use crate::modules::Modules;
use crate::tally::Tally;
use anyhow::{Result, ensure};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use xen_eventfd_lab::{
    Backends, Boot, DeviceModel, Lab, Platform, build_guest, build_static, build_static_test,
};

/// Where, and what.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The platform: x86-pv, x86-pvh or arm64; all if not given
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// Only parts whose name contains one of these: kernel, userspace, daemon, survives, noting, drivers, host, soak, metal,
    /// villain, refusals, rights, types, hvm; noting, drivers, host, soak and hvm run in a PVH dom0 only if they are named, as they take long
    /// there. On arm64: mmio, mmio_all, mmio_root, daemon, drivers, host, metal, villain, and soak if it
    /// is named
    names: Vec<String>,
    /// Eight vCPUs for the guest with every device, and not two: it boots for longer
    #[arg(long)]
    many_vcpus: bool,
    /// The hostile driver makes 1,000,000 random accesses, a thirtieth of that in a PVH dom0, and not 4,000; drivers
    /// are unbound 100 times in a PVH dom0 too
    #[arg(long)]
    long: bool,
}

/// What one machine tests.
#[derive(Debug)]
struct Part {
    name: &'static str,
    script: &'static str,
    beside: Beside,
    /// It runs in a PVH dom0 only if it is named, as it takes long there.
    rare_in_pvh: bool,
}

/// What a part's machine has beside what all have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The backends, modules and programs of more types of devices.
    MoreTypes,
    /// The device model of an HVM guest.
    DeviceModel,
}

impl Part {
    const fn new(name: &'static str, script: &'static str) -> Self {
        Self { name, script, beside: Beside::Nothing, rare_in_pvh: false }
    }

    const fn rare_in_pvh(self) -> Self {
        Self { rare_in_pvh: true, ..self }
    }

    const fn beside(self, beside: Beside) -> Self {
        Self { beside, ..self }
    }

    fn is_hvm(&self) -> bool {
        self.beside == Beside::DeviceModel
    }
}

/// What scripts share, which stands in front of each.
pub(crate) const SHARED: &str = concat!(
    include_str!("within.sh"),
    include_str!("devices/common.sh"),
    include_str!("devices/passt.sh"),
    include_str!("devices/target.sh"),
    include_str!("devices/checks.sh")
);

const PARTS: [Part; 14] = [
    Part::new("kernel", include_str!("devices/kernel.sh")),
    Part::new("userspace", include_str!("devices/userspace.sh")),
    Part::new("daemon", include_str!("devices/daemon.sh")),
    Part::new("survives", include_str!("devices/survives.sh")),
    Part::new("noting", include_str!("devices/noting.sh")).rare_in_pvh(),
    Part::new("drivers", include_str!("devices/drivers.sh")).rare_in_pvh(),
    Part::new("host", include_str!("devices/host.sh")).rare_in_pvh(),
    Part::new("soak", include_str!("devices/soak.sh")).rare_in_pvh(),
    Part::new("metal", include_str!("devices/metal.sh")),
    Part::new("villain", include_str!("devices/villain.sh")),
    Part::new("refusals", include_str!("devices/refusals.sh")),
    Part::new("rights", include_str!("devices/rights.sh")),
    Part::new("types", include_str!("devices/types.sh")).beside(Beside::MoreTypes),
    Part::new("hvm", include_str!("devices/hvm.sh")).beside(Beside::DeviceModel).rare_in_pvh(),
];

/// What devices answer to the hostile driver, as the tests on the model have it.
const ANSWERS: &str = include_str!("../../xen-virtio/src/devices/tests/answers.txt");
/// The same of devices on virtio-mmio.
const ANSWERS_MMIO: &str = include_str!("../../xen-virtio/src/devices/tests/answers_mmio.txt");
/// Rounds of random accesses of the hostile driver, which makes 1,000 in each. In a PVH dom0 each takes longer.
const ROUNDS: u32 = 4;
const MANY_ROUNDS: u32 = 1000;
const MANY_ROUNDS_PVH: u32 = MANY_ROUNDS / 30;
/// How often a guest unbinds its drivers, and in a PVH dom0, where each access to a register takes longer.
const REBINDS: u32 = 100;
const REBINDS_PVH: u32 = 20;
/// How many guests come and go.
const SOAKS: u32 = 12;
const MANY_SOAKS: u32 = 400;

/// What dom0 loads for its backends.
pub(crate) const MODULES: [&str; 2] = ["vhost_net", "tun"];
/// The same for more types of devices, and what drives these in a guest.
const MORE_MODULES: [&str; 3] = ["vhost_vsock", "vhost_scsi", "target_core_file"];
const MORE_DRIVERS: [&str; 3] = ["vmw_vsock_virtio_transport", "virtio_scsi", "sd_mod"];
/// vCPUs of the guest with every device. Two have a queue each, and vectors that move from one to the other.
const VCPUS: u32 = 2;
/// Linux gives the first two of eight a queue each too.
const MANY_VCPUS: u32 = 8;
/// Guests boot a stock kernel, each in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(900);
/// An HVM guest has the firmware and the devices of a PC to go through, and there is what takes long in a PVH dom0.
const SLOW_TIMEOUT: Duration = Duration::from_secs(1800);
/// A million accesses.
const LONG_TIMEOUT: Duration = Duration::from_secs(7200);

/// What is tested on each platform.
#[derive(Debug)]
pub struct Tests {
    x86: X86,
    arm: Option<arm::Tests>,
}

/// What goes into dom0 on x86.
#[derive(Debug)]
struct X86 {
    lab: Lab,
    module: Module,
    backends: Backends,
    device_model: DeviceModel,
    command: PathBuf,
    devices: PathBuf,
    guest: Vec<u8>,
    /// The guest without an operating system.
    metal: PathBuf,
    /// Tests that run in dom0, by their names.
    programs: [(&'static str, PathBuf); 2],
    modules: Modules,
    more: More,
    vcpus: u32,
    long: bool,
}

/// What goes into dom0 for more types of devices.
#[derive(Debug)]
struct More {
    modules: Modules,
    guest: Vec<u8>,
    /// A program that exchanges bytes by sockets.
    sockets: PathBuf,
}

impl More {
    fn prepare(lab: &Lab, modules: &Modules) -> Result<Self> {
        let sockets = build_static("xen-eventfd-guest-sockets", "sockets")?;
        Ok(Self {
            modules: Modules::of(lab, &MORE_MODULES)?.without(modules),
            guest: guest::image(lab, &MORE_DRIVERS, &[("sockets", &sockets)])?,
            sockets,
        })
    }
}

/// Carries it out.
///
/// # Errors
/// Something cannot be built, or no part has such a name.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { platform, ref names, .. } = *arguments;
    let vcpus = if arguments.many_vcpus { MANY_VCPUS } else { VCPUS };
    let x86 = match platform {
        Some(Platform::Arm64) => None,
        _ => Some(X86 { vcpus, ..X86::prepare(arguments.long)? }),
    };
    let arm = match platform {
        Some(Platform::Arm64) => Some(arm::Tests::prepare(arguments.long)?),
        None if arm::are_asked_for(names) => arm::Tests::prepare_if_possible(arguments.long)?,
        _ => None,
    };
    let mut boots = Boots::default();
    if let Some(x86) = &x86 {
        x86.add(&mut boots, (), platform, names);
    }
    if let Some(arm) = &arm {
        arm.add(&mut boots, (), names);
    }
    let mut tally = Tally::default();
    boots.run().into_iter().for_each(|done| tally += done.tally);
    ensure!(!tally.is_empty(), "no part is called anything like that");
    Ok(tally.exit())
}

impl Tests {
    /// Builds it. `long`: with many more accesses of the hostile driver.
    ///
    /// # Errors
    /// Something cannot be built.
    pub fn prepare(long: bool) -> Result<Self> {
        Ok(Self { x86: X86::prepare(long)?, arm: arm::Tests::prepare_if_possible(long)? })
    }

    /// Has all of it run on each platform.
    pub fn add<'a, G: Copy + Send>(&'a self, boots: &mut Boots<'a, G>, group: G) {
        self.x86.add(boots, group, None, &[]);
        if let Some(arm) = &self.arm {
            arm.add(boots, group, &[]);
        }
    }
}

impl X86 {
    fn prepare(long: bool) -> Result<Self> {
        let lab = Lab::prepare()?;
        let modules = Modules::of(&lab, &MODULES)?;
        Ok(Self {
            module: kmod::build(&lab, false)?,
            backends: Backends::prepare(lab.arch())?,
            device_model: DeviceModel::prepare()?,
            command: build_static("xen-eventfd-cli", "xen-eventfd")?,
            devices: build_static("xen-virtio", "xen-virtio")?,
            guest: guest::image(&lab, &[], &[])?,
            metal: build_guest("xen-eventfd-guest")?,
            more: More::prepare(&lab, &modules)?,
            modules,
            programs: [
                ("confinement", build_static_test("xen-virtio", "confinement")?),
                ("hostile_backend", build_static_test("xen-eventfd-vhost", "hostile_backend")?),
            ],
            vcpus: VCPUS,
            long,
            lab,
        })
    }

    /// Has the parts that are asked for run, in both kinds of dom0 if no platform is given.
    fn add<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        platform: Option<Platform>,
        names: &[String],
    ) {
        let kinds =
            platform.map_or_else(|| vec![Platform::X86Pvh, Platform::X86Pv], |one| vec![one]);
        for part in PARTS.iter().filter(|part| is_asked_for(part.name, names)) {
            let is_left_out =
                |kind| part.rare_in_pvh && names.is_empty() && kind == Platform::X86Pvh;
            for kind in kinds.iter().copied().filter(|kind| !is_left_out(*kind)) {
                let place = format!("{}, {}", place(kind, 1), part.name);
                boots.add(group, place.clone(), (kind, 1), move || self.play(kind, part, &place));
            }
        }
    }

    fn play(&self, kind: Platform, part: &Part, place: &str) -> Result<Tally> {
        let boot = Boot::new(kind).name(format!("devices-{}-{}", part.name, kind.name()));
        let boot = self
            .backends
            .put(self.module.put(boot))?
            .payload("bin/xen-eventfd", &self.command)
            .payload("bin/xen-virtio", &self.devices)
            .payload("lab/vmlinuz", self.lab.kernel())
            .payload("lab/metal", &self.metal)
            .payload_bytes("lab/trouble", 0o644, TROUBLE)
            .payload_bytes("lab/answers", 0o644, ANSWERS)
            .payload_bytes("lab/script", 0o644, format!("{SHARED}{}", part.script));
        let more = (part.beside == Beside::MoreTypes).then_some(&self.more);
        let guest = more.map_or(&self.guest, |more| &more.guest);
        let boot = self.backends.put_noting(&self.lab, self.modules.put(boot))?;
        let mut boot = boot.payload_bytes("lab/guest.cpio", 0o644, guest.as_slice());
        if let Some(more) = more {
            boot = more.modules.put(self.backends.put_more(boot)?);
            boot = boot.payload("bin/sockets", &more.sockets);
        }
        if part.is_hvm() {
            // The device model with its libraries is in dom0's memory, packed and unpacked.
            boot = self.device_model.put(&self.lab, boot)?.memory(3072).dom0_memory(1536);
        }
        for (name, program) in &self.programs {
            boot = boot.payload(format!("bin/{name}"), program);
        }
        let (mut machine, log) = kmod::start(&self.lab, boot, true)?;
        self.modules.load(&mut machine)?;
        if let Some(more) = more {
            more.modules.load(&mut machine)?;
        }
        let mut tally = Tally::default();
        let rounds = match kind {
            _ if !self.long => ROUNDS,
            Platform::X86Pvh => MANY_ROUNDS_PVH,
            _ => MANY_ROUNDS,
        };
        let rebinds = match kind {
            Platform::X86Pvh if !self.long => REBINDS_PVH,
            _ => REBINDS,
        };
        let soaks = if self.long { MANY_SOAKS } else { SOAKS };
        let command =
            format!("LOG_MARK='{MARK}' sh /lab/script {} {rounds} {rebinds} {soaks}", self.vcpus);
        let is_slow = part.is_hvm() || (part.rare_in_pvh && kind == Platform::X86Pvh);
        let timeout = match (self.long, is_slow) {
            (true, _) => LONG_TIMEOUT,
            (false, true) => SLOW_TIMEOUT,
            (false, false) => TIMEOUT,
        };
        let status = machine.run_with(&command, timeout, |line| tally.receive(place, line))?;
        ensure!(!tally.is_empty(), "{place}: no test was run; status {status}");
        tally.end(place, status);
        if tally.failed > 0 {
            println!("{}", machine.report("the consoles:"));
        }
        kmod::finish(machine, log, place, &mut tally)?;
        Ok(tally)
    }
}
