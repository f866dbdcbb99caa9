//! What was measured.

use super::stored::Stored;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xen_eventfd_bench::{Case, Figures, Filter, Kicks, Measured, Space, Way};
use xen_eventfd_lab::Platform;

/// The figures of one dom0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Results {
    /// Linux, Xen and QEMU that they were measured with: package and version.
    pub(super) versions: BTreeMap<String, String>,
    /// In the order in which they were measured.
    pub(super) measured: Vec<Measured>,
    /// What a second run has measured differently.
    pub(super) differences: Vec<Difference>,
    /// There was a second run.
    pub(super) twice: bool,
}

/// A case of which the second run has other figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Difference {
    pub(super) case: Case,
    /// What the second run has measured; `None` if it has not measured the case.
    pub(super) again: Option<Figures>,
}

fn stored(platform: Platform) -> Stored {
    Stored { kind: String::new(), platform }
}

impl Results {
    /// Compares two runs, if there was a second one.
    pub(super) fn new(
        versions: BTreeMap<String, String>,
        measured: Vec<Measured>,
        again: Option<&[Measured]>,
    ) -> Self {
        let second = again.unwrap_or_default();
        let again_of = |one: &Measured| second.iter().find(|other| other.case == one.case);
        let twice = again.is_some();
        let differences = measured
            .iter()
            .map(|one| (one, again_of(one)))
            .filter(|(one, other)| twice && *other != Some(*one))
            .map(|(one, other)| Difference {
                case: one.case,
                again: other.map(|other| other.figures.clone()),
            })
            .collect();
        Self { versions, measured, differences, twice }
    }

    pub(super) fn save(&self, platform: Platform) -> Result<()> {
        stored(platform).save(self)
    }

    /// What was measured last in such a dom0; `None` if nothing was.
    pub(super) fn load(platform: Platform) -> Result<Option<Self>> {
        stored(platform).load()
    }

    /// The figures of a case.
    pub(super) fn of(&self, case: &Case) -> Option<&Figures> {
        self.measured.iter().find(|one| one.case == *case).map(|one| &one.figures)
    }

    /// The figures of kicks by datamatch into memory.
    pub(super) fn kicks(&self, way: Way, registrations: u32, vcpus: u32) -> Option<&Figures> {
        let (space, filter, backend) = (Space::Mmio, Filter::Datamatch, true);
        self.of(&Case::Kicks(Kicks { way, registrations, vcpus, space, filter, backend }))
    }

    /// The same from one vCPU, without a reader.
    pub(super) fn no_listener(&self, way: Way, registrations: u32) -> Option<&Figures> {
        let (space, filter, backend) = (Space::Mmio, Filter::Datamatch, false);
        self.of(&Case::Kicks(Kicks { way, registrations, vcpus: 1, space, filter, backend }))
    }
}
