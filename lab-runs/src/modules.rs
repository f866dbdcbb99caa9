//! Modules of dom0's kernel that a run needs, beside those that every dom0 has loaded.

use anyhow::{Context, Result};
use std::time::Duration;
use xen_eventfd_lab::{Boot, Lab, Machine};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A module's file name and its bytes.
type Module = (String, Vec<u8>);

/// Modules, each after those that it needs.
#[derive(Debug)]
pub(crate) struct Modules(Vec<Module>);

impl Modules {
    /// These, and what they need.
    pub(crate) fn of(lab: &Lab, names: &[&str]) -> Result<Self> {
        lab.modules(names).map(Self)
    }

    /// The same without those that others bring.
    pub(crate) fn without(mut self, others: &Self) -> Self {
        self.0.retain(|(file, _)| others.0.iter().all(|(other, _)| other != file));
        self
    }

    /// Puts their files into dom0.
    pub(crate) fn put(&self, boot: Boot) -> Boot {
        self.0.iter().fold(boot, |boot, (file, module)| {
            boot.payload_bytes(path(file), 0o644, module.as_slice())
        })
    }

    /// Loads all of them.
    pub(crate) fn load(&self, machine: &mut Machine) -> Result<()> {
        self.0.iter().try_for_each(|module| insert(machine, module))
    }

    /// The command that loads all of them.
    pub(crate) fn loading(&self) -> String {
        let commands: Vec<_> = self.0.iter().map(|(file, _)| command(file)).collect();
        commands.join(" && ")
    }

    /// Loads what the last one needs.
    pub(crate) fn load_needed(&self, machine: &mut Machine) -> Result<()> {
        self.split()?.1.iter().try_for_each(|module| insert(machine, module))
    }

    /// Loads the last one.
    pub(crate) fn load_last(&self, machine: &mut Machine) -> Result<()> {
        insert(machine, self.split()?.0)
    }

    fn split(&self) -> Result<(&Module, &[Module])> {
        self.0.split_last().context("no module was found")
    }
}

fn path(file: &str) -> String {
    format!("lib/needed/{file}")
}

fn command(file: &str) -> String {
    format!("insmod /{}", path(file))
}

fn insert(machine: &mut Machine, (file, _): &Module) -> Result<()> {
    machine.check(&command(file), TIMEOUT).map(drop)
}
