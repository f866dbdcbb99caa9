//! Arm guests, which have their devices on virtio-mmio, where libxl has put them.

use super::{
    ANSWERS_MMIO, LONG_TIMEOUT, MANY_ROUNDS, MANY_SOAKS, MODULES, REBINDS, ROUNDS, SHARED, SOAKS,
    VCPUS, guest,
};
use crate::boots::{Boots, place};
use crate::is_asked_for;
use crate::kmod::kernel_log::{MARK, TROUBLE};
use crate::kmod::{self, Module, kernel_log};
use crate::lab::unless_no_source;
use crate::modules::Modules;
use crate::tally::Tally;
use anyhow::{Result, ensure};
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_lab::{Backends, Boot, Lab, Platform, build_guest_for, build_static_for};

const PLATFORM: Platform = Platform::Arm64;

/// What one machine tests.
struct Part {
    name: &'static str,
    script: &'static str,
    /// With the kernel module, and what dom0's own backends need.
    has_module: bool,
    /// It runs only if it is named, as it takes long.
    is_rare: bool,
    /// Of its guest, where the script has that as a parameter.
    vcpus: u32,
}

impl Part {
    /// With the module.
    const fn new(name: &'static str, script: &'static str) -> Self {
        Self { name, script, has_module: true, is_rare: false, vcpus: 1 }
    }

    fn is_asked_for(&self, names: &[String]) -> bool {
        is_asked_for(self.name, names) && !(self.is_rare && names.is_empty())
    }
}

const PARTS: [Part; 9] = [
    Part { has_module: false, ..Part::new("mmio", include_str!("mmio.sh")) },
    Part::new("mmio_all", include_str!("mmio_all.sh")),
    Part::new("mmio_root", include_str!("mmio_root.sh")),
    Part::new("daemon", include_str!("daemon.sh")),
    Part { vcpus: VCPUS, ..Part::new("drivers", include_str!("drivers.sh")) },
    Part::new("host", include_str!("host.sh")),
    Part { is_rare: true, ..Part::new("soak", include_str!("soak.sh")) },
    Part::new("metal", include_str!("metal.sh")),
    Part::new("villain", include_str!("villain.sh")),
];

/// Guests boot a stock kernel, each in an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(900);

/// What goes into dom0.
#[derive(Debug)]
pub(super) struct Tests {
    lab: Lab,
    module: Module,
    modules: Modules,
    backends: Backends,
    command: PathBuf,
    devices: PathBuf,
    guest: Vec<u8>,
    /// The guest without an operating system.
    metal: PathBuf,
    long: bool,
}

/// Whether one of the parts is asked for.
pub(super) fn are_asked_for(names: &[String]) -> bool {
    PARTS.iter().any(|part| part.is_asked_for(names))
}

impl Tests {
    /// Builds it, unless the mirror lacks the source of Xen, which is built for Arm.
    pub(super) fn prepare_if_possible(long: bool) -> Result<Option<Self>> {
        unless_no_source(PLATFORM, Self::prepare(long))
    }

    /// `long`: with many more accesses of the hostile driver, and guests that come and go.
    pub(super) fn prepare(long: bool) -> Result<Self> {
        let lab = Lab::prepare_for(PLATFORM)?;
        let build = |package, binary| build_static_for(lab.arch(), package, binary);
        Ok(Self {
            module: kmod::build(&lab, false)?,
            modules: Modules::of(&lab, &MODULES)?,
            backends: Backends::prepare(lab.arch())?,
            command: build("xen-eventfd-cli", "xen-eventfd")?,
            devices: build("xen-virtio", "xen-virtio")?,
            guest: guest::image(&lab, guest::transport(lab.arch()), &[])?,
            metal: build_guest_for(lab.arch(), "xen-eventfd-guest")?,
            long,
            lab,
        })
    }

    /// Has the parts that are asked for run.
    pub(super) fn add<'a, G: Copy + Send>(
        &'a self,
        boots: &mut Boots<'a, G>,
        group: G,
        names: &[String],
    ) {
        for part in PARTS.iter().filter(|part| part.is_asked_for(names)) {
            let place = format!("{}, {}", place(PLATFORM, 1), part.name);
            boots.add(group, place.clone(), (PLATFORM, 1), move || self.play(part, &place));
        }
    }

    fn play(&self, part: &Part, place: &str) -> Result<Tally> {
        let Part { name, script, has_module, vcpus, .. } = *part;
        let boot = Boot::new(PLATFORM).name(format!("devices-{name}-{PLATFORM}"));
        let boot = self
            .backends
            .put(boot)?
            .payload("bin/xen-eventfd", &self.command)
            .payload("bin/xen-virtio", &self.devices)
            .payload("lab/vmlinuz", self.lab.kernel())
            .payload_bytes("lab/guest.cpio", 0o644, self.guest.as_slice())
            .payload("lab/metal", &self.metal)
            .payload_bytes("lab/trouble", 0o644, TROUBLE)
            .payload_bytes("lab/answers", 0o644, ANSWERS_MMIO)
            .payload_bytes("lab/script", 0o644, format!("{SHARED}{script}"));
        let boot = match has_module {
            true => self.backends.put_network(self.modules.put(self.module.put(boot))),
            false => boot,
        };
        let (mut machine, log) = kmod::start(&self.lab, boot, has_module)?;
        if has_module {
            self.modules.load(&mut machine)?;
        }
        let mut tally = Tally::default();
        let (rounds, soaks, timeout) = match self.long {
            true => (MANY_ROUNDS, MANY_SOAKS, LONG_TIMEOUT),
            false => (ROUNDS, SOAKS, TIMEOUT),
        };
        let command =
            format!("LOG_MARK='{MARK}' sh /lab/script {vcpus} {rounds} {REBINDS} {soaks}");
        let status = machine.run_with(&command, timeout, |line| tally.receive(place, line))?;
        ensure!(!tally.is_empty(), "{place}: no test was run; status {status}");
        tally.end(place, status);
        if tally.failed > 0 {
            println!("{}", machine.report("the consoles:"));
        }
        if has_module {
            tally.judge(place, "module_goes", kmod::unload(&mut machine));
        }
        tally.judge(place, "kernel_log", log.end(&mut machine).map(drop));
        tally.judge(place, "xen_log", kernel_log::of_xen(&machine));
        machine.finish()?;
        Ok(tally)
    }
}
