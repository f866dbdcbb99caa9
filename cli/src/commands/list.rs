//! `list`: the guests that are served, and by whom.

use crate::failure::{Exit, Failure};
use crate::served::{Guest, Machine};
use crate::session::Session;
use crate::table::{Side, cell, table};
use clap::Args;
use serde::Serialize;

/// List the guests that are served, and by whom.
///
/// Those of the kernel module and those of engines in userspace. Registrations and kicks are counted
/// by the module; an engine in userspace keeps its own to itself.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to look
    #[command(flatten)]
    pub machine: Machine,
}

/// All of them, for a machine.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    guests: Vec<Row>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    guest: Guest,
    registrations: Option<usize>,
    kicks: Option<u64>,
}

/// Lists them.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let machine = &arguments.machine;
    let guests = machine.guests(session, &machine.names())?;
    let report = Report::new(guests);
    session.print(&report, || report.prose())?;
    Ok(Exit::Success)
}

impl Report {
    pub(crate) fn new(guests: Vec<Guest>) -> Self {
        let row = |guest: Guest| {
            let (registrations, kicks) = (guest.registrations(), guest.kicks());
            Row { guest, registrations, kicks }
        };
        Self { guests: guests.into_iter().map(row).collect() }
    }

    pub(crate) fn prose(&self) -> String {
        if self.guests.is_empty() {
            return "No guest is served.".to_owned();
        }
        let heads = [
            ("DOM", Side::Right),
            ("NAME", Side::Left),
            ("ENGINE", Side::Left),
            ("OWNER", Side::Left),
            ("SERVER", Side::Right),
            ("REGISTRATIONS", Side::Right),
            ("KICKS", Side::Right),
        ];
        let row = |Row { guest, registrations, kicks }: &Row| {
            vec![
                guest.domid.to_string(),
                guest.name(),
                guest.engine.name().to_owned(),
                guest.owner(),
                cell(guest.server),
                cell(*registrations),
                cell(*kicks),
            ]
        };
        table(&heads, &self.guests.iter().map(row).collect::<Vec<_>>())
    }
}
