//! `list`: the guests that have devices here.

use super::run_dir_of;
use crate::server::SERVES;
use crate::status::{Status, ask};
use clap::Args;
use serde::Serialize;
use std::time::Instant;
use xen_eventfd_cli::failure::{Exit, Failure};
use xen_eventfd_cli::session::Session;
use xen_eventfd_cli::table::{Side, cell, table};
use xen_eventfd_ioreq::run_dir::Holder;
use xen_eventfd_ioreq::{Role, run_dir};

/// List the guests that are served with devices, and the process that serves each.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// What is said instead of an empty table.
pub(super) const NO_GUEST: &str =
    "No guest is served with devices, or the processes that serve them do not answer.\n";

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) guests: Vec<Status>,
}

pub(crate) fn run(session: &Session, _: &Arguments) -> Result<Exit, Failure> {
    let report = Report { guests: guests(session)? };
    session.print("virtio.list", &report, || report.prose())?;
    Ok(Exit::Success)
}

/// The guests that are served. One whose process ends meanwhile, or does not answer, is not among them.
fn guests(session: &Session) -> Result<Vec<Status>, Failure> {
    Ok(answers(session)?.into_iter().filter_map(|answer| answer.status).collect())
}

/// What a process that serves a guest has answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) domid: u16,
    /// When it was there.
    pub(super) at: Instant,
    /// `None`: the process has just begun, ends, or is too busy to answer.
    pub(super) status: Option<Status>,
}

/// The same, with those that do not answer.
pub(super) fn answers(session: &Session) -> Result<Vec<Answer>, Failure> {
    let run_dir = run_dir_of(session);
    let holders = run_dir::holders(&run_dir, Role::Registers).map_err(xen_eventfd::Error::from)?;
    let ours = holders.into_iter().filter(|holder| holder.text.contains(SERVES));
    let answer = |holder: Holder| {
        let status = ask(&run_dir, holder.dom).ok();
        Answer { domid: holder.dom.0, at: Instant::now(), status }
    };
    Ok(ours.map(answer).collect())
}

impl Report {
    pub(super) fn prose(&self) -> String {
        if self.guests.is_empty() {
            return NO_GUEST.to_owned();
        }
        let heads = [
            ("DOM", Side::Right),
            ("NAME", Side::Left),
            ("PROCESS", Side::Right),
            ("ENGINE", Side::Left),
            ("DEVICES", Side::Right),
            ("KICKS", Side::Right),
        ];
        let row = |guest: &Status| {
            vec![
                guest.domid.to_string(),
                cell(guest.name.as_deref()),
                guest.pid.to_string(),
                guest.engine.clone(),
                guest.devices.len().to_string(),
                guest.kicks.to_string(),
            ]
        };
        table(&heads, &self.guests.iter().map(row).collect::<Vec<_>>())
    }
}
