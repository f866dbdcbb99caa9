//! What the long runs need: the lab, the module and the programs, and a machine with all of it.

use crate::kmod::{self, Module};
use crate::lab::Engine;
use anyhow::{Context, Result};
use std::path::PathBuf;
use xen_eventfd_lab::{Boot, Dom0, Lab, build_guest, build_static};

/// What goes into dom0.
pub(crate) struct Rig {
    pub(crate) lab: Lab,
    module: Module,
    player: PathBuf,
    /// Whoever reaps after an engine that is killed.
    command: PathBuf,
    guest: PathBuf,
}

impl Rig {
    pub(crate) fn build() -> Result<Self> {
        let lab = Lab::prepare()?;
        Ok(Self {
            module: kmod::build(&lab, false)?,
            player: build_static("xen-eventfd-scenarios", "scenarios")?,
            command: build_static("xen-eventfd-cli", "xen-eventfd")?,
            guest: build_guest("xen-eventfd-guest")?,
            lab,
        })
    }

    /// A machine, before anything is loaded.
    pub(crate) fn boot(&self, dom0: Dom0, cpus: u32, name: &str) -> Boot {
        let boot = Boot::new(dom0)
            .cpus(cpus)
            .name(name)
            .payload("bin/scenarios", &self.player)
            .payload("bin/xen-eventfd", &self.command)
            .payload("lab/guest", &self.guest);
        self.module.put(boot)
    }

    /// What a page was made with: the packages of Xen, Linux and QEMU, and the emulator.
    pub(crate) fn versions(&self) -> String {
        let told = ["xen-hypervisor", "linux-binary", "qemu-system-x86"];
        let packages = self.lab.manifest().packages.iter();
        let told = packages.filter(|p| told.iter().any(|begin| p.name.starts_with(begin)));
        let rows: String =
            told.map(|package| format!("| {} | {} |\n", package.name, package.version)).collect();
        format!("| package | version |\n|---|---|\n{rows}\n{CONDITIONS}\n")
    }
}

/// What a page says after the versions.
pub(crate) const CONDITIONS: &str = "QEMU is built from that package's source with one statement added \
    (`lab/src/emulator/source.rs`). Which processor it emulates, and what Xen is told, is in \
    `lab/src/arch.rs`.";

/// Where one of the long runs keeps what it last found in each place.
pub(crate) struct Kept(pub(crate) &'static str);

impl Kept {
    fn path(&self, dom0: Dom0, engine: Engine) -> PathBuf {
        let file = format!("{}-{}.json", dom0.name(), engine.name());
        crate::step::target().join(self.0).join(file)
    }

    pub(crate) fn save(
        &self,
        dom0: Dom0,
        engine: Engine,
        found: &impl serde::Serialize,
    ) -> Result<()> {
        let path = self.path(dom0, engine);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, serde_json::to_string(found)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// What was found last in each place; `None` while one is missing.
    pub(crate) fn all<T: serde::de::DeserializeOwned>(
        &self,
    ) -> Result<Option<Vec<(Dom0, Engine, T)>>> {
        let mut all = Vec::new();
        for dom0 in BOTH {
            for engine in ENGINES {
                let Ok(text) = std::fs::read_to_string(self.path(dom0, engine)) else {
                    return Ok(None);
                };
                all.push((dom0, engine, serde_json::from_str(&text)?));
            }
        }
        Ok(Some(all))
    }
}

/// Where the long runs are made if nothing else is asked for.
pub(crate) const BOTH: [Dom0; 2] = [Dom0::Pv, Dom0::Pvh];
pub(crate) const ENGINES: [Engine; 2] = [Engine::Userspace, Engine::Kernel];
