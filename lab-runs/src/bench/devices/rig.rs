//! The machine that devices are measured on.

use crate::bench::blocks::{self, Counted, Names};
use crate::bench::rig;
use crate::devices::{MODULES, SHARED, guest};
use crate::kmod::{self, Module};
use crate::lab;
use crate::modules::Modules;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_bench::devices::{Load, Measured, Server};
use xen_eventfd_lab::{Backends, Boot, Lab, Platform, build_static_for};

/// What dom0 loads for Xen's own devices.
const BACKENDS: [&str; 3] = ["xen_netback", "xen_blkback", "null_blk"];
/// What drives them in the guest.
const FRONTENDS: [&str; 2] = ["xen_netfront", "xen_blkfront"];
/// Of one boot. dom0's time is the machine's.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// All that goes into dom0.
#[derive(Debug)]
pub(super) struct Rig {
    lab: Lab,
    module: Module,
    modules: Modules,
    backends: Backends,
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
            modules: Modules::of(&lab, &[&BACKENDS[..], &MODULES].concat())?,
            backends: Backends::prepare(lab.arch())?,
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

    fn boot(&self, platform: Platform, name: &str) -> Result<Boot> {
        let boot = Boot::new(platform)
            .deterministic()
            .timeout(Duration::from_secs(900))
            .name(format!("{name}-{}", platform.name()))
            .payload("bin/xen-eventfd", &self.command)
            .payload("bin/xen-virtio", &self.devices)
            .payload("bin/bench-devices", &self.bench)
            .payload("lab/vmlinuz", self.lab.kernel())
            .payload_bytes("lab/guest.cpio", 0o644, self.guest.as_slice());
        Ok(self.modules.put(self.module.put(self.backends.put(boot)?)))
    }

    fn loading(&self) -> String {
        format!("{} && {}", kmod::loading(), self.modules.loading())
    }

    /// One boot: what programs have measured, what the plug-in has counted of each load meanwhile, and the functions of
    /// dom0's modules.
    pub(super) fn measure(
        &self,
        platform: Platform,
    ) -> Result<(Vec<Measured>, Vec<Counted>, Names)> {
        let plugin = format!("file={},out=blocks", rig::profiler()?.display());
        let script = format!("{SHARED}{}", include_str!("measure.sh"));
        let boot = self.boot(platform, "bench-devices")?;
        let boot = boot.qemu_argument("-plugin").qemu_argument(plugin);
        let boot = boot.payload_bytes("lab/measure", 0o644, script);
        let mut measured = Vec::new();
        let script = format!(
            "{} && {} && {} && sh /lab/measure",
            self.loading(),
            rig::naming(),
            rig::settling(platform.arch())
        );
        let outcome = self.lab.run(boot, &script, TIMEOUT, |line| {
            if !line.starts_with(rig::FUNCTION) {
                println!("{}: {line}", platform.name());
                measured.extend(Measured::parse(line));
            }
        })?;
        ensure!(outcome.output.success(), "{}", outcome.report);
        let wanted = Server::ALL.len() * (1 + Load::ALL.len());
        ensure!(measured.len() == wanted, "{} of {wanted} were measured", measured.len());
        let path = outcome.folder.join("blocks");
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((measured, blocks::parse(&text)?, rig::named(&outcome)?))
    }

    /// The functions of Xen and of dom0's kernel that these addresses are in.
    pub(super) fn symbols(
        &self,
        platform: Platform,
        addresses: impl IntoIterator<Item = u64>,
    ) -> Result<Names> {
        let boot = self.boot(platform, "symbols")?;
        rig::symbols(&self.lab, boot, &self.loading(), addresses)
    }
}
