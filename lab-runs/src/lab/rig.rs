//! What the long runs share: what goes into dom0, where they are made, and what is kept of them.

use crate::boots::{Boots, place};
use crate::kmod::{self, Module};
use crate::lab::Engine;
use crate::tally::Tally;
use anyhow::{Context, Result};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use xen_eventfd_lab::{Arch, Boot, Lab, Platform, build_guest_for, build_static_for};

/// The programs of the scenarios.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) player: PathBuf,
    /// What reaps after an engine that is killed.
    command: PathBuf,
    guest: PathBuf,
}

impl Programs {
    pub(super) fn build(arch: Arch) -> Result<Self> {
        Ok(Self {
            player: build_static_for(arch, "xen-eventfd-scenarios", "scenarios")?,
            command: build_static_for(arch, "xen-eventfd-cli", "xen-eventfd")?,
            guest: build_guest_for(arch, "xen-eventfd-guest")?,
        })
    }

    pub(super) fn put(&self, boot: Boot) -> Boot {
        boot.payload("bin/scenarios", &self.player)
            .payload("bin/xen-eventfd", &self.command)
            .payload("lab/guest", &self.guest)
    }
}

/// How long accesses of a guest that means harm may take: ten times what they do.
pub(crate) fn patience(accesses: u64) -> Result<Duration> {
    const EACH: Duration = Duration::from_millis(10);
    Ok(EACH.saturating_mul(u32::try_from(accesses)?))
}

/// What goes into dom0.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    module: Module,
    programs: Programs,
}

impl Rig {
    pub(crate) fn build(platform: Platform) -> Result<Self> {
        let lab = Lab::prepare_for(platform)?;
        Ok(Self { module: kmod::build(&lab, false)?, programs: Programs::build(lab.arch())?, lab })
    }

    /// A machine, before anything is loaded.
    pub(crate) fn boot(&self, platform: Platform, cpus: u32, name: &str) -> Boot {
        self.module.put(self.programs.put(Boot::new(platform).cpus(cpus).name(name)))
    }

    /// What a page was made with.
    pub(crate) fn made_with(&self) -> String {
        made_with(self.lab.arch(), &versions(&self.lab))
    }
}

/// Xen, Linux and QEMU: package and version.
pub(crate) fn versions(lab: &Lab) -> BTreeMap<String, String> {
    let named = ["xen-hypervisor", "linux-binary"];
    let packages = lab.manifest().packages.iter();
    let named = packages.filter(|p| named.iter().any(|begin| p.name.starts_with(begin)));
    let named = named.map(|package| (package.name.clone(), package.version.clone()));
    let (emulator, version) = lab.emulator();
    named.chain([(emulator.to_owned(), version.to_owned())]).collect()
}

/// Fails unless a page has these parts, and what every page of an architecture has of the machine.
#[cfg(test)]
pub(crate) fn check_page(arch: Arch, page: &str, parts: &[&str]) {
    let parts = parts.iter().copied().chain([machine(arch)]);
    for part in parts {
        assert!(page.contains(part), "the page has not:\n{part}");
    }
}

/// A page's words for these.
pub(crate) fn made_with(arch: Arch, versions: &BTreeMap<String, String>) -> String {
    let rows = versions.iter().map(|(package, version)| format!("| {package} | {version} |\n"));
    format!("| package | version |\n|---|---|\n{}\n{}\n", rows.collect::<String>(), machine(arch))
}

/// What the versions do not say.
fn machine(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => {
            "QEMU is built from that package's source with the patches in `lab/src/emulator/patches`. Which processor \
             it emulates, and what Xen gets of it, is in `lab/src/arch.rs`."
        }
        Arch::Arm64 => {
            "QEMU is that package's. Xen is not: it is built with ioreq servers, which Debian leaves out on Arm, from \
             the package's source or from upstream's release 4.20.4 (`XEN_EVENTFD_XEN_SOURCE`). Which processor QEMU \
             emulates, and what Xen gets of it and is built with, is in `lab/src/arch.rs`."
        }
    }
}

const ENGINES: [Engine; 2] = [Engine::Userspace, Engine::Kernel];

/// Where a long run is made.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// The platform: x86-pv, x86-pvh or arm64; those of x86 if not given
    #[arg(long, value_parser = Platform::parse)]
    platform: Option<Platform>,
    /// The engine; userspace and kernel if not given
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

impl Places {
    /// The platforms that were asked for.
    pub(crate) fn platforms(&self) -> Vec<Platform> {
        self.platform.map_or_else(|| Platform::X86.to_vec(), |platform| vec![platform])
    }

    /// What goes into their dom0: they are of one architecture.
    pub(crate) fn rig(&self) -> Result<Rig> {
        Rig::build(self.platform.unwrap_or(Platform::X86Pv))
    }

    /// Runs in each, as many at once as there are CPUs for; the first argument is the place's name.
    pub(crate) fn run(
        &self,
        cpus: u32,
        work: impl Fn(&str, Platform, Engine) -> Result<Tally> + Sync,
    ) -> Tally {
        let engines = self.engine.map_or_else(|| ENGINES.to_vec(), |one| vec![one]);
        let mut boots = Boots::default();
        for platform in self.platforms() {
            for engine in engines.iter().copied() {
                let name = format!("{}, {} engine", place(platform, cpus), engine.name());
                let work = &work;
                boots
                    .add((), name.clone(), (platform, cpus), move || work(&name, platform, engine));
            }
        }
        let mut tally = Tally::default();
        boots.run().into_iter().for_each(|done| tally += done.tally);
        tally
    }
}

/// Where one of the long runs keeps what it last found in each place.
pub(crate) struct Kept(pub(crate) &'static str);

impl Kept {
    fn path(&self, platform: Platform, engine: Engine) -> PathBuf {
        let file = format!("{}-{}.json", platform.name(), engine.name());
        xen_eventfd_lab::target_folder().join(self.0).join(file)
    }

    pub(crate) fn save(
        &self,
        platform: Platform,
        engine: Engine,
        found: &impl Serialize,
    ) -> Result<()> {
        let path = self.path(platform, engine);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(&path, serde_json::to_string(found)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// What was found last in each place of an architecture; `None` while one is missing.
    pub(crate) fn all<T: DeserializeOwned>(
        &self,
        arch: Arch,
    ) -> Result<Option<Vec<(Platform, Engine, T)>>> {
        let mut all = Vec::new();
        for platform in Platform::ALL.into_iter().filter(|one| one.arch() == arch) {
            for engine in ENGINES {
                let Ok(text) = fs::read_to_string(self.path(platform, engine)) else {
                    return Ok(None);
                };
                all.push((platform, engine, serde_json::from_str(&text)?));
            }
        }
        Ok(Some(all))
    }
}
