//! The other processes of a scenario.

pub mod confined;
pub mod engine;
pub mod kill;
pub mod vmm;

use crate::link::Link;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use xen_eventfd::{Guardian, Host};

/// The task of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Role {
    /// A device model.
    Vmm(vmm::Spec),
    /// An engine, with backends elsewhere.
    Engine(engine::Spec),
    /// An engine without privileges.
    Confined(confined::Spec),
}

/// What a test requests of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelperCommand {
    /// Report what it has seen.
    Report,
    /// Stop cleanly.
    Stop,
}

/// A message of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelperReply {
    /// It runs.
    Ready {
        /// Its ioreq server.
        server: u16,
    },
    /// What a device model has seen.
    Vmm(vmm::Seen),
    /// It could not start, or not continue.
    Failed {
        /// The error.
        why: String,
        /// Its errno, as KVM would return it.
        errno: i32,
    },
}

/// What a process needs for its role.
#[derive(Debug)]
pub struct Helper {
    /// Its host.
    pub host: Arc<dyn Host>,
    /// The link to the test.
    pub link: Link,
    /// The directory of locks and records.
    pub run_dir: PathBuf,
    /// The process that reaps after it.
    pub guardian: Guardian,
    /// Ends the process as SIGKILL does.
    pub die: kill::Die,
}

/// Reports an error to the test.
pub fn fail(link: &Link, error: &anyhow::Error) {
    let xen = error.downcast_ref::<xen_eventfd::Error>();
    let errno = xen.map_or(0, |error| error.errno().raw_os_error());
    // The test may have ended.
    let _ = link.send(&HelperReply::Failed { why: format!("{error:#}"), errno }, &[]);
}

impl Helper {
    /// Runs the role that the first message names, until the test stops it or is gone.
    ///
    /// # Errors
    /// The link is broken. An error in the role itself is reported to the test.
    pub fn run(self) -> Result<()> {
        let first = self.link.receive::<Role>(crate::PATIENCE)?;
        let (role, fds) = first.context("the test sent no role")?;
        let link = self.link.again()?;
        if let Err(error) = self.perform(role, fds) {
            fail(&link, &error);
        }
        Ok(())
    }

    fn perform(self, role: Role, fds: Vec<OwnedFd>) -> Result<()> {
        match role {
            Role::Vmm(spec) => vmm::run(&*self.host, &self.link, &spec),
            Role::Engine(spec) => engine::run(self, &spec, &fds),
            Role::Confined(spec) => confined::run(self, &spec, fds),
        }
    }
}
