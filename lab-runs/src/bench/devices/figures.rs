//! What was measured of devices.

use super::rig::{Rig, Run};
use super::sets::{self, Set};
use crate::bench::blocks::{self, Counted, Names};
use crate::bench::profile::Part;
use crate::bench::stored::Stored;
use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xen_eventfd_bench::devices::{Load, Loaded, Measured, Server, Started};
use xen_eventfd_lab::Platform;

/// How many functions of a profile are kept.
const FUNCTIONS: usize = 200;

/// The figures of one dom0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// What they were measured with: package and version.
    pub(super) versions: BTreeMap<String, String>,
    pub(super) started: Vec<Started>,
    pub(super) loaded: Vec<(Loaded, Profile)>,
}

/// Where the instructions of all requests of a load went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) parts: BTreeMap<Part, u64>,
    /// How often Xen let the guest go on: as often as it had stopped.
    pub(super) exits: u64,
    /// The same of a dom0 that is no PV domain.
    pub(super) dom0_exits: u64,
    /// The most first.
    pub(super) functions: Vec<(Part, String, u64)>,
}

/// What is known of an address: whose it is.
fn part(platform: Platform, (world, address): (blocks::World, u64)) -> Part {
    match address {
        _ if blocks::is_xen(platform.arch(), address) => Part::Xen,
        _ if world.is_guest(platform) => Part::Guest,
        _ if blocks::is_process(platform.arch(), address) => Part::Processes,
        _ => Part::Kernel,
    }
}

impl Profile {
    fn of(platform: Platform, counted: &Counted, names: &Names) -> Self {
        let (mut parts, mut functions) = (BTreeMap::new(), BTreeMap::new());
        for (place @ (_, address), instructions) in &counted.instructions {
            let mut part = part(platform, *place);
            if !blocks::is_process(platform.arch(), *address) {
                let (mut function, module) = names.of(*address).cloned().unwrap_or_default();
                // The guest's kernel is dom0's, but its modules lie elsewhere.
                if part == Part::Guest && !module.is_empty() {
                    function = "a module".to_owned();
                }
                // On Arm all of it does, and Xen names no functions.
                if part == Part::Guest && platform == Platform::Arm64 {
                    function.clear();
                }
                if part == Part::Kernel && module == "[xen_eventfd]" {
                    part = Part::Module;
                }
                if !function.is_empty() {
                    *functions.entry((part, function)).or_default() += instructions;
                }
            }
            *parts.entry(part).or_default() += instructions;
        }
        let mut functions: Vec<(Part, String, u64)> =
            functions.into_iter().map(|((part, name), count)| (part, name, count)).collect();
        functions.sort_by_key(|(_, _, count)| core::cmp::Reverse(*count));
        functions.truncate(FUNCTIONS);
        let entries = |guests| {
            let worlds = counted.entries.iter();
            let these = worlds.filter(|(world, _)| world.is_guest(platform) == guests);
            these.map(|(_, times)| times).sum()
        };
        Self { parts, exits: entries(true), dom0_exits: entries(false), functions }
    }

    /// All instructions.
    pub(super) fn all(&self) -> u64 {
        self.parts.values().sum()
    }
}

