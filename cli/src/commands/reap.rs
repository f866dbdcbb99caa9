//! `reap`: sweeps up after engines that were killed.

use crate::failure::{Exit, Failure};
use crate::session::Session;
use clap::Args;
use serde::Serialize;
use xen_eventfd::{DomId, Reaped};

/// Reap what engines that were killed have left.
///
/// For each guest that has a record and no living engine, answers and wakes the vCPUs that still wait, and destroys the ioreq server.
#[derive(Debug, Args)]
pub struct Arguments {}

/// What became of the guests, as the library reports it.
pub type Found = Vec<(DomId, xen_eventfd::Result<Reaped>)>;

/// One guest, for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// Its number.
    pub domid: u16,
    /// `swept`, `guest-gone`, `not-ours`, `in-use` or `failed`.
    pub result: &'static str,
    /// Kicks that were answered, and wait for the guest's next engine.
    #[serde(rename = "kept", skip_serializing_if = "Option::is_none")]
    pub kicks: Option<usize>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order of their numbers.
    pub guests: Vec<Guest>,
}

/// Reaps the run directory once.
pub(crate) fn run(session: &Session, _: &Arguments) -> Result<Exit, Failure> {
    let report = Report::new(&session.reap()?);
    session.print("reap", &report, || report.prose())?;
    Ok(if report.failed() { Exit::Failed } else { Exit::Success })
}

impl Report {
    /// What was found, in words.
    pub fn new(found: &Found) -> Self {
        let guest = |(dom, result): &(DomId, xen_eventfd::Result<Reaped>)| {
            let (result, kicks, error) = match result {
                Ok(Reaped::Swept { kicks }) => ("swept", Some(*kicks), None),
                Ok(Reaped::GuestGone) => ("guest-gone", None, None),
                Ok(Reaped::NotOurs) => ("not-ours", None, None),
                Ok(Reaped::InUse) => ("in-use", None, None),
                Ok(_) => ("other", None, None),
                Err(error) => ("failed", None, Some(error.to_string())),
            };
            Guest { domid: dom.0, result, kicks, error }
        };
        Self { guests: found.iter().map(guest).collect() }
    }

    /// Whether some guest needs another look.
    pub fn failed(&self) -> bool {
        self.guests.iter().any(|guest| guest.error.is_some())
    }

    fn prose(&self) -> String {
        if self.guests.is_empty() {
            return "Nothing to reap: no engine left a record.".to_owned();
        }
        let line = |guest: &Guest| {
            let what = match (guest.result, guest.kicks, &guest.error) {
                ("swept", Some(0), _) => "swept; no vCPU waits for the dead engine".to_owned(),
                ("swept", Some(kicks), _) => format!(
                    "swept; {kicks} unanswered kick(s) answered and kept for its next engine"
                ),
                ("guest-gone", ..) => "the guest is gone; its record is removed".to_owned(),
                ("not-ours", ..) => {
                    "the ioreq server is not the one of the record; left alone".to_owned()
                }
                ("in-use", ..) => "served by a living engine; left alone".to_owned(),
                (.., Some(error)) => format!("failed: {error}"),
                (result, ..) => result.to_owned(),
            };
            format!("domain {}: {what}\n", guest.domid)
        };
        self.guests.iter().map(line).collect()
    }
}
