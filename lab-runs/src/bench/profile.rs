//! Where the instructions of a kick go: counted by a plug-in of the emulator, between the mark before
//! the first kick and the one after the last.

use super::blocks::{self, Counted, Names};
use super::cases;
use super::rig::Rig;
use super::stored::Stored;
use super::svg::grouped;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xen_eventfd_bench::{Case, Filter, Kicks, Space, Way};
use xen_eventfd_lab::{Arch, Platform};

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
    fn of(arch: Arch, address: u64) -> Self {
        // guest/metal/link.ld, link.aarch64.ld
        let guest = match arch {
            Arch::X86_64 => 0x10_0000..0xB0_0000,
            Arch::Arm64 => 0x4000_0000..0x4100_0000,
        };
        match address {
            _ if guest.contains(&address) => Self::Guest,
            _ if blocks::is_process(arch, address) => Self::Processes,
            _ if blocks::is_xen(arch, address) => Self::Xen,
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
    let (blocks, modules) = rig.profile(platform, &cases)?;
    let blocks = blocks::parse(&blocks)?;
    let addresses = blocks.iter().flat_map(|counted| counted.instructions.keys());
    let wanted = addresses
        .map(|(_, address)| *address)
        .filter(|address| matches!(Part::of(platform.arch(), *address), Part::Xen | Part::Kernel))
        .filter(|address| !modules.reach(*address));
    let names = rig.symbols(platform, wanted)?.with(modules.clone());
    ensure!(blocks.len() == kicks.len(), "{} of {} were counted", blocks.len(), kicks.len());
    let pairs = kicks.iter().zip(&blocks);
    let profiles: Vec<_> =
        pairs.map(|(kicks, counted)| profile(platform.arch(), kicks, counted, &names)).collect();
    stored(platform).save(&profiles)
}

fn stored(platform: Platform) -> Stored {
    Stored { kind: "profile-".to_owned(), platform }
}

/// What was counted last in such a dom0.
pub(super) fn load(platform: Platform) -> Result<Vec<Profile>> {
    Ok(stored(platform).load()?.unwrap_or_default())
}

fn profile(arch: Arch, kicks: &Kicks, counted: &Counted, names: &Names) -> Profile {
    let (mut parts, mut functions) = (BTreeMap::new(), BTreeMap::new());
    for ((_, address), instructions) in &counted.instructions {
        let mut part = Part::of(arch, *address);
        if let Some((symbol, module)) =
            names.of(*address).filter(|_| part != Part::Guest && part != Part::Processes)
        {
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

/// The first few functions of a profile, with the instructions of each in one of so many requests.
pub(super) fn functions(all: &[(Part, String, u64)], few: usize, requests: u64) -> String {
    let name = |(part, symbol, count): &(Part, String, u64)| {
        let symbol = format!("{:#}", rustc_demangle::demangle(symbol));
        // Markdown would take what is between these for a tag.
        let symbol = symbol.replace('<', "\\<");
        format!("{} {symbol} ({})", part.title(), grouped(count / requests.max(1)))
    };
    all.iter().take(few).map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_their_parts() {
        let x86 = |address| Part::of(Arch::X86_64, address);
        assert_eq!(x86(0x10_2000), Part::Guest);
        assert_eq!(x86(0x7f12_3456_7890), Part::Processes);
        assert_eq!(x86(0xffff_82d0_4020_0000), Part::Xen);
        assert_eq!(x86(0xffff_ffff_8100_0000), Part::Kernel);
        assert_eq!(x86(0xffff_ffff_c020_0000), Part::Kernel);
        let arm = |address| Part::of(Arch::Arm64, address);
        assert_eq!(arm(0x4008_2000), Part::Guest);
        assert_eq!([0x40_0000, 0xaaaa_f056_7890].map(arm), [Part::Processes; 2]);
        assert_eq!(arm(0x0A00_0025_0000), Part::Xen);
        assert_eq!(arm(0xffff_8000_8001_0000), Part::Kernel);
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
            blocks::parse("block 0 0 ffffffff81000010 3 10\nblock 0 0 ffffffff81000010 2 5\n")
                .unwrap();
        let names = Names::parse(["ffffffff81000010 handle [xen_eventfd]"].into_iter());
        let profile = profile(Arch::X86_64, &cases(Platform::X86Pv)[0], &blocks[0], &names);
        assert_eq!(profile.parts[&Part::Module], 40);
        assert_eq!(profile.functions, [(Part::Module, "handle".to_owned(), 40)]);
    }
}
