//! The machine that devices are measured on.

use super::sets::Set;
use crate::bench::blocks::{self, Counted, Names};
use crate::bench::rig;
use crate::devices::{MODULES, SHARED, guest};
use crate::kmod::{self, Module};
use crate::lab;
use crate::modules::Modules;
use anyhow::{Context, Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_bench::devices::Measured;
use xen_eventfd_lab::{Arch, Backends, Boot, DeviceModel, Lab, Platform, build_static_for};

/// What dom0 loads for Xen's own devices.
const BACKENDS: [&str; 3] = ["xen_netback", "xen_blkback", "null_blk"];
/// What it loads for a SCSI disk by vhost-scsi.
const TARGET: [&str; 2] = ["vhost_scsi", "target_core_iblock"];
/// What drives them in the guest.
const FRONTENDS: [&str; 4] = ["xen_netfront", "xen_blkfront", "virtio_scsi", "sd_mod"];
/// Of one boot. dom0's time is the machine's.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// All that goes into dom0.
#[derive(Debug)]
pub(super) struct Rig {
    lab: Lab,
    module: Module,
    modules: Modules,
    backends: Backends,
    /// On x86, where there are HVM guests.
    device_model: Option<DeviceModel>,
    /// `xen-virtio` wants it, to reap after a crash.
    command: PathBuf,
    devices: PathBuf,
    bench: PathBuf,
    guest: Vec<u8>,
}

impl Rig {
    /// For the dom0s of a platform's architecture.
    pub(super) fn build(platform: Platform) -> Result<Self> {
        let lab = Lab::prepare_for(platform)?;
        let build = |package, binary| build_static_for(lab.arch(), package, binary);
        let bench = build("xen-eventfd-bench", "bench-devices")?;
        let drivers = [&FRONTENDS[..], guest::transport(lab.arch())].concat();
        Ok(Self {
            module: kmod::build(&lab, false)?,
            modules: Modules::of(&lab, &[&BACKENDS[..], &MODULES, &TARGET].concat())?,
            backends: Backends::prepare(lab.arch())?,
            device_model: (lab.arch() == Arch::X86_64).then(DeviceModel::prepare).transpose()?,
            command: build("xen-eventfd-cli", "xen-eventfd")?,
            devices: build("xen-virtio", "xen-virtio")?,
            guest: guest::image(&lab, &drivers, &[("bench-devices", &bench)])?,
            bench,
            lab,
        })
    }

    /// Whether such a dom0 runs in it.
    pub(super) fn serves(&self, platform: Platform) -> bool {
        platform.arch() == self.lab.arch()
    }

    /// What is measured with: packages and their versions.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        lab::rig::versions(&self.lab)
    }

    /// The machine of these sets, before anything is loaded or measured.
    fn boot(&self, platform: Platform, sets: &[&Set], name: &str) -> Result<Boot> {
        let boot = Boot::new(platform)
            .deterministic()
            .timeout(Duration::from_secs(900))
            .name(format!("{name}-{}", platform.name()))
            .payload("bin/xen-eventfd", &self.command)
            .payload("bin/xen-virtio", &self.devices)
            .payload("bin/bench-devices", &self.bench)
            .payload("lab/vmlinuz", self.lab.kernel())
            .payload_bytes("lab/guest.cpio", 0o644, self.guest.as_slice());
        let boot = self.modules.put(self.module.put(self.backends.put(boot)?));
        match &self.device_model {
            // With its libraries it is in dom0's memory, packed and unpacked.
            Some(model) if sets.iter().any(|set| set.is_hvm) => {
                Ok(model.put(&self.lab, boot)?.memory(3072).dom0_memory(1536))
            }
            _ => Ok(boot),
        }
    }

    fn loading(&self) -> String {
        format!("{} && {}", kmod::loading(), self.modules.loading())
    }

    /// One boot, in which these sets are measured one after the other.
    pub(super) fn measure(&self, platform: Platform, sets: &[&Set]) -> Result<Run> {
        let plugin = format!("file={},out=blocks", rig::profiler()?.display());
        let boot = self.boot(platform, sets, "bench-devices")?;
        let mut boot = boot.qemu_argument("-plugin").qemu_argument(plugin);
        for set in sets {
            let script = format!("{SHARED}{}{}", include_str!("measure.sh"), set.script);
            boot = boot.payload_bytes(format!("lab/{}", set.name), 0o644, script);
        }
        let mut measured = Vec::new();
        let names: Vec<_> = sets.iter().map(|set| set.name).collect();
        let script = format!(
            "{} && {} && {} && failed= && for set in {}; do sh /lab/$set || failed=\"$failed $set\"; done && [ -z \"$failed\" ]",
            self.loading(),
            rig::naming(),
            rig::settling(platform.arch()),
            names.join(" ")
        );
        let outcome = self.lab.run(boot, &script, TIMEOUT, |line| {
            if !line.starts_with(rig::FUNCTION) {
                println!("{}: {line}", platform.name());
                measured.extend(Measured::parse(line));
            }
        })?;
        let path = outcome.folder.join("blocks");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let (counted, modules) = (blocks::parse(&text)?, rig::named(&outcome)?);
        let failure = (!outcome.output.success()).then(|| Error::msg(outcome.report));
        Ok(Run { measured, counted, modules, failure })
    }

    /// The functions of Xen and of dom0's kernel that these addresses are in, in the machine of these sets.
    pub(super) fn symbols(
        &self,
        platform: Platform,
        sets: &[&Set],
        addresses: impl IntoIterator<Item = u64>,
    ) -> Result<Names> {
        let boot = self.boot(platform, sets, "symbols")?;
        rig::symbols(&self.lab, boot, &self.loading(), addresses)
    }
}

/// What one boot has measured.
#[derive(Debug)]
pub(super) struct Run {
    /// What programs have measured.
    pub(super) measured: Vec<Measured>,
    /// What the plug-in has counted of each load meanwhile.
    pub(super) counted: Vec<Counted>,
    /// The functions of dom0's modules.
    pub(super) modules: Names,
    /// Why not all sets were measured.
    pub(super) failure: Option<Error>,
}
