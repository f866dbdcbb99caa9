//! What is measured.

use crate::is_asked_for;
use crate::upstream::Upstream;
use anyhow::Result;
use xen_eventfd_bench::{Calls, Case, Filter, Interrupt, Kicks, Space, Way};
use xen_eventfd_lab::{Arch, Platform};

/// All cases of such a dom0 whose JSON contains one of `names`, or all.
pub(super) fn all(platform: Platform, names: &[String]) -> Result<Vec<Case>> {
    let mut chosen = Vec::new();
    let kicks = kicks(platform).into_iter().map(Case::Kicks);
    for case in kicks.chain(calls(platform).into_iter().map(Case::Calls)) {
        let json = serde_json::to_string(&case)?;
        if is_asked_for(&json, names) {
            chosen.push(case);
        }
    }
    Ok(chosen)
}

/// The ways that such a dom0 has.
pub(super) fn ways(platform: Platform) -> Vec<Way> {
    let mut ways = vec![Way::Vmm];
    if Upstream::runs_on(platform) {
        ways.push(Way::Upstream);
    }
    ways.extend([Way::Engine, Way::Module, Way::FloorSilent, Way::Floor]);
    ways
}

/// How many doorbells are registered.
pub(super) const SIZES: [u32; 3] = [1, 64, 1024];

/// Where a guest has doorbells.
pub(super) fn spaces(platform: Platform) -> Vec<Space> {
    match platform.arch() {
        Arch::X86_64 => vec![Space::Mmio, Space::Pio],
        Arch::Arm64 => vec![Space::Mmio],
    }
}

fn kicks(platform: Platform) -> Vec<Kicks> {
    let (space, filter) = (Space::Mmio, Filter::Datamatch);
    let mut all = Vec::new();
    for way in ways(platform) {
        let tables = matches!(way, Way::Upstream | Way::Engine | Way::Module);
        let sizes = if tables { &SIZES[..] } else { &SIZES[..1] };
        let with_backend = sizes.iter().map(|registrations| (*registrations, 1, true));
        let no_listener =
            [sizes[0], sizes[sizes.len() - 1]].map(|registrations| (registrations, 1, false));
        for (registrations, vcpus, backend) in with_backend.chain(no_listener).chain([(1, 2, true)])
        {
            if backend && !way.signals() {
                continue;
            }
            let kicks = Kicks { way, registrations, vcpus, space, filter, backend };
            if !all.contains(&kicks) {
                all.push(kicks);
            }
        }
    }
    for space in spaces(platform) {
        for filter in [Filter::None, Filter::Wildcard, Filter::Datamatch] {
            let (way, registrations, vcpus, backend) = (Way::Module, 1, 1, true);
            let kicks = Kicks { way, registrations, vcpus, space, filter, backend };
            if !all.contains(&kicks) {
                all.push(kicks);
            }
        }
    }
    all
}

fn calls(platform: Platform) -> Vec<Calls> {
    let ways = [Way::Vmm, Way::Engine, Way::Module, Way::Floor];
    let mut all: Vec<Calls> = [Interrupt::Channel, Interrupt::Msi]
        .into_iter()
        .flat_map(|interrupt| ways.map(|way| Calls { way, interrupt }))
        .collect();
    if Upstream::runs_on(platform) {
        all.push(Calls { way: Way::Upstream, interrupt: Interrupt::Msi });
    }
    all
}
