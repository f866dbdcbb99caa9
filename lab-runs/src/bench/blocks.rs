//! What the plug-in of the emulator (`bench/profiler`) has counted: executed blocks between pairs of marks.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use xen_eventfd_lab::{Arch, Platform};

/// What ran, as Xen enters it: by VMRUN on x86, by ERET on Arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum World {
    /// Not entered: Xen itself, and PV domains.
    Native,
    /// The first vCPU, on Arm the first domain, that was entered: dom0's, unless that is a PV domain.
    First,
    /// Any other.
    Other,
}

impl World {
    fn parse(word: &str) -> Result<Self> {
        Ok(match word {
            "0" => Self::Native,
            "1" => Self::First,
            "2" => Self::Other,
            _ => bail!("there is no world {word}"),
        })
    }

    /// Whether it is a guest's, where dom0 is of this kind.
    pub(super) fn is_guest(self, platform: Platform) -> bool {
        match platform {
            Platform::X86Pvh | Platform::Arm64 => self == Self::Other,
            Platform::X86Pv => self != Self::Native,
        }
    }
}

/// Between two marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Instructions that were executed in the blocks that begin at each address.
    pub(super) instructions: BTreeMap<(World, u64), u64>,
    /// How often each world was entered.
    pub(super) entries: BTreeMap<World, u64>,
}

/// For each pair of marks.
pub(super) fn parse(text: &str) -> Result<Vec<Counted>> {
    let mut all: Vec<Counted> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, pair, world, ref rest @ ..] = words[..] else { bail!("a line is {line:?}") };
        let (pair, world) = (pair.parse()?, World::parse(world)?);
        if all.len() <= pair {
            all.resize_with(pair + 1, Counted::default);
        }
        let counted = all.get_mut(pair).context("it was made")?;
        match (kind, rest) {
            ("block", &[address, instructions, times]) => {
                let address = u64::from_str_radix(address, 16)?;
                let (instructions, times): (u64, u64) = (instructions.parse()?, times.parse()?);
                *counted.instructions.entry((world, address)).or_default() += instructions * times;
            }
            ("entries", &[times]) => {
                counted.entries.insert(world, times.parse()?);
            }
            _ => bail!("the plug-in says {line:?}"),
        }
    }
    Ok(all)
}

/// The part of Xen's addresses, which no other domain has; on Arm it has tables of its own, and no program is loaded
/// where they have it (`xen/arch/arm/include/asm/mmu/layout.h`).
pub(super) fn is_xen(arch: Arch, address: u64) -> bool {
    match arch {
        Arch::X86_64 => 0xFFFF_8000_0000_0000..0xFFFF_8800_0000_0000,
        Arch::Arm64 => 0x0A00_0000_0000..0x0A80_0000_0000,
    }
    .contains(&address)
}

/// The part of processes' addresses.
pub(super) fn is_process(arch: Arch, address: u64) -> bool {
    match arch {
        Arch::X86_64 => address < 0x8000_0000_0000,
        Arch::Arm64 => address < 0x1_0000_0000_0000 && !is_xen(arch, address),
    }
}

/// Functions, and the kernel module that each is of, by the first address of each that was asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeMap<u64, (String, String)>);

impl Names {
    /// From lines with an address, a function and its module.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let name = |line: &str| {
            let mut words = line.split(' ');
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let function = words.next()?.to_owned();
            Some((address, (function, words.next().unwrap_or_default().to_owned())))
        };
        Self(lines.filter_map(name).collect())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address lies between the first function and the last one.
    pub(super) fn reach(&self, address: u64) -> bool {
        let ends = self.0.first_key_value().zip(self.0.last_key_value());
        ends.is_some_and(|((first, _), (last, _))| (*first..=*last).contains(&address))
    }

    /// With these too.
    pub(super) fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The function of an address that was asked for.
    pub(super) fn of(&self, address: u64) -> Option<&(String, String)> {
        self.0.range(..=address).next_back().map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_add_up_by_world_and_address() {
        let text = "block 0 0 ffffffff81000010 3 10\nblock 0 0 ffffffff81000010 2 5\n\
            block 0 2 ffffffff81000010 1 7\nentries 0 2 9\nblock 1 1 100000 1 1\n";
        let all = parse(text).unwrap();
        let address = 0xffff_ffff_8100_0010;
        assert_eq!(all[0].instructions[&(World::Native, address)], 40);
        assert_eq!(all[0].instructions[&(World::Other, address)], 7);
        assert_eq!((all[0].entries[&World::Other], all[1].instructions.len()), (9, 1));
        for line in ["block 0 3 0 1 1", "block 0 0 0 1", "exits 0 0 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_function_has_addresses_up_to_the_next() {
        let lines = ["ffffffff81000010 one ", "ffffffffc0200000 two [xen_eventfd]"];
        let names = Names::parse(lines.into_iter());
        let of = |address| names.of(address).map(|(function, _)| function.as_str());
        assert_eq!(of(0xffff_ffff_8100_0000), None);
        assert_eq!(of(0xffff_ffff_8100_0020), Some("one"));
        assert_eq!(of(0xffff_ffff_c020_0000), Some("two"));
    }

    #[test]
    fn the_functions_of_modules_stand_beside_those_of_the_kernel() {
        let modules =
            Names::parse(["c0de0000 begin [xen_eventfd]", "c0de0100 end [xen_evtchn]"].into_iter());
        assert_eq!(
            [0xc0dd_ffff, 0xc0de_0000, 0xc0de_0100].map(|at| modules.reach(at)),
            [false, true, true]
        );
        assert!(!modules.reach(0xc0de_0101) && !Names::default().reach(0));
        let names = Names::parse(["d0de0010 kernels "].into_iter()).with(modules);
        let of = |address| {
            names.of(address).map(|(function, module)| (function.as_str(), module.as_str()))
        };
        assert_eq!(of(0xc0de_00ff), Some(("begin", "[xen_eventfd]")));
        assert_eq!(of(0xd0de_0020), Some(("kernels", "")));
    }

    #[test]
    fn on_arm_xen_lies_among_the_addresses_of_programs() {
        let arm = |address| (is_xen(Arch::Arm64, address), is_process(Arch::Arm64, address));
        assert_eq!(arm(0x0A00_0020_0000), (true, false));
        assert_eq!(arm(0xaaaa_0000_1000), (false, true));
        assert_eq!(arm(0xffff_8000_8000_0000), (false, false));
    }

    #[test]
    fn the_first_world_is_dom0s_where_that_is_one() {
        let guests = |platform| {
            [World::Native, World::First, World::Other].map(|world| world.is_guest(platform))
        };
        assert_eq!(guests(Platform::X86Pvh), [false, false, true]);
        assert_eq!(guests(Platform::Arm64), [false, false, true]);
        assert_eq!(guests(Platform::X86Pv), [false, true, true]);
    }
}
