//! The record of a guest's server, by which another process recognises it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use xen_eventfd_core::{DomId, Kick, Space, Width};

/// Distinct kicks held for one guest.
pub const MAX_HELD: usize = 256;

/// What is known of a guest's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) domid: u16,
    /// Domids are used again, UUIDs are not.
    pub(crate) uuid: Option<String>,
    /// Servers that were created and not yet enabled, or are about to be given back. One is
    /// forgotten before it is destroyed, so that this never names what has become another's.
    #[serde(default)]
    pub(crate) created: Vec<u16>,
    /// The server that serves the guest, or that the last process left.
    pub(crate) server: Option<ServerRecord>,
    /// A forked child of the dead process has its descriptors: ports may still be bound.
    #[serde(default)]
    pub(crate) inherited: bool,
    /// Writes that were answered on behalf of a dead process; the next one acts on them.
    #[serde(default)]
    held: Vec<HeldKick>,
}

/// How to recognise a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerRecord {
    pub(crate) id: u16,
    /// Every vCPU's port.
    pub(crate) ports: Vec<u32>,
    /// Our ends of them, once they are bound.
    #[serde(default)]
    pub(crate) local: Vec<u32>,
}

impl Record {
    /// Nothing is known but the guest.
    pub(crate) fn new(dom: DomId, uuid: Option<String>) -> Self {
        Self { domid: dom.0, uuid, created: vec![], server: None, inherited: false, held: vec![] }
    }

    pub(crate) fn parse(dom: DomId, text: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(text).ok()?;
        (record.domid == dom.0).then_some(record)
    }

    pub(crate) fn dom(&self) -> DomId {
        DomId(self.domid)
    }

    /// The writes that wait for the next process.
    pub(crate) fn held(&self) -> impl Iterator<Item = Kick> + '_ {
        self.held.iter().filter_map(HeldKick::kick)
    }

    /// Puts kicks aside for the next engine: each once, and no more than it would tell apart.
    pub(crate) fn hold(&mut self, kicks: impl IntoIterator<Item = Kick>) {
        let all: BTreeSet<Kick> = self.held().chain(kicks).collect();
        self.held = all.into_iter().take(MAX_HELD + 1).map(Into::into).collect();
    }

    /// Leaves these kicks, and no others, for the next engine.
    pub(crate) fn hold_only(&mut self, kicks: impl IntoIterator<Item = Kick>) {
        self.held.clear();
        self.hold(kicks);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.created.is_empty() && self.server.is_none() && self.held.is_empty()
    }
}

/// A kick in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HeldKick {
    pio: bool,
    addr: u64,
    width: u32,
    value: u64,
}

impl From<Kick> for HeldKick {
    fn from(kick: Kick) -> Self {
        Self {
            pio: kick.access.space == Space::Pio,
            addr: kick.access.addr,
            width: kick.access.width.bytes().into(),
            value: kick.value,
        }
    }
}

impl HeldKick {
    fn kick(&self) -> Option<Kick> {
        let space = if self.pio { Space::Pio } else { Space::Mmio };
        Some(Kick::new(space, self.addr, Width::new(self.width)?, self.value))
    }
}

/// Whatever a record holds, it names nothing beyond what it says, and is kept as it is.
#[cfg(fuzzing)]
pub fn fuzz_record(text: &[u8]) {
    let dom = DomId(1);
    let Some(mut record) = Record::parse(dom, text) else { return };
    let written = serde_json::to_vec(&record).unwrap();
    assert_eq!(Record::parse(dom, &written).as_ref(), Some(&record));
    let held: Vec<Kick> = record.held().collect();
    record.hold([]);
    assert!(record.held().count() <= MAX_HELD + 1);
    assert!(record.held().all(|kick| held.contains(&kick)));
}
