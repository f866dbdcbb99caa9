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
        for platform in Platform::of(arch) {
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
