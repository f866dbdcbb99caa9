//! Where the instructions of a kick go: counted by a plug-in of the emulator, between the mark before
//! the first kick and the one after the last.

use super::{cases, rig::Rig};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use xen_eventfd_bench::{Case, Filter, Kicks, Space, Way};
use xen_eventfd_lab::{Platform, target_folder};

/// Whose instructions they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Part {
    Guest,
    Xen,
    /// dom0's kernel, without what follows.
    Kernel,
    /// Our module, the floor's, or upstream's.
    Module,
    /// Any process of dom0.
    Processes,
}

impl Part {
    pub(super) const ALL: [Self; 5] =
        [Self::Guest, Self::Xen, Self::Kernel, Self::Module, Self::Processes];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Xen => "Xen",
            Self::Kernel => "dom0's kernel",
            Self::Module => "the module",
            Self::Processes => "processes",
        }
    }

    /// By the address alone: each has a range of its own.
    fn of(address: u64) -> Self {
        match address {
            // guest/metal/link.ld
            0x10_0000..0xB0_0000 => Self::Guest,
            0..0x8000_0000_0000 => Self::Processes,
            0xFFFF_8000_0000_0000..0xFFFF_8800_0000_0000 => Self::Xen,
            _ => Self::Kernel,
        }
    }
}

/// The instructions of one way, in all its kicks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Profile {
    pub(super) way: Way,
    /// Whether a backend waited.
    pub(super) backend: bool,
    /// How many kicks.
    pub(super) kicks: u64,
    pub(super) parts: BTreeMap<Part, u64>,
    /// Of Xen and dom0's kernel, the most first.
    pub(super) functions: Vec<(Part, String, u64)>,
}

/// What is counted: each way, one vCPU, one registration, with a backend that waits and without one.
fn cases(platform: Platform) -> Vec<Kicks> {
    let (space, filter, registrations, vcpus) = (Space::Mmio, Filter::Datamatch, 1, 1);
    let of = |backend: bool| {
        let ways = cases::ways(platform).into_iter().filter(move |way| way.signals() || !backend);
        ways.map(move |way| Kicks { way, registrations, vcpus, space, filter, backend })
    };
    of(true).chain(of(false)).collect()
}

/// Counts it.
pub(super) fn count(rig: &Rig, platform: Platform) -> Result<()> {
    let kicks = cases(platform);
    let cases: Vec<_> = kicks.iter().copied().map(Case::Kicks).collect();
    let blocks = parse(&rig.profile(platform, &cases)?)?;
    let wanted: BTreeSet<String> = blocks
        .iter()
        .flatten()
        .filter(|(address, _)| matches!(Part::of(**address), Part::Xen | Part::Kernel))
        .map(|(address, _)| format!("{address:016x}"))
        .collect();
    let names = names(&rig.symbols(platform, &wanted.into_iter().collect::<Vec<_>>())?);
    ensure!(blocks.len() == kicks.len(), "{} of {} were counted", blocks.len(), kicks.len());
    let pairs = kicks.iter().zip(&blocks);
    let profiles: Vec<_> = pairs.map(|(kicks, blocks)| profile(kicks, blocks, &names)).collect();
    let path = path(platform);
    fs::write(&path, serde_json::to_string(&profiles)?)
        .with_context(|| format!("writing {}", path.display()))
}

fn path(platform: Platform) -> PathBuf {
    target_folder().join("bench").join(format!("profile-{}.json", platform.name()))
}

/// What was counted last in such a dom0.
pub(super) fn load(platform: Platform) -> Result<Vec<Profile>> {
    match fs::read_to_string(path(platform)) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(_) => Ok(Vec::new()),
    }
}

/// For each pair of marks: the instructions executed in the blocks that begin at each address.
fn parse(text: &str) -> Result<Vec<BTreeMap<u64, u64>>> {
    let mut all: Vec<BTreeMap<u64, u64>> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [pair, address, instructions, times] = words[..] else {
            anyhow::bail!("the plug-in says {line:?}");
        };
        let (pair, address): (usize, _) = (pair.parse()?, u64::from_str_radix(address, 16)?);
        let (instructions, times): (u64, u64) = (instructions.parse()?, times.parse()?);
        if all.len() <= pair {
            all.resize_with(pair + 1, BTreeMap::new);
        }
        let blocks = all.get_mut(pair).context("it was made")?;
        *blocks.entry(address).or_default() += instructions * times;
    }
    Ok(all)
}

/// By address: the symbol, and the kernel module that it is of.
fn names(lines: &[String]) -> BTreeMap<u64, (String, String)> {
    let name = |line: &String| {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let symbol = words.next()?.to_owned();
        Some((address, (symbol, words.next().unwrap_or_default().to_owned())))
    };
    lines.iter().filter_map(name).collect()
}

fn profile(
    kicks: &Kicks,
    blocks: &BTreeMap<u64, u64>,
    names: &BTreeMap<u64, (String, String)>,
) -> Profile {
    let (mut parts, mut functions) = (BTreeMap::new(), BTreeMap::new());
    for (address, instructions) in blocks {
        let mut part = Part::of(*address);
        if let Some((symbol, module)) = names.get(address) {
            let ours = ["[xen_eventfd]", "[xen_eventfd_floor]", "[xen_privcmd]"];
            if ours.contains(&module.as_str()) {
                part = Part::Module;
            }
            *functions.entry((part, symbol.clone())).or_default() += instructions;
        }
        *parts.entry(part).or_default() += instructions;
    }
    let mut functions: Vec<(Part, String, u64)> =
        functions.into_iter().map(|((part, symbol), count)| (part, symbol, count)).collect();
    functions.sort_by_key(|(_, _, count)| core::cmp::Reverse(*count));
    Profile { way: kicks.way, backend: kicks.backend, kicks: 1000, parts, functions }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_parts() {
        assert_eq!(Part::of(0x10_2000), Part::Guest);
        assert_eq!(Part::of(0x7f12_3456_7890), Part::Processes);
        assert_eq!(Part::of(0xffff_82d0_4020_0000), Part::Xen);
        assert_eq!(Part::of(0xffff_ffff_8100_0000), Part::Kernel);
        assert_eq!(Part::of(0xffff_ffff_c020_0000), Part::Kernel);
    }

    #[test]
    fn each_way_that_signals_is_counted_with_a_backend_and_without() {
        let counted = |way, backend| {
            let of = |kicks: &&Kicks| (kicks.way, kicks.backend) == (way, backend);
            cases(Platform::X86Pvh).iter().filter(of).count()
        };
        assert_eq!((counted(Way::Upstream, true), counted(Way::Upstream, false)), (1, 1));
        assert_eq!((counted(Way::FloorSilent, true), counted(Way::FloorSilent, false)), (0, 1));
    }

    #[test]
    fn instructions_add_up_by_function() {
        let blocks =
            parse("0 ffffffff81000010 3 10\n0 ffffffff81000010 2 5\n1 100000 1 1\n").unwrap();
        assert_eq!(blocks[0][&0xffff_ffff_8100_0010], 40);
        let names = names(&["ffffffff81000010 handle [xen_eventfd]".to_owned()]);
        let profile = profile(&cases(Platform::X86Pv)[0], &blocks[0], &names);
        assert_eq!(profile.parts[&Part::Module], 40);
        assert_eq!(profile.functions, [(Part::Module, "handle".to_owned(), 40)]);
    }
}
