//! What whole devices of a guest cost, against Xen's own drivers and QEMU's, into `docs/devices-cost.md` and, on Arm, into
//! `docs/devices-cost-arm64.md`.

mod figures;
mod page;
mod rig;
mod sets;
mod targets;

use crate::lab::of_each_lab;
use crate::page::Page;
use anyhow::{Result, bail, ensure};
use figures::Figures;
use xen_eventfd_lab::Platform;

/// Measures the sets of these names in each dom0, or all, unless it only renders; writes the page of each architecture once
/// there are figures of all its dom0s.
pub(super) fn run(platforms: &[Platform], names: &[String], render: bool) -> Result<()> {
    if !render {
        let machines = |platform: &Platform| sets::by_machine(*platform, names);
        let any = platforms.iter().any(|platform| !machines(platform).is_empty());
        ensure!(any, "no set of that name is measured in such a dom0");
        for rig in of_each_lab(platforms, rig::Rig::build)? {
            for platform in platforms.iter().filter(|platform| rig.serves(**platform)) {
                for sets in machines(platform) {
                    figures::measure(&rig, *platform, &sets)?;
                }
            }
        }
    }
    let mut written = 0;
    for page in &page::PAGES {
        if platforms.iter().any(|platform| platform.arch() == page.arch) {
            written += u32::from(write(page)?);
        }
    }
    ensure!(written > 0, "nothing was measured yet; leave --render out");
    Ok(())
}

/// Writes a page, unless there are no figures for it.
fn write(page: &Page) -> Result<bool> {
    let mut all = Vec::new();
    for platform in page.platforms() {
        all.extend(Figures::load(platform)?.map(|figures| (platform, figures)));
    }
    if all.is_empty() {
        return Ok(false);
    }
    let has = |platform| all.iter().any(|(one, _)| *one == platform);
    if let Some(missing) = page.platforms().find(|platform| !has(*platform)) {
        let name = missing.name();
        bail!("there are no figures of {name}: cargo xtask bench --devices --platform {name}");
    }
    page::write(page, &all)?;
    for (platform, figures) in &all {
        for target in targets::all(*platform, figures) {
            println!("{}", target.line(*platform));
        }
    }
    Ok(true)
}
