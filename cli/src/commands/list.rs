//! `list`: the guests that are served, and by whom.

use crate::failure::{Exit, Failure};
use crate::module_status::{Counters, serialize};
use crate::served::{Guest, Machine, Orphan};
use crate::session::Session;
use crate::table::{Side, cell, printable, table};
use clap::Args;
use serde::Serialize;

/// List the guests that are served, and the process that serves each.
///
/// Those of the kernel module and those of engines in userspace. Registrations and kicks are counted
/// by the module; an engine in userspace keeps its own to itself. Guests whose engine was killed and
/// that nothing has reaped (`xen-eventfd reap`) are listed as orphans.
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
    orphans: Vec<Orphan>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    guest: Guest,
    registrations: Option<usize>,
    #[serde(serialize_with = "serialize::optional")]
    counters: Option<Counters>,
}

/// Lists them.
pub(crate) fn run(session: &Session, arguments: &Arguments) -> Result<Exit, Failure> {
    let machine = &arguments.machine;
    let names = machine.names();
    // First: one that an engine takes meanwhile is then listed as served.
    let orphans = machine.orphans(session, &names)?;
    let report = Report::new(machine.guests(session, &names)?, orphans);
    session.print("list", &report, || report.prose())?;
    Ok(Exit::Success)
}

impl Report {
    pub(crate) fn new(guests: Vec<Guest>, mut orphans: Vec<Orphan>) -> Self {
        orphans.retain(|orphan| guests.iter().all(|guest| guest.domid != orphan.domid));
        let row = |guest: Guest| {
            let (registrations, counters) = (guest.registrations(), guest.counters());
            Row { guest, registrations, counters }
        };
        Self { guests: guests.into_iter().map(row).collect(), orphans }
    }

    pub(crate) fn prose(&self) -> String {
        self.served() + &self.orphans.iter().map(Orphan::prose).collect::<String>()
    }

    fn served(&self) -> String {
        if self.guests.is_empty() {
            return "No guest is served.\n".to_owned();
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
        let row = |Row { guest, registrations, counters }: &Row| {
            vec![
                guest.domid.to_string(),
                guest.name(),
                guest.engine().to_owned(),
                guest.owner(),
                cell(guest.server),
                cell(*registrations),
                cell(counters.map(|counters| counters.delivered)),
            ]
        };
        table(&heads, &self.guests.iter().map(row).collect::<Vec<_>>())
    }
}

impl Orphan {
    /// What to know and to do about it, in a line.
    pub(crate) fn prose(&self) -> String {
        let name = self.name.as_deref().map(|name| format!(" ({})", printable(name)));
        format!(
            "domain {}{} was left by an engine that was killed, and waits as soon as it rings: \
             run `xen-eventfd reap`\n",
            self.domid,
            name.unwrap_or_default()
        )
    }
}
