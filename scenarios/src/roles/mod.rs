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

/// What a process is there for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Role {
    /// A device model.
    Vmm(vmm::Spec),
    /// An engine, with backends elsewhere.
    Engine(engine::Spec),
    /// An engine without privileges.
    Confined(confined::Spec),
}

/// What a test asks of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// What have you seen?
    Report,
    /// Leave in good order.
    Stop,
}

/// What a process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Say {
    /// At work.
    Ready {
        /// Its ioreq server.
        server: u16,
    },
    /// What a device model has seen.
    Vmm(vmm::Seen),
    /// It could not begin, or go on.
    Failed {
        /// The error.
        why: String,
        /// Its number, as KVM would give it.
        errno: i32,
    },
}

/// What a process needs to play its role.
#[derive(Debug)]
pub struct Helper {
    /// Its Xen.
    pub host: Arc<dyn Host>,
    /// To the test.
    pub link: Link,
    /// Where locks and records are.
    pub run_dir: PathBuf,
    /// Who reaps after it.
    pub guardian: Guardian,
    /// Ends the process as SIGKILL does.
    pub die: kill::Die,
}

/// Says what went wrong to the test.
pub fn fail(link: &Link, error: &anyhow::Error) {
    let xen = error.downcast_ref::<xen_eventfd::Error>();
    let errno = xen.map_or(0, |error| error.errno().raw_os_error());
    // Nobody may be left to hear it.
    let _ = link.send(&Say::Failed { why: format!("{error:#}"), errno }, &[]);
}

impl Helper {
    /// Plays what the test asks for first, until it is told to stop or the test is gone.
    ///
    /// # Errors
    /// The link is broken. What fails in the role itself is said to the test.
    pub fn run(self) -> Result<()> {
        let first = self.link.receive::<Role>(crate::PATIENCE)?;
        let (role, fds) = first.context("the test said nothing")?;
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
