//! Where a scenario plays: on the model, or in a dom0 of real Xen.

pub mod model;
pub mod xen;

use crate::link::Link;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use xen_eventfd::{DomId, EngineKind, Guardian, Host};

/// Accesses of a guest that means harm, unless somebody wants more.
pub const ACCESSES: u64 = 2_000;

/// A place with guests and processes.
pub trait Environment {
    /// Xen, as the test's own process sees it.
    fn host(&self) -> Arc<dyn Host>;

    /// The engine under test, where Xen is this machine's own; another host has only one.
    fn engine(&self) -> Option<EngineKind>;

    /// Where engines keep locks and records.
    fn run_dir(&self) -> PathBuf;

    /// Who reaps after an engine in a process of its own.
    fn guardian(&self) -> Guardian;

    /// How many accesses a guest makes that means harm, at least.
    fn accesses(&self) -> u64 {
        ACCESSES
    }

    /// Creates a guest with these script. It does not run yet.
    fn guest(&self, script: &str) -> Result<Box<dyn EnvironmentGuest>>;

    /// Starts a process that waits for its role.
    fn process(&self) -> Result<Box<dyn EnvironmentProcess>>;

    /// What the kernel does when a process has been killed, but for what it does by itself.
    fn after_death(&self) -> Result<()>;

    /// Waits until the guardian of an engine that was killed has done its work.
    fn guarded(&self, dom: DomId) -> Result<()>;

    /// The ids of a guest's ioreq servers, from Xen's own list.
    fn servers(&self, dom: DomId) -> Result<Vec<u16>>;

    /// Domains that are dead but still there, because somebody holds a page of theirs.
    fn zombies(&self) -> Result<Vec<DomId>>;
}

/// A guest on a environment. Dropping it destroys it.
pub trait EnvironmentGuest {
    /// Its number.
    fn dom(&self) -> DomId;

    /// Lets it run.
    fn start(&mut self) -> Result<()>;

    /// Ends it, whatever it is doing.
    fn destroy(&mut self) -> Result<()>;

    /// The next line of its console; `None` if there is none in time.
    fn line(&mut self, patience: Duration) -> Result<Option<String>>;
}

/// How a process ended, if not by a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Left,
    /// By SIGKILL.
    Killed,
}

/// A process on a environment.
pub trait EnvironmentProcess {
    /// Its number; on the model, where it is a thread, that of all.
    fn pid(&self) -> u32;

    /// To talk to it.
    fn link(&self) -> &Link;

    /// SIGKILL.
    fn kill(&mut self) -> Result<()>;

    /// Waits until it has ended. What else ends a process is an error.
    fn wait(&mut self) -> Result<End>;
}
