//! The machine that is measured on: everything built, and one boot.

use super::blocks::Names;
use crate::kmod::{self, Module};
use crate::lab::rig;
use crate::upstream::Upstream;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use xen_eventfd_bench::{Case, Measured};
use xen_eventfd_lab::{
    Arch, Boot, KernelBuild, Lab, Outcome, Platform, build_guest_for, build_static_for,
    target_folder, workspace,
};

/// How long one boot's measurements may take.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// Loads what is measured.
fn loading() -> String {
    format!("{} && insmod /lib/modules/floor.ko", kmod::loading())
}

/// Lets dom0's kernel come to rest. On Arm it checks keys (RSA) after its boot, for longer than the first cases take;
/// an idle machine's time costs nothing.
pub(super) fn settling(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "true",
        Arch::Arm64 => "sleep 30",
    }
}

/// What a line begins with that has a function of one of the modules in dom0's kernel, as an address, a name and the module.
pub(super) const FUNCTION: &str = "function ";

/// Prints these lines. Where modules lie depends on the contents of dom0's image on Arm, so another machine, which asks
/// for the functions of the kernel and of Xen, cannot tell.
pub(super) fn naming() -> String {
    format!(
        "awk 'NF > 3 && $2 ~ /[tTwW]/ && $3 !~ /^[$]/ {{print \"{FUNCTION}\" $1, $3, $4}}' /proc/kallsyms"
    )
}

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
    /// For the dom0s of a platform's architecture; `in_upcall`: with the module that is only there to compare.
    pub(super) fn build(platform: Platform, in_upcall: bool) -> Result<Self> {
        let lab = Lab::prepare_for(platform)?;
        let kernel = lab.kernel_build()?;
        let module =
            if in_upcall { kmod::build_to_compare(&lab)? } else { kmod::build(&lab, false)? };
        let upstream = Upstream::build(&kernel)?;
        let programs = target_folder().join("lab-bench").join(kernel.release());
        let arch = lab.arch();
        kernel.make_programs(arch, workspace(), "bench/vmm", &programs)?;
        Ok(Self {
            module,
            upstream,
            floor: floor(&kernel)?,
            vmm: programs.join("bench-vmm"),
            bench: build_static_for(arch, "xen-eventfd-bench", "bench")?,
            guest: build_guest_for(arch, "xen-eventfd-guest")?,
            lab,
        })
    }

    /// Whether such a dom0 runs in it.
    pub(super) fn serves(&self, platform: Platform) -> bool {
        platform.arch() == self.lab.arch()
    }

    /// What is measured with: packages and their versions.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        rig::versions(&self.lab)
    }

    /// One boot.
    pub(super) fn measure(&self, platform: Platform, cases: &[Case]) -> Result<Vec<Measured>> {
        let boot = self.boot(platform, "bench");
        self.measure_on(boot, "true", platform, cases).map(|(measured, _)| measured)
    }

    /// The machine, before anything is loaded or measured.
    fn boot(&self, platform: Platform, name: &str) -> Boot {
        let boot = Boot::new(platform)
            .deterministic()
            .timeout(Duration::from_secs(900))
            .name(format!("{name}-{}", platform.name()))
            .payload("bin/bench", &self.bench)
            .payload("bin/bench-vmm", &self.vmm)
            .payload("lab/guest", &self.guest)
            .payload("lib/modules/floor.ko", &self.floor);
        let boot = self.module.put(boot);
        if Upstream::runs_on(platform) { self.upstream.put(boot) } else { boot }
    }

    fn measure_on(
        &self,
        boot: Boot,
        first: &str,
        platform: Platform,
        cases: &[Case],
    ) -> Result<(Vec<Measured>, Outcome)> {
        let boot = boot.payload_bytes("lab/cases", 0o644, serde_json::to_vec(cases)?);
        // What guests put down is long, and all of it is in the figures.
        let script = format!(
            "{} && {first} && {} && bench run /lab/cases && rm -f /var/log/xen/console/guest-*",
            loading(),
            settling(platform.arch()),
        );
        let mut measured = Vec::new();
        let outcome = self.lab.run(boot, &script, TIMEOUT, |line| match Measured::parse(line) {
            Some(one) => {
                println!("{}: {line}", platform.name());
                measured.push(one);
                eprintln!("{}: {} of {}", platform.name(), measured.len(), cases.len());
            }
            None if line.starts_with(FUNCTION) => {}
            None => eprintln!("{}: {line}", platform.name()),
        })?;
        let (all, wanted) = (measured.len(), cases.len());
        ensure!(all == wanted, "{all} of {wanted} cases were measured: {}", outcome.report);
        Ok((measured, outcome))
    }

    /// One boot whose instructions are counted: for each case, what the plug-in counts of its blocks, and the functions
    /// of dom0's modules.
    pub(super) fn profile(&self, platform: Platform, cases: &[Case]) -> Result<(String, Names)> {
        let plugin = format!("file={},out=blocks", profiler()?.display());
        let boot = self.boot(platform, "profile").qemu_argument("-plugin").qemu_argument(plugin);
        let (_, outcome) = self.measure_on(boot, &naming(), platform, cases)?;
        let path = outcome.folder.join("blocks");
        let blocks = std::fs::read_to_string(&path);
        let blocks = blocks.with_context(|| format!("reading {}", path.display()))?;
        Ok((blocks, named(&outcome)?))
    }

    /// The functions of Xen and of dom0's kernel that these addresses are in.
    pub(super) fn symbols(
        &self,
        platform: Platform,
        addresses: impl IntoIterator<Item = u64>,
    ) -> Result<Names> {
        symbols(&self.lab, self.boot(platform, "symbols"), &loading(), addresses)
    }
}

