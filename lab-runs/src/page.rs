//! A page of `docs/` that is made of figures.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use xen_eventfd_lab::{Arch, Platform, workspace};

/// An architecture's page: figures of two kinds of processors compare with nothing.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) arch: Arch,
    /// Its file's name, below `docs`.
    pub(crate) file: &'static str,
    /// Words that no figure changes: before the figures, and behind them.
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
}

impl Page {
    pub(crate) const fn new(arch: Arch, file: &'static str, begin: &'static str) -> Self {
        Self { arch, file, begin, end: "" }
    }

    /// The same with words behind the figures.
    pub(crate) const fn ending(self, end: &'static str) -> Self {
        Self { end, ..self }
    }

    /// Of the pages of both architectures, x86 first, the one of this.
    pub(crate) fn of([x86, arm]: &[Self; 2], arch: Arch) -> &Self {
        match arch {
            Arch::X86_64 => x86,
            Arch::Arm64 => arm,
        }
    }

    /// The page as it is.
    pub(crate) fn read(&self) -> Result<String> {
        let path = self.path();
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The same; nothing, if there is none.
    pub(crate) fn present(&self) -> String {
        self.read().unwrap_or_default()
    }

    pub(crate) fn write(&self, text: &str) -> Result<()> {
        let path = self.path();
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    fn path(&self) -> PathBuf {
        workspace().join("docs").join(self.file)
    }

    /// The platforms that are on it.
    pub(crate) fn platforms(&self) -> impl Iterator<Item = Platform> {
        Platform::of(self.arch)
    }

    /// What it says of these packages, and of the machine.
    pub(crate) fn made_with(&self, versions: &BTreeMap<String, String>) -> String {
        let rows = versions.iter().map(|(package, version)| format!("| {package} | {version} |\n"));
        let (rows, machine) = (rows.collect::<String>(), machine(self.arch));
        format!("| package | version |\n|---|---|\n{rows}\n{machine}\n")
    }

    /// Fails unless the page in the repository has its words, those of the machine, and these.
    #[cfg(test)]
    pub(crate) fn check(&self, more: &[&str]) {
        let page = self.read().unwrap();
        for part in more.iter().copied().chain([self.begin, self.end, machine(self.arch)]) {
            assert!(page.contains(part), "{} has not:\n{part}", self.file);
        }
    }
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
