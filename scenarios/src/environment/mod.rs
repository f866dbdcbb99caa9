//! Where a scenario runs: on the model, or in a dom0 of real Xen.

pub mod model;
pub mod xen;

use crate::Engine;
use crate::link::Link;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use xen_eventfd::{DomId, Guardian, Host};

/// The default number of accesses of a hostile guest.
pub const ACCESSES: u64 = 2_000;

/// A place with guests and processes.
pub trait Environment {
    /// Xen, as the test's own process sees it.
    fn host(&self) -> Arc<dyn Host>;

    /// The engine under test on this machine's Xen; `None` on the model, which has only one.
    fn engine(&self) -> Option<Engine>;

    /// The directory for locks and records.
    fn run_dir(&self) -> PathBuf;

    /// The process that reaps after an engine in a process of its own.
    fn guardian(&self) -> Guardian;

    /// The least number of accesses that a hostile guest makes.
    fn accesses(&self) -> u64 {
        ACCESSES
    }

    /// Creates a guest with this script. It does not run yet.
    fn guest(&self, script: &str) -> Result<Box<dyn EnvironmentGuest>>;

    /// Starts a process that waits for its role.
    fn process(&self) -> Result<Box<dyn EnvironmentProcess>>;

    /// Does what the kernel does after a process was killed, where the environment does not.
    fn after_death(&self) -> Result<()>;

    /// Waits until the guardian of a killed engine has reaped.
    fn guarded(&self, dom: DomId) -> Result<()>;

    /// The ids of a guest's ioreq servers, from Xen's own list.
    fn servers(&self, dom: DomId) -> Result<Vec<u16>>;

    /// Dead domains that still exist because a page of theirs is mapped.
    fn zombies(&self) -> Result<Vec<DomId>>;
}

/// A guest in an environment. Dropping it destroys it.
pub trait EnvironmentGuest {
    /// Its domain id.
    fn dom(&self) -> DomId;

    /// Starts it.
    fn start(&mut self) -> Result<()>;

    /// Stops its vCPUs until [`unpause`](Self::unpause), as `xl pause` does.
    fn pause(&mut self) -> Result<()>;

    /// Lets it run after [`pause`](Self::pause).
    fn unpause(&mut self) -> Result<()>;

    /// Destroys it, in any state.
    fn destroy(&mut self) -> Result<()>;

    /// The next line of its console; `None` on timeout.
    fn line(&mut self, patience: Duration) -> Result<Option<String>>;
}

/// How a process ended, if it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Left,
    /// By SIGKILL.
    Killed,
}

/// A process in an environment.
pub trait EnvironmentProcess {
    /// Its process id; on the model, where it is a thread, that of the test.
    fn pid(&self) -> u32;

    /// The link to it.
    fn link(&self) -> &Link;

    /// Sends SIGKILL.
    fn kill(&mut self) -> Result<()>;

    /// Waits until it has ended. Any other end is an error.
    fn wait(&mut self) -> Result<End>;
}
