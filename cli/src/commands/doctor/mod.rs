//! `doctor`: reports what this host has, what is missing, and how to get it.
//!
//! Nothing is changed: devices are looked at and opened, no guest is touched. What can serve is the
//! library's answer ([`xen_eventfd::Builder::probe`]), so that it is the engine's as well.
//!
//! [`machine`] looks at Xen and its devices, [`kernel`] at what there is for the module, `devices` at what
//! virtio devices need besides, and [`engine`] says which engine would be picked.

mod devices;
pub mod engine;
pub mod kernel;
pub mod machine;
#[cfg(test)]
mod tests;

use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::Args;
use engine::{Engines, Pick};
use machine::Machine;
use serde::Serialize;
use std::path::Path;

/// Report what this host has, what is missing and how to get it.
///
/// Xen, its devices, xenstore, the kernel and its module, what killed engines have left, what xen-virtio needs, and
/// which engine would be picked, and why. Nothing is changed. Ends with 0 if an engine can run, with 3 otherwise.
#[derive(Debug, Args)]
pub struct Arguments {}

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It is there.
    Ok,
    /// It is not, and an engine wants it.
    Missing,
    /// It could be better.
    Poor,
    /// Neither good nor bad.
    Fact,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    #[serde(rename = "check")]
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub found: String,
    /// How to get it, if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which engines can run.
    pub engines: Engines,
    /// Which one would be picked.
    pub picked: Pick,
    /// In the order of importance.
    pub checks: Vec<Check>,
}

/// Looks at this machine.
pub(crate) fn run(session: &Session, _: &Arguments) -> Result<Exit, Failure> {
    let run_dir = session.run_dir.clone().unwrap_or_else(|| xen_eventfd::run_dir::DEFAULT.into());
    let machine = Machine {
        root: Path::new("/"),
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        orphans: xen_eventfd::run_dir::orphans(&run_dir),
        run_dir,
        named_by: engine::named_by(session),
        probe: session.builder().probe(),
    };
    let report = machine.examine();
    session.print("doctor", &report, || report.prose())?;
    Ok(if report.picked.engine.is_some() { Exit::Success } else { Exit::NoXen })
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, standing: Standing::Ok, found: found.into(), advice: None }
}

fn fact(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, standing: Standing::Fact, found: found.into(), advice: None }
}

fn missing(name: &'static str, found: impl Into<String>, advice: &str) -> Check {
    let advice = Some(advice.to_owned());
    Check { name, standing: Standing::Missing, found: found.into(), advice }
}

fn poor(name: &'static str, found: impl Into<String>, advice: &str) -> Check {
    let advice = Some(advice.to_owned());
    Check { name, standing: Standing::Poor, found: found.into(), advice }
}

impl Report {
    fn prose(&self) -> String {
        let mut text = String::new();
        for Check { name, standing, found, advice } in &self.checks {
            let mark = match standing {
                Standing::Ok => "ok",
                Standing::Missing => "MISSING",
                Standing::Poor => "note",
                Standing::Fact => "",
            };
            text.push_str(&format!("{name:<24} {mark:<8} {found}\n"));
            if let Some(advice) = advice {
                text.push_str(&format!("{:<33} -> {advice}\n", ""));
            }
        }
        let Pick { engine, why } = &self.picked;
        text + &match engine {
            Some(engine) => format!("\nThe {} engine would be picked: {why}.\n", engine.name()),
            None => format!(
                "\nNo engine can run here: {why}.\n`xen-eventfd demo` shows one on an in-process Xen.\n"
            ),
        }
    }
}
