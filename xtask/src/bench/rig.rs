//! The machine that is measured on: everything built, and one boot.

use crate::kmod::{self, Module};
use crate::upstream::Upstream;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_bench::{Case, Measured};
use xen_eventfd_lab::{
    Boot, Dom0, KernelBuild, Lab, build_guest, build_static, target_folder, workspace,
};

/// How long one boot's measurements may take.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// All that goes into dom0.
#[derive(Debug)]
pub(super) struct Rig {
    lab: Lab,
    module: Module,
    upstream: Upstream,
    floor: PathBuf,
    vmm: PathBuf,
    bench: PathBuf,
    guest: PathBuf,
}

impl Rig {
    pub(super) fn build() -> Result<Self> {
        let lab = Lab::prepare()?;
        let kernel = lab.kernel_build()?;
        let (module, upstream) = (kmod::build(&lab, false)?, Upstream::build(&kernel)?);
        let programs = target_folder().join("lab-bench").join(kernel.release());
        kernel.make_programs(workspace(), "bench/vmm", &programs)?;
        Ok(Self {
            module,
            upstream,
            floor: floor(&kernel)?,
            vmm: programs.join("bench-vmm"),
            bench: build_static("xen-eventfd-bench", "bench")?,
            guest: build_guest("xen-eventfd-guest")?,
            lab,
        })
    }

    /// What is measured with: packages and their versions.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        let told = ["xen-hypervisor", "linux-binary", "qemu-system-x86"];
        let packages = self.lab.manifest().packages.iter();
        let told = packages.filter(|p| told.iter().any(|begin| p.name.starts_with(begin)));
        told.map(|package| (package.name.clone(), package.version.clone())).collect()
    }

    /// One boot.
    pub(super) fn measure(&self, dom0: Dom0, cases: &[Case]) -> Result<Vec<Measured>> {
        let mut boot = Boot::new(dom0)
            .deterministic()
            .timeout(Duration::from_secs(600))
            .name(format!("bench-{}", dom0.name()))
            .payload("bin/bench", &self.bench)
            .payload("bin/bench-vmm", &self.vmm)
            .payload("lab/guest", &self.guest)
            .payload("lib/modules/floor.ko", &self.floor)
            .payload_bytes("lab/cases", 0o644, serde_json::to_vec(cases)?);
        boot = self.module.put(boot);
        if dom0 == Dom0::Pvh {
            boot = self.upstream.put(boot);
        }
        let script = "insmod /lib/modules/xen-eventfd.ko && insmod /lib/modules/floor.ko && \
                      bench run /lab/cases";
        let mut measured = Vec::new();
        let outcome = self.lab.run(boot, script, TIMEOUT, |line| match Measured::parse(line) {
            Some(one) => {
                eprintln!("{}: {} of {}", dom0.name(), measured.len() + 1, cases.len());
                println!("{line}");
                measured.push(one);
            }
            None => eprintln!("{}: {line}", dom0.name()),
        })?;
        ensure!(outcome.output.success(), "{}", outcome.report);
        ensure!(measured.len() == cases.len(), "{} cases have no figures", cases.len());
        Ok(measured)
    }
}

/// Builds the module `kernel/tests/floor`.
fn floor(kernel: &KernelBuild) -> Result<PathBuf> {
    let output = target_folder().join("floor").join(kernel.release());
    kernel.make(workspace(), "kernel/tests/floor", &output, &[])?;
    let path = output.join("xen-eventfd-floor.ko");
    ensure!(path.exists(), "{}: make succeeded, yet it is not there", path.display());
    Ok(path)
}