/// What [`naming`] has printed.
pub(super) fn named(outcome: &Outcome) -> Result<Names> {
    let lines = outcome.output.lines.iter().filter_map(|line| line.strip_prefix(FUNCTION));
    let modules = Names::parse(lines);
    ensure!(!modules.is_empty(), "dom0's kernel names no function of its modules");
    Ok(modules)
}

/// The functions of Xen and of dom0's kernel that these addresses are in, once its modules are loaded as in the
/// machine that was measured.
pub(super) fn symbols(
    lab: &Lab,
    boot: Boot,
    loading: &str,
    addresses: impl IntoIterator<Item = u64>,
) -> Result<Names> {
    let addresses: BTreeSet<u64> = addresses.into_iter().collect();
    let questions: String = addresses.iter().map(|address| format!("{address:016x} ~\n")).collect();
    let boot = boot.payload_bytes("lab/questions", 0o644, questions);
    // A question is the last of the lines with its address, and its answer the symbol before, but for those by which an
    // Arm compiler tells code from data. Of questions with the same answer, the first is answered. Xen names its
    // functions on x86 alone.
    let script = format!(
        "{loading} && {{ cat /lab/questions; \
         awk '$3 !~ /^[$]/ {{print $1, $3, $4}}' /proc/kallsyms /proc/xen/xensyms; }} | LC_ALL=C sort | \
         awk '$2 == \"~\" {{if (last != said) print $1, last; said = last; next}} {{last = $2 \" \" $3}}'"
    );
    let outcome = lab.run(boot, &script, TIMEOUT, |_| {})?;
    ensure!(outcome.output.success(), "{}", outcome.report);
    Ok(Names::parse(outcome.output.lines.iter().map(String::as_str)))
}

/// Builds the plug-in for QEMU that counts.
pub(super) fn profiler() -> Result<PathBuf> {
    let path = target_folder().join("bench/profiler.so");
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    let source = workspace().join("bench/profiler/profiler.c");
    let status = Command::new("gcc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&path)
        .arg(&source)
        .status()
        .context("gcc could not be started")?;
    ensure!(status.success(), "{} could not be built", source.display());
    Ok(path)
}

/// Builds the module `kernel/tests/floor`.
pub(super) fn floor(kernel: &KernelBuild) -> Result<PathBuf> {
    let output = target_folder().join("floor").join(kernel.release());
    kernel.make(workspace(), "kernel/tests/floor", &output, &[])?;
    let path = output.join("xen-eventfd-floor.ko");
    ensure!(path.exists(), "{}: make succeeded, yet it is not there", path.display());
    Ok(path)
}