/// Measures these sets in one machine, and keeps the figures of each that came to its end.
pub(super) fn measure(rig: &Rig, platform: Platform, sets: &[&'static Set]) -> Result<()> {
    let Run { measured, counted, modules, failure } = rig.measure(platform, sets)?;
    let (mut started, mut loaded) = (Vec::new(), Vec::new());
    for one in measured {
        match one {
            Measured::Started(one) => started.push(one),
            Measured::Loaded(one) => loaded.push(one),
        }
    }
    let (all, wanted) = (counted.len(), loaded.len());
    ensure!(all == wanted, "{all} of {wanted} loads were counted");
    let places = counted.iter().flat_map(|counted| counted.instructions.keys());
    let addresses = places.map(|(_, address)| *address);
    let is_asked = |one: &u64| !blocks::is_process(platform.arch(), *one) && !modules.reach(*one);
    let names = rig.symbols(platform, sets, addresses.filter(is_asked))?.with(modules.clone());
    let profiles = counted.iter().map(|counted| Profile::of(platform, counted, &names));
    let loaded = loaded.into_iter().zip(profiles).collect();
    let all = Figures { versions: rig.versions(), started, loaded };
    for set in sets.iter().filter(|set| all.has(set)) {
        stored(set, platform).save(&all.part(set))?;
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    let missing = sets.iter().find(|set| !all.has(set));
    ensure!(missing.is_none(), "not all was measured of {}", missing.map_or("", |set| set.name));
    Ok(())
}

impl Figures {
    /// Those of this set's guests.
    fn part(&self, set: &Set) -> Self {
        let mut part = self.clone();
        part.started.retain(|started| set.servers.contains(&started.server));
        part.loaded.retain(|(loaded, _)| set.servers.contains(&loaded.server));
        part
    }

    /// Whether all of a set was measured.
    fn has(&self, set: &Set) -> bool {
        set.servers.iter().all(|server| {
            let loads = server.loads().iter();
            self.started(*server).is_some()
                && loads.into_iter().all(|load| self.of(*server, *load).is_some())
        })
    }

    /// What was measured last in such a dom0, of all sets; `None` if nothing was.
    pub(super) fn load(platform: Platform) -> Result<Option<Self>> {
        let (mut all, mut missing): (Option<Self>, _) = (None, None);
        for set in sets::of(platform) {
            match (stored(set, platform).load::<Self>()?, &mut all) {
                (None, _) => missing = Some(set.name),
                (part, None) => all = part,
                (Some(part), Some(all)) => {
                    all.started.extend(part.started);
                    all.loaded.extend(part.loaded);
                }
            }
        }
        if let (Some(_), Some(set)) = (&all, missing) {
            let name = platform.name();
            bail!(
                "there are no figures of {set}: cargo xtask bench --devices --platform {name} {set}"
            );
        }
        Ok(all)
    }

    pub(super) fn of(&self, server: Server, load: Load) -> Option<&(Loaded, Profile)> {
        self.loaded.iter().find(|(loaded, _)| (loaded.server, loaded.load) == (server, load))
    }

    pub(super) fn started(&self, server: Server) -> Option<&Started> {
        self.started.iter().find(|started| started.server == server)
    }
}

fn stored(set: &Set, platform: Platform) -> Stored {
    Stored { kind: format!("devices-{}-", set.name), platform }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_eventfd_bench::Spread;
    use xen_eventfd_bench::devices::Ticks;

    #[test]
    fn the_same_address_is_the_guests_and_dom0s() {
        let text = "block 0 0 ffffffff81000010 1 10\nblock 0 1 ffffffff81000010 1 20\n\
            block 0 2 ffffffff81000010 1 40\nblock 0 1 7f0000000000 1 3\nblock 0 0 7f0000000000 1 5\n\
            block 0 0 ffff82d040200000 1 7\nblock 0 0 ffffffffc0200000 1 9\nentries 0 1 2\nentries 0 2 4\n";
        let counted = blocks::parse(text).unwrap().remove(0);
        let names = Names::parse(["ffffffffc0200000 kicked [xen_eventfd]"].into_iter());
        let profile = |platform| Profile::of(platform, &counted, &names);
        let parts = |platform| {
            Part::ALL.map(|part| profile(platform).parts.get(&part).copied().unwrap_or(0))
        };
        assert_eq!(parts(Platform::X86Pv), [63, 7, 10, 9, 5]);
        assert_eq!(parts(Platform::X86Pvh), [40, 7, 30, 9, 8]);
        let exits = |platform| (profile(platform).exits, profile(platform).dom0_exits);
        assert_eq!((exits(Platform::X86Pv), exits(Platform::X86Pvh)), ((6, 0), (4, 2)));
        let kicked = (Part::Module, "kicked".to_owned(), 9);
        assert!(profile(Platform::X86Pvh).functions.contains(&kicked));
        assert_eq!(profile(Platform::X86Pv).all(), 94);
    }

    #[test]
    fn a_set_is_whole_with_each_start_and_each_load_of_its_guests() {
        let started = |server| Started {
            server,
            until_first_read: 1,
            ran: 0,
            until_it_runs: 0,
            memory: BTreeMap::new(),
        };
        let each = Spread::of(vec![1]).unwrap();
        let ticks = Ticks { requests: 1, each, all: 1 };
        let loaded = |server, load| {
            let (ticks, processes) = (ticks.clone(), BTreeMap::new());
            let profile = Profile::of(Platform::X86Pv, &Counted::default(), &Names::default());
            (Loaded { server, load, ticks, processes }, profile)
        };
        let hvm = sets::of(Platform::X86Pv).find(|set| set.name == "hvm").unwrap();
        let loads = |server: Server| server.loads().iter().map(move |load| (server, *load));
        let all = Figures {
            versions: BTreeMap::new(),
            started: [Server::Pv, Server::Qemu, Server::Hvm].map(started).to_vec(),
            loaded: [Server::Qemu, Server::Hvm, Server::One]
                .into_iter()
                .flat_map(loads)
                .map(|(server, load)| loaded(server, load))
                .collect(),
        };
        assert!(all.has(hvm));
        let part = all.part(hvm);
        assert_eq!((part.started.len(), part.loaded.len()), (2, 2 * Load::READS.len()));
        let without_a_start = Figures { started: all.started[..2].to_vec(), ..all.clone() };
        let without_a_load = Figures { loaded: all.loaded[1..].to_vec(), ..all.clone() };
        assert!(!without_a_start.has(hvm) && !without_a_load.has(hvm));
    }
}
