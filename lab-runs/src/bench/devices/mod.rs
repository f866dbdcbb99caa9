//! What whole devices of a guest cost, against Xen's own drivers, into `docs/devices-cost.md`.

mod figures;
mod page;
mod rig;
mod targets;

use anyhow::{Context, Result, ensure};
use figures::Figures;
use xen_eventfd_lab::Platform;

/// Measures in each dom0, unless it only renders; writes the page once there are figures of every dom0.
pub(super) fn run(platforms: &[Platform], render: bool) -> Result<()> {
    let known = platforms.iter().all(|platform| Platform::X86.contains(platform));
    ensure!(known, "whole devices are measured on x86 alone yet; leave --platform out");
    if !render {
        let rig = rig::Rig::build()?;
        for platform in platforms {
            Figures::measure(&rig, *platform)?.save(*platform)?;
        }
    }
    let mut all = Vec::new();
    for platform in Platform::X86 {
        let name = platform.name();
        let figures = Figures::load(platform)?.with_context(|| {
            format!("there are no figures of {name}: cargo xtask bench --devices --platform {name}")
        })?;
        all.push((platform, figures));
    }
    page::write(&all)?;
    for (platform, figures) in &all {
        for target in targets::all(*platform, figures) {
            println!("{}", target.line(*platform));
        }
    }
    Ok(())
}
